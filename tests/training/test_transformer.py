"""A transformer is pre-trained, adapted, saved and read as the dilated backbone is, with every strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from peterrec.artifacts.backbone_io import load_backbone, save_backbone
from peterrec.config import BackboneConfig, PatchConfig, Strategy
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import Sequences
from peterrec.model import UserModel
from peterrec.nn.transformer import TransformerBackbone
from peterrec.training.activation_cache import changed_blocks
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.pretrain import pretrain
from peterrec.training.strategies import PLANS, build
from training.small import LEARNS, adapt_config, pretrain_config

SMALL = BackboneConfig(architecture="transformer", channels=8, layers=3, heads=2)
STRATEGIES = [strategy for strategy in get_args(Strategy) if strategy != "joint"]


@pytest.fixture(scope="module")
def backbone_folder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a transformer pre-trained on the tiny corpus."""
    path = tmp_path_factory.mktemp("transformer") / "backbone"
    pretrain(corpus, path, pretrain_config(backbone=SMALL, epochs=1))
    return path


def some_users(model: UserModel) -> Sequences:
    rng = np.random.default_rng(0)
    return Sequences.from_rows([(4 + rng.integers(0, len(model.catalogue), n)).tolist() for n in (5, 0, 1, 9)])


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("task", ["cluster", "shop"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_leaves_the_backbone_as_it_is_and_its_bundle_answers_the_same_when_read(
    strategy: Strategy, task: str, corpus: Corpus, backbone_folder: Path, tmp_path: Path
) -> None:
    bytes_before = (backbone_folder / "model.safetensors").read_bytes()
    model = UserModel.from_pretrained(backbone_folder, device="cpu")
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    fresh = adapt(model, corpus, task, tmp_path / "out", adapt_config(strategy=strategy, epochs=1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    assert (backbone_folder / "model.safetensors").read_bytes() == bytes_before
    plan = PLANS[strategy]
    assert (fresh.patch is not None, fresh.backbone is not None) == (plan.patch, plan.unshared != 0)
    model.add_bundle(fresh, name="fresh")
    read = UserModel.from_pretrained(backbone_folder, device="cpu")
    read.load_bundle(tmp_path / "out", name="read")
    answers = [m.representations(some_users(model), name) for m, name in ((model, "fresh"), (read, "read"))]
    np.testing.assert_array_equal(*answers)
    moved = not np.array_equal(answers[0], model.representations(some_users(model)))
    assert moved == (strategy != "head")


def test_a_joint_training_works_too(corpus: Corpus, backbone_folder: Path, tmp_path: Path) -> None:
    bundles = adapt_jointly(
        backbone_folder, corpus, ["cluster", "shop"], tmp_path / "out", adapt_config(strategy="joint", epochs=1)
    )
    assert set(bundles) == {"cluster", "shop"}


def test_it_is_read_bit_by_bit_as_it_was_written_and_its_card_says_what_it_is(
    backbone_folder: Path, tmp_path: Path
) -> None:
    first = load_backbone(backbone_folder)
    assert isinstance(first.network.backbone, TransformerBackbone)
    assert first.network.backbone.positions.weight.abs().sum() > 0, "pre-training has taught it positions"
    save_backbone(tmp_path / "again", first)
    second = load_backbone(tmp_path / "again")
    assert (second.fingerprint, second.network.backbone.config) == (first.fingerprint, SMALL)
    users = some_users(UserModel(first, "cpu"))
    np.testing.assert_array_equal(*(UserModel(p, "cpu").representations(users) for p in (first, second)))
    card = (backbone_folder / "README.md").read_text()
    assert "3 blocks of self-attention\n(2 heads; 512 positions from the last event back), 8 channels, 24 items" in card


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"strategy": "head"}, 0),
        ({"strategy": "last-sublayer"}, None),
        ({"strategy": "last1"}, None),
        ({"strategy": "patch", "patch": PatchConfig(bottleneck=2, blocks=1)}, None),
        ({"strategy": "all"}, None),
    ],
    ids=str,
)
def test_states_below_are_shared_only_where_nothing_is_changed(
    settings: dict[str, Any], changed: int | None, corpus: Corpus, backbone_folder: Path, tmp_path: Path
) -> None:
    """What is above a cut would need the states of whole windows."""
    config = adapt_config(**settings)
    spec = corpus.task("cluster")
    parts = build(
        config, UserModel.from_pretrained(backbone_folder, device="cpu").network.backbone, spec, spec.part("train")
    )
    assert changed_blocks(parts) == changed
    actual = []
    for cache in ("auto", "off"):
        second_result = adapt_config(**settings, epochs=1, cache=cache)
        actual.append(adapt(backbone_folder, corpus, "cluster", tmp_path / cache, second_result).head.weight)
    torch.testing.assert_close(*actual, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("backbone", [{}, {"architecture": "transformer"}, {"architecture": "transformer", "heads": 1}])
def test_both_architectures_learn_what_is_next_and_a_patch_learns_the_task(
    backbone: dict[str, Any], structured: Corpus, tmp_path: Path
) -> None:
    shape = {"dilations": (1, 2)} if not backbone else {"layers": 2}
    config = pretrain_config(
        backbone=BackboneConfig(channels=16, **backbone, **shape), epochs=2, valid_fraction=0.2, **LEARNS
    )
    model = pretrain(structured, tmp_path / "backbone", config)
    curve = model.pretrained.training["curve"]
    assert curve[1]["valid_loss"] < curve[0]["valid_loss"] < np.log(len(model.catalogue))
    assert model.pretrained.training["metrics"]["hr@10"] > 2 * 10 / len(model.catalogue)
    bundle = adapt(model, structured, "cluster", tmp_path / "bundle", adapt_config(epochs=3, **LEARNS))
    assert bundle.metrics["valid"]["accuracy"] > 0.8
