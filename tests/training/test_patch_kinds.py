"""Every kind of patch from training to disk and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peterrec.config import PatchConfig
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.nn.patch import Patch
from peterrec.training.adapt import adapt
from training.small import adapt_config

pytestmark = pytest.mark.usefixtures("last_epoch_kept")

HISTORIES = [["s0001", "s0002", "s0009"], ["s0005"], [], ["s0003"] * 12]
# Settings, and the parameters of the patch by hand: 8 channels, 3 taps, two blocks of two sites.
KINDS: dict[str, tuple[dict[str, Any], int]] = {
    "lora": ({"kind": "lora", "rank": 2}, 4 * (8 * 3 * 2 + 2 * 8)),
    "scale-shift": ({"kind": "scale-shift"}, 4 * 16),
    "parallel, inner skip": (
        {"insertion": "parallel", "position": "post_act", "inner_skip": True, "bottleneck": 2},
        4 * (8 * 2 + 2 + 2 * 8 + 8),
    ),
    "the last block": ({"blocks": 1, "bottleneck": 2}, 2 * (8 * 2 + 2 + 2 * 8 + 8)),
    "norms and task token": (
        {"train_norms": True, "train_task_token": True, "bottleneck": 2},
        4 * (8 * 2 + 2 + 2 * 8 + 8) + 2 * 16 + 8,
    ),
    "numbers of its own for items": (
        {"item_rank": 2, "bottleneck": 2},
        4 * (8 * 2 + 2 + 2 * 8 + 8) + (24 + 4) * 2 + 2 * 8,
    ),
    "serial before the activation": (
        {"position": "pre_act", "activation": "gelu-tanh", "per_block": 1, "init": "random", "bottleneck": 0.25},
        2 * (8 * 2 + 2 + 2 * 8 + 8),
    ),
}


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", ["cluster", "shop"])
def test_a_patch_of_any_kind_is_trained_saved_and_answers_the_same_when_loaded(
    backbone: Path, model: UserModel, corpus: Corpus, tmp_path: Path, kind: str, task: str
) -> None:
    settings, params = KINDS[kind]
    config = adapt_config(epochs=2, patch=settings, optim={"lr": 0.03})
    bundle = adapt(model, corpus, task, tmp_path / "out", config)
    assert bundle.patch_params == params
    assert bundle.trained["patch"] == params
    start = Patch(config.patch, model.network.backbone.config, items=24).state_dict()
    assert isinstance(bundle.patch, Patch)
    for name, tensor in bundle.patch.state_dict().items():
        assert not np.array_equal(tensor.numpy(), start[name].numpy()), f"{name} was not trained"
    second_result = UserModel.from_pretrained(backbone, "cpu")
    second_result.load_bundle(tmp_path / "out", "disk")
    model.add_bundle(bundle, "memory")
    assert second_result.bundle("disk").patch_config == PatchConfig(**settings)
    vectors = model.represent(HISTORIES, "memory")
    assert np.array_equal(vectors, second_result.represent(HISTORIES, "disk"))
    assert not np.allclose(vectors, model.represent(HISTORIES), atol=1e-4)
    if task == "cluster":
        first, second = model.predict(HISTORIES, "memory"), second_result.predict(HISTORIES, "disk")
        assert np.array_equal(first.probabilities, second.probabilities)
    else:
        assert model.recommend(HISTORIES, "memory", 8) == second_result.recommend(HISTORIES, "disk", 8)


def test_a_bundle_of_one_kind_is_not_read_as_another(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    bundles = {
        name: adapt(model, corpus, "cluster", tmp_path / str(i), adapt_config(epochs=1, patch=KINDS[name][0]))
        for i, name in enumerate(("lora", "scale-shift"))
    }
    assert {name: bundle.patch_config for name, bundle in bundles.items()} == {
        name: PatchConfig(**KINDS[name][0]) for name in bundles
    }
    assert len({frozenset(bundle.tensors()) for bundle in bundles.values()}) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 3}, "patch.blocks is 3, but the backbone has 2 blocks"),
        ({"kind": "lora", "rank": 8}, "8 channels is not narrower than the backbone's 8"),
    ],
)
@pytest.mark.parametrize("strategy", ["patch", "patch-random"])
def test_a_patch_that_does_not_fit_the_backbone_is_refused_before_anything_is_written(
    model: UserModel, corpus: Corpus, tmp_path: Path, strategy: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        adapt(model, corpus, "cluster", tmp_path / "out", adapt_config(strategy=strategy, patch=settings))
    assert list(tmp_path.iterdir()) == []
