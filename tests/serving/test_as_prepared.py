"""The service reads of stored events what `prepare` made of the same log, by any settings and however they come."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from anyio.from_thread import start_blocking_portal

from builders import tiny_bundle, tiny_pretrained
from data.prepare.logs import prepare_log, seconds, times, write_csv, write_parquet
from data.prepare.oracle import Row, hash_of
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.config import (
    EngineConfig,
    FirstTargetConfig,
    HistoryCutConfig,
    PreprocessingConfig,
    ServeConfig,
    SourceConfig,
)
from peterrec.data.corpus import PARTS, Corpus, Provenance
from peterrec.data.ties import tie_keys
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.explain import explain
from peterrec.serving.http.app import make_app
from peterrec.serving.http.logs import Log
from peterrec.serving.http.serve import open_service
from peterrec.serving.requests import Answer, ClassAnswer, ItemsAnswer, Question, Request
from peterrec.serving.store.base import Event
from peterrec.serving.store.sqlite import SqliteStore
from peterrec.serving.users import Users

# What each setting is set to. A new setting needs a line here, and `HistoryReader` needs to know it.
SETTINGS: dict[str, Any] = {
    "domains": ["shop"],
    "exclude_domains": ["53", "food"],
    "after": "2001-02-02",
    "before": "2001-02-04T12:00:00+02:00",
    "min_item_events": 1,
    "min_user_events": 4,
    "max_history": 2,
    "repeats": "drop",
    "rare_items": "unk",
    "until": "2001-02-03",
    "first_events": 3,
    "last_events": 2,
}
BASE = {"exclude_domains": ["53"], "min_item_events": 6}  # some items are rare; targets are not in the source
QUESTION = Question(k=4, exclude_seen=False)


def log(seed: int = 0) -> list[Row]:
    """Few items at few times: ties, repeats, unknown items, and first targets between other events."""
    draw = random.Random(seed)
    rows = []
    for user in range(24):
        for _ in range(draw.randint(5, 14)):
            domain = draw.choice(["shop", "shop", "shop", "food", "53"])
            item = f"t{draw.randrange(3)}" if domain == "53" else draw.choice("aaaabbbbccdddefghij")
            time = draw.randrange(12) if domain != "53" else draw.randrange(4, 12)
            rows.append(Row(f"u{user}", item, time, domain=domain, seconds=seconds("s", time)))
    return rows


def prepared(folder: Path, rows: list[Row], **source: Any) -> Corpus:
    """A corpus of the log, with a task of each kind."""
    moments, type_ = times("s", [row.time for row in rows])
    lines = [(row.user, row.item, moment, row.domain) for row, moment in zip(rows, moments, strict=True)]
    path = write_parquet(folder / "log.parquet", lines, ("user_id", "item_id", "timestamp", "d"), timestamp=type_)
    users = sorted({row.user for row in rows})
    labels = write_csv(folder / "labels.csv", [(user, "xy"[i % 2]) for i, user in enumerate(users)], ("user_id", "is"))
    tasks = [
        {"kind": "classification", "name": "age", "labels": {"path": str(labels), "label": "is"}},
        {
            "kind": "ranking", "name": "shop", "domains": ["53"], "history": "before-first-target",
            "min_item_events": 1,
        },
    ]  # fmt: skip
    cut = {name: source.pop(name) for name in HistoryCutConfig.model_fields if name in source}
    tasks = [task | cut for task in tasks]
    return prepare_log(path, folder / "corpus", events={"domain": "d"}, source=BASE | source, tasks=tasks)


def modelled(corpus: Corpus) -> UserModel:
    """A model of the corpus, not trained, with a bundle of each task."""
    unknown = "unk" if corpus.manifest["rare_items"] == "unk" else "skip"
    pretrained = tiny_pretrained(
        corpus.catalogue, unknown=unknown, preprocessing=corpus.provenance().preprocessing, max_length=5
    )
    model = UserModel(pretrained)
    for name in ("age", "shop"):
        task = corpus.task(name)
        names = {"class_names": task.class_names} if task.targets is None else {"targets": task.targets}
        model.add_bundle(tiny_bundle(pretrained, name=name, provenance=task.provenance, **names))
    return model


def posted(rows: list[Row], seed: int) -> Iterator[list[Event]]:
    """The events of the log in any order, in several requests."""
    draw = random.Random(seed)
    events = [Event(row.user, str(number), row.item, row.seconds, row.domain) for number, row in enumerate(rows)]
    draw.shuffle(events)
    while events:
        count = draw.choice([1, 5, 60])
        yield events[:count]
        events = events[count:]


def assert_as_prepared(model: UserModel, corpus: Corpus, answers: dict[str, Answer]) -> None:
    """Users of each task are answered as the model answers to the sequences of the corpus."""
    for part in PARTS:
        age, shop = (corpus.task(name).part(part) for name in ("age", "shop"))
        probabilities = model.probabilities(age.sequences, "age")
        for row, user in enumerate(age.user_ids.to_pylist()):
            answer = answers[user].tasks["age"]
            assert isinstance(answer, ClassAnswer)
            np.testing.assert_allclose(list(answer.probabilities.values()), probabilities[row], atol=1e-5, err_msg=user)
        top = model.top_k(shop.sequences, 4, "shop")
        for row, user in enumerate(shop.user_ids.to_pylist()):
            best = answers[user].tasks["shop"]
            assert isinstance(best, ItemsAnswer)
            np.testing.assert_allclose(best.scores, top.scores[row][: len(best.scores)], atol=1e-5, err_msg=user)


def test_every_setting_is_looked_at() -> None:
    assert set(SETTINGS) == set(SourceConfig.model_fields) | set(HistoryCutConfig.model_fields)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", ["as they are", *SETTINGS])
def test_stored_users_are_answered_as_the_corpus_says(tmp_path: Path, name: str) -> None:
    rows = log()
    corpus = prepared(tmp_path, rows, **({name: SETTINGS[name]} if name in SETTINGS else {}))
    model = modelled(corpus)
    users = Users(Engine(model), SqliteStore(tmp_path / "events.sqlite", 1_000))
    everybody = sorted({row.user for row in rows})
    for number, events in enumerate(posted(rows, seed=1)):
        users.append(events)
        if number % 4 == 0:  # states and histories are kept, and have to follow
            users.run([users.prepare(event.user, QUESTION) for event in events])
    results = users.run([users.prepare(user, QUESTION) for user in everybody])
    answers = {user: answer for user, answer in zip(everybody, results, strict=True) if isinstance(answer, Answer)}
    assert len(answers) == len(everybody)
    assert_as_prepared(model, corpus, answers)
    assert all(len(answer.assumptions) == (name == "first_events") for answer in answers.values())


@pytest.mark.slow
def test_over_http_too(tmp_path: Path) -> None:
    rows = log(1)
    corpus = prepared(tmp_path, rows, rare_items="unk", repeats="drop", before=SETTINGS["before"])
    model = modelled(corpus)
    model.save_pretrained(tmp_path / "backbone")
    for name, bundle in model.bundles.items():
        save_bundle(tmp_path / name, bundle)
    bundle_folders = {name: str(tmp_path / name) for name in model.bundles}
    service = open_service(
        tmp_path / "backbone", bundle_folders, ServeConfig(state=str(tmp_path / "state")), None, Log()
    )
    assert [line.partition(" are left out")[0] for line in service.parts.engine.bounds()] == [
        "age, shop: events at or after 2001-02-04T12:00:00+02:00"
    ]
    client = httpx.AsyncClient(transport=httpx.ASGITransport(make_app(service)), base_url="http://localhost")
    with start_blocking_portal() as portal:

        def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
            reply = portal.call(partial(client.post, path, json=body))
            assert reply.status_code == 200, reply.text
            content: dict[str, Any] = reply.json()
            return content

        for events in posted(rows, seed=2):
            bodies = [
                {"id": e.event_id, "user": e.user, "item": e.item, "timestamp": e.timestamp, "domain": e.domain}
                for e in events
            ]
            assert ask("/v1/events", {"events": bodies})["stored"] == len(events)
        answers = {}
        for user in sorted({row.user for row in rows}):
            body = ask(f"/v1/users/{user}/predict", {"k": 4, "exclude_seen": False})
            tasks = {
                name: (ClassAnswer if task_answer["kind"] == "classification" else ItemsAnswer)(**task_answer)
                for name, task_answer in body["tasks"].items()
            }
            answers[user] = Answer(**(body | {"tasks": tasks, "assumptions": tuple(body["assumptions"])}))
        portal.call(client.aclose)
        portal.call(service.close)
    assert_as_prepared(model, corpus, answers)


# ---------------------------------------------------------------- models that read differently, in one engine

DAY = 86_400.0


def engine(**config: Any) -> Engine:
    """Tasks of one backbone that read other events each."""
    pretrained = tiny_pretrained(max_length=6)
    served = Engine(UserModel(pretrained), EngineConfig(**config))
    sources = {
        "all": {},
        "distinct": {"repeats": "drop"},
        "holes": {"rare_items": "unk"},
        "short": {"max_history": 2},
        "books": {"domains": ("books",)},
        "old": {"before": "1970-01-04"},
    }
    for name, source in sources.items():
        provenance = Provenance("c", None, PreprocessingConfig(source=SourceConfig(**source)))
        served.add(tiny_bundle(pretrained, name=name, provenance=provenance, seed=3, strategy="head"))
    first = PreprocessingConfig(first_target=FirstTargetConfig(domains=("music",)))
    served.add(tiny_bundle(pretrained, name="first", provenance=Provenance("c", None, first), seed=3, strategy="head"))
    served.add(tiny_bundle(pretrained, name="plain", seed=3, strategy="head"))
    return served


def visited(*events: tuple[str, float, str | None], first: int = 0) -> list[Event]:
    return [Event("anna", str(i), item, DAY * day, domain) for i, (item, day, domain) in enumerate(events, first)]


def read_as(served: Engine, items: list[str], task: str = "plain") -> Any:
    """The answers to these items and no others."""
    return pytest.approx(served.predict([Request(items, Question([task]))])[0].tasks[task].probabilities, abs=1e-5)


@pytest.mark.parametrize("bounds", ["prepared", "none"])
def test_each_task_reads_what_its_own_data_had(tmp_path: Path, bounds: str) -> None:
    served = engine(bounds=bounds)
    users = Users(served, SqliteStore(tmp_path / "events.sqlite", 100))

    def answers() -> dict[str, Any]:
        (answer,) = users.run([users.prepare("anna", Question())])
        assert isinstance(answer, Answer)
        return {name: getattr(task_answer, "probabilities", None) for name, task_answer in answer.tasks.items()}

    users.append(visited(("item-1", 1, "books"), ("item-1", 2, "games"), ("nowhere", 2.5, "books"),
                         ("item-9", 5, "books")))  # fmt: skip
    for _ in range(2):  # the second time from states
        probabilities = answers()
        all_items = ["item-1", "item-1", "item-9"]
        assert probabilities["all"] == probabilities["plain"] == probabilities["first"] == read_as(served, all_items)
        assert probabilities["distinct"] == read_as(served, ["item-1", "item-9"])
        assert probabilities["holes"] == read_as(served, ["item-1", "item-1", "nowhere", "item-9"], "holes")
        assert probabilities["short"] == read_as(served, ["item-1", "item-9"])
        assert probabilities["books"] == read_as(served, ["item-1", "item-9"])
        assert probabilities["old"] == read_as(served, all_items if bounds == "none" else all_items[:2])
    assert bool(served.bounds()) == (bounds == "prepared")
    # A first target event takes what is of its own time with it, which a state holds already.
    ties = [tie(item, 5 * DAY) for item in ("item-9", "item-5", "item-6")]
    assert ties == sorted(ties)  # both go to the end
    for event in (("item-5", 5, "games"), ("item-6", 5, "music")):
        users.append(visited(event, first=len(users.read("anna").events)))
        probabilities = answers()
    assert probabilities["first"] == read_as(served, ["item-1", "item-1"])
    users.append(visited(("item-7", 6, "books"), first=20))
    assert answers()["first"] == read_as(served, ["item-1", "item-1"])


def tie(item: str, time: float) -> int:
    user, item_hash = (np.array([hash_of(text)], dtype=np.uint64) for text in ("anna", item))
    return int(tie_keys(user, np.array([time]), item_hash)[0])


def test_who_asks_with_times_and_domains_is_read_by_them() -> None:
    served = engine()
    items, domains = ["item-1", "item-2", "item-3"], ["books", "games", None]
    answer = served.predict([Request(items, Question(["books", "old"]), [0.0, DAY, 9 * DAY], domains)])[0]
    probabilities = {name: getattr(task_answer, "probabilities", None) for name, task_answer in answer.tasks.items()}
    assert probabilities["books"] == read_as(served, ["item-1", "item-3"])
    assert probabilities["old"] == read_as(served, ["item-1", "item-2"])
    assert answer.known_events == 2
    assert ["books" in line for line in answer.assumptions] == [True]  # one event has no domain
    bare = served.predict([Request(items, Question(["books", "old", "first"]))])[0]
    assert (bare.known_events, len(bare.assumptions)) == (3, 3)


def test_an_explanation_gives_nothing_to_events_that_are_not_read() -> None:
    served = engine()
    request = Request(
        ["item-1", "item-2", "item-3", "item-4"], Question(["first", "books"]), [0.0, DAY, 2 * DAY, 3 * DAY],
        ["books", "games", "music", "books"],
    )  # fmt: skip
    first = explain(served, served.prepare(request), "first").contributions
    assert [abs(value) > 1e-4 for value in first] == [True, True, False, False]
    books = explain(served, served.prepare(request), "books").contributions
    assert [abs(value) > 1e-4 for value in books] == [True, False, False, True]


def test_who_reads_nothing_is_answered_by_what_is_known_of_everybody() -> None:
    served = engine()
    answer = served.predict([Request(["item-1"], Question(["old", "plain"]), [9 * DAY])])[0]
    shares = served.predict([Request([], Question(["old"]))])[0].tasks["old"]
    assert answer.tasks["old"] == shares
    assert answer.tasks["plain"] != shares
    assert answer.known_events == 0
