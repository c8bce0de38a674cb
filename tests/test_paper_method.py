"""`configs/paper-method.yaml` is the paper's method: each departure in the table of docs/paper.md is undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from peterrec.config import RunConfig, load_config
from peterrec.training.patch_size import wide_patch_line

ROOT = Path(__file__).resolve().parents[1]
TITLE = "## Where paper, authors' code and this project differ"
PRESET, DEMO = ROOT / "configs" / "paper-method.yaml", ROOT / "configs" / "demo.yaml"

# What the column of the paper says, in settings: of each row of the table, or why it needs none.
PAPER: dict[str, dict[str, Any] | str] = {
    "residual inside a parallel patch": {"adapt.patch.insertion": "serial", "adapt.patch.inner_skip": False},
    "initial weights of a patch": {"adapt.patch.init": "identity"},
    "activation of a patch": {"adapt.patch.activation": "relu"},
    "bottleneck": {"adapt.patch.kind": "bottleneck", "adapt.patch.bottleneck": 0.125},
    "second LayerNorms": {"adapt.patch.train_norms": False},
    "ranking loss": {
        "adapt.ranking_loss": "bpr",
        "adapt.negatives.sampling": "uniform",
        "adapt.negatives.count": 1,
        "adapt.optim.weight_decay": 0.0,
    },
    "[TCL], [MASK], unknown item": "as in the paper",
    "item embeddings": {"pretrain.item_init": "random", "pretrain.train_item_embeddings": True},
    "where a head starts": {"adapt.head_init": "random"},
    "what the head reads": {"adapt.readout": "token"},
    "objective of pre-training": {
        "pretrain.contrastive.weight": 0.0,
        "pretrain.prediction_weight": 1.0,
        "pretrain.masking.mask_fraction": 0.0,
        "pretrain.backbone.kind": "causal",
    },
    "output table": {"pretrain.backbone.tie_weights": False},
    "dropout": {"pretrain.dropout": 0.0},
    "ReLU before the full softmax": {"pretrain.backbone.output_relu": False},
    "sampled softmax": "no setting: both tend to the full softmax",
    "LayerNorm epsilon": "not said in the paper",
    "vocabulary": "as in the paper",
    "split": "as in the paper",
    "negatives of the evaluation": "as in the paper",
    "accuracy": "as in the paper",
}
# Of the method too, and not in the table: what this project could add and does not by default.
NOTHING_ELSE: dict[str, Any] = {
    "pretrain.backbone.architecture": "dilated",
    "adapt.patch.position": "pre_norm",
    "adapt.patch.per_block": 2,
    "adapt.patch.train_task_token": False,
    "adapt.patch.item_rank": None,
    "adapt.event_dropout": 0.0,
    "adapt.prefix_fraction": 0.0,
    "adapt.label_smoothing": 0.0,
    "adapt.class_weights": None,
}
SETTINGS = {
    path: value for row in PAPER.values() if isinstance(row, dict) for path, value in row.items()
} | NOTHING_ELSE


def matters() -> list[str]:
    """Return the first cell of each row of the table."""
    section = (ROOT / "docs" / "paper.md").read_text().partition(TITLE)[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    assert rows[0] == "matter"
    return rows[2:]


def value_at(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = tree[name] if isinstance(tree, dict) else getattr(tree, name)
    return tree


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Return the values of a tree by their dotted path."""
    if not isinstance(tree, dict):
        return {path: tree}
    branches = (leaves(branch, f"{path}.{name}".lstrip(".")) for name, branch in tree.items())
    return {key: value for branch in branches for key, value in branch.items()}


def test_every_departure_has_its_value_in_the_preset() -> None:
    assert matters() == [*PAPER], "a row of the table is new, or gone: say what the paper's value is"


@pytest.mark.parametrize("path", SETTINGS)
def test_the_value_is_the_papers_and_written_out(path: str) -> None:
    # Written out, so that no later default becomes a departure.
    assert value_at(yaml.safe_load(PRESET.read_text()), path) == SETTINGS[path]
    assert value_at(load_config(RunConfig, PRESET), path) == SETTINGS[path]


def test_nothing_else_differs_from_the_demo() -> None:
    preset, demo = (leaves(load_config(RunConfig, path).model_dump()) for path in (PRESET, DEMO))
    differing = {path for path in preset.keys() | demo.keys() if preset.get(path) != demo.get(path)}
    assert differing - {*SETTINGS} == {"title"}
    assert "adapt.readout" in differing
    assert preset.keys() == demo.keys()


def test_the_patch_is_below_a_tenth_of_its_convolution() -> None:
    settings = load_config(RunConfig, PRESET)
    assert wide_patch_line(settings.adapt.patch, settings.pretrain.backbone) is None
