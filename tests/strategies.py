"""Random networks, patches and users for property tests, over all that is possible (hypothesis)."""

from __future__ import annotations

from itertools import product
from typing import Any

from hypothesis import strategies as st

from peterrec.config import PATCH_SETTINGS, BackboneConfig, PatchConfig

SPECIAL = 4

# What is possible, written down a second time: kind -> (insertion, position) -> whether there may be an inner skip.
POSSIBLE = {
    "bottleneck": {
        ("serial", "pre_norm"): (False,),
        ("serial", "pre_act"): (False,),
        ("parallel", "pre_norm"): (False, True),
        ("parallel", "pre_act"): (False, True),
        ("parallel", "post_act"): (False, True),
    },
    "lora": {("parallel", "pre_norm"): (False,)},
    "scale-shift": {("serial", "pre_act"): (False,)},
}
ACTIVATIONS: dict[str, tuple[str | None, ...]] = {
    "bottleneck": ("relu", "gelu", "gelu-tanh"),
    "lora": (None,),
    "scale-shift": (None,),
}
KINDS = tuple(POSSIBLE)


def places_of(kind: str) -> list[dict[str, Any]]:
    """Every possible insertion, position, inner skip and activation of a kind."""
    return [
        {"kind": kind, "insertion": insertion, "position": position, "inner_skip": skip, "activation": activation}
        for (insertion, position), skips in POSSIBLE[kind].items()
        for skip, activation in product(skips, ACTIVATIONS[kind])
    ]


@st.composite
def backbone_configs(draw: st.DrawFn, *, kind: str | None = None, channels: tuple[int, int] = (2, 7)) -> BackboneConfig:
    """A small backbone: any kind, places of [TCL], width, kernel, dilations, depth."""
    kind = kind or draw(st.sampled_from(["causal", "noncausal"]))
    return BackboneConfig(
        kind=kind,
        task_tokens="both-ends" if kind == "causal" else draw(st.sampled_from(["both-ends", "last-end"])),
        channels=draw(st.integers(*channels)),
        kernel_size=draw(st.integers(2, 4) if kind == "causal" else st.sampled_from([3, 5])),
        dilations=draw(st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)),
        norm_eps=draw(st.sampled_from([1e-5, 1e-8, 0.1])),
    )


@st.composite
def patch_configs(draw: st.DrawFn, backbone: BackboneConfig, *, kind: str | None = None) -> PatchConfig:
    """Any patch that is possible on a backbone."""
    kind = kind or draw(st.sampled_from(KINDS))
    settings = draw(st.sampled_from(places_of(kind)))
    for width in PATCH_SETTINGS[kind].shape_fields:
        channels = backbone.channels
        share = st.floats(0.01, (channels - 1) / channels)
        settings[width] = draw(st.integers(1, channels - 1) | share)
    return PatchConfig(
        **settings,
        per_block=draw(st.sampled_from([1, 2])),
        blocks=draw(st.none() | st.integers(1, len(backbone.dilations))),
        init=draw(st.sampled_from(["identity", "random"])),
        train_norms=draw(st.booleans()),
        train_task_token=draw(st.booleans()),
        item_rank=draw(st.none() | st.integers(1, 2)),
    )


@st.composite
def patched_backbones(draw: st.DrawFn, *, kind: str | None = None) -> tuple[BackboneConfig, PatchConfig]:
    """A backbone and a patch on it."""
    backbone = draw(backbone_configs(kind=kind))
    return backbone, draw(patch_configs(backbone))


def rows_of_tokens(items: int, *, longest: int = 14) -> st.SearchStrategy[list[int]]:
    """A row of tokens, special ones and [PAD] wherever hypothesis likes; at least one."""
    return st.lists(st.integers(0, items + SPECIAL - 1) | st.just(0), min_size=1, max_size=longest)


def users(items: int, *, max_users: int = 5, longest: int = 12) -> st.SearchStrategy[list[list[int]]]:
    """Histories of item indices without padding; some may be empty."""
    item = st.integers(SPECIAL, items + SPECIAL - 1)
    return st.lists(st.lists(item, max_size=longest), min_size=1, max_size=max_users)
