"""The verbs predict, recommend and embed: JSON lines in; Parquet, CSV and JSON lines out, all with the same answers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from builders import file_size_limit, tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.data import histories
from peterrec.errors import ConfigError, DataError, StorageError, UnknownItemsError
from peterrec.model import UserModel
from peterrec.serving import files
from peterrec.serving.answer_files import to_json_lines
from peterrec.serving.files import AnswerOptions, embed, predict, recommend

ODD = ("young, or so", 'a "b"', "c)", "p(d)", "ä\n\t;", "")
HISTORIES = [["item-1", "item-2"], ["item-9", "nowhere", "x"], ["item-3"]]
KNOWN_EVENTS = [2, 1, 1]
USERS = ["ann", "7", 'b "c", d']
ENDINGS = [".parquet", ".csv", ".jsonl"]
PRETRAINED = tiny_pretrained()
TARGETS = tiny_catalogue(5, first=0)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a backbone, bundles of both kinds, and histories."""
    folder = tmp_path_factory.mktemp("served")
    save_backbone(folder / "backbone", PRETRAINED)
    save_bundle(folder / "age", tiny_bundle(PRETRAINED, class_names=ODD))
    save_bundle(folder / "shop", tiny_bundle(PRETRAINED, targets=TARGETS))
    lines = [json.dumps({"user": u, "items": i}) for u, i in zip(USERS, HISTORIES, strict=True)]
    (folder / "histories.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(at: Path) -> UserModel:
    model = UserModel.from_pretrained(at / "backbone")
    model.load_bundle(at / "age")
    model.load_bundle(at / "shop")
    return model


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".csv":
        newlines = pyarrow.csv.ParseOptions(newlines_in_values=True)
        types = pyarrow.csv.ConvertOptions(column_types={"user": pa.string()})
        return pyarrow.csv.read_csv(path, parse_options=newlines, convert_options=types).to_pylist()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------- the three verbs, the three formats


@pytest.mark.parametrize("ending", ENDINGS)
def test_predictions(at, model, tmp_path, ending):
    out = tmp_path / f"out{ending}"
    table = predict(at / "backbone", at / "age", at / "histories.jsonl", out)
    expected = model.predict(HISTORIES, "age")
    assert table.column_names == ["user", "label", "probability", "known_events", *(f"p({name})" for name in ODD)]
    assert table["user"].to_pylist() == USERS
    assert table["known_events"].to_pylist() == KNOWN_EVENTS
    assert table["label"].to_pylist() == expected.labels
    assert table["probability"].to_pylist() == expected.probabilities.max(1).tolist()
    for i, name in enumerate(ODD):
        assert table[f"p({name})"].to_pylist() == expected.probabilities[:, i].tolist()
    rows = read(out)
    if ending == ".jsonl":
        assert [list(row) for row in rows] == [["user", "label", "probability", "known_events", "probabilities"]] * 3
        assert [list(row["probabilities"]) for row in rows] == [list(ODD)] * 3
        rows = [row | {f"p({name})": p for name, p in row.pop("probabilities").items()} for row in rows]
    assert [(row["user"], row["label"]) for row in rows] == list(zip(USERS, expected.labels, strict=True))
    class_probabilities = [[row[f"p({name})"] for name in ODD] for row in rows]
    np.testing.assert_allclose(class_probabilities, expected.probabilities, atol=1e-6)
    assert names(tmp_path) == [out.name]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("bundle", ["shop", None])
def test_recommendations(at, model, tmp_path, ending, bundle):
    out = tmp_path / f"out{ending}"
    table = recommend(at / "backbone", bundle and at / bundle, at / "histories.jsonl", out, k=4)
    expected = model.recommend(HISTORIES, bundle, 4)
    rows = [
        {"user": user, "rank": rank, "item": item, "score": score, "known_events": known_events}
        for user, known_events, items, scores in zip(USERS, KNOWN_EVENTS, expected.items, expected.scores, strict=True)
        for rank, (item, score) in enumerate(zip(items, scores, strict=True), start=1)
    ]
    assert table.to_pylist() == rows
    assert table.schema.types == [pa.string(), pa.int64(), pa.string(), pa.float32(), pa.int64()]
    for written_row, row in zip(read(out), rows, strict=True):
        assert written_row == row | {"score": pytest.approx(row["score"], abs=1e-6)}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("bundle", ["age", None])
def test_embeddings(at, model, tmp_path, ending, bundle):
    out = tmp_path / f"out{ending}"
    embed(at / "backbone", at / "histories.jsonl", out, bundle=bundle and at / bundle)
    rows = read(out)
    assert [row["user"] for row in rows] == USERS
    vectors = [[row[f"v{i}"] for i in range(8)] if ending == ".csv" else row["vector"] for row in rows]
    np.testing.assert_allclose(vectors, model.represent(HISTORIES, bundle), atol=1e-6)
    assert [row["known_events"] for row in rows] == KNOWN_EVENTS
    columns = [f"v{i}" for i in range(8)] if ending == ".csv" else ["vector"]
    assert list(rows[0]) == ["user", "known_events", *columns]


def test_without_a_file_the_table_comes_back_and_nothing_is_written(at, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = embed(at / "backbone", at / "histories.jsonl")
    assert table["vector"].type == pa.list_(pa.float32(), 8)
    assert table["vector"].to_pylist() == model.represent(HISTORIES).tolist()
    assert names(tmp_path) == []


def test_json_lines_are_utf8_and_one_row_each(at, tmp_path):
    predict(at / "backbone", at / "age", at / "histories.jsonl", tmp_path / "out.jsonl")
    raw = (tmp_path / "out.jsonl").read_bytes()
    assert raw.count(b"\n") == len(USERS)
    assert "ä\\n".encode() in raw
    assert to_json_lines(pa.table({"user": ["ü"], "p(a)": [0.5], "p(b": [1]})) == (
        '{"user": "ü", "p(b": 1, "probabilities": {"a": 0.5}}\n'
    )


# ---------------------------------------------------------------- what goes in


def test_a_stream_or_a_loaded_model_gives_the_same(at, model):
    expected = predict(at / "backbone", at / "age", str(at / "histories.jsonl"))
    stream = io.StringIO((at / "histories.jsonl").read_text())
    assert predict(model, str(at / "age"), stream) == expected


def test_a_loaded_model_keeps_its_own_bundles(at, model, tmp_path):
    save_bundle(tmp_path / "other", tiny_bundle(PRETRAINED, class_names=ODD, seed=9))
    bundles_before = dict(model.bundles)
    first = predict(model, at / "age", at / "histories.jsonl")
    other_table = predict(model, tmp_path / "other", at / "histories.jsonl")
    assert first["p(c))"] != other_table["p(c))"]
    assert model.bundles == bundles_before


def test_integer_items_stay_integers(tmp_path):
    pretrained = tiny_pretrained(tiny_catalogue(integers=True))
    model = UserModel(pretrained, "cpu")
    table = recommend(model, None, io.StringIO('{"user": 1, "items": [101, "102"]}'), tmp_path / "out.jsonl", k=2)
    assert table.schema.field("item").type == pa.int64()
    assert all(type(row["item"]) is int for row in read(tmp_path / "out.jsonl"))
    assert table["user"].to_pylist() == ["1", "1"]


def test_users_without_any_recommendation_change_no_column(tmp_path):
    for integers, kind in ((False, pa.string()), (True, pa.int64())):
        model = UserModel(tiny_pretrained(tiny_catalogue(2, integers=integers)), "cpu")
        line = json.dumps({"user": "u", "items": model.catalogue.ids.to_pylist()})
        table = recommend(model, None, io.StringIO(line), tmp_path / "out.parquet")
        assert table.num_rows == 0
        types = [pa.string(), pa.int64(), kind, pa.float32(), pa.int64()]
        assert pq.read_schema(tmp_path / "out.parquet").types == types


def test_options_reach_the_model(at, model):
    lines = '{"user": "a", "items": ["item-1", "x"]}\n{"user": "b", "items": []}\n'
    with pytest.raises(DataError, match="user 'b' has no items"):
        embed(model, io.StringIO(lines))
    options = AnswerOptions(allow_empty=True, unknown="unk", batch_size=1)
    table = embed(model, io.StringIO(lines), options=options)
    np.testing.assert_allclose(
        table["vector"].to_pylist(), model.represent([["item-1", "x"], []], unknown="unk"), atol=1e-6
    )
    for options, error in (
        (AnswerOptions(unknown="error"), UnknownItemsError),
        (AnswerOptions(unknown="drop"), ConfigError),
        (AnswerOptions(batch_size=0), ConfigError),
    ):
        with pytest.raises(error):
            embed(model, io.StringIO('{"user": "a", "items": ["item-1", "x"]}'), options=options)
    with_seen = recommend(model, at / "shop", at / "histories.jsonl", k=9, exclude_seen=False)
    assert with_seen.num_rows == 15 > recommend(model, at / "shop", at / "histories.jsonl", k=9).num_rows


def test_unknown_items_are_counted_aloud(at, caplog):
    caplog.set_level("INFO", "peterrec")
    predict(at / "backbone", at / "age", at / "histories.jsonl")
    assert caplog.messages == ["3 users, 6 events; 2 of items that are unknown"]


# ---------------------------------------------------------------- more users than memory holds


@pytest.mark.parametrize("ending", [*ENDINGS, None])
@pytest.mark.parametrize("verb", ["predict", "recommend", "embed"])
def test_answers_about_some_users_at_a_time_are_those_about_all(at, model, tmp_path, monkeypatch, verb, ending):
    def ask(name: str) -> pa.Table:
        out = None if ending is None else tmp_path / f"{name}{ending}"
        source = at / "histories.jsonl"
        if verb == "predict":
            return predict(model, at / "age", source, out)
        return embed(model, source, out) if verb == "embed" else recommend(model, at / "shop", source, out, k=4)

    expected, user_counts = ask("expected"), []
    monkeypatch.setattr(histories, "EVENTS_AT_ONCE", 4)
    monkeypatch.setattr(files, "USERS_AT_ONCE", 1)
    encode = UserModel.encode
    monkeypatch.setattr(
        UserModel, "encode", lambda self, rows, *_, **__: user_counts.append(len(rows)) or encode(self, rows, *_, **__)
    )
    pieces = ask("pieces")
    assert user_counts[:2] == [2, 1]  # counted in pieces of the file, answered user by user
    assert set(user_counts[2:]) == {1}
    columns = [name for name in expected.column_names if pa.types.is_string(expected[name].type)] + ["known_events"]
    assert pieces.schema == expected.schema
    assert pieces.select(columns) == expected.select(columns)
    for name in set(expected.column_names) - set(columns):
        values, expected_values = (np.array(table[name].to_pylist()) for table in (pieces, expected))
        np.testing.assert_allclose(values, expected_values, atol=1e-5)
    if ending is not None:
        first, second = read(tmp_path / f"expected{ending}"), read(tmp_path / f"pieces{ending}")
        assert [row["user"] for row in first] == [row["user"] for row in second]


def test_an_unknown_item_of_the_last_user_is_refused_before_anything_is_computed(model, tmp_path, monkeypatch):
    monkeypatch.setattr(histories, "EVENTS_AT_ONCE", 1)
    monkeypatch.setattr(UserModel, "represent", lambda *_, **__: pytest.fail("computed"))
    lines = "".join(f'{{"user": {user}, "items": ["item-1", "item-2"]}}\n' for user in range(5))
    lines += '{"user": 5, "items": ["item-1", "nowhere", "x"]}\n'
    with pytest.raises(UnknownItemsError, match=r"2 of 13 items are not in the catalogue .* such as 'nowhere'"):
        embed(model, io.StringIO(lines), tmp_path / "a" / "out.csv", AnswerOptions(unknown="error"))
    strangers = "".join(f'{{"user": {user}, "items": ["x", {user}]}}\n' for user in range(3))
    with pytest.raises(UnknownItemsError, match=r"6 of 6 items .* such as 'x'"):
        embed(model, io.StringIO(strangers), tmp_path / "a" / "out.csv")
    assert names(tmp_path) == []


def test_a_wrong_question_makes_no_folder(model, at, tmp_path):
    with pytest.raises(ConfigError):
        recommend(model, None, at / "histories.jsonl", tmp_path / "a" / "out.csv", k=0)
    assert names(tmp_path) == []


def test_the_table_of_a_file_is_mapped_from_disk(model, at, tmp_path):
    before = pa.total_allocated_bytes()
    table = embed(model, at / "histories.jsonl", tmp_path / "out.parquet")
    assert pa.total_allocated_bytes() - before < table.nbytes
    (tmp_path / "out.parquet").unlink()
    assert table["vector"].to_pylist() == embed(model, at / "histories.jsonl")["vector"].to_pylist()


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize("name", ["out.txt", "out", "out.json", "out.csv.gz"])
@pytest.mark.parametrize("verb", ["predict", "recommend", "embed"])
def test_a_bad_ending_is_refused_before_anything_is_read(tmp_path, name, verb):
    nowhere, out = tmp_path / "nowhere", tmp_path / name
    calls = {
        "predict": lambda: predict(nowhere, nowhere, nowhere, out),
        "recommend": lambda: recommend(nowhere, None, nowhere, out),
        "embed": lambda: embed(nowhere, nowhere, out),
    }
    with pytest.raises(ConfigError, match=f"cannot write {name}") as caught:
        calls[verb]()
    assert all(ending in caught.value.remedy for ending in ENDINGS)


def test_a_failure_leaves_the_old_answers_as_they_are(at, tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("old")
    source = at / "histories.jsonl"
    for error, call in (
        (ConfigError, lambda: predict(at / "backbone", at / "shop", source, out)),
        (ConfigError, lambda: recommend(at / "backbone", at / "age", source, out)),
        (ConfigError, lambda: recommend(at / "backbone", None, source, out, k=0)),
        (DataError, lambda: predict(at / "backbone", at / "age", at / "nothing.jsonl", out)),
        (UnknownItemsError, lambda: embed(at / "backbone", io.StringIO('{"user": 1, "items": [1]}'), out)),
    ):
        with pytest.raises(error):
            call()
    assert out.read_text() == "old"
    assert names(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("limit", [2_000, 8_000])  # bytes: too few for the histories, and for the answers alone
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_leaves_the_old_answers_as_they_are(model, tmp_path, ending, limit):
    out = tmp_path / f"out{ending}"
    out.write_text("old")
    lines = [json.dumps({"user": i, "items": [f"item-{i % 12}"]}) for i in range(300)]
    with pytest.raises(StorageError, match="the disk is full"), file_size_limit(limit):
        embed(model, io.StringIO("\n".join(lines)), out)
    assert out.read_text() == "old"
    assert names(tmp_path) == [out.name]


def test_folders_above_the_answers_are_made(model, at, tmp_path):
    embed(model, at / "histories.jsonl", tmp_path / "a" / "b" / "out.csv")
    assert len(read(tmp_path / "a" / "b" / "out.csv")) == 3
