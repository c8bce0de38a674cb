"""Two architectures, each with settings of its own; dilated ones are written as before there was a choice."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from peterrec.config import BackboneConfig, PretrainConfig, build_config, dump_yaml
from peterrec.errors import ConfigError

TRANSFORMER = {"architecture": "transformer"}


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        (TRANSFORMER | {"kernel_size": 3}, "a transformer backbone has no kernel_size: leave it out"),
        (TRANSFORMER | {"dilations": [1, 4]}, "a transformer backbone has no dilations"),
        ({"layers": 2}, "a dilated backbone has no layers"),
        ({"heads": 2}, "a dilated backbone has no heads"),
        ({"architecture": "dilated", "positions": 9}, "a dilated backbone has no positions"),
        ({"kernel_size": None}, "a dilated backbone needs kernel_size, such as 3"),
        (TRANSFORMER | {"layers": None}, "a transformer backbone needs layers, such as 2"),
        (TRANSFORMER | {"channels": 7}, "7 is no multiple of 2"),
        (TRANSFORMER | {"layers": 0}, "layers"),
        (TRANSFORMER | {"positions": 0}, "positions"),
        ({"dilations": []}, "dilations"),
        ({"kernel_size": 1}, "kernel_size"),
        ({"task_tokens": "last-end"}, "a causal backbone has [TCL] at the last end only: leave task_tokens out"),
        ({"architecture": "recurrent"}, "'dilated' or 'transformer'"),
        ({"architecture": ["transformer"]}, "architecture"),
    ],
)
def test_settings_of_the_other_architecture_and_impossible_ones_say_why(tree: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match="the configuration is not valid") as caught:
        build_config(BackboneConfig, tree)
    assert reason in caught.value.message


def test_a_transformer_has_defaults_of_its_own_and_none_of_the_convolutions() -> None:
    config = build_config(BackboneConfig, TRANSFORMER | {"channels": 32, "layers": 3})
    assert (config.layers, config.heads, config.positions, config.depth) == (3, 2, 512, 3)
    assert (config.kernel_size, config.dilations) == (None, None)
    assert BackboneConfig().depth == 4
    assert BackboneConfig(architecture="dilated") == BackboneConfig()


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"dilations": [1, 2]},
        TRANSFORMER,
        TRANSFORMER | {"kind": "noncausal"},
        {"kind": "noncausal", "task_tokens": "last-end"},
    ],
    ids=str,
)
def test_a_dump_can_be_read_again(tree: dict[str, Any]) -> None:
    config = PretrainConfig(backbone=build_config(BackboneConfig, tree))
    assert build_config(PretrainConfig, yaml.safe_load(dump_yaml(config))) == config
    assert build_config(BackboneConfig, config.backbone.model_dump(mode="json")) == config.backbone


def test_dilated_backbones_are_written_and_read_as_before_there_were_others() -> None:
    older = {
        "kind": "causal", "channels": 64, "kernel_size": 3, "dilations": [1, 4, 1, 4, 1, 4, 1, 4], "norm_eps": 1e-5,
        "tie_weights": True, "output_relu": False,
    }  # fmt: skip
    assert BackboneConfig.model_validate(older).model_dump(mode="json") == older
    assert build_config(BackboneConfig, older).tie_weights
    written = build_config(BackboneConfig, TRANSFORMER).model_dump(mode="json")
    assert set(written) - set(older) == {"architecture", "layers", "heads", "positions"}
    assert set(older) - set(written) == {"kernel_size", "dilations"}
