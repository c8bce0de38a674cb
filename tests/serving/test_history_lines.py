"""JSON lines with times and features are answered as the same events in a table, and as the same request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from asking.logs import HEADER, log_rows, prepared, write_models
from data.prepare.logs import write_csv
from log_lines import log_lines
from peterrec.data.histories import read_histories
from peterrec.errors import DataError
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.files import embed, predict
from peterrec.serving.requests import Question, Request
from peterrec.spark.inputs import parse_lines

# Lines tell no domain, and stand in an order of their own where times are equal.
ROWS = sorted({row[0:3:2]: row for row in log_rows() if row[4] != "toys"}.values(), key=lambda row: (row[0], row[2]))
USERS = sorted({row[0] for row in ROWS})
SETTINGS = {
    "columns.features": ["n", "n:log-bins", "time:gap,hour"], "source.repeats": "drop", "source.after": "2",
    "source.before": "10",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    corpus = prepared(folder, write_csv(folder / "log.csv", log_rows(), HEADER), SETTINGS)
    write_models(folder, corpus)
    write_csv(folder / "asked.csv", ROWS, HEADER)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> UserModel:
    model = UserModel.from_pretrained(folder / "backbone")
    model.load_bundle(folder / "bundle-group", "group")
    return model


def line_of(user: str, form: str) -> dict[str, Any]:
    rows = [row for row in ROWS if row[0] == user]
    numbers = [row[3] for row in rows]
    parts = {
        "items": {}, "times": {"times": [row[2] for row in rows]}, "columns": {"features": {"n": numbers}},
        "objects": {"features": [{"n": number} for number in numbers]},
    }  # fmt: skip
    return {"user": user, "items": [row[1] for row in rows]} | {
        key: value for part in form.split("+") for key, value in parts[part].items()
    }


def write_lines(path: Path, form: str) -> Path:
    path.write_text("".join(json.dumps(line_of(user, form)) + "\n" for user in USERS))
    return path


def probabilities(table: pa.Table) -> np.ndarray:
    assert table["user"].to_pylist() == USERS
    return np.stack([table[name].to_numpy() for name in table.column_names if name.startswith("p(")], axis=1)


@pytest.mark.parametrize("form", ["times+columns", "times+objects"])
def test_lines_are_answered_as_the_same_events_in_a_table(
    form: str, folder: Path, tmp_path: Path, model: UserModel
) -> None:
    lines = write_lines(tmp_path / "asked.jsonl", form)
    from_table, from_lines = (
        predict(model, folder / "bundle-group", source) for source in (folder / "asked.csv", lines)
    )
    np.testing.assert_array_equal(probabilities(from_lines), probabilities(from_table))
    assert from_lines["known_events"].to_pylist() == from_table["known_events"].to_pylist()
    vectors = [embed(model, source)["vector"].to_pylist() for source in (folder / "asked.csv", lines)]
    assert vectors[0] == vectors[1]


@pytest.mark.parametrize("form", ["items", "times", "columns", "times+objects"])
def test_lines_are_answered_as_the_same_requests(form: str, folder: Path, tmp_path: Path, model: UserModel) -> None:
    answers = probabilities(predict(model, folder / "bundle-group", write_lines(tmp_path / "asked.jsonl", form)))
    requests = []
    for line in (line_of(user, form.replace("columns", "objects")) for user in USERS):
        requests.append(Request(line["items"], Question(["group"]), line.get("times"), features=line.get("features")))
    engine_answers = [answer.tasks["group"].probabilities for answer in Engine(model).predict(requests)]  # type: ignore[union-attr]
    np.testing.assert_allclose(answers, [list(answer.values()) for answer in engine_answers], atol=1e-5)


def test_what_a_line_tells_changes_answers(folder: Path, tmp_path: Path, model: UserModel) -> None:
    forms = ["items", "times", "columns", "times+columns"]
    answers = [
        probabilities(predict(model, folder / "bundle-group", write_lines(tmp_path / "asked.jsonl", form)))
        for form in forms
    ]
    for place, first in enumerate(answers):
        for second in answers[place + 1 :]:
            assert np.abs(first - second).max() > 1e-3


def test_it_is_said_what_lines_do_not_tell(folder: Path, tmp_path: Path, model: UserModel) -> None:
    logged = {}
    for form in ("times+columns", "items"):
        with log_lines() as logged[form]:
            predict(model, folder / "bundle-group", write_lines(tmp_path / "asked.jsonl", form))
    outside = sum(not 2 <= row[2] < 10 for row in ROWS)
    assert f"{outside:,} events are left out, as they were when data were prepared" in logged["times+columns"]
    for message in ("at or after 2 and before 10: they tell no time", "nothing is known of events but their items"):
        assert not any(message in line for line in logged["times+columns"])
        assert any(message in line for line in logged["items"])


def test_a_model_of_items_alone_reads_lines_with_times(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text('{"user": "a", "items": ["x", "y"], "times": [1, 2.5]}\n')
    with read_histories(path) as stored:
        (piece,) = stored
    assert piece.items == [["x", "y"]]
    assert piece.features is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ('"times": 1', "`times` is not a list of numbers"),
        ('"times": ["1", "2"]', "`times` is not a list of numbers"),
        ('"times": [true, 2]', "`times` is not a list of numbers"),
        ('"times": [1]', "there are 2 items, and 1 times"),
        ('"times": [2, 1]', "the times decrease"),
        ('"times": [1, NaN]', "a time is not a finite number"),
        ('"features": "n"', "`features` is neither lists by column nor a list of objects"),
        ('"features": {"n": 1}', "`features` is neither lists by column nor a list of objects"),
        ('"features": {"n": [1]}', "there are 2 items, and 1 features"),
        ('"features": [{"n": 1}]', "there are 2 items, and 1 features"),
        ('"features": [{"n": 1}, 7]', "features of an event are"),
        ('"features": {"m": [1, 2]}', "there is no feature 'm' of events"),
        ('"features": {"n": [1, "many"]}', "the feature 'n' is 'many', which is no finite number"),
        ('"features": {"n": [1, [2]]}', r"a feature is \[2\], not a text"),
    ],
)
def test_a_bad_line_is_named(values: str, message: str, tmp_path: Path, model: UserModel) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text('{"user": "a", "items": ["i1"]}\n{"user": "b", "items": ["i1", "i2"], ' + values + "}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_histories(path, preprocessing=model.preprocessing("group"))
    assert f"{path}, line 2" in str(caught.value)
    assert caught.value.remedy


def test_spark_refuses_what_it_would_not_read() -> None:
    batch = pa.RecordBatch.from_pydict({"value": ['{"user": "a", "items": ["x"], "times": [1]}']})
    with pytest.raises(Exception, match="tells times or features of events"):
        list(parse_lines(iter([batch]), "asked.jsonl", allow_empty=False))
