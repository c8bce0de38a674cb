"""Frozen configuration models: what YAML files and dotted overrides may say, with every default in one place."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from peterrec.errors import ConfigError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


def _as_text(value: Any) -> Any:
    """Let YAML's own dates and numbers stand where a text is meant: `before: 2001-02-01`, `domains: [53]`."""
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_as_text)]


class Config(BaseModel):
    """Base of all configurations: unknown keys are errors, numbers are finite, values cannot change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# ---------------------------------------------------------------- data


class EventsConfig(Config):
    """Where events are and what their columns are called.

    `paths` are files, globs or folders of Parquet, CSV or CSV.gz. `order` (optional) breaks ties between equal
    timestamps; without it ties are broken by item id, so that no engine or row order can change a sequence.
    """

    paths: tuple[str, ...] = Field(min_length=1)
    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    order: str | None = None
    domain: str | None = None
    columns: tuple[str, ...] | None = Field(default=None, description="names for CSV files without a header line")
    separator: str | None = Field(default=None, description="of CSV files; found by itself if not given")
    time_format: str | None = Field(default=None, description="strptime format of a text timestamp, e.g. %d/%m/%Y")
    ids: Literal["auto", "text", "integer"] = "auto"
    invalid_rows: Literal["error", "drop"] = "error"


class SourceConfig(Config):
    """Which events make the source sequences, and what is kept of them."""

    domains: tuple[Text, ...] | None = None
    exclude_domains: tuple[Text, ...] = ()
    after: Text | None = Field(default=None, description="keep events at or after this time")
    before: Text | None = Field(default=None, description="keep events before this time")
    min_item_events: PositiveInt = 5
    min_user_events: PositiveInt = 1
    max_history: PositiveInt = Field(default=200, description="the most recent events kept of a user")
    repeats: Literal["keep", "drop"] = Field(default="keep", description="consecutive events with the same item")
    rare_items: Literal["drop", "unk"] = Field(default="drop", description="drop them, or keep their place as [UNK]")

    @model_validator(mode="after")
    def _history_holds_the_minimum(self) -> Self:
        if self.min_user_events > self.max_history:
            raise ValueError("min_user_events is above max_history: no user would be left")
        return self


class LabelsConfig(Config):
    """A table with one row per user and a column to predict."""

    path: str
    user: str = "user_id"
    label: str
    columns: tuple[str, ...] | None = Field(default=None, description="names for a CSV file without a header line")
    separator: str | None = Field(default=None, description="of a CSV file; found by itself if not given")


class ActivityConfig(Config):
    """A label read off the events themselves: does the user have any event in [after, before)?"""

    after: Text
    before: Text | None = None
    active: Text = "yes"
    inactive: Text = "no"


class ClassificationTaskConfig(Config):
    """Predict an attribute of a user. Exactly one of `labels` and `activity` is given."""

    kind: Literal["classification"] = "classification"
    name: Name
    labels: LabelsConfig | None = None
    activity: ActivityConfig | None = None
    min_user_events: PositiveInt = 1
    min_class_users: PositiveInt = Field(default=1, description="users of rarer classes are left out")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.labels is None) == (self.activity is None):
            raise ValueError("give exactly one of `labels` and `activity`")
        return self


class RankingTaskConfig(Config):
    """Recommend items of a target domain, or of a later time.

    `history`: what of the user's source sequence the model sees. `all`: all of it. `before-first-target`: only the
    events before the user's first target event, so that the user is cold in the target domain at that moment, and
    the targets are the items of that first visit (the events with that same timestamp).
    `events`: another file of events than the corpus was made from (same columns unless given).
    """

    kind: Literal["ranking"] = "ranking"
    name: Name
    events: EventsConfig | None = None
    domains: tuple[Text, ...] | None = None
    after: Text | None = None
    before: Text | None = None
    history: Literal["all", "before-first-target"] = "all"
    min_item_events: PositiveInt = Field(default=5, description="users who have it, for an item to be a target")
    min_user_events: PositiveInt = 1

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if self.events is None and self.domains is None and self.after is None:
            raise ValueError("say which events are targets: `domains`, `after` or `events`")
        return self


TaskConfig = Annotated[ClassificationTaskConfig | RankingTaskConfig, Field(discriminator="kind")]


class SplitConfig(Config):
    """Shares of a task's users, drawn by a hash of the user id (paper, section 4.1: 70 / 3 / 27)."""

    train: Share = 0.70
    valid: Share = 0.03
    test: Share = 0.27
    salt: str = "peterrec"

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        if abs(self.train + self.valid + self.test - 1.0) > 1e-9:
            raise ValueError("train + valid + test must be 1")
        return self


class PrepareConfig(Config):
    """Events in, corpus out."""

    events: EventsConfig
    source: SourceConfig = SourceConfig()
    tasks: tuple[TaskConfig, ...] = ()
    split: SplitConfig = SplitConfig()
    catalogue: str | None = Field(
        default=None, description="a corpus or backbone whose catalogue is used as it is, instead of a new one"
    )
    memory_limit: str = Field(default="2GB", description="of the embedded engine; past it, it spills to disk")
    threads: PositiveInt | None = None

    @field_validator("tasks")
    @classmethod
    def _distinct_names(cls, tasks: tuple[TaskConfig, ...]) -> tuple[TaskConfig, ...]:
        names = [task.name for task in tasks]
        if len(set(names)) < len(names):
            raise ValueError("two tasks have the same name")
        return tasks


# ---------------------------------------------------------------- networks


class BackboneConfig(Config):
    """The stack of dilated residual blocks (paper, section 3.2). One dilation per block; its second conv has twice."""

    kind: Literal["causal"] = "causal"
    channels: PositiveInt = 64
    kernel_size: Annotated[int, Field(ge=2)] = 3
    dilations: tuple[PositiveInt, ...] = Field(default=(1, 4, 1, 4, 1, 4, 1, 4), min_length=1)
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5
    tie_weights: bool = Field(default=True, description="score next items with the input embedding table")


class PatchConfig(Config):
    """A bottleneck patch (paper, section 3.3): where it goes and how wide it is."""

    kind: Literal["bottleneck"] = "bottleneck"
    insertion: Literal["serial"] = "serial"
    position: Literal["pre_norm", "pre_act"] = "pre_norm"
    per_block: Literal[1, 2] = 2
    bottleneck: PositiveInt | Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.125, description="channels of the bottleneck, or their share of the backbone's channels"
    )
    activation: Literal["relu", "gelu"] = "relu"


# ---------------------------------------------------------------- training


class OptimConfig(Config):
    """Adam with decoupled weight decay, linear warm-up, then cosine or constant learning rate."""

    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Share = Field(default=0.05, description="share of all steps")
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0


class RunnerConfig(Config):
    """How the machine is used; passed on to Lightning."""

    accelerator: str = "auto"
    devices: int | str = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    logger: Literal["none", "csv", "tensorboard"] = "none"
    progress: bool = True


class PretrainConfig(Config):
    """Self-supervised pre-training: predict the next item at every position (paper, section 3.2)."""

    backbone: BackboneConfig = BackboneConfig()
    loss: Literal["auto", "full", "sampled"] = Field(
        default="auto", description="auto: sampled softmax above `full_softmax_limit` items"
    )
    full_softmax_limit: PositiveInt = 5_000
    negatives: PositiveInt = Field(default=2048, description="of the sampled softmax, shared by a batch")
    masked_share: Share = Field(default=0.0, description="of input items replaced by [MASK] in training")
    max_length: Annotated[int, Field(ge=2)] = Field(default=100, description="longest window fed to the network")
    batch_size: PositiveInt = 128
    epochs: PositiveInt = 10
    patience: PositiveInt = Field(default=3, description="epochs without a better validation loss before stopping")
    valid_share: Annotated[float, Field(gt=0, lt=0.5)] = Field(default=0.03, description="users held out")
    valid_users: PositiveInt = Field(default=1_000, description="held-out users that are scored, at most")
    checkpoint_every: PositiveInt = Field(default=200, description="steps between checkpoints for --resume")
    seed: int = 0
    optim: OptimConfig = OptimConfig(lr=2e-3)
    runner: RunnerConfig = RunnerConfig()


class AdaptConfig(Config):
    """Transfer to one task (paper, section 3.3): what is trained and how."""

    strategy: Literal["patch", "head"] = "patch"
    patch: PatchConfig = PatchConfig()
    negatives: PositiveInt = Field(default=4, description="sampled for each positive of the BPR loss")
    max_length: PositiveInt = Field(default=100, description="most recent events fed to the network")
    batch_size: PositiveInt = 128
    epochs: PositiveInt = 20
    patience: PositiveInt = 4
    checkpoint_every: PositiveInt = Field(default=200, description="steps between checkpoints for --resume")
    seed: int = 0
    optim: OptimConfig = OptimConfig(lr=2e-3, weight_decay=0.01)
    runner: RunnerConfig = RunnerConfig()


# ---------------------------------------------------------------- evaluation and the whole run


class EvaluateConfig(Config):
    """How a bundle is judged on the test users."""

    k: PositiveInt = 5
    sampled_negatives: PositiveInt = Field(default=99, description="the paper's protocol, section 4.2")
    bootstrap: PositiveInt = 1000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    baselines: bool = True
    batch_size: PositiveInt = 256
    seed: int = 0


class RunConfig(Config):
    """The whole main job in one file: fetch (optional), prepare, pretrain, adapt, evaluate, report."""

    title: str = "peterrec"
    fetch: str | None = Field(default=None, description="a public data set to fetch into `data` first")
    data: str = "runs/data"
    prepare: PrepareConfig
    pretrain: PretrainConfig = PretrainConfig()
    adapt: AdaptConfig = AdaptConfig()
    strategies: tuple[Literal["patch", "head"], ...] = ("patch", "head")
    task_overrides: dict[str, dict[str, Any]] = Field(default_factory=dict, description="adapt settings of one task")
    evaluate: EvaluateConfig = EvaluateConfig()


C = TypeVar("C", bound=Config)


def load_config(cls: type[C], path: str | Path | None = None, overrides: Sequence[str] = (), **values: Any) -> C:
    """Read a configuration from YAML, then apply keyword values and dotted overrides such as `optim.lr=0.01`.

    Raises:
        ConfigError: no such file, not YAML, an unknown key or a value of the wrong type; the message names the key.
    """
    tree: dict[str, Any] = _read_yaml(Path(path)) if path is not None else {}
    _merge(tree, copy.deepcopy(values))  # an override changes the tree, never what the caller holds
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"override {override!r} is not KEY=VALUE", remedy="write e.g. --set optim.lr=0.01")
        _merge(tree, _nest(key.split("."), _parse(text, override)))
    return build_config(cls, tree, path)


def build_config(cls: type[C], tree: dict[str, Any], path: str | Path | None = None) -> C:
    """Validate a tree of plain values.

    Raises:
        ConfigError: an unknown key or a value of the wrong type; the message names the key.
    """
    try:
        return cls.model_validate(tree)
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in e['loc']) or 'top level'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(
            "the configuration is not valid: " + "; ".join(lines),
            remedy=f"see `{cls.__name__}` in docs/configuration.md for the keys and their meaning",
            path=path,
        ) from error


def dump_yaml(config: Config) -> str:
    """Return the resolved configuration as YAML, for keeping beside an artifact."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def same_settings(path: Path, config: Config) -> bool:
    """Say whether a `config.yaml` that was written beside an artifact has the settings of `config`.

    The runner may differ: the machine does not decide what comes out. A missing or damaged file has other settings.
    """
    try:
        kept, now = _read_yaml(path), config.model_dump(mode="json")
    except ConfigError:
        return False
    kept.pop("runner", None)
    now.pop("runner", None)
    return kept == now


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", remedy="check the path", path=path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not valid YAML ({error})", remedy="correct the file", path=path) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError("holds no keys at its top level", remedy="write `key: value` lines", path=path)
    return tree


def _parse(text: str, override: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of override {override!r} is not valid YAML", remedy="quote it") from error


def _nest(keys: list[str], value: Any) -> dict[str, Any]:
    return {keys[0]: value if len(keys) == 1 else _nest(keys[1:], value)}


def _merge(tree: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value
