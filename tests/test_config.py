"""Settings: YAML, values and overrides in; one frozen, complete configuration out; mistakes name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from peterrec.config import (
    ActivityConfig,
    AdaptConfig,
    BackboneConfig,
    ClassificationTaskConfig,
    Config,
    EvaluateConfig,
    ExperimentConfig,
    OptimConfig,
    PatchConfig,
    PrepareConfig,
    PretrainConfig,
    RankingTaskConfig,
    RunConfig,
    SourceConfig,
    SplitConfig,
    build_config,
    dump_yaml,
    load_config,
    same_settings,
    with_settings,
)
from peterrec.config.unique_keys import load_yaml
from peterrec.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
VERBS: list[type[Config]] = [RunConfig, PrepareConfig, PretrainConfig, AdaptConfig, EvaluateConfig, ExperimentConfig]
EVENTS = {"events": {"paths": ["a.parquet"]}}
ACTIVITY = {"activity": {"after": "2001"}}


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def model_of(path: Path) -> type[Config]:
    """The verb whose settings have the top-level keys of a file."""
    keys = set(yaml.safe_load(path.read_text(encoding="utf-8")))
    fitting = [cls for cls in VERBS if keys <= set(cls.model_fields)]
    assert fitting, f"{path}: no verb has the settings {sorted(keys)}"
    return fitting[0]


# ---------------------------------------------------------------- the files there are


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_file_is_valid_and_survives_a_dump(path, tmp_path):
    config = load_config(model_of(path), path)
    assert load_config(type(config), write(tmp_path, dump_yaml(config))) == config


def test_the_demo_is_a_whole_run():
    assert model_of(CONFIGS / "demo.yaml") is RunConfig
    config = load_config(RunConfig, CONFIGS / "demo.yaml")
    assert [task.kind for task in config.prepare.tasks] == ["classification", "classification", "ranking"]
    assert config.pretrain.epochs == 8


# ---------------------------------------------------------------- round trips


COMPLETE_CONFIGS: list[Config] = [
    build_config(PrepareConfig, EVENTS),
    PretrainConfig(),
    AdaptConfig(patch=PatchConfig(bottleneck=8, activation="gelu")),
    EvaluateConfig(),
    build_config(RunConfig, {"title": "Ä: #1", "prepare": EVENTS, "task_overrides": {"age": {"optim": {"lr": 1e-4}}}}),
]


@pytest.mark.parametrize("config", COMPLETE_CONFIGS, ids=lambda config: type(config).__name__)
def test_a_dump_has_every_setting_and_loads_again(config, tmp_path):
    text = dump_yaml(config)
    later_settings = getattr(config, "later_settings", frozenset())  # not written where they have their default
    assert set(yaml.safe_load(text)) == set(type(config).model_fields) - later_settings
    assert load_config(type(config), write(tmp_path, text)) == config


positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@pytest.mark.parametrize("build", [
    lambda: load_config(AdaptConfig, None, ["optim.lr=0.3"]),
    lambda: AdaptConfig(optim={"lr": 0.3}),
    lambda: with_settings(AdaptConfig, None, {"optim": {"lr": 0.3}}),
    lambda: with_settings(AdaptConfig, AdaptConfig(epochs=2), {"optim": {"lr": 0.3}}),
    lambda: build_config(RunConfig, {"prepare": EVENTS, "adapt": {"optim": {"lr": 0.3}}}).adapt,
])  # fmt: skip
def test_one_setting_of_a_group_leaves_the_defaults_that_a_verb_has_for_it(build):
    """The weight decay of `adapt` is not that of the optimiser's own defaults, and stays where a rate is given."""
    assert AdaptConfig().optim.weight_decay == 0.01 != OptimConfig().weight_decay
    assert build().optim == OptimConfig(lr=0.3, weight_decay=0.01)
    assert AdaptConfig(optim={"weight_decay": 0}).optim == OptimConfig(lr=0.002, weight_decay=0)


def test_a_group_of_settings_given_as_an_object_is_taken_as_it_is():
    assert AdaptConfig(optim=OptimConfig(lr=0.3)).optim.weight_decay == 0


@given(
    lr=positive, decay=st.floats(min_value=0, allow_infinity=False), warmup=st.floats(0, 1), clip=st.none() | positive
)
def test_any_number_survives_a_dump(lr, decay, warmup, clip):
    config = OptimConfig(lr=lr, weight_decay=decay, warmup_fraction=warmup, clip_norm=clip)
    assert build_config(OptimConfig, yaml.safe_load(dump_yaml(config))) == config


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_survives_a_dump(text):
    config = ActivityConfig(after=text, active="yes", inactive="0123")
    assert build_config(ActivityConfig, yaml.safe_load(dump_yaml(config))) == config


# ---------------------------------------------------------------- overrides


def test_values_beat_the_file_and_overrides_beat_both(tmp_path):
    path = write(
        tmp_path, "epochs: 1\nbatch_size: 1\nseed: 1\noptim: {lr: 0.1, warmup_fraction: 0.1, schedule: constant}\n"
    )
    config = load_config(
        AdaptConfig, path, ["seed=3", "optim.lr=0.3"], batch_size=2, seed=2, optim={"warmup_fraction": 0.2, "lr": 0.2}
    )
    assert (config.epochs, config.batch_size, config.seed) == (1, 2, 3)
    assert config.optim == OptimConfig(lr=0.3, weight_decay=0.01, warmup_fraction=0.2, schedule="constant")


def test_without_anything_come_the_defaults(tmp_path):
    assert load_config(AdaptConfig) == AdaptConfig() == load_config(AdaptConfig, write(tmp_path, "# nothing\n"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim.lr=1e-3", {"optim": {"lr": 1e-3}}),
        ("optim.clip_norm=null", {"optim": {"clip_norm": None}}),
        ("patch.bottleneck=8", {"patch": {"bottleneck": 8}}),
        ("patch.bottleneck=0.25", {"patch": {"bottleneck": 0.25}}),
        ("runner.progress=false", {"runner": {"progress": False}}),
        ("runner={accelerator: cpu, devices: 2}", {"runner": {"accelerator": "cpu", "devices": 2}}),
        ("strategy=head", {"strategy": "head"}),
    ],
)
def test_an_override_is_a_dotted_key_and_a_yaml_value(override, expected):
    assert load_config(AdaptConfig, None, [override]) == build_config(AdaptConfig, expected)


def test_an_override_may_hold_an_equals_sign_or_a_list():
    config = load_config(PrepareConfig, None, ["split.salt=a=b", "events.paths=[a.csv, b.csv]"], **EVENTS)
    assert config.split.salt == "a=b"
    assert config.events.paths == ("a.csv", "b.csv")


def test_overriding_changes_nothing_the_caller_holds():
    mine = {"lr": 0.1}
    assert load_config(AdaptConfig, None, ["optim.lr=0.2"], optim=mine).optim.lr == 0.2
    assert mine == {"lr": 0.1}


@pytest.mark.parametrize("override", ["seed", "=3", ""])
def test_an_override_without_key_or_value_is_refused(override):
    with pytest.raises(ConfigError, match="is not KEY=VALUE"):
        load_config(AdaptConfig, None, [override])


@pytest.mark.parametrize(
    "text", ["epochs: 1\nseed: 1\nepochs: 2\n", "optim: {lr: 0.1, lr: 0.2}\n", "optim:\n  lr: 1\n  'lr': 2\n"]
)
def test_a_key_that_stands_twice_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="the same key stands twice") as error:
        load_config(AdaptConfig, write(tmp_path, text))
    assert "line" in str(error.value)


def test_a_merged_key_may_be_overridden(tmp_path):
    text = "optim: &base {lr: 0.1, warmup_fraction: 0.2}\n"
    assert load_yaml(f"{text}other:\n  <<: *base\n  lr: 0.3\n")["other"] == {"lr": 0.3, "warmup_fraction": 0.2}


def test_an_override_that_is_no_yaml_is_refused():
    with pytest.raises(ConfigError, match=r"override 'seed=\[1' is not valid YAML"):
        load_config(AdaptConfig, None, ["seed=[1"])


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("cls", "tree", "key"),
    [
        (AdaptConfig, {"epoch": 3}, "epoch: there is no such setting (did you mean 'epochs'?)"),
        (AdaptConfig, {"optim": {"learning_rate": 1}}, "optim.learning_rate: there is no such setting"),
        (
            RunConfig,
            {"prepare": EVENTS | {"source": {"max_len": 3}}},
            "prepare.source.max_len: there is no such setting",
        ),
        (RunConfig, {}, "prepare: Field required"),
        (PrepareConfig, {"events": {"paths": []}}, "events.paths"),
        (PrepareConfig, {"events": {"paths": "a.parquet"}}, "events.paths"),
        (PrepareConfig, EVENTS | {"tasks": [{"name": "a", "kind": "regression"}]}, "tasks.0"),
        (PrepareConfig, EVENTS | {"tasks": [{"name": "../a", "kind": "ranking"}]}, "tasks.0.ranking.name"),
        (
            PrepareConfig,
            EVENTS | {"tasks": [{"name": "a", "kind": "ranking", "after": "2001"}] * 2},
            "two tasks have the name 'a'",
        ),
        (ClassificationTaskConfig, {"name": "a"}, "exactly one of `labels` and `activity`"),
        (ClassificationTaskConfig, {"name": "a", "labels": {"path": "p", "label": "l"}} | ACTIVITY, "exactly one"),
        (RankingTaskConfig, {"name": "a"}, "which events are targets"),
        (SplitConfig, {"train": 0.8}, "train + valid + test must be 1"),
        (SplitConfig, {"train": 1.2, "valid": -0.2, "test": 0.0}, "valid"),
        (BackboneConfig, {"kernel_size": 1}, "kernel_size"),
        (BackboneConfig, {"dilations": []}, "dilations"),
        (BackboneConfig, {"dilations": [1, 0]}, "dilations.1"),
        (PatchConfig, {"bottleneck": 0}, "bottleneck"),
        (PatchConfig, {"bottleneck": 1.5}, "bottleneck"),
        (PatchConfig, {"per_block": 3}, "per_block"),
        (OptimConfig, {"lr": 0}, "lr"),
        (OptimConfig, {"lr": float("inf")}, "lr"),
        (OptimConfig, {"lr": float("nan")}, "lr"),
        (OptimConfig, {"warmup_fraction": 1.1}, "warmup_fraction"),
        (PretrainConfig, {"max_length": 1}, "max_length"),
        (PretrainConfig, {"valid_fraction": 0.5}, "valid_fraction"),
        (PretrainConfig, {"seed": 0.5}, "seed"),
        (EvaluateConfig, {"confidence": 1.0}, "confidence"),
        (RunConfig, {"prepare": EVENTS, "strategies": ["patch", "last3"]}, "strategies.1"),
    ],
)
def test_a_mistake_names_its_key(cls, tree, key):
    with pytest.raises(ConfigError, match="the configuration is not valid") as caught:
        build_config(cls, tree)
    assert key in caught.value.message
    assert cls.__name__ in caught.value.remedy


def test_all_mistakes_are_named_at_once_with_the_file(tmp_path):
    path = write(tmp_path, "epoch: 3\noptim: {lr: -1}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(AdaptConfig, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "epoch: there is no such setting" in str(caught.value)
    assert "optim.lr: " in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"a: [1", "is not valid YAML"),
        (b"a: \xff", "is not valid YAML"),
        (b"!!python/object/apply:os.getcwd []", "is not valid YAML"),
        (b"- a\n- b\n", "no keys at its top level"),
        (b"patch", "no keys at its top level"),
        (b"1: 2", "the configuration is not valid"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, content, message):
    path = tmp_path / "settings.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(AdaptConfig, path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [*COMPLETE_CONFIGS, SourceConfig(), RankingTaskConfig(name="a", after="2001")],
    ids=lambda c: type(c).__name__,
)
def test_a_configuration_cannot_change(config):
    name = next(iter(type(config).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config, name, getattr(config, name))


# ---------------------------------------------------------------- the same settings?


def test_only_the_runner_may_differ(tmp_path):
    path = write(tmp_path, dump_yaml(AdaptConfig()))
    assert same_settings(path, AdaptConfig())
    assert same_settings(path, load_config(AdaptConfig, None, ["runner.devices=2", "runner.progress=false"]))
    for override in ("seed=1", "optim.lr=0.5", "patch.per_block=1", "strategy=head"):
        assert not same_settings(path, load_config(AdaptConfig, None, [override])), override
    assert not same_settings(path, PretrainConfig())


@pytest.mark.parametrize("config", COMPLETE_CONFIGS, ids=lambda config: type(config).__name__)
def test_settings_are_the_same_as_their_own_dump(config, tmp_path):
    assert same_settings(write(tmp_path, dump_yaml(config)), config)


def test_a_missing_damaged_or_older_file_has_other_settings(tmp_path):
    assert not same_settings(tmp_path / "no.yaml", AdaptConfig())
    assert not same_settings(write(tmp_path, "seed: [0"), AdaptConfig())
    tree: dict[str, Any] = yaml.safe_load(dump_yaml(AdaptConfig()))
    del tree["patience"]
    assert not same_settings(write(tmp_path, yaml.safe_dump(tree)), AdaptConfig())


def test_settings_by_name_change_what_they_name() -> None:
    written = AdaptConfig(patch={"kind": "bottleneck", "bottleneck": 4}, optim={"lr": 0.5})
    assert with_settings(AdaptConfig, None, {"optim": {"lr": 0.1}}).optim.lr == 0.1
    changed = with_settings(AdaptConfig, written, {"patch": {"per_block": 1}, "seed": 3})
    assert (changed.patch.bottleneck, changed.patch.per_block, changed.optim.lr, changed.seed) == (4, 1, 0.5, 3)
    assert with_settings(AdaptConfig, written, {"patch": {"kind": "lora"}}).patch.kind == "lora"
    assert with_settings(AdaptConfig, written, {}) is written
    prepared = PrepareConfig(events=EVENTS["events"], tasks=[RankingTaskConfig(name="a", domains=["a"])])
    assert with_settings(PrepareConfig, prepared, {"threads": 1}).tasks == prepared.tasks  # a kind that is the default
    with pytest.raises(ConfigError, match="did you mean 'lr'"):
        with_settings(AdaptConfig, written, {"optim": {"LR": 0.1}})
