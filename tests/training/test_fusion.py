"""Attention over frozen patches of other tasks: what is trained, what stays, and that every path answers alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import peterrec
from builders import shaken, tiny_bundle, tiny_pretrained
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.config import AdaptConfig, BackboneConfig, FusionConfig, PatchConfig, build_config
from peterrec.data.corpus import Corpus
from peterrec.errors import PeterRecError
from peterrec.model import UserModel
from peterrec.nn.bank import PatchBank
from peterrec.nn.build import build_backbone
from peterrec.nn.fusion import FusionLayer, fused_patch
from peterrec.nn.patch import Patch
from peterrec.serving.engine import Engine
from peterrec.storage import read_json
from peterrec.training.adapt import adapt
from peterrec.training.adaptation_run import read_fused
from training.small import adapt_config

CONFIG = BackboneConfig(channels=8, dilations=(1, 2))
KINDS: list[dict[str, Any]] = [
    {"bottleneck": 2}, {"kind": "lora", "rank": 2}, {"kind": "scale-shift"},
    {"bottleneck": 3, "insertion": "parallel", "position": "post_act"},
]  # fmt: skip


def lively_patches() -> list[Patch]:
    return [shaken(Patch(PatchConfig(**kind), CONFIG), seed) for seed, kind in enumerate(KINDS)]  # type: ignore[misc]


def fused(seed: int = 0) -> Patch:
    patch = fused_patch(lively_patches(), 3, CONFIG, torch.Generator().manual_seed(seed))
    for layer in patch.layers():
        assert isinstance(layer, FusionLayer)
        for place, parameter in enumerate((layer.query, layer.key, layer.gain)):
            generator = torch.Generator().manual_seed(10 * seed + place)
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return patch


def test_a_layer_is_the_formula() -> None:
    patch = fused()
    layer = patch.layer_at(0)
    assert isinstance(layer, FusionLayer)
    x, h = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    layer_input: Any = type("Input", (), {"current": x, "through": lambda self, module: module(x)})()
    out = layer.pre_act(layer_input, h)  # only scale-shift acts there
    torch.testing.assert_close(out, h + layer.gain[2] * (layer.members[2].pre_act(layer_input, h) - h))
    pairs = [shaken(Patch(PatchConfig(bottleneck=2), CONFIG), seed) for seed in (1, 2)]
    patch = fused_patch(pairs, 3, CONFIG, torch.Generator().manual_seed(0))
    layer = patch.layer_at(1)
    assert isinstance(layer, FusionLayer)
    added = [member.net(h) - h for member in layer.members]
    torch.testing.assert_close(layer.pre_norm(layer_input, h), h + (added[0] + added[1]) / 2, msg="fresh: the mean")
    layer.query.data = torch.randn(3, 8)
    scores = torch.stack([((h @ layer.query.T) * (d @ layer.key.T)).sum(-1) / 3**0.5 for d in added])
    weights = scores.softmax(0).unsqueeze(-1)
    expected = h + weights[0] * added[0] + weights[1] * added[1]
    torch.testing.assert_close(layer.pre_norm(layer_input, h), expected)


def test_rows_of_a_bank_are_as_alone_also_beside_a_task_without_a_patch() -> None:
    backbone, patches = build_backbone(CONFIG, 9, seed=0).eval(), [fused(1).eval(), fused(2).eval()]
    shaken(backbone, 5)
    tokens = torch.tensor([[4, 5, 6, 7, 8], [5, 9, 4, 4, 6], [4, 5, 6, 7, 8], [8, 7, 6, 5, 4]])
    bank = PatchBank([*patches, None])
    with torch.inference_mode():
        mixed = backbone(tokens, bank.rows(torch.tensor([0, 1, 2, 1])))
        for row, patch in enumerate([patches[0], patches[1], None, patches[1]]):
            alone = backbone(tokens[row : row + 1], patch)
            torch.testing.assert_close(mixed[row : row + 1], alone, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(mixed[0], mixed[2])


@pytest.fixture(scope="module")
def sources(backbone: Path, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    for name in ("shop", "cluster"):
        adapt(backbone, corpus, name, folder / name, adapt_config(epochs=1))
    return {name: folder / name for name in ("shop", "cluster")}


def test_a_fused_bundle_holds_copies_and_answers_everywhere_alike(
    backbone: Path, corpus: Corpus, sources: dict[str, Path], tmp_path: Path
) -> None:
    model = UserModel.from_pretrained(backbone, "cpu")
    before = {name: path.joinpath("adapter_model.safetensors").read_bytes() for name, path in sources.items()}
    config = adapt_config(fuse=[str(sources["shop"]), str(sources["cluster"])], epochs=2, optim={"lr": 0.05},
                          patch=PatchConfig())  # fmt: skip
    bundle = adapt(model, corpus, "cluster", tmp_path / "fused", config)
    assert before == {name: path.joinpath("adapter_model.safetensors").read_bytes() for name, path in sources.items()}
    originals = [UserModel.from_pretrained(backbone, "cpu") for _ in range(2)]
    for original, name, place in zip(originals, ("shop", "cluster"), (0, 1), strict=True):
        patch = original.bundle(original.load_bundle(sources[name], "x")).patch
        assert bundle.patch is not None
        assert patch is not None
        for key, layer in bundle.patch.adapter_layers.items():
            assert isinstance(layer, FusionLayer)
            for tensor, source in zip(
                layer.members[place].state_dict().values(), patch.adapter_layers[key].state_dict().values(), strict=True
            ):
                assert torch.equal(tensor, source), "frozen"
            assert layer.query.abs().sum() > 0, "trained"
    meta = read_json(tmp_path / "fused" / "adapter_config.json")
    assert meta["patch"]["kind"] == "fusion"
    assert bundle.trained["patch"] == 4 * (2 * 8 + 2 * 8) < bundle.patch_params
    assert bundle.metrics["fused"] == ["shop", "cluster"]
    model.add_bundle(bundle, "made")
    model.load_bundle(tmp_path / "fused", "loaded")
    model.load_bundle(sources["cluster"], "cluster")
    part = corpus.task("cluster").part("test")
    answers = model.probabilities(part.sequences, "made")
    np.testing.assert_array_equal(answers, model.probabilities(part.sequences, "loaded"))
    assert np.abs(answers - model.probabilities(part.sequences, "cluster")).max() > 1e-4
    requests = [
        peterrec.Request(corpus.catalogue.decode(part.sequences.take(np.array([row])).items))
        for row in range(len(part))
    ]
    mixed = [answer.tasks["loaded"].probabilities for answer in Engine(model).predict(requests)]  # type: ignore[union-attr]
    names = bundle.class_names
    np.testing.assert_allclose([[row[name] for name in names] for row in mixed], answers, atol=1e-5)


@pytest.mark.parametrize(
    ("configs", "width", "message"),
    [
        ([{"train_norms": True}], 2, "of its own"), ([{"item_rank": 1}], 2, "of its own"),
        ([{"blocks": 1}, {}], 2, "different blocks"), ([{}], 8, "not narrower"),
        ([{"kind": "fusion", "members": [{}]}], 2, "fused itself"),
    ],
)  # fmt: skip
def test_patches_that_cannot_be_fused_are_refused(configs: list[Any], width: int, message: str) -> None:
    patches = [Patch(build_config(PatchConfig, config), CONFIG, items=3) for config in configs]
    with pytest.raises(PeterRecError, match=message):
        fused_patch(patches, width, CONFIG, None)


def test_bundles_that_have_no_patch_are_refused(tmp_path: Path) -> None:
    pretrained = tiny_pretrained()
    save_bundle(tmp_path / "head", tiny_bundle(pretrained, strategy="head"))
    for name, message in (("head", "no patch on the frozen backbone"), ("missing", "missing")):
        with pytest.raises(PeterRecError, match=message):
            read_fused([str(tmp_path / name)], UserModel(pretrained, "cpu"))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"fuse": ["a"], "strategy": "head"}, "strategy patch"),
        ({"fuse": ["a"], "patch": {"bottleneck": 3}}, "as they are"),
        ({"patch": {"kind": "fusion", "members": [{}]}}, "under fuse"), ({"patch": {"kind": "fusion"}}, "members"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(tree: Any, message: str) -> None:
    with pytest.raises(PeterRecError, match=message):
        build_config(AdaptConfig, tree)


def test_settings_of_a_fused_patch_survive_being_written_and_read() -> None:
    config = FusionConfig(members=tuple(PatchConfig(**kind) for kind in KINDS), width=3)
    assert build_config(PatchConfig, config.model_dump(mode="json")) == config
