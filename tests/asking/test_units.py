"""Numeric times of any unit: bounds and ties mean the same when asking, or the file is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asking.logs import HEADER, log_rows, prepared, write_models
from data.prepare.logs import prepare_log, sequences_of, write_csv
from peterrec.data.preprocessing import differences
from peterrec.errors import DataError
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.files import predict
from peterrec.serving.requests import Question
from peterrec.serving.store.base import Event
from peterrec.serving.store.sqlite import SqliteStore
from peterrec.serving.users import Users

START = 1_600_000_000
UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}


def log_in(unit: int) -> list[tuple[Any, ...]]:
    return [(user, item, (START + 60 * time) * unit, *columns) for user, item, time, *columns in log_rows()]


@pytest.mark.slow
def test_the_same_log_in_any_unit_is_the_same_corpus(tmp_path: Path) -> None:
    """Ties too: their hash is of seconds."""
    corpora = {
        unit: prepared(tmp_path / name, write_csv(tmp_path / f"{name}.csv", log_in(unit), HEADER), {})
        for name, unit in UNITS.items()
    }
    assert [corpus.manifest["units_per_second"] for corpus in corpora.values()] == [*UNITS.values()]
    sequences = [sequences_of(corpus) for corpus in corpora.values()]
    assert sequences == sequences[:1] * len(UNITS)


@pytest.mark.slow
def test_a_file_of_another_unit_is_refused_where_its_times_matter(tmp_path: Path) -> None:
    milliseconds = write_csv(tmp_path / "ms.csv", log_in(1000), HEADER)
    seconds = write_csv(tmp_path / "s.csv", log_in(1), HEADER)
    bounded = prepared(tmp_path / "b", milliseconds, {"source.before": str((START + 360) * 1000)})
    backbone, bundles = write_models(tmp_path / "b", bounded)
    predict(backbone, bundles["group"], str(milliseconds))
    with pytest.raises(DataError, match="look like seconds, those of the log that was prepared like milliseconds"):
        predict(backbone, bundles["group"], str(seconds))
    free = prepared(tmp_path / "f", milliseconds, {})
    backbone, bundles = write_models(tmp_path / "f", free)
    known_events = [predict(backbone, bundles["group"], str(path))["known_events"] for path in (milliseconds, seconds)]
    assert known_events[0].equals(known_events[1])


@pytest.mark.slow
def test_the_service_is_sent_seconds_whatever_the_log_had(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "ms.csv", log_in(1000), HEADER)
    corpus = prepared(tmp_path, path, {"source.before": str((START + 360) * 1000)})
    backbone, bundles = write_models(tmp_path, corpus)
    offline = predict(backbone, bundles["group"], str(path))
    model = UserModel.from_pretrained(backbone)
    model.load_bundle(bundles["group"])
    users = Users(Engine(model), SqliteStore(tmp_path / "events.sqlite", 100))
    users.append([Event(row[0], str(n), row[1], row[2] / 1000, row[4]) for n, row in enumerate(log_in(1000))])
    answers = users.run([users.prepare(user, Question(["group"])) for user in offline["user"].to_pylist()])
    assert [answer.known_events for answer in answers] == offline["known_events"].to_pylist()  # type: ignore[union-attr]
    predicted = [answer.tasks["group"].probabilities["a"] for answer in answers]  # type: ignore[union-attr]
    np.testing.assert_allclose(predicted, offline["p(a)"].to_numpy(), atol=1e-5)


@pytest.mark.slow
def test_times_of_several_units_are_warned_of(tmp_path: Path) -> None:
    rows = [(f"u{n % 9}", "ab"[n % 2], START + n if n % 3 else (START + n) * 1000) for n in range(90)]
    (warning,) = prepare_log(write_csv(tmp_path / "a.csv", rows), tmp_path / "out").manifest["warnings"]
    assert "look like several units (60 like seconds, 30 like milliseconds)" in warning
    counters = [(f"u{n % 9}", "ab"[n % 2], 10**n) for n in range(8)]
    assert prepare_log(write_csv(tmp_path / "b.csv", counters), tmp_path / "out").manifest["warnings"] == []


@pytest.mark.slow
def test_another_order_of_events_is_a_difference(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", log_rows(), HEADER)
    plain, ordered = (
        prepared(tmp_path / name, path, settings).provenance().preprocessing
        for name, settings in {"a": {}, "b": {"columns.order": "n", "columns.ties": "lines"}}.items()
    )
    assert differences(plain, ordered) == ["columns.order: None, n", "columns.ties: hash, lines"]


def test_classes_that_are_written_in_several_ways_are_warned_of(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "log.csv", [(f"u{n}", "ab"[n % 2], n) for n in range(60)])
    labels = write_csv(
        tmp_path / "u.csv", [(f"u{n}", ["f", "f ", "F", "m"][n % 4]) for n in range(60)], ("user_id", "x")
    )
    task = {"name": "x", "kind": "classification", "labels": {"path": str(labels), "label": "x"}}
    warnings = prepare_log(log, tmp_path / "out", tasks=[task]).manifest["warnings"]
    assert warnings == ["task x: some classes look like one that is written in several ways ('F', 'f', 'f ')"]
