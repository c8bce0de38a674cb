"""DataFrames in, DataFrames out; verbs with keywords; what is made without a folder is kept and found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import peterrec
from peterrec.data.frames import FrameFiles, is_dataframe

COLUMNS: dict[str, Any] = {"user": "customer", "item": "sku", "time": "bought", "domain": "shop"}
TASKS: dict[str, Any] = {"classify": "plan", "rank": ["b"]}
TINY: dict[str, Any] = {"epochs": 1, "runner": {"progress": False}}
LIBRARIES = ("pandas", "polars", "polars lazy", "pyarrow", "duckdb")


def purchases(users: int = 60) -> pa.Table:
    generator = np.random.default_rng(0)
    rows = users * 12
    return pa.table(
        {
            "customer": generator.integers(0, users, rows),
            "sku": generator.integers(100, 130, rows).astype(np.int32),
            "bought": (np.datetime64("2024-01-01") + generator.integers(0, 10**6, rows)).astype("datetime64[s]"),
            "shop": generator.choice(["a", "b"], rows),
            "price": generator.random(rows),
        }
    )


def customers(users: int = 60) -> pa.Table:
    plans = np.random.default_rng(1).choice(["free", "paid"], users)
    return pa.table({"customer": np.arange(users), "plan": pa.array(plans).dictionary_encode()})


def of_library(table: pa.Table, library: str) -> Any:
    if library == "pandas":
        pytest.importorskip("pandas")
        return table.to_pandas().set_index("customer", drop=False)  # an index is no column
    if library.startswith("polars"):
        polars = pytest.importorskip("polars")
        return polars.from_arrow(table).lazy() if "lazy" in library else polars.from_arrow(table)
    if library == "duckdb":
        return pytest.importorskip("duckdb").from_arrow(table)
    return table


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PETERREC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def corpus(cache: None) -> peterrec.Corpus:
    return peterrec.prepare(purchases(), users=customers(), **COLUMNS, **TASKS)


@pytest.fixture(scope="module")
def model(corpus: peterrec.Corpus) -> peterrec.UserModel:
    model = peterrec.pretrain(corpus, backbone={"channels": 8, "dilations": [1]}, **TINY)
    for task in corpus.task_names:
        model.add_bundle(peterrec.adapt(model, corpus, task, **TINY))
    return model


def test_files_and_frames_of_every_library_make_the_same_corpus(corpus: peterrec.Corpus, tmp_path: Path) -> None:
    pq.write_table(purchases(), tmp_path / "events.parquet")
    pq.write_table(customers(), tmp_path / "users.parquet")
    settings = COLUMNS | TASKS
    of_files = peterrec.prepare(
        tmp_path / "events.parquet", tmp_path / "out", users=tmp_path / "users.parquet", **settings
    )
    fingerprints = {of_files.manifest["fingerprint"], corpus.manifest["fingerprint"]}
    for library in LIBRARIES:
        frames = [of_library(table, library) for table in (purchases(), customers())]
        of_frames = peterrec.prepare(frames[0], tmp_path / library, users=frames[1], **settings)
        fingerprints.add(of_frames.manifest["fingerprint"])
        (path,) = of_frames.manifest["config"]["events"]["paths"]
        assert path.startswith("<a "), "no temporary file is named"
        assert next(entry["path"] for entry in of_frames.manifest["inputs"]) == path
    assert len(fingerprints) == 1
    assert sorted(corpus.task_names) == ["b", "plan"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "nothing temporary is left"


def test_history_is_of_the_tasks_of_rank(cache: None) -> None:
    tasks: dict[str, Any] = {"rank": {"first": "b"}, "history": "before-first-target"}
    table, later = purchases(400), np.timedelta64(30, "D")
    is_target = table["shop"].to_numpy() == "b"
    bought = np.where(is_target, table["bought"].to_numpy() + later, table["bought"].to_numpy())
    events = table.set_column(2, "bought", pa.array(bought))
    corpus = peterrec.prepare(events, users=customers(400), classify="plan", **COLUMNS, **tasks)
    plan, first = corpus.manifest["config"]["tasks"]
    assert first["history"] == "before-first-target"
    assert "history" not in plan


@pytest.mark.parametrize("library", LIBRARIES)
def test_answers_have_the_ids_and_names_of_the_frame(model: peterrec.UserModel, library: str) -> None:
    events = of_library(purchases(), library)
    answers = model.predict(events, "plan").to_arrow()
    assert answers.schema.field("customer").type == pa.int64()
    assert answers.column_names[:4] == ["customer", "label", "probability", "known_events"]
    items = model.recommend(events, "b", k=2).to_arrow()
    assert set(items["sku"].to_pylist()) <= set(purchases()["sku"].to_pylist())
    assert items.column_names == ["customer", "rank", "sku", "score", "known_events"]
    vectors = model.embed(events).to_arrow()
    assert vectors["customer"].to_pylist() == answers["customer"].to_pylist()
    assert vectors["vector"].type.list_size == 8


def test_a_frame_is_answered_as_its_histories_are(model: peterrec.UserModel) -> None:
    answers = model.predict(purchases(), "plan")
    table = purchases().filter(pa.compute.equal(purchases()["shop"], "a")).sort_by("bought")
    for user, probabilities in zip(answers.users.ids.to_pylist(), answers.probabilities, strict=True):
        rows = table.filter(pa.compute.equal(table["customer"], user))
        if len(set(rows["bought"].to_pylist())) == len(rows):  # no ties, which a list cannot tell
            history = model.predict([rows["sku"].to_pylist()], "plan", require_known=False)
            np.testing.assert_allclose(history.probabilities[0], probabilities, atol=1e-6)


def test_columns_of_other_names_are_named(model: peterrec.UserModel) -> None:
    renamed = purchases().rename_columns(["uid", "sku", "bought", "shop", "price"])
    answers = model.predict(renamed, "plan", columns={"user": "uid"})
    np.testing.assert_array_equal(answers.probabilities, model.predict(purchases(), "plan").probabilities)
    assert answers.to_arrow().column_names[0] == "uid"
    with pytest.raises(peterrec.PeterRecError, match=r"<a pyarrow Table>.*'customer'"):
        model.predict(renamed, "plan")
    with pytest.raises(peterrec.PeterRecError, match="did you mean 'user'"):
        model.predict(renamed, "plan", columns={"usr": "uid"})
    with pytest.raises(peterrec.PeterRecError, match="columns are of a DataFrame"):
        model.predict([[100]], "plan", columns={"user": "uid"})
    for name in ("label", "labels"):
        renamed = purchases().rename_columns([name, "sku", "bought", "shop", "price"])
        with pytest.raises(peterrec.PeterRecError, match=f"'{name}' is called as one of the answers"):
            model.predict(renamed, "plan", columns={"user": name})  # one of the two would take the other's place


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_verbs_answer_a_frame_as_the_model_does(
    model: peterrec.UserModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    events, plan, shop = of_library(purchases(), library), model.bundle("plan"), model.bundle("b")
    monkeypatch.setattr("peterrec.serving.files.USERS_AT_ONCE", 7)  # several pieces
    predictions = peterrec.predict(model, plan, events, tmp_path / "plan.parquet", batch_size=16)
    assert predictions.schema.field("customer").type == pa.int64()
    assert_equal_tables(predictions, model.predict(events, "plan").to_arrow())
    assert_equal_tables(predictions, pq.read_table(tmp_path / "plan.parquet"))
    assert_equal_tables(peterrec.recommend(model, shop, events, k=2), model.recommend(events, "b", k=2).to_arrow())
    assert_equal_tables(peterrec.embed(model, events), model.embed(events).to_arrow())
    renamed = purchases().rename_columns(["uid", "sku", "bought", "shop", "price"])
    answers = peterrec.predict(model, plan, renamed, user="uid")
    assert answers.column_names == ["uid", *predictions.column_names[1:]]
    assert_equal_tables(answers.rename_columns(predictions.column_names), predictions)


def assert_equal_tables(table: pa.Table, expected: pa.Table) -> None:
    """Refuse tables that differ by more than what one batch or several change."""
    assert table.column_names == expected.column_names
    for name in expected.column_names:
        values, wanted = table[name].to_pylist(), expected[name].to_pylist()
        if pa.types.is_floating(expected[name].type) or name == "vector":
            np.testing.assert_allclose(values, wanted, atol=1e-5)
        else:
            assert values == wanted


@pytest.mark.parametrize("source", [["a"], None, {"a": "b"}, [[100]], {"a"}, b"ab", 1.5])
def test_what_is_no_source_is_refused(model: peterrec.UserModel, source: Any) -> None:
    for call in (
        lambda: peterrec.predict(model, model.bundle("plan"), source),
        lambda: peterrec.recommend(model, None, source),
        lambda: peterrec.embed(model, source),
    ):
        with pytest.raises(peterrec.PeterRecError, match="source is"):
            call()


def test_histories_of_no_frame_are_numbered(model: peterrec.UserModel) -> None:
    pandas = pytest.importorskip("pandas")
    lists = [[100, 101], [102]]
    expected = model.predict(lists, "plan").to_pandas()
    assert expected["user"].tolist() == [0, 1]
    for histories in (iter(lists), pandas.Series(lists), (history for history in lists)):
        pandas.testing.assert_frame_equal(model.predict(histories, "plan").to_pandas(), expected)
    polars = pytest.importorskip("polars")
    assert polars.from_pandas(expected).equals(model.predict(lists, "plan").to_polars())


def test_what_is_made_without_a_folder_is_found_again(
    corpus: peterrec.Corpus, model: peterrec.UserModel, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[str] = []
    reopened = peterrec.prepare(purchases(), users=customers(), report=lines.append, **COLUMNS, **TASKS)
    assert reopened.path == corpus.path
    assert len(lines) == 1
    caplog.set_level("INFO", "peterrec")
    reopened_model = peterrec.pretrain(corpus, backbone={"channels": 8, "dilations": [1]}, **TINY)
    assert reopened_model.fingerprint == model.fingerprint
    assert "opening" in caplog.text
    caplog.clear()
    bundle = peterrec.adapt(model, corpus, "plan", **TINY)
    assert "opening" in caplog.text
    assert bundle.metrics == model.bundle("plan").metrics
    one_event_more = pa.concat_tables([purchases(), purchases().slice(0, 1)])
    assert peterrec.prepare(one_event_more, users=customers(), **COLUMNS, **TASKS).path != corpus.path


def test_bundles_in_memory_are_evaluated_as_those_on_disk(
    corpus: peterrec.Corpus, model: peterrec.UserModel, tmp_path: Path
) -> None:
    peterrec.adapt(model, corpus, "plan", tmp_path / "plan", **TINY)
    settings: dict[str, Any] = {"baselines": False, "bootstrap": 20}
    in_memory = peterrec.evaluate(model, corpus, model.bundle("plan"), **settings)
    assert in_memory == peterrec.evaluate(model, corpus, tmp_path / "plan", **settings)
    assert in_memory.to_arrow()["name"].to_pylist() == ["patch"]
    assert "1 rows" in in_memory._repr_html_()
    assert "patch 0." in repr(in_memory)


def test_objects_say_what_they_are(corpus: peterrec.Corpus, model: peterrec.UserModel) -> None:
    assert "tasks: plan, b" in repr(corpus)
    assert "bundles=plan, b" in repr(model)
    assert "strategy=patch" in repr(model.bundle("plan"))
    for artifact in (corpus, model, model.bundle("plan"), model.predict([[100]], "plan")):
        assert "<table>" in artifact._repr_html_()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: peterrec.prepare(purchases()), "'user_id'"),
        (lambda: peterrec.prepare(purchases(), **COLUMNS | {"time": "bough"}), "it has .*'bought', .*'price'"),
        (lambda: peterrec.prepare(purchases(), **COLUMNS, clasify="plan"), "did you mean 'classify'"),
        (lambda: peterrec.prepare(purchases(), **COLUMNS, source={"min_item_event": 1}), "did you mean 'min_item_eve"),
        (lambda: peterrec.prepare(purchases(), **COLUMNS, classify="plan"), "there are none"),
        (lambda: peterrec.prepare(purchases(), **COLUMNS, users=customers()), "no column to predict"),
        (lambda: peterrec.prepare(purchases(), **COLUMNS, users=customers(), classify="plam"), "'plam'"),
        (lambda: peterrec.prepare({"user": [1]}), "events is a dict"),
        (lambda: peterrec.prepare(peterrec.PrepareConfig(events={"paths": ["x"]}), rank="a"), "names its own tasks"),
        (lambda: peterrec.prepare(purchases(), **COLUMNS, history="all"), "none is named"),
        (lambda: peterrec.prepare(purchases(), **COLUMNS, rank="b", history="before-first"), "before-first-target"),
        (lambda: peterrec.pretrain("corpus", epoch=1), "did you mean 'epochs'"),
        (lambda: peterrec.adapt("backbone", "corpus", "plan", optim={"LR": 1}), "did you mean 'lr'"),
        (lambda: peterrec.predict("backbone", "plan", "events.csv", batch=3), "did you mean 'batch_size'"),
        (lambda: peterrec.predict("backbone", "plan", "events.csv", batch_size="3"), "batch_size is"),
        (lambda: peterrec.embed("backbone", "events.csv", usr="customer"), "did you mean 'user'"),
    ],
)
def test_mistakes_are_told(cache: None, call: Any, words: str) -> None:
    with pytest.raises(peterrec.PeterRecError, match=words) as caught:
        call()
    assert caught.value.remedy


def test_a_column_of_several_types_is_told(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"user_id": [1, "a"], "item_id": [1, 2], "timestamp": [1, 2]})
    with FrameFiles(tmp_path) as frames, pytest.raises(peterrec.PeterRecError, match="each column of one type"):
        frames.write(frame, "events")
    assert not [*tmp_path.iterdir()]


def test_a_table_is_no_dictionary_of_lists() -> None:
    assert is_dataframe(purchases())
    assert not any(map(is_dataframe, ({"a": [1]}, [1], "x", None, np.zeros((2, 2)), pa.array([1]))))
