"""Which patches are possible: all that make sense, and the others say why they are not."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import pytest

from peterrec.config import PATCH_SETTINGS, AdaptConfig, PatchConfig
from peterrec.config.loading import build_config
from peterrec.errors import ConfigError
from strategies import ACTIVATIONS, POSSIBLE, places_of

PARALLEL = {"insertion": "parallel"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"kind": "lora", "insertion": "serial"}, "insertion can only be parallel"),
        ({"kind": "lora", "position": "pre_act"}, "position can only be pre_norm"),
        ({"kind": "lora", "position": "post_act"}, "position can only be pre_norm"),
        ({"kind": "lora", "activation": "relu"}, "LoRA is linear"),
        ({"kind": "lora", "rank": None}, "rank"),
        ({"kind": "lora", "inner_skip": True}, "inner_skip is of parallel bottlenecks"),
        ({"kind": "scale-shift", "insertion": "parallel"}, "insertion can only be serial"),
        ({"kind": "scale-shift", "position": "pre_norm"}, "position can only be pre_act"),
        ({"kind": "scale-shift", "bottleneck": 4}, "it has no bottleneck"),
        ({"kind": "scale-shift", "activation": "gelu"}, "scale-shift is linear"),
        ({"kind": "scale-shift", "inner_skip": True}, "inner_skip is of parallel bottlenecks"),
        ({"bottleneck": None}, "kind bottleneck needs a bottleneck"),
        ({"activation": None}, "would be linear"),
        ({"position": "post_act"}, "a serial patch after the activation"),
        ({"inner_skip": True}, "a serial one always has its residual"),
        ({"kind": "adapter"}, "bottleneck.*lora.*scale-shift"),
        (PARALLEL | {"position": "before"}, "pre_norm.*pre_act.*post_act"),
        ({"bottleneck": 0}, "greater than 0"),
        ({"bottleneck": -0.5}, "greater than 0"),
        ({"bottleneck": 1.5}, "less than 1"),
        ({"per_block": 3}, "1 or 2"),
        ({"blocks": 0}, "greater than 0"),
        ({"init": "zero"}, "identity.*random"),
        ({"scale": 2.0}, "no such setting"),
    ],
)
def test_what_is_impossible_says_why(settings, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        build_config(AdaptConfig, {"patch": settings})
    assert "patch" in caught.value.message


def test_exactly_what_the_table_of_places_says_is_possible():
    fields = {name: get_args(PatchConfig.model_fields[name].annotation) for name in ("insertion", "position")}
    fields = {"kind": tuple(PATCH_SETTINGS)} | fields
    accepted = []
    activations = ("relu", "gelu", "gelu-tanh", None)
    for kind, insertion, position, skip, act in product(*fields.values(), (False, True), activations):
        settings: dict[str, Any] = {"kind": kind, "insertion": insertion, "position": position}
        settings |= {"inner_skip": skip, "activation": act}
        try:
            PatchConfig(**settings)
        except ConfigError:
            continue
        accepted.append(settings)
    expected = [settings for kind in POSSIBLE for settings in places_of(kind)]
    assert sorted(map(str, map(sorted, map(dict.items, accepted)))) == sorted(
        map(str, map(sorted, map(dict.items, expected)))
    )
    assert set(ACTIVATIONS) == set(POSSIBLE) == set(fields["kind"])


def test_every_kind_has_defaults_of_its_own():
    plain, lora, scale = (PatchConfig(kind=kind) for kind in ("bottleneck", "lora", "scale-shift"))
    assert plain == PatchConfig(), "the paper's"
    assert (plain.insertion, plain.position, plain.bottleneck, plain.activation) == (
        "serial", "pre_norm", 0.125, "relu"
    )  # fmt: skip
    assert (lora.insertion, lora.position, lora.rank) == ("parallel", "pre_norm", 4)
    assert (scale.insertion, scale.position) == ("serial", "pre_act")
    assert not any(c.train_norms or c.train_task_token for c in (plain, lora, scale))
    assert not plain.inner_skip
    assert {c.init for c in (plain, lora, scale)} == {"identity"}


@pytest.mark.parametrize("settings", [s for kind in POSSIBLE for s in places_of(kind)], ids=str)
def test_settings_survive_being_written_and_read(settings):
    config = PatchConfig(**settings)
    assert PatchConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("width", [1.0, 1.5, True, 0, -1, 0.0])
def test_a_width_that_is_neither_channels_nor_a_share_is_refused(width):
    with pytest.raises(ConfigError, match="bottleneck"):
        build_config(AdaptConfig, {"patch": {"bottleneck": width}})


@pytest.mark.parametrize("kind", [["lora"], {"lora": 1}])
def test_a_kind_that_is_a_list_is_a_mistake_of_the_user_and_says_so(kind):
    with pytest.raises(ConfigError, match=r"bottleneck.*lora.*scale-shift"):
        build_config(AdaptConfig, {"patch": {"kind": kind}})
