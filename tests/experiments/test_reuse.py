"""Settings laid over settings."""

from __future__ import annotations

from peterrec.experiments.reuse import laid_over


def test_later_settings_win_one_by_one() -> None:
    grid = {"optim": {"lr": 1, "warmup_fraction": 2}, "epochs": 3}
    assert laid_over(grid, {"optim": {"lr": 9}}, {"epochs": 8, "seed": 0}) == {
        "optim": {"lr": 9, "warmup_fraction": 2}, "epochs": 8, "seed": 0,
    }  # fmt: skip
    assert grid == {"optim": {"lr": 1, "warmup_fraction": 2}, "epochs": 3}, "what was given stays"
    assert laid_over({"class_weights": "balanced"}, {"class_weights": {"a": 1}}) == {"class_weights": {"a": 1}}
    assert laid_over({"optim": {"lr": 1}}, {"optim": None}) == {"optim": None}


def test_another_kind_of_patch_is_another_patch_but_another_kind_of_backbone_is_not() -> None:
    patch = {"patch": {"insertion": "parallel", "bottleneck": 4}}
    assert laid_over(patch, {"patch": {"kind": "lora"}}) == {"patch": {"kind": "lora"}}
    assert laid_over(patch, {"patch": {"bottleneck": 8}}) == {"patch": {"insertion": "parallel", "bottleneck": 8}}
    backbone = {"backbone": {"channels": 32}}
    assert laid_over(backbone, {"backbone": {"kind": "noncausal"}}) == {
        "backbone": {"channels": 32, "kind": "noncausal"}
    }
