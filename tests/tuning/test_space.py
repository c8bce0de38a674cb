"""What may be searched: written in plain words, and refused before anything is trained where it cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from peterrec.config import AdaptConfig, PretrainConfig, TuneConfig, load_config
from peterrec.errors import ConfigError
from peterrec.tuning import space as spaces
from peterrec.tuning.space import Space

RATE = {"low": 1e-4, "high": 1e-2, "log": True}


def adapt_space(tree: dict[str, Any]) -> Space[AdaptConfig]:
    return Space.from_settings("adapt", AdaptConfig, tree)


def test_ranges_choices_and_single_values() -> None:
    space = adapt_space({"optim.lr": RATE, "patch": {"bottleneck": [4, 8, 16]}, "epochs": 5, "optim": {"clip_norm": 2}})
    assert space.searched == ("optim.lr", "patch.bottleneck")
    config = space.of_trial({"adapt.optim.lr": 3e-4, "adapt.patch.bottleneck": "8", "pretrain.epochs": 1})
    assert (config.optim.lr, config.optim.clip_norm, config.patch.bottleneck, config.epochs) == (3e-4, 2.0, 8, 5)  # type: ignore[attr-defined]
    assert len(space.corners()) == 6


def test_a_file_in_plain_words_with_the_numbers_of_yaml(tmp_path: Any) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("trials: 7\nadapt:\n  optim.lr: {low: 1e-4, high: 1e-2, log: true}\n  event_dropout: [0, 0.1]\n")
    config = load_config(TuneConfig, path, ["adapt.epochs=3"])
    space = adapt_space(config.adapt)
    assert (config.trials, space.ranges["optim.lr"].low, space.fixed) == (7, 1e-4, {"epochs": 3})


def test_whole_numbers_stay_whole_and_others_do_not() -> None:
    share, width = {"low": 0, "high": 1}, {"low": 2, "high": 8}
    space = adapt_space({"epochs": {"low": 2, "high": 9}, "event_dropout": share, "patch.bottleneck": width})
    assert space.integer_ranges == {"epochs", "patch.bottleneck"}
    kinds = {name: type(values).__name__ for name, values in space.distributions().items()}
    assert kinds == {
        "adapt.epochs": "IntDistribution",
        "adapt.event_dropout": "FloatDistribution",
        "adapt.patch.bottleneck": "IntDistribution",
    }


def test_groups_and_lists_can_be_values() -> None:
    space = adapt_space({"patch": [{"kind": "lora", "rank": 4}, {"kind": "bottleneck", "bottleneck": 8}]})
    assert [config.patch.kind for config in space.corners()] == ["lora", "bottleneck"]
    dilations = Space.from_settings("pretrain", PretrainConfig, {"backbone.dilations": [[1, 2], [1, 2, 4]]})
    assert [config.backbone.dilations for config in dilations.corners()] == [(1, 2), (1, 2, 4)]
    fixed = Space.from_settings("pretrain", PretrainConfig, {"backbone.dilations": [[1, 2, 4]]})
    assert fixed.searched == ()
    assert fixed.config({}).backbone.dilations == (1, 2, 4)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"optim.lrr": RATE}, r"optim.lrr: there is no such setting \(did you mean 'lr'\?\)"),
        ({"patch.insertoin": ["serial", "parallel"]}, "did you mean 'insertion'"),
        ({"optim.lr": {"low": 1.0, "hihg": 2.0}}, "range of adapt.optim.lr is none .*did you mean 'high'"),
        ({"optim.lr": {"low": 2, "high": 1}}, "low 2 is not below high 1"),
        ({"optim.lr": {"low": 0, "high": 1, "log": True}}, "low above 0"),
        ({"epochs": {"low": 1, "high": 4, "step": 2}}, "no whole number of steps of 2"),
        ({"optim.lr": RATE | {"step": 0.1}}, "log and step exclude each other"),
        ({"optim.lr": {"low": -1, "high": 1}}, r"not valid with optim.lr -1: .*greater than 0"),
        ({"patch.insertion": ["serial", "parallel"], "patch.inner_skip": [False, True]}, "serial.*inner_skip true"),
        ({"patch.kind": ["bottleneck", "lora"], "patch.rank": 4}, "patch.kind bottleneck"),
        ({"epochs": []}, "has no values to choose from"),
        ({"epochs": [3, 3]}, "has the same value twice"),
        ({"epochs": [3, 4], "optim.lr": RATE, "optim": {"lr": 0.1}}, "adapt.optim.lr stands twice"),
        ({"seed": [0, 1, 2]}, "adapt.seed is to vary, but trials .* cannot be compared"),
        ({"runner.precision": ["32-true", "bf16-mixed"]}, "cannot be compared"),
    ],
)
def test_what_cannot_be_is_refused(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        adapt_space(tree).corners()
    assert caught.value.remedy


def test_of_very_many_combinations_every_two_values_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"patch.insertion": ["parallel", "serial"], "patch.inner_skip": [False, True], "epochs": [1, 2, 3]}
    monkeypatch.setattr(spaces, "MOST_COMBINATIONS", 5)
    with pytest.raises(ConfigError, match=r"patch\.insertion serial, patch\.inner_skip true"):
        adapt_space(tree).corners()
    assert len(adapt_space(tree | {"patch.inner_skip": False}).corners()) == 6


def test_nothing_to_search() -> None:
    with pytest.raises(ConfigError, match="nothing to search"):
        spaces.searched_by([adapt_space({"epochs": 3}), adapt_space({"epochs": [3]})])
