"""Our own models enter as everybody: by a file of scores, from the test histories alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import tiny_bundle, tiny_pretrained
from peterrec.artifacts.backbone_io import PretrainedBackbone, save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.benchmark.build import build_benchmark
from peterrec.benchmark.predict import predict_benchmark
from peterrec.benchmark.score import score_benchmark
from peterrec.cli.main import execute
from peterrec.data.catalogue import Catalogue
from peterrec.errors import ConfigError, TaskError
from peterrec.model import UserModel

from .conftest import LABELS, Built, write_data

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmark.md"


@dataclass(frozen=True)
class Ours:
    """An untrained backbone with the catalogue of the benchmark."""

    pretrained: PretrainedBackbone
    root: Path

    @property
    def backbone(self) -> Path:
        return self.root / "backbone"

    def bundle(self, *classes: str) -> Path:
        path = self.root / "-".join(classes)
        save_bundle(path, tiny_bundle(self.pretrained, class_names=classes))
        return path


@pytest.fixture
def ours(built: Built, tmp_path: Path) -> Ours:
    items = pq.read_table(built.folder / "items.parquet")
    catalogue = Catalogue(items["item_id"].combine_chunks(), items["train_events"].to_numpy())
    untrained = Ours(tiny_pretrained(catalogue, max_length=20), tmp_path)
    save_backbone(untrained.backbone, untrained.pretrained)
    return untrained


def test_classes_are_matched_by_name_and_answers_those_of_the_model(built: Built, ours: Ours, tmp_path: Path) -> None:
    bundle, task = ours.bundle("b", "a"), "half-labels-100-first-10"
    table = predict_benchmark(built.folder, task, ours.backbone, tmp_path / "ours.parquet", bundle=bundle)
    assert pq.read_table(tmp_path / "ours.parquet").equals(table)
    histories = built.opened.histories("test", 10)
    assert table["user_id"].to_pylist() == list(histories)
    model = UserModel.from_pretrained(ours.backbone)
    answers = model.predict(list(histories.values()), model.load_bundle(bundle))
    assert answers.class_names == ("b", "a")
    np.testing.assert_array_equal(table["a"].to_numpy(), answers.probabilities[:, 1])
    assert np.ptp(answers.probabilities[:, 1]) > 0.01
    score_benchmark(built.folder, task, tmp_path / "ours.parquet")


def test_next_items_of_the_backbone_are_no_items_of_the_history(built: Built, ours: Ours, tmp_path: Path) -> None:
    task = "next-item-first-20"
    table = predict_benchmark(built.folder, task, ours.backbone, tmp_path / "ours.parquet")
    assert {len(items) for items in table["items"].to_pylist()} == {10}
    score_benchmark(built.folder, task, tmp_path / "ours.parquet")


def test_what_does_not_answer_the_task_is_refused(built: Built, ours: Ours, tmp_path: Path) -> None:
    out, task = tmp_path / "ours.parquet", "half-labels-10-first-5"
    with pytest.raises(ConfigError, match="asks for classes, and there is no bundle"):
        predict_benchmark(built.folder, task, ours.backbone, out)
    with pytest.raises(TaskError, match="the classes of the bundle are a, c, those of half-labels-10-first-5 a, b"):
        predict_benchmark(built.folder, task, ours.backbone, out, bundle=ours.bundle("a", "c"))
    with pytest.raises(ConfigError, match="classification"):
        predict_benchmark(built.folder, "next-item-first-5", ours.backbone, out, bundle=ours.bundle("a", "b"))
    assert not out.exists()


def test_ids_that_are_numbers_may_be_written_either_way(tmp_path: Path) -> None:
    data = write_data(tmp_path / "made-up")
    for name in ("events", "users"):
        table = pq.read_table(data / f"{name}.parquet")
        for place, column in enumerate(table.column_names):
            if column in ("user_id", "item_id"):
                digits = pa.array([int("".join(filter(str.isdigit, text))) for text in table[column].to_pylist()])
                table = table.set_column(place, column, digits.cast(pa.int32()))
        pq.write_table(table, data / f"{name}.parquet")
    opened = build_benchmark(tmp_path / "out", data, labels=LABELS)
    assert pq.read_schema(opened / "events.parquet").field("user_id").type == pa.int64()
    assert pq.read_schema(opened / "events.parquet").field("item_id").type == pa.int64()
    histories = pq.read_table(opened / "histories" / "test-first-5.parquet")
    users = list(dict.fromkeys(histories["user_id"].to_pylist()))
    answers = {
        row["user_id"]: row["next_item_first_5"] for row in pq.read_table(opened / "test_answers.parquet").to_pylist()
    }
    numbers = pa.table({"user_id": users, "items": [[answers[user]] if answers[user] else [] for user in users]})
    text = pa.table(
        {"user_id": numbers["user_id"].cast(pa.string()), "items": numbers["items"].cast(pa.list_(pa.string()))}
    )
    for name, table in (("numbers", numbers), ("text", text)):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    paths = [tmp_path / "numbers.parquet", tmp_path / "text.parquet"]
    result = score_benchmark(opened, "next-item-first-5", paths)
    assert [method.values["mrr@10"].value for method in result.methods] == [1, 1]


# ---------------------------------------------------------------- by the command line


def run(*arguments: str | Path, status: int = 0) -> None:
    assert execute([str(argument) for argument in arguments]) == status, arguments


@pytest.mark.slow
def test_from_data_to_a_table_by_the_commands_of_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, bench = write_data(tmp_path / "made-up"), tmp_path / "bench"
    run("benchmark", "build", bench, "--data", data, "--label", "half", "--label", "cluster")
    assert f"wrote {bench}; {bench}/README.md says" in capsys.readouterr().err
    run("benchmark", "build", bench, "--data", data, "--label", "half", "--overwrite", "--quiet")
    assert capsys.readouterr().err == ""
    corpus, backbone, bundle = (tmp_path / name for name in ("corpus", "backbone", "bundle"))
    run(
        "prepare", bench / "events.parquet", bench / "histories" / "valid-first-20.parquet", "--order", "position",
        "--classify", f"half={bench / 'labels-100.parquet'}:half", "--first", "10", "--new-users", "valid,test",
        "--set", "split={train: 0.65, valid: 0.06, test: 0.29, salt: peterrec-benchmark-1}", "--out", corpus, "-q",
    )  # fmt: skip
    small = ["--set", "epochs=1", "--quiet"]
    run(
        "pretrain", corpus, "--out", backbone, "--set", "backbone.channels=8", "--set", "backbone.dilations=[1]", *small
    )
    run("adapt", backbone, corpus, "half", "--out", bundle, *small)
    task, ours, shares = "half-labels-100-first-10", tmp_path / "ours.parquet", tmp_path / "shares.parquet"
    run("benchmark", "predict", bench, backbone, bundle, "--task", task, "--out", ours)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    exec(blocks[0].replace("gender", "half"), {})
    capsys.readouterr()
    run("benchmark", "score", bench, task, ours, shares, "--out", tmp_path / "out.json")
    shown = capsys.readouterr()
    result = json.loads((tmp_path / "out.json").read_text())
    assert [method["name"] for method in result["methods"]] == ["ours", "shares"]
    for text in (
        task,
        "ours",
        "log_loss",
        f"{result['methods'][0]['values']['auc']['value']:.4f}",
        "Holm's correction",
    ):
        assert text in shown.out
    assert "wrote" in shown.err
    run("benchmark", "predict", bench, backbone, "--task", "next-item-first-5", "--out", ours, "--quiet")
    run("benchmark", "score", bench, "next-item-first-5", ours, "--quiet")
    assert "mrr@10" in capsys.readouterr().out
    run("inspect", bench)
    assert "next-item-first-5" in capsys.readouterr().out


def test_mistakes_on_the_command_line_have_status_2(
    built: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = str(tmp_path / "no.parquet")
    for arguments, message in (
        (["score", str(built.folder), "next-item-first-5", scores], "there is no such file"),
        (["score", str(built.folder), "next-item-first-5", scores, "--out", "x.csv"], "is not a JSON file"),
        (["score", str(built.folder), "next-item-first-5"], "Missing argument"),
        (["predict", str(built.folder), "backbone", "--task", "x", "--out", "x.csv"], "is not a Parquet file"),
        (["build", str(built.folder), "--data", str(built.data), "--label", "half"], "already exists"),
    ):
        run("benchmark", *arguments, status=2)
        assert message in capsys.readouterr().err
