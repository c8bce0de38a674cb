"""The verbs with `--engine spark`: files in, a folder of Parquet out, with the answers and words of the local verbs."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asking.logs import HEADER, log_rows, prepared, write_models
from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from data.prepare.logs import write_csv, write_parquet
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.cli.main import execute
from spark_answers import assert_equal_tables

pytestmark = [
    pytest.mark.spark,
    pytest.mark.xdist_group("spark"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # py4j leaves them to the garbage collector
    pytest.mark.usefixtures("spark"),
]
SPARK = ["--engine", "spark"]


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone, bundles of both kinds, and users who are asked about."""
    folder, pretrained = tmp_path_factory.mktemp("asked"), tiny_pretrained()
    save_backbone(folder / "backbone", pretrained)
    save_bundle(folder / "age", tiny_bundle(pretrained, class_names=("a", "A", "p(x)")))
    save_bundle(folder / "shop", tiny_bundle(pretrained, targets=tiny_catalogue(5, first=0)))
    rows = [("ann", ["item-1", "item-2"]), (7, ["item-9", "x"]), ("7 b", ["nowhere"])]
    lines = [json.dumps({"user": user, "items": items}) for user, items in rows]
    (folder / "users.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def answers(arguments: list[str], folder: Path, engine: list[str], scheme: str = "") -> pa.Table:
    out = folder / ("spark" if engine else "local.parquet")
    assert execute([*arguments, "--out", f"{scheme}{out}", "--overwrite" if engine else "-q", *engine]) == 0
    left_over = [*folder.glob(".*"), *folder.glob("*tmp")]
    assert not left_over, "what was written meanwhile is gone"
    return pq.read_table(out)


def assert_engines_agree(arguments: list[str], folder: Path, scheme: str = "") -> None:
    assert_equal_tables(answers(arguments, folder, SPARK, scheme), answers(arguments, folder, []))


def test_answers_and_words_are_those_of_this_process(at, tmp_path, capfd):
    backbone, users = str(at / "backbone"), str(at / "users.jsonl")
    assert_engines_agree(["predict", backbone, str(at / "age"), users], tmp_path)
    printed = capfd.readouterr().err
    assert "3 users, 5 events; 2 of items that are unknown; nothing is known of 1 user\n" in printed
    assert f"wrote {tmp_path / 'spark'} (3 rows in " in printed
    written = json.loads((tmp_path / "spark" / "_answers.json").read_text())
    assert (written["users"], written["unknown_events"], written["rows"]) == (3, 2, 3)
    assert_engines_agree(["recommend", backbone, users, "-k", "2", "--bundle", str(at / "shop")], tmp_path, "file:")
    assert json.loads((tmp_path / "spark" / "_answers.json").read_text())["verb"] == "recommend"


@pytest.mark.slow
def test_embeddings(at, tmp_path):
    assert_engines_agree(["embed", str(at / "backbone"), str(at / "users.jsonl")], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_files_of_events(tmp_path, form):
    log = write_csv(tmp_path / "log.csv", log_rows(users=60), HEADER)
    backbone, bundles = write_models(tmp_path, prepared(tmp_path, log, {"source.before": "9", "columns.ties": "lines"}))
    folder = tmp_path / "as[k]ed"
    folder.mkdir()
    write = write_parquet if form == "parquet" else write_csv
    write(folder / f"1 {{a}}.{form}", log_rows(users=20), HEADER)
    write(folder / f"2.{form}", [(f"{row[0]}, {row[0]}", *row[1:]) for row in log_rows(users=20, seed=1)], HEADER)
    assert_engines_agree(["predict", str(backbone), str(bundles["group"]), str(folder)], tmp_path)


@pytest.mark.slow
def test_nothing_is_written_where_something_is_wrong(at, tmp_path, capfd):
    backbone, users, out = str(at / "backbone"), str(at / "users.jsonl"), tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    strangers, empty = tmp_path / "strangers.jsonl", tmp_path / "empty.jsonl"
    strangers.write_text('{"user": 1, "items": ["x", "y"]}\n')
    empty.write_text('{"user": 1, "items": []}\n')
    twice = tmp_path / "twice.jsonl"
    twice.write_text('{"user": 1, "items": ["item-1"]}\n' * 2)
    for arguments, message in (
        (["embed", backbone, users, "--out", str(out)], "already exists"),
        (["embed", backbone, users, "--out", str(out), "--overwrite"], "is there and is not a table of answers"),
        (["embed", backbone, users, "--out", f"file:{out}"], "already exists"),
        (["embed", backbone, users, "--out", f"file:{out}", "--overwrite"], "is there and is not a table of answers"),
        (["embed", backbone, users], "none is named"),
        (["embed", backbone, users, "--out", "a.csv"], "a folder of Parquet"),
        (["embed", backbone, "-", "--out", "a"], "not standard input"),
        (["embed", backbone, "nothing.jsonl", "--out", str(tmp_path / "new")], "No such file"),
        (["embed", backbone, str(strangers), "--out", f"file:{tmp_path}/new"], "2 of 2 items are not in the catalogue"),
        (["embed", backbone, str(empty), "--out", str(tmp_path / "new")], "user 1 has no items"),
        (["embed", backbone, str(twice), "--out", str(tmp_path / "new")], "user '1' stands in 2 rows"),
    ):
        assert execute([*arguments, *SPARK, "-q"]) == 2
        assert message in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["out", "strangers.jsonl", "empty.jsonl", "twice.jsonl"]
    )
    assert (out / "mine").read_text() == "mine"


def test_options_of_spark_are_refused_without_it(at, capfd):
    arguments = ["embed", str(at / "backbone"), str(at / "users.jsonl")]
    for options in (["--master", "local"], ["--overwrite"], ["--shared-model"], ["--engine", "flink"]):
        assert execute([*arguments, *options]) == 2
        assert options[0] in capfd.readouterr().err
