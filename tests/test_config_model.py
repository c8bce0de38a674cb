"""Settings of networks and training that do not go together are refused, and say why; those that do are kept."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import yaml

from peterrec.config import (
    AdaptConfig,
    BackboneConfig,
    Config,
    PatchConfig,
    PretrainConfig,
    RunConfig,
    build_config,
    dump_yaml,
)
from peterrec.config.pretraining import MaskingConfig
from peterrec.config.training import NegativesConfig, Strategy
from peterrec.errors import ConfigError
from peterrec.training.strategies import PLANS

HARD = {"sampling": "hard", "count": 4, "candidates": 5}


@pytest.mark.parametrize(
    ("cls", "tree", "reason"),
    [
        (AdaptConfig, {"ranking_loss": "sampled-softmax", "negatives": HARD}, "which is not known of hard ones"),
        (AdaptConfig, {"negatives": HARD | {"candidates": 4}}, "candidates must be above count"),
        (NegativesConfig, HARD | {"count": 60, "candidates": 50}, "candidates must be above count"),
        (NegativesConfig, {"power": 0}, "power"),
        (NegativesConfig, {"power": 1.1}, "power"),
        (AdaptConfig, {"label_smoothing": 1}, "label_smoothing"),
        (AdaptConfig, {"class_weights": "equal"}, "class_weights"),
        (AdaptConfig, {"class_weights": {"young": 0}}, "class_weights"),
        (AdaptConfig, {"class_weights": {True: 5.0}}, "quote the names"),
        (AdaptConfig, {"strategy": "last3"}, "strategy"),
        (AdaptConfig, {"joint_init": "scratch"}, "joint_init"),
        (BackboneConfig, {"kind": "noncausal", "kernel_size": 2}, "kernel_size must be odd"),
        (PretrainConfig, {"backbone": {"kind": "noncausal", "kernel_size": 4}}, "kernel_size must be odd"),
        (
            PretrainConfig,
            {"backbone": {"kind": "noncausal"}, "masking": {"mask_fraction": 0}},
            "masking.mask_fraction must be above 0",
        ),
        (PretrainConfig, {"prediction_weight": 0, "contrastive": {"weight": 0}}, "nothing would be learned"),
        (PretrainConfig, {"contrastive": {"weight": 1, "min_events": 50}}, "min_events is above max_events"),
        (
            PretrainConfig,
            {"monitor": "contrastive_loss", "contrastive": {"weight": 0}},
            "needs contrastive.weight above 0",
        ),
        (
            PretrainConfig,
            {"contrastive": {"weight": 1}, "prediction_weight": 0, "monitor": "mrr@10"},
            "needs prediction_weight above 0",
        ),
        (PretrainConfig, {"dropout": 1}, "dropout"),
        (MaskingConfig, {"mask_replace_fraction": 0.5}, "random_replace_fraction must be 1"),
        (MaskingConfig, {"mask_fraction": 1.5}, "mask_fraction"),
        (MaskingConfig, {"max_masked": 0}, "max_masked"),
    ],
)
def test_settings_that_do_not_go_together_say_why(cls: type[Config], tree: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match="the configuration is not valid") as caught:
        build_config(cls, tree)
    assert reason in caught.value.message


@pytest.mark.parametrize(("windows", "rows"), [(1, 32), (3_200, 32), (6_400, 64), (12_800, 128), (10**7, 128)])
def test_few_windows_are_read_in_small_batches(windows: int, rows: int) -> None:
    assert PretrainConfig().batch_size_for(windows) == rows
    assert PretrainConfig(batch_size=7).batch_size_for(windows) == 7


def test_classes_that_are_numbers_may_be_named_by_them() -> None:
    config = build_config(AdaptConfig, yaml.safe_load("class_weights: {0: 1.0, 1: 5.0, old: 2}"))
    assert config.class_weights == {"0": 1.0, "1": 5.0, "old": 2.0}


@pytest.mark.parametrize(
    ("cls", "tree"),
    [
        (AdaptConfig, {"ranking_loss": "bce", "negatives": HARD}),
        (AdaptConfig, {"ranking_loss": "sampled-softmax", "negatives": {"sampling": "popularity", "count": 90}}),
        (NegativesConfig, {"count": 60, "candidates": 50}),  # not hard: candidates are not looked at
        (BackboneConfig, {"kernel_size": 2}),
        (PretrainConfig, {"backbone": {"output_relu": True}}),
        (PretrainConfig, {"masking": {"mask_fraction": 0}}),
        (AdaptConfig, {"class_weights": "balanced"}),
        (AdaptConfig, {"class_weights": {"young": 2, "old, or older": 0.5}, "label_smoothing": 0.1}),
        (AdaptConfig, {"patch": {"kind": "lora"}}),
        (AdaptConfig, {"patch": {"kind": "scale-shift"}, "strategy": "patch-random"}),
        (AdaptConfig, {"strategy": "joint", "joint_init": "random"}),
        (
            PretrainConfig,
            {
                "backbone": {"kind": "noncausal"},
                "masking": {"mask_replace_fraction": 0.5, "keep_fraction": 0.2, "random_replace_fraction": 0.3},
            },
        ),
    ],
    ids=str,
)
def test_settings_that_go_together_survive_a_dump(cls: type[Config], tree: dict[str, Any]) -> None:
    config = build_config(cls, tree)
    assert build_config(cls, yaml.safe_load(dump_yaml(config))) == config


def test_the_share_that_is_masked_goes_by_the_kind_if_nothing_is_said() -> None:
    def share(**settings: Any) -> float:
        return PretrainConfig(**settings).mask_fraction

    noncausal = {"kind": "noncausal"}
    assert (share(), share(backbone=noncausal)) == (0.0, 0.3)
    assert (share(masking={"mask_fraction": 0.2}), share(backbone=noncausal, masking={"mask_fraction": 0.2})) == (
        0.2,
        0.2,
    )
    assert share(masking={"mask_fraction": 0}) == 0.0


def test_every_strategy_has_a_plan_and_may_be_part_of_a_run() -> None:
    names = get_args(Strategy)
    assert set(names) == set(PLANS)
    assert len(names) == 9
    events = {"events": {"paths": ["a.parquet"]}}
    assert build_config(RunConfig, {"prepare": events, "strategies": names}).strategies == names


def test_a_patch_is_by_default_what_its_kind_is() -> None:
    lora, shift = PatchConfig(kind="lora"), PatchConfig(kind="scale-shift")
    assert (lora.insertion, lora.position, lora.rank) == ("parallel", "pre_norm", 4)
    assert (shift.insertion, shift.position) == ("serial", "pre_act")
    assert PatchConfig() == PatchConfig(kind="bottleneck", insertion="serial", position="pre_norm", bottleneck=0.125)


def test_off_is_a_truth_value_in_yaml() -> None:
    assert AdaptConfig.model_validate({"cache": False}).cache == "off"


@pytest.mark.parametrize("strategy", ["auto", "ddp", "fsdp"])
def test_devices_train_in_one_way_and_have_no_strategy(strategy: str) -> None:
    with pytest.raises(ConfigError, match="strategy is no setting: several devices always train in one way"):
        build_config(PretrainConfig, {"runner": {"strategy": strategy}})
