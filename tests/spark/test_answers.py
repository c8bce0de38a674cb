"""Spark answers what the verbs on files answer: ties, strangers, filters, several bundles, ids and times of types."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asking.logs import HEADER, log_rows, prepared, write_models
from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from data.prepare.logs import write_csv
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.config import EventsConfig
from peterrec.data.decision import Decision
from peterrec.errors import ConfigError, DataError
from peterrec.model import UserModel
from peterrec.nn.calibration import Calibration, Curve
from peterrec.serving.files import AnswerOptions
from peterrec.serving.files import embed as local_embed
from peterrec.serving.files import predict as local_predict
from peterrec.serving.files import recommend as local_recommend
from peterrec.spark import embed, predict, recommend
from spark_answers import assert_equal_rows, sorted_rows

pytestmark = [
    pytest.mark.spark,
    pytest.mark.xdist_group("spark"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # py4j leaves them to the garbage collector
]

# Of the asking log: "toys" is the target domain; u90 has only items that no model knows, u91 only events left out.
STRANGERS = [("u90", "nowhere", 1, 0, "shop", 5), ("u90", "elsewhere", 1, 0, "shop", 5), ("u91", "i1", 3, 0, "toys", 9)]
ROWS = [*log_rows(users=30), *STRANGERS]


def assert_same(dataframe: Any, table: pa.Table) -> None:
    assert dataframe.columns == table.column_names
    assert_equal_rows([row.asDict(recursive=True) for row in dataframe.collect()], table.to_pylist())


# ---------------------------------------------------------------- events


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """Models of a log with ties, of which nothing but a domain is left out."""
    folder = tmp_path_factory.mktemp("plain")
    log = write_csv(folder / "log.csv", log_rows(users=60), HEADER)
    return write_models(folder, prepared(folder, log, {}))


def events(spark: Any, folder: Path, rows: list[tuple[Any, ...]] = ROWS, **columns: Any) -> Any:
    """Two files of events, the second of which begins in the middle of a user; `columns` in place of those of rows."""
    table = pa.table({name: pa.array(column) for name, column in zip(HEADER, zip(*rows, strict=True), strict=True)})
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    path = folder / "events"
    path.mkdir()
    pq.write_table(table.slice(len(table) // 2), path / "a.parquet")
    pq.write_table(table.slice(0, len(table) // 2), path / "b.parquet")
    return spark.read.parquet(str(path))


def assert_verbs_agree(
    folder: Path, models: tuple[Path, dict[str, Path]], dataframe: Any, rows: list[tuple[Any, ...]] = ROWS
) -> None:
    backbone, bundles = models
    source = str(write_csv(folder / "asked.csv", rows, HEADER))
    assert_same(predict(dataframe, backbone, bundles["group"]), local_predict(backbone, bundles["group"], source))
    if "first" in bundles:
        ranked = recommend(dataframe, backbone, bundles["first"], k=3)
        assert_same(ranked, local_recommend(backbone, bundles["first"], source, k=3))
        assert_same(
            embed(dataframe, backbone, bundles["first"]), local_embed(backbone, source, bundle=bundles["first"])
        )


def test_this_process_answers_a_dataframe_of_spark(
    spark: Any, plain: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    backbone, bundles = plain
    source = str(write_csv(tmp_path / "asked.csv", ROWS, HEADER))
    expected = local_predict(backbone, bundles["group"], source)
    table = local_predict(backbone, bundles["group"], events(spark, tmp_path))
    assert_equal_rows(table.rename_columns(expected.column_names).to_pylist(), expected.to_pylist())
    model = UserModel.from_pretrained(backbone)
    name = model.load_bundle(bundles["group"])
    of_model = model.predict(spark.read.parquet(str(tmp_path / "events")), name).to_arrow()
    assert_equal_rows(of_model.rename_columns(expected.column_names).to_pylist(), expected.to_pylist())


@pytest.mark.slow
def test_events_are_answered_as_by_the_verbs_on_files(spark, tmp_path, plain):
    """Times are text that Spark itself reads as no time."""
    rows = [(*row[:2], f"2001/02/{row[2] + 1:02} 12:30", *row[3:]) for row in ROWS]
    dataframe, settings = events(spark, tmp_path, rows), spark.conf.getAll
    assert_verbs_agree(tmp_path, plain, dataframe, rows)
    assert spark.conf.getAll == settings
    assert not spark.catalog.listTables()


# Settings that leave events out, order or shorten them; the others only change which files are understood.
FILTERS = [
    *(("source.domains", ["shop", "toys"]), ("source.after", "4"), ("source.before", "9"), ("source.max_history", 4)),
    *(("source.repeats", "drop"), ("source.rare_items", "unk"), ("columns.order", "n"), ("columns.time", "clock")),
    *(("columns.missing", ["i3"]), ("cut.until", "7"), ("cut.first_events", 3), ("cut.last_events", 2)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), FILTERS, ids=[name for name, _ in FILTERS])
def test_events_are_read_as_they_were_prepared(spark, tmp_path, name, value):
    log = write_csv(tmp_path / "log.csv", log_rows(users=60), HEADER)
    rare = {"source.min_item_events": 60} if name == "source.rare_items" else {}
    models = write_models(tmp_path, prepared(tmp_path, log, {name: value} | rare))
    assert_verbs_agree(tmp_path, models, events(spark, tmp_path))


def test_labels_are_answered_as_by_the_verb_on_files(spark, tmp_path):
    pretrained = tiny_pretrained()
    save_backbone(tmp_path / "backbone", pretrained)
    bundles = []
    for seed, name in enumerate(("interests", "segments")):
        settings: dict[str, Any] = {"kind": "multilabel", "class_priors": (0.75, 0.5, 0.125), "seed": seed}
        bundle = tiny_bundle(pretrained, name=name, class_names=("garden", "books", "toys"), **settings)
        save_bundle(tmp_path / name, bundle)
        bundles.append(tmp_path / name)
    rows = [("a", ["item-1", "item-2"]), ("b", ["nothing"]), ("c", ["item-3"])]
    dataframe = user_rows(spark, rows, tmp_path / "rows")
    lines = tmp_path / "asked.jsonl"
    lines.write_text("\n".join(json.dumps({"user": user, "items": items}) for user, items in rows))
    expected = local_predict(tmp_path / "backbone", bundles[0], lines)
    assert_same(predict(dataframe, tmp_path / "backbone", bundles[0]), expected)
    answers = predict(dataframe, tmp_path / "backbone", bundles)
    assert answers.columns == ["user", "bundle", "labels", "known_events", "probabilities"]
    stranger = next(row for row in answers.collect() if (row["user"], row["bundle"]) == ("b", "segments"))
    assert (stranger["labels"], stranger["probabilities"]["toys"]) == ("garden|books", 0.125)


@pytest.mark.slow
def test_calibrated_bundles_are_asked_as_here_alone_and_beside_plain_ones(spark, tmp_path, plain):
    backbone, bundles = plain
    model = UserModel.from_pretrained(backbone)
    bundle = model.bundle(model.load_bundle(bundles["group"]))
    curves = tuple(Curve((0.1, 0.6), (0.2, 0.5 + place / 10)) for place in range(len(bundle.class_names)))
    sets = Decision(conformal=0.1, least=0.3, conformal_users=100)
    calibrations = {
        "hot": Calibration("temperature", 9, temperature=3.0),
        "bent": Calibration("isotonic", 9, curves=curves),
    }
    source = str(write_csv(tmp_path / "asked.csv", ROWS, HEADER))
    dataframe = events(spark, tmp_path)
    for name, calibration in calibrations.items():
        save_bundle(tmp_path / name, replace(bundle, name=name, calibration=calibration, decision=sets))
        expected = local_predict(backbone, tmp_path / name, source)
        assert "class_set" in expected.column_names
        assert_same(predict(dataframe, backbone, tmp_path / name), expected)
    together = predict(dataframe, backbone, [bundles["group"], tmp_path / "hot"])
    assert "class_set" not in together.columns
    probabilities = {row["user"]: row["probability"] for row in together.collect() if row["bundle"] == "hot"}
    expected = local_predict(backbone, tmp_path / "hot", source)
    by_user = dict(zip(expected["user"].to_pylist(), expected["probability"].to_pylist(), strict=True))
    assert probabilities == pytest.approx(by_user, abs=1e-5)


@pytest.mark.slow
def test_several_bundles_are_asked_in_one_pass(spark, tmp_path, plain):
    """They read other events: one what came before the first event of a domain."""
    backbone, bundles = plain
    source = str(write_csv(tmp_path / "asked.csv", ROWS, HEADER))
    pair_of_bundles = [bundles["first"], bundles["group"]]
    rows = [row.asDict() for row in embed(events(spark, tmp_path), backbone, pair_of_bundles).collect()]
    for name in ("first", "group"):
        expected = sorted_rows(local_embed(backbone, source, bundle=bundles[name]).to_pylist())
        of_bundle = sorted_rows([row for row in rows if row["bundle"] == name])
        assert [(row["user"], row["known_events"]) for row in of_bundle] == [
            (row["user"], row["known_events"]) for row in expected
        ]
        np.testing.assert_allclose([row["vector"] for row in of_bundle], [row["vector"] for row in expected], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["s", "ms", "us", "float"])
def test_times_of_every_type(spark, tmp_path, plain, unit):
    """Times near one another that only their type tells apart, and ties that are ordered by their hash."""
    numbers = np.array([row[2] for row in ROWS]) + 1_000_000_000
    column = pa.array(numbers * 1.0) if unit == "float" else pa.array(numbers * 1000, pa.int64())
    if unit not in ("float", "ms"):
        column = (
            pa.array(numbers).cast(pa.timestamp("s")).cast(pa.timestamp("us", "Europe/Paris" if unit == "s" else None))
        )
    dataframe = events(spark, tmp_path, timestamp=column)
    path = tmp_path / "local.parquet"
    pq.write_table(pq.read_table(tmp_path / "events"), path)
    backbone, _ = plain
    zone = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    try:
        assert_same(embed(dataframe, backbone), local_embed(backbone, str(path)))
        assert spark.conf.get("spark.sql.session.timeZone") == "America/New_York"
    finally:
        spark.conf.set("spark.sql.session.timeZone", zone)


# ---------------------------------------------------------------- rows of users


def user_rows(spark: Any, rows: list[tuple[Any, list[Any]]], folder: Path) -> Any:
    """One file a row, and one without any: Spark makes partitions of strangers only, and of nothing."""
    users, items = zip(*rows, strict=True)
    table = pa.table({"user": pa.array(users), "items": pa.array(items)})
    folder.mkdir()
    for number in range(len(table) + 1):
        pq.write_table(table.slice(number, 1), folder / f"{number}.parquet")
    return spark.read.option("spark.sql.files.openCostInBytes", "1g").parquet(str(folder)).repartition(len(rows))


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("integers", [True, False])
def test_rows_of_users(spark, tmp_path, integers):
    """Known items and unknown ones, strangers, a user without events; integer and text ids."""
    pretrained = tiny_pretrained(tiny_catalogue(integers=integers))
    targets = tiny_catalogue(5, first=0, integers=integers)
    save_backbone(tmp_path / "backbone", pretrained)
    odd = ("a.b", "A.b", 'c "`d`"', "")
    save_bundle(tmp_path / "age", tiny_bundle(pretrained, class_names=odd))
    save_bundle(tmp_path / "shop", tiny_bundle(pretrained, targets=targets))
    ids = [100 + i if integers else f"item-{i}" for i in range(12)]
    nowhere = -5 if integers else "nowhere"
    rows = [(7, [ids[1], ids[2]]), (8, [nowhere, ids[3], nowhere]), (9, [nowhere]), (10, []), (11, ids)]
    dataframe = user_rows(spark, rows, tmp_path / "rows")
    lines = tmp_path / "rows.jsonl"
    lines.write_text("\n".join(json.dumps({"user": user, "items": items}) for user, items in rows))
    backbone, options = tmp_path / "backbone", AnswerOptions(allow_empty=True)
    age, shop = tmp_path / "age", tmp_path / "shop"
    assert_same(predict(dataframe, backbone, age, options), local_predict(backbone, age, lines, options=options))
    for bundle in (shop, None):
        ranked = recommend(dataframe, backbone, bundle, options, k=3)
        assert_same(ranked, local_recommend(backbone, bundle, lines, options=options, k=3))
    shipped = embed(dataframe, backbone, options=options, on_executors=False)
    assert_same(shipped, local_embed(backbone, lines, options=options))


# ---------------------------------------------------------------- what is refused


def test_what_spark_cannot_do_is_refused(spark, tmp_path, plain):
    backbone, bundles = plain
    dataframe = events(spark, tmp_path)
    for call, error, message in (
        (lambda: predict(dataframe, backbone, bundles["first"]), ConfigError, "is of a ranking task"),
        (lambda: recommend(dataframe, backbone, bundles["group"]), ConfigError, "is of a classification task"),
        (lambda: recommend(dataframe, backbone, k=0), ConfigError, "k is 0"),
        (lambda: embed(dataframe, backbone, []), ConfigError, "no bundle is named"),
        (lambda: embed([["i1"]], backbone), ConfigError, "no DataFrame of Spark but a list"),
        (lambda: embed(dataframe.drop("timestamp"), backbone), DataError, "does not have the column 'timestamp'"),
        (
            lambda: embed(dataframe.selectExpr("user_id", "array(1) timestamp", "item_id"), backbone),
            DataError,
            "of type list",
        ),
        (
            lambda: embed(dataframe.selectExpr("1.5 user_id", "item_id", "timestamp"), backbone),
            DataError,
            "ids are text or",
        ),
        (
            lambda: embed(dataframe, backbone, options=options("ties", "lines")),
            ConfigError,
            "which a DataFrame has not",
        ),
        (lambda: embed(dataframe.selectExpr("array(1L) items"), backbone), DataError, "none with the user"),
    ):
        with pytest.raises(error, match=message):
            call()


def options(name: str, value: Any) -> AnswerOptions:
    return AnswerOptions(events=EventsConfig(paths=("-",), **{name: value}))


@pytest.mark.slow
def test_rows_that_cannot_be_used_are_refused(spark, tmp_path, plain):
    users = pa.array([None, *(row[0] for row in ROWS[1:])])
    with pytest.raises(DataError, match=r"1 row cannot be used: 1 without a user id \('user_id'\)"):
        embed(events(spark, tmp_path, user_id=users), plain[0], options=options("invalid_rows", "error"))


@pytest.mark.slow
def test_features_of_events_are_read_as_by_the_verb_on_files(spark, tmp_path):
    log = write_csv(tmp_path / "log.csv", log_rows(users=60), HEADER)
    settings = {"columns.features": ["n", "n:log-bins", "time:gap,hour"], "source.repeats": "drop"}
    backbone, bundles = write_models(tmp_path, prepared(tmp_path, log, settings))
    source = write_csv(tmp_path / "asked.csv", ROWS, HEADER)
    dataframe = predict(events(spark, tmp_path), backbone, bundles["group"])
    assert_same(dataframe, local_predict(backbone, bundles["group"], str(source)))
