"""Exports: written graphs asked in their own runtime, and what stands beside them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import peterrec
from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from export_cases import BACKBONES, ROWS, bundles_of, check_answers, model_of, rows_of
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.cli.main import execute
from peterrec.data.sequences import Sequences
from peterrec.export.export import export_model
from peterrec.export.formats import FORMATS
from peterrec.export.graph import answer_graph, library_answers
from peterrec.model import UserModel

ALONE = [5]  # a batch of one row, which many an exporter takes for a fixed size


def needs(name: str) -> None:
    missing = FORMATS[name].missing()
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: pip install 'peterrec[{FORMATS[name].extra}]'")


def check_export(model: UserModel, folder: Path, format: str) -> None:
    """The written graph beside the library, for a batch of seven rows and of one."""
    meta = export_model(model, folder, list(model.bundles.values()), format=format)  # type: ignore[arg-type]
    graph = answer_graph(model)
    batches = [rows_of(graph, before=False), rows_of(graph, before=True), rows_of(graph, before=False)[ALONE]]
    all_rows, padded_before, alone = FORMATS[format].answers(folder / meta["graph"], batches)
    expected = library_answers(model, graph, Sequences.from_rows(ROWS))
    check_answers(all_rows, expected)
    check_answers(padded_before, expected)
    check_answers(alone, {name: values[ALONE] for name, values in expected.items()})


def run_readme(folder: Path) -> None:
    """The example of the README, in the folder, where peterrec cannot be imported."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    assert "peterrec" not in code
    hidden = "import sys; sys.modules['peterrec'] = None\n"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    completed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", hidden + code], cwd=folder, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stderr


def test_an_export_of_the_command_line_is_asked_without_peterrec(tmp_path: Path) -> None:
    pretrained = tiny_pretrained(tiny_catalogue(30))
    targets = tiny_catalogue(25, first=0)
    save_backbone(tmp_path / "backbone", pretrained)
    save_bundle(tmp_path / "age", tiny_bundle(pretrained))
    save_bundle(tmp_path / "shop", tiny_bundle(pretrained, targets=targets, max_length=6))
    folders = [str(tmp_path / name) for name in ("backbone", "age", "shop")]
    assert execute(["export", *folders, "--out", str(tmp_path / "out"), "--quiet"]) == 0
    run_readme(tmp_path / "out")

    meta = peterrec.inspect(tmp_path / "out")
    assert meta["input"] | {"shape": ["batch", 6], "padding_index": 0, "unknown_items": "skip"} == meta["input"]
    assert [output["name"] for output in meta["outputs"]] == ["age.probabilities", "shop.scores", "known_events"]
    assert meta["outputs"][0]["columns"] == ["young", "old", "older"]
    assert meta["backbone"]["fingerprint"] == pretrained.fingerprint
    vocabulary = pq.read_table(tmp_path / "out" / "vocabulary.parquet")
    assert vocabulary["index"].to_pylist() == list(range(4, 34))
    assert pq.read_table(tmp_path / "out" / "shop.targets.parquet")["item_id"].to_pylist() == targets.ids.to_pylist()

    model = UserModel(pretrained, "cpu")
    model.add_bundle(tiny_bundle(pretrained))
    example = json.loads((tmp_path / "out" / "example.json").read_text())
    histories = [pretrained.catalogue.decode(np.array([i for i in row if i], dtype=int)) for row in example["tokens"]]
    probabilities = model.predict(histories, "age").probabilities  # type: ignore[union-attr]
    np.testing.assert_allclose(example["outputs"]["age.probabilities"], probabilities, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_bundle_in_every_format(backbone: str, format: str, tmp_path: Path) -> None:
    needs(format)
    check_export(model_of(backbone), tmp_path / "bundles", format)
    check_export(model_of(backbone, bundles=False, retired=("item-1", "item-4")), tmp_path / "backbone", format)
    run_readme(tmp_path / "bundles")


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_bundles_of_before_a_backbone_grew(format: str, tmp_path: Path) -> None:
    needs(format)
    before = tiny_pretrained()
    model = UserModel(tiny_pretrained(tiny_catalogue(15), grown_from=(before.identity,)), "cpu")
    for bundle in bundles_of(before):
        model.add_bundle(bundle)
    check_export(model, tmp_path / "out", format)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_the_table_of_items_is_written_once(format: str, tmp_path: Path) -> None:
    needs(format)
    pretrained = tiny_pretrained(tiny_catalogue(50_000))
    bundles = [tiny_bundle(pretrained, name=f"task-{i}", seed=i) for i in range(4)]
    export_model(UserModel(pretrained, "cpu"), tmp_path / "out", bundles, format=format)  # type: ignore[arg-type]
    table = pretrained.network.backbone.embedding.weight
    size = sum(file.stat().st_size for file in (tmp_path / "out").glob("model.*"))
    assert size < 2 * table.numel() * table.element_size()
