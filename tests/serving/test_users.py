"""Stored users: their answers follow the store, whoever wrote to it and whatever was forgotten in between."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import numpy as np
import pytest

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.config import EngineConfig, PatchConfig
from peterrec.errors import ConfigError, StoreError, UnknownTaskError
from peterrec.model import UserModel
from peterrec.serving import users as users_module
from peterrec.serving.engine import Engine
from peterrec.serving.requests import Answer, ClassAnswer, ItemsAnswer, Question, Request
from peterrec.serving.store.base import Erased, Event
from peterrec.serving.store.sqlite import SqliteStore
from peterrec.serving.users import Users

LONG = 40  # longer than the receptive field (19) and than any window
THREE = Question(k=3)


def make(path: Path, *, keep_events: int = 1_000, **config) -> Users:
    pretrained = tiny_pretrained()
    engine = Engine(UserModel(pretrained), EngineConfig(**config))
    for name, settings in {
        "age": {"seed": 1},
        "gender": {"seed": 2, "class_names": ("f", "m")},
        "long": {"seed": 6, "max_length": LONG},
        "lora": {"patch_config": PatchConfig(kind="lora", rank=2), "max_length": LONG},
        "token": {"patch_config": PatchConfig(bottleneck=3, train_task_token=True), "max_length": LONG},
        "head": {"strategy": "head", "max_length": LONG},
        "pooled": {"readout": "pooled"},
        "attention": {"readout": "attention"},
        "shop": {"targets": tiny_catalogue(9, first=0), "max_length": LONG},
    }.items():
        engine.add(tiny_bundle(pretrained, name=name, **settings))
    return Users(engine, SqliteStore(path / "events.sqlite", keep_events))


def events(user: str, items: list[str], first: int = 0, **settings) -> list[Event]:
    return [Event(user, f"e{i}", item, settings.get("time", float(i))) for i, item in enumerate(items, first)]


def answer(users: Users, user: str, question: Question = THREE) -> Answer:
    (result,) = users.run([users.prepare(user, question)])
    assert isinstance(result, Answer)
    return result


def assert_same(answer: Answer, expected: Answer) -> None:
    counts = [(a.events, a.unknown_items, a.known_events) for a in (answer, expected)]
    assert counts[0] == counts[1]
    assert list(answer.tasks) == list(expected.tasks)
    for name, expected_task in expected.tasks.items():
        task_answer = answer.tasks[name]
        if isinstance(expected_task, ClassAnswer):
            assert isinstance(task_answer, ClassAnswer)
            np.testing.assert_allclose(
                list(task_answer.probabilities.values()),
                list(expected_task.probabilities.values()),
                atol=1e-5,
                err_msg=name,
            )
        else:
            assert isinstance(task_answer, ItemsAnswer)
            assert task_answer.items == expected_task.items
            np.testing.assert_allclose(task_answer.scores, expected_task.scores, atol=1e-5)


def assert_follows(users: Users, user: str, question: Question = THREE) -> None:
    """A stored user is answered as one whose events come with the request."""
    items = [event.item for event in users.read(user).events]
    assert_same(answer(users, user, question), users.engine.predict([Request(items, question)])[0])


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("window", ["trained", "whole"])
@pytest.mark.parametrize("states", [2, 100])
def test_a_stored_user_is_answered_as_one_whose_events_are_given(tmp_path, window, states):
    users = make(tmp_path, window=window, states=states)
    rng = random.Random(0)
    written = dict.fromkeys(["anna", "ben", "cem"], 0)
    for _ in range(25):
        user = rng.choice(list(written))
        items = [f"item-{rng.randrange(14)}" for _ in range(rng.choice([1, 1, 1, 2, 9]))]  # some are unknown
        assert all(users.append(events(user, items, written[user])))
        written[user] += len(items)
        assert_follows(users, user, Question(rng.choice(["*", ["age", "shop"], ["long"]]), k=3))
    assert max(written.values()) > 24
    together = users.run([users.prepare(user, Question(k=3)) for user in written])
    for user, result in zip(written, together, strict=True):
        items = [event.item for event in users.read(user).events]
        assert isinstance(result, Answer)
        assert_same(result, users.engine.predict([Request(items, Question(k=3))])[0])
    assert (users.stats()["evictions"] > 0) == (states == 2)


def test_who_is_unknown_has_no_events(tmp_path):
    users = make(tmp_path)
    assert_same(answer(users, "nobody"), users.engine.predict([Request([], Question(k=3))])[0])
    assert answer(users, "nobody").events == 0


def test_events_that_others_wrote_that_came_late_and_twice_are_seen(tmp_path):
    users = make(tmp_path)
    users.append(events("anna", ["item-1", "item-2", "item-3"]))
    assert_follows(users, "anna")
    other_store = SqliteStore(tmp_path / "events.sqlite", 1_000)
    other_store.append([Event("anna", "late", "item-9", 0.5)])
    assert [event.item for event in users.read("anna").events] == ["item-1", "item-9", "item-2", "item-3"]
    assert_follows(users, "anna")
    assert users.append(events("anna", ["item-4", "item-4"], 2)) == [False, True]
    assert_follows(users, "anna")
    other_store.delete("anna")
    other_store.append(events("anna", ["item-5"]))
    assert answer(users, "anna").events == 1
    assert_follows(users, "anna")
    other_store.close()


@pytest.mark.slow
def test_what_the_store_dropped_is_not_read(tmp_path):
    users = make(tmp_path, keep_events=8)
    for i in range(30):
        users.append(events("anna", [f"item-{i % 12}"], i))
        assert_follows(users, "anna")
    assert 8 <= answer(users, "anna").events <= 10


def test_erasing_leaves_nothing(tmp_path):
    users = make(tmp_path)
    users.append(events("anna", ["item-1", "item-2"]) + events("ben", ["item-3"]))
    nobody, ben = answer(users, "nobody"), answer(users, "ben")
    states = users.stats()["states"]
    assert answer(users, "anna").events == 2
    assert users.erase("anna") == Erased(2, complete=True)
    assert users.stats()["states"] == states
    assert users.erase("anna") == Erased(0, complete=True)
    assert_same(answer(users, "anna"), nobody)
    assert_same(answer(users, "ben"), ben)
    users.append(events("anna", ["item-7"]))  # the id of an event is free again
    assert_follows(users, "anna")


def test_a_restarted_service_says_the_same(tmp_path):
    users = make(tmp_path, window="whole")
    users.append(events("anna", [f"item-{i % 12}" for i in range(45)]))
    for i in range(45, 50):
        users.append(events("anna", [f"item-{i % 12}"], i))
        before = answer(users, "anna")
    users.store.close()
    assert_same(answer(make(tmp_path, window="whole"), "anna"), before)


def test_a_user_whose_events_cannot_be_read_spoils_nobody_elses_answer(tmp_path, monkeypatch):
    users = make(tmp_path)
    users.append(events("anna", ["item-1"]) + events("ben", ["item-2"]))
    plain = users.store.read

    def read(user: str, *args):
        if user == "anna":
            raise StoreError("the disk is gone", remedy="find it")
        return plain(user, *args)

    monkeypatch.setattr(users.store, "read", read)
    anna, ben, not_stored = users.run(
        [users.prepare("anna", Question()), users.prepare("ben", Question()), users.engine.prepare(Request(["item-4"]))]
    )
    assert isinstance(anna, StoreError)
    assert_same(ben, users.engine.predict([Request(["item-2"])])[0])
    assert_same(not_stored, users.engine.predict([Request(["item-4"])])[0])


def test_a_replaced_bundle_reads_states_of_its_own(tmp_path):
    users = make(tmp_path)
    users.append(events("anna", ["item-1", "item-2"]))
    question = Question(["long"])
    prepared = users.prepare("anna", question)
    before = answer(users, "anna", question)
    users.engine.add(tiny_bundle(users.engine.model.pretrained, name="long", seed=9, max_length=LONG))
    after = answer(users, "anna", question)
    assert after != before
    assert_follows(users, "anna", question)
    (result,) = users.run([prepared])
    assert_same(result, before)
    users.engine.roll_back("long")
    assert_same(answer(users, "anna", question), before)


def test_without_the_patch_a_stored_user_reads_the_plain_backbone(tmp_path):
    users = make(tmp_path)
    users.append(events("anna", ["item-1", "item-2"]))
    assert_follows(users, "anna", Question(patched=False, k=3))
    assert_follows(users, "anna", Question(k=3))
    assert_follows(users, "anna", Question(patched=False, k=3))


def test_states_are_used_where_they_say_the_same_and_only_there(tmp_path):
    users = make(tmp_path)  # max_length of age is 5, and the receptive field is 19
    users.append(events("anna", ["item-1"] * 5))
    answer(users, "anna", Question(["age"]))
    assert users.stats()["states"] == 1
    users.append(events("ben", ["item-1"] * 6))
    answer(users, "ben", Question(["age", "pooled"]))
    assert users.stats()["states"] == 1
    answer(users, "ben", Question(["long"]))
    assert users.stats()["states"] == 2


def test_histories_in_memory_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(users_module, "CACHED_EVENTS", 10 + users_module.OVERHEAD)
    users = make(tmp_path)
    for user in ("anna", "ben", "cem"):
        users.append(events(user, ["item-1"] * 6))
        assert_follows(users, user)
    assert users.stats()["histories"] == 1
    assert users.stats()["history_size"] == 6 + users_module.OVERHEAD
    assert_follows(users, "anna")


def test_nobody_unknown_is_kept_in_memory(tmp_path):
    users = make(tmp_path)
    for i in range(20):
        answer(users, f"nobody-{i}")
    assert (users.stats()["histories"], users.stats()["history_size"], users.stats()["states"]) == (0, 0, 0)


def test_who_was_read_before_an_erasure_leaves_nothing_behind(tmp_path):
    users = make(tmp_path)
    users.append(events("anna", ["item-1", "item-2"]) + events("ben", ["item-3"]))
    fetched = [users.fetch(users.prepare(user, THREE)) for user in ("anna", "ben")]
    assert users.erase("anna") == Erased(2, complete=True)
    answers = users.run(fetched)
    assert_same(answers[0], users.engine.predict([Request(["item-1", "item-2"], THREE)])[0])
    assert (users.stats()["histories"], users.stats()["states"]) == (1, 0)  # ben's history was kept before
    plain = users.store.read

    def read_then_erase(user: str, *args):
        read_events = plain(user, *args)
        users.erase("ben")
        return read_events

    users.store.read = read_then_erase
    prepared = users.fetch(users.prepare("ben", THREE))
    users.store.read = plain
    assert len(prepared.history.items) == 1
    assert users.stats()["histories"] == 0


def test_an_erasure_that_the_store_could_not_finish_forgets_all_the_same(tmp_path, monkeypatch):
    users = make(tmp_path)
    users.append(events("anna", ["item-1"]))
    answer(users, "anna")

    def delete(user: str) -> Erased:
        raise StoreError("still in the log", remedy="again")

    monkeypatch.setattr(users.store, "delete", delete)
    with pytest.raises(StoreError):
        users.erase("anna")
    assert (users.stats()["histories"], users.stats()["states"]) == (0, 0)


def test_whom_another_service_erased_is_forgotten_though_nobody_asks(tmp_path):
    users = make(tmp_path)
    users.append([event for user in ("anna", "ben", "cem") for event in events(user, ["item-1", "item-2"])])
    for user in ("anna", "ben", "cem"):
        answer(users, user, Question(["long", "lora"]))
    before = users.stats()
    assert (before["histories"], before["states"]) == (3, 6)
    other_store = SqliteStore(tmp_path / "events.sqlite", 1_000)
    users.follow_erasures()
    assert users.stats() == before
    other_store.delete("anna")
    other_store.delete("cem")
    other_store.append(events("cem", ["item-9"]))  # who comes again is somebody else
    assert users.follow_erasures().pending == 0
    assert (users.stats()["histories"], users.stats()["states"]) == (1, 2)
    assert {user for user, _ in users._pool._entries} == {"ben"}
    assert_follows(users, "cem")
    reads = []
    plain = users.store.revisions
    users.store.revisions = lambda names: reads.append(names) or plain(names)
    users.follow_erasures()
    assert reads == []  # nothing was erased since
    other_store.close()


def test_who_is_read_while_others_erase_is_not_put_back(tmp_path):
    users = make(tmp_path)
    users.append(events("anna", ["item-1"]))
    other_store = SqliteStore(tmp_path / "events.sqlite", 1_000)
    read = users.store.read

    def read_then_erase(user: str, *args):
        read_events = read(user, *args)
        other_store.delete("anna")
        users.follow_erasures()
        return read_events

    users.store.read = read_then_erase
    users.fetch(users.prepare("anna", THREE))
    users.store.read = read
    assert users.stats()["histories"] == 0
    other_store.close()


def test_pending_erasures_are_gone_on_with(tmp_path, monkeypatch):
    users = make(tmp_path)
    users.append(events("anna", ["item-1"]))
    emptied = []
    plain = users.store._file.checkpoint
    monkeypatch.setattr(users.store._file, "checkpoint", lambda: len(emptied) > 1 and plain())
    assert users.erase("anna") == Erased(1, complete=False)
    for _ in range(2):
        assert users.follow_erasures().pending == 1
        emptied.append(1)
    assert users.follow_erasures().pending == 0


def test_a_slow_store_holds_nobody_up_who_does_not_need_it(tmp_path, monkeypatch):
    users = make(tmp_path)
    users.append(events("anna", ["item-1"]))
    inside, go_on = threading.Event(), threading.Event()

    def delete(user: str) -> Erased:
        inside.set()
        go_on.wait(20)
        return Erased(1, complete=True)

    monkeypatch.setattr(users.store, "delete", delete)
    erasing = threading.Thread(target=users.erase, args=("anna",))
    erasing.start()
    assert inside.wait(20)
    assert_follows(users, "anna")  # while the store is at it
    go_on.set()
    erasing.join()
    assert (users.stats()["histories"], users.stats()["states"]) == (0, 0)


def test_states_that_do_not_fit_are_known_before_anyone_asks(tmp_path):
    with pytest.raises(ConfigError, match="more than there is"):
        make(tmp_path, states=10**10)


def test_a_stored_user_is_explained(tmp_path):
    users = make(tmp_path)
    users.append(events("anna", ["item-1", "item-2", "item-3"]))
    explanation = users.explain(users.prepare("anna", Question(["age"])), "age")
    expected = users.explain(users.engine.prepare(Request(["item-1", "item-2", "item-3"], Question(["age"]))), "age")
    assert explanation == expected
    assert len(explanation.contributions) == 3


def test_a_question_about_a_user_is_checked_when_it_comes(tmp_path):
    users = make(tmp_path)
    with pytest.raises(UnknownTaskError):
        users.prepare("anna", Question(["nobody"]))
