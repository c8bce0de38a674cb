"""Opt-outs: what a user has opted out of is not answered, whoever asks and however."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builders import tiny_bundle, tiny_pretrained
from peterrec.errors import OptedOutError, RequestError
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.opt_outs import MAX_OPT_OUTS, changed_opt_outs
from peterrec.serving.requests import Answer, Question
from peterrec.serving.store.base import Event
from peterrec.serving.store.sqlite import SqliteStore
from peterrec.serving.users import Users


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Users]:
    pretrained = tiny_pretrained()
    engine = Engine(UserModel(pretrained, "cpu"))
    for seed, name in enumerate(("age", "gender", "illness")):
        engine.add(tiny_bundle(pretrained, name=name, seed=seed))
    store = SqliteStore(tmp_path / "events.sqlite", 100)
    yield Users(engine, store)
    store.close()


def events(user: str) -> list[Event]:
    return [Event(user, f"e{i}", f"item-{i}", float(i)) for i in range(4)]


def test_what_a_user_has_opted_out_of_is_not_answered(users: Users) -> None:
    users.append([*events("u"), *events("v")])
    assert users.set_opt_out("u", "illness") == {"illness"}
    questions = [Question(("age", "illness")), Question(("age",)), Question()]
    refused, named, everything, of_another_user = users.run(
        [*(users.prepare("u", question) for question in questions), users.prepare("v", questions[0])]
    )
    assert isinstance(refused, OptedOutError)
    assert "illness" in str(refused)
    assert isinstance(named, Answer)
    assert isinstance(everything, Answer)
    assert (set(named.tasks), set(everything.tasks)) == ({"age"}, {"age", "gender"})
    assert isinstance(of_another_user, Answer), "others are answered as before"
    assert set(of_another_user.tasks) == {"age", "illness"}
    assert named.tasks["age"] == everything.tasks["age"] == of_another_user.tasks["age"]
    with pytest.raises(OptedOutError):
        users.explain(users.prepare("u", Question(("illness",))), "illness")


def test_it_holds_at_once_and_until_it_is_taken_back(users: Users) -> None:
    users.append(events("u"))
    asked_before = users.prepare("u", Question(("age",)))
    users.run([asked_before])  # the history is in memory from now on
    users.set_opt_out("u", "age")
    (answer,) = users.run([asked_before])
    assert isinstance(answer, OptedOutError)
    assert users.set_opt_out("u", "age", opted_out=False) == frozenset()
    (answer,) = users.run([asked_before])
    assert isinstance(answer, Answer)


def test_who_opted_out_of_everything_gets_an_empty_answer(users: Users) -> None:
    users.append(events("u"))
    for task in ("age", "gender", "illness"):
        users.set_opt_out("u", task)
    (answer,) = users.run([users.prepare("u", Question())])
    assert isinstance(answer, Answer)
    assert answer.tasks == {}


def test_someone_without_events_is_not_answered_either_and_is_erased(users: Users) -> None:
    users.set_opt_out("nobody", "age")
    (answer,) = users.run([users.prepare("nobody", Question(("age",)))])
    assert isinstance(answer, OptedOutError)
    users.erase("nobody")
    (answer,) = users.run([users.prepare("nobody", Question(("age",)))])
    assert isinstance(answer, Answer)


def test_there_is_a_limit() -> None:
    tasks = frozenset(f"t{number}" for number in range(MAX_OPT_OUTS))
    with pytest.raises(RequestError, match="opt out"):
        changed_opt_outs(tasks, "another", opted_out=True)
    assert changed_opt_outs(tasks, "t1", opted_out=True) == tasks
    assert changed_opt_outs(tasks, "t1", opted_out=False) == tasks - {"t1"}
