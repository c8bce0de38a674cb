"""Stored events say what they said when they came, and are read as `prepare` read the same log."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from anyio.from_thread import start_blocking_portal

from asking.logs import HEADER, log_rows, prepared, write_models
from data.prepare.logs import write_csv
from peterrec.config import ServeConfig
from peterrec.data.corpus import PARTS, Corpus
from peterrec.errors import RequestError
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.http.app import make_app
from peterrec.serving.http.logs import Log
from peterrec.serving.http.serve import open_service
from peterrec.serving.requests import Answer, Question, Request
from peterrec.serving.store.base import Event
from peterrec.serving.store.sqlite import SqliteStore
from peterrec.serving.users import Users

# Of events of one item at one time nothing but their arrival tells the order.
ROWS = list({row[:3]: row for row in log_rows()}.values())
QUESTION = Question(["group"])
SETTINGS = {"columns.features": ["n", "n:log-bins", "time:gap,hour"], "source.repeats": "drop"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("log")
    return prepared(folder, write_csv(folder / "log.csv", ROWS, HEADER), SETTINGS)


@pytest.fixture(scope="module")
def models(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    backbone, bundles = write_models(tmp_path_factory.mktemp("models"), corpus)
    return backbone, bundles["group"]


@pytest.fixture(scope="module")
def model(models: tuple[Path, Path]) -> UserModel:
    model = UserModel.from_pretrained(models[0])
    model.load_bundle(models[1])
    return model


def expected(model: UserModel, corpus: Corpus) -> dict[str, np.ndarray]:
    parts = [corpus.task("group").part(part) for part in PARTS]
    rows = [model.probabilities(part.sequences, "group") for part in parts]
    return {
        user: row
        for part, probabilities in zip(parts, rows, strict=True)
        for user, row in zip(part.user_ids.to_pylist(), probabilities, strict=True)
    }


def events() -> list[Event]:
    return [
        Event(user, str(number), item, float(time), domain, {"n": n})
        for number, (user, item, time, n, domain, _) in enumerate(ROWS)
    ]


def assert_answers(answers: dict[str, Any], model: UserModel, corpus: Corpus) -> None:
    probabilities = expected(model, corpus)
    assert len(probabilities) == 60
    for user, row in probabilities.items():
        np.testing.assert_allclose(list(answers[user].values()), row, atol=1e-5, err_msg=user)


def test_stored_users_are_answered_as_the_corpus_says(tmp_path: Path, model: UserModel, corpus: Corpus) -> None:
    users, posted = Users(Engine(model), SqliteStore(tmp_path / "events.sqlite", 1_000)), events()
    random.Random(1).shuffle(posted)
    everybody = sorted({event.user for event in posted})
    for start in range(0, len(posted), 50):
        users.append(posted[start : start + 50])
        users.run([users.prepare(user, QUESTION) for user in everybody[::3]])  # states, which have to follow
    for reader in (users, Users(Engine(model), users.store)):
        results = reader.run([reader.prepare(user, QUESTION) for user in everybody])
        answers = {
            user: answer.tasks["group"].probabilities  # type: ignore[union-attr]
            for user, answer in zip(everybody, results, strict=True)
            if isinstance(answer, Answer)
        }
        assert_answers(answers, model, corpus)


def test_a_request_may_bring_features(model: UserModel, corpus: Corpus) -> None:
    engine, answers = Engine(model), {}
    for user in sorted({row[0] for row in ROWS}):
        rows = [event for event in sorted(events(), key=lambda event: event.timestamp or 0.0) if event.user == user]
        if len({row.timestamp for row in rows}) < len(rows):
            continue  # ties, whose order a request itself decides
        request = Request(
            [row.item for row in rows], QUESTION, times=[row.timestamp for row in rows],  # type: ignore[misc]
            domains=[row.domain for row in rows], features=[row.features for row in rows],
        )  # fmt: skip
        answers[user] = engine.predict([request])[0].tasks["group"].probabilities  # type: ignore[union-attr]
    assert len(answers) > 3
    for user, row in expected(model, corpus).items():
        if user in answers:
            np.testing.assert_allclose(list(answers[user].values()), row, atol=1e-5)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([{"n": "many"}], "the feature 'n' is 'many', which is no finite number"),
        ([{"m": 1}], "there is no feature 'm' of events"),
        ([7], "features of an event are"),
        ([{}, {}], "there are 1 items, and 2 features"),
    ],
)
def test_features_that_cannot_be_are_refused(features: Any, message: str, model: UserModel) -> None:
    with pytest.raises(RequestError, match=message):
        Engine(model).prepare(Request(["i1"], QUESTION, features=features))


def test_what_was_stored_before_another_model_read_it_is_missing(tmp_path: Path, model: UserModel) -> None:
    """A text where the model reads a number, and a column that it does not read, are kept and harm no answer."""
    users = Users(Engine(model), SqliteStore(tmp_path / "events.sqlite", 1_000))
    features = {"n": "many", "colour": "red"}
    users.append([Event("u", "1", "i1", 1.0, features=features), Event("v", "1", "i1", 1.0)])
    assert users.read("u").events[0].features == features
    first, second = users.run([users.prepare(user, QUESTION) for user in "uv"])
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    # "many" is a category that was not there: only as a number it is missing.
    assert first.tasks != second.tasks
    plain = Engine(model).predict([Request(["i1"], QUESTION, times=[1.0])])[0]
    expected_probabilities = plain.tasks["group"].probabilities  # type: ignore[union-attr]
    assert second.tasks["group"].probabilities == pytest.approx(expected_probabilities, abs=1e-6)  # type: ignore[union-attr]


def test_over_http(tmp_path: Path, models: tuple[Path, Path], model: UserModel, corpus: Corpus) -> None:
    config = ServeConfig(state=str(tmp_path / "state"))
    service = open_service(models[0], {"group": str(models[1])}, config, None, Log())
    client = httpx.AsyncClient(transport=httpx.ASGITransport(make_app(service)), base_url="http://localhost")
    with start_blocking_portal() as portal:

        def ask(method: str, path: str, body: Any = None) -> httpx.Response:
            return portal.call(partial(client.request, method, path, json=body))

        bodies = [
            {
                "id": e.event_id, "user": e.user, "item": e.item, "timestamp": e.timestamp, "domain": e.domain,
                "features": e.features,
            }
            for e in events()
        ]  # fmt: skip
        refused = ask("POST", "/v1/events", {"events": [bodies[0] | {"features": {"n": "many"}}]})
        assert refused.status_code == 422, refused.text
        assert "no finite number" in refused.text
        assert ask("POST", "/v1/events", {"events": [bodies[0] | {"features": {"n": [1]}}]}).status_code == 422
        for start in range(0, len(bodies), 100):
            assert ask("POST", "/v1/events", {"events": bodies[start : start + 100]}).status_code == 200
        stored_events = ask("GET", "/v1/users/u1").json()["events"]
        assert stored_events[0]["features"] == {
            "n": next(row[3] for row in sorted(ROWS, key=lambda row: row[2]) if row[0] == "u1")
        }
        answers = {}
        for user in sorted({row[0] for row in ROWS}):
            answers[user] = ask("POST", f"/v1/users/{user}/predict").json()["tasks"]["group"]["probabilities"]
        request = {"items": ["i1"], "times": [1.0], "features": [{"n": 2}]}
        (reply,) = ask("POST", "/v1/predict", {"requests": [request]}).json()["answers"]
        portal.call(client.aclose)
        portal.call(service.close)
    assert_answers(answers, model, corpus)
    (answer,) = Engine(model).predict([Request(["i1"], Question(), times=[1.0], features=[{"n": 2}])])
    assert reply["tasks"]["group"]["probabilities"] == pytest.approx(answer.tasks["group"].probabilities, abs=1e-6)  # type: ignore[union-attr]
