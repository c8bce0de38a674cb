"""The README.md of an artifact: true numbers, and an example that runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec._version import __version__
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle

PRETRAINED = tiny_pretrained()


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    save_backbone(tmp_path / "backbone", PRETRAINED)
    return tmp_path / "backbone"


def run_example(folder: Path, backbone: Path) -> dict[str, object]:
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(code) == 1
    spoken: dict[str, object] = {}
    exec(code[0].replace("THIS_FOLDER", str(folder)).replace("BACKBONE_FOLDER", str(backbone)), spoken)
    return spoken


def test_a_backbone_card(backbone):
    card = (backbone / "README.md").read_text(encoding="utf-8")
    parameters = sum(parameter.numel() for parameter in PRETRAINED.network.parameters())
    for fact in (
        "2 residual blocks",
        "(dilations [1, 2]",
        "8 channels",
        "kernel 3, 12 items",
        f"{parameters:,} parameters",
        "on 7 users",
        "| mrr@10 | 0.2500 |",
        "at most the 6 most recent events",
        "unknown items: skip",
        PRETRAINED.fingerprint,
        PRETRAINED.catalogue.fingerprint,
        __version__,
    ):
        assert fact in card, fact
    assert run_example(backbone, backbone)["vectors"].shape == (1, 8)


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"objective": "masked items", "users": 9}, "to predict items that are masked in its input, on 9 users"),
        ({"objective": "next item", "users": 9}, "to predict the next item at every position, on 9 users"),
        (
            {"objective": "masked items and contrastive", "users": 9, "metrics": {"contrastive_loss": 1.0}},
            "masked in its input and to tell pieces of a user's history from those of others, on 9 users",
        ),
        ({"objective": "contrastive", "users": 9}, "pre-trained to tell pieces of a user's history from those"),
    ],
)
def test_a_card_says_what_pretraining_predicted(tmp_path, training, sentence):
    save_backbone(tmp_path / "b", tiny_pretrained(training=training))
    assert sentence in (tmp_path / "b" / "README.md").read_text(encoding="utf-8")


def test_a_card_without_a_training_record(tmp_path):
    save_backbone(tmp_path / "b", tiny_pretrained(training={}))
    assert "on ? users" in (tmp_path / "b" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("best_epoch", [-1, 0, None])
def test_a_bundle_card_says_that_the_start_was_kept(tmp_path, best_epoch):
    metrics = {"valid": {"accuracy": 0.5}} | ({} if best_epoch is None else {"best_epoch": best_epoch})
    save_bundle(tmp_path / "bundle", tiny_bundle(PRETRAINED, metrics=metrics))
    card = (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")
    assert ("\n\nNo epoch was better than the start, which is what is kept.\n\n- Works only" in card) == (
        best_epoch == -1
    )


@pytest.mark.parametrize("ranking", [False, True])
def test_a_bundle_card(tmp_path, backbone, ranking):
    targets = tiny_catalogue(5, first=0) if ranking else None
    bundle = tiny_bundle(PRETRAINED, targets=targets, metrics={"valid": {"accuracy": 2 / 3, "users": 40}})
    save_bundle(tmp_path / "bundle", bundle)
    card = (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")
    for fact in (
        f"# Adapter bundle `{bundle.name}`",
        "Strategy `patch`",
        f"{bundle.kind} task",
        f"{bundle.trainable_params:,} trained parameters, {bundle.trainable_params / 10:.2f} % of all",
        "| accuracy | 0.6667 |",
        "| users | 40 |",
        PRETRAINED.fingerprint,
        PRETRAINED.catalogue.fingerprint,
    ):
        assert fact in card, fact
    answers = run_example(tmp_path / "bundle", backbone)["answers"]
    assert len(answers.items[0]) == 3 if ranking else answers.probabilities.shape == (1, 3)
