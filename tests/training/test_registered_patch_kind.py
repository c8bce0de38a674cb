"""A kind of patch from outside the package: one class and one entry, and all verbs take it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from peterrec.config import PATCH_SETTINGS, AdaptConfig, PatchConfig, load_config
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError, FormatVersionError
from peterrec.model import UserModel
from peterrec.nn.adapter_layer import PATCH_KINDS, AdapterLayer, register_patch_kind
from peterrec.nn.insertion import LayerInput, SublayerShape
from peterrec.serving.engine import Engine
from peterrec.serving.requests import Request
from peterrec.storage import read_json, write_json
from peterrec.training.adapt import adapt
from training.small import adapt_config

HISTORIES = [["s0001", "s0002", "s0009"], ["s0005"], [], ["s0003"] * 12]


class GateConfig(PatchConfig):
    """A gate for each channel after the activation."""

    unsupported = {"bottleneck": "a gate has no bottleneck"}  # noqa: RUF012

    kind: Literal["gate"] = "gate"
    insertion: Literal["serial"] = "serial"
    position: Literal["post_act"] = "post_act"
    slope: float = Field(default=2.0, description="of the gate")


class GateLayer(AdapterLayer):
    """h * (1 + tanh(slope * weight))."""

    settings = GateConfig

    def __init__(self, channels: int, slope: float, init: str, generator: torch.Generator | None) -> None:
        super().__init__()
        self.slope = slope
        self.weight = nn.Parameter(torch.zeros(channels))
        if init == "random":
            nn.init.normal_(self.weight, std=0.1, generator=generator)

    @classmethod
    def build(cls, config: Any, shape: SublayerShape, generator: torch.Generator | None) -> AdapterLayer:
        return cls(shape.channels, config.slope, config.init, generator)

    def post_act(self, layer_input: LayerInput, h: Tensor) -> Tensor:
        return h * (1 + torch.tanh(self.slope * self.weight))


@pytest.fixture
def gate() -> Iterator[str]:
    register_patch_kind(GateLayer)
    yield "gate"
    del PATCH_KINDS["gate"], PATCH_SETTINGS["gate"]


def test_a_kind_from_outside_is_trained_saved_loaded_and_served(
    backbone: Path, model: UserModel, corpus: Corpus, tmp_path: Path, gate: str
) -> None:
    patches = {
        "gate": {"kind": gate, "slope": 3.0, "train_norms": True},
        "other-gate": {"kind": gate, "slope": 3.0, "train_norms": True, "init": "random"},
        "bottleneck": {"bottleneck": 2},
    }
    loaded = UserModel.from_pretrained(backbone, "cpu")
    for name, patch in patches.items():
        config = adapt_config(epochs=1, patch=patch, optim={"lr": 0.03})
        model.add_bundle(adapt(model, corpus, "cluster", tmp_path / name, config), name)
        loaded.load_bundle(tmp_path / name, name)
        assert loaded.bundle(name).patch_config == PatchConfig(**patch)
    engine = Engine(loaded)
    answers = engine.predict([Request(history) for history in HISTORIES])
    for name in patches:
        expected = model.predict(HISTORIES, name).probabilities
        np.testing.assert_array_equal(loaded.predict(HISTORIES, name).probabilities, expected)
        assert name == "gate" or not np.allclose(expected, model.predict(HISTORIES, "gate").probabilities)
        for answer, row in zip(answers, expected, strict=True):
            np.testing.assert_allclose(list(answer.tasks[name].probabilities.values()), row, atol=1e-5)


def test_its_settings_are_read_from_the_command_line_and_refused_with_its_reasons(gate: str) -> None:
    config = load_config(AdaptConfig, None, ["patch.kind=gate", "patch.slope=0.5"])
    assert config.patch == GateConfig(slope=0.5)
    assert AdaptConfig.model_validate(config.model_dump(mode="json")) == config
    with pytest.raises(ConfigError, match="a gate has no bottleneck"):
        load_config(AdaptConfig, None, ["patch.kind=gate", "patch.bottleneck=8"])


def test_without_its_module_the_message_names_the_kinds_there_are() -> None:
    with pytest.raises(ConfigError, match="'gate' is no kind of patch: choose one of bottleneck, lora, scale-shift"):
        PatchConfig(kind="gate")


def test_a_patch_of_an_older_version_is_refused_and_says_so(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    adapt(model, corpus, "cluster", tmp_path / "out", adapt_config(epochs=1))
    path = tmp_path / "out" / "adapter_config.json"
    meta = read_json(path)
    meta["patch"]["start"] = meta["patch"].pop("init")
    write_json(path, meta | {"format_version": 1})
    with pytest.raises(FormatVersionError, match="format version 1") as caught:
        model.load_bundle(tmp_path / "out", "old")
    assert "make the artifact again" in (caught.value.remedy or "")
