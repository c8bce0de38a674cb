"""Settings of `prepare`: events, filters, tasks, the split."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, field_validator, model_validator

from peterrec.config.base import Config, Fraction, LaterSettingsConfig, Name, Positive, Separator, Text
from peterrec.config.event_features import EventFeatures


def _as_mark(value: Any) -> Any:
    """Take YAML's own `NULL` and `.nan` for the texts they are written as."""
    return "null" if value is None else value


Mark = Annotated[Text, BeforeValidator(_as_mark)]


class ColumnsConfig(LaterSettingsConfig):
    """Names of the columns of events, and how they are read."""

    later_settings: ClassVar[frozenset[str]] = frozenset({"features"})

    user: str = Field(default="user_id", description="column with the user id")
    item: str = Field(default="item_id", description="column with the item id")
    time: str = Field(default="timestamp", description="column that sorts a user's events")
    order: str | None = Field(default=None, description="column that orders a user's events with equal times")
    ties: Literal["hash", "lines"] = Field(
        default="hash",
        description="what orders events that are still equal: a hash of user, time and item, or the order of the lines "
        "in the files, where that is the true one",
    )
    domain: str | None = Field(default=None, description="column that tells domains apart")
    columns: tuple[str, ...] | None = Field(default=None, description="names for CSV files without a header line")
    separator: Separator | None = Field(default=None, description="of CSV files; found by itself if not given")
    time_format: str | None = Field(default=None, description="strptime format of a text time, e.g. %d/%m/%Y")
    ids: Literal["auto", "text", "integer"] = Field(
        default="auto", description="how ids are read; auto: as integers where all of a file are"
    )
    invalid_rows: Literal["error", "drop"] = Field(
        default="error", description="rows without a user, an item or a readable time"
    )
    missing: tuple[Mark, ...] = Field(
        default=(), description="texts, in any case, that mean that a value is missing; an empty one always is"
    )
    features: EventFeatures = Field(
        default=(),
        description="what a model reads of an event beside its item, as `type`, `amount:log-bins`, `time:gap,hour`",
    )


class EventsConfig(ColumnsConfig):
    """Files of events, and the columns in them."""

    paths: tuple[str, ...] = Field(min_length=1, description="files, globs or folders of Parquet, CSV or CSV.gz")


class SourceConfig(Config):
    """Filters of the source events, and of the sequences that are made of them."""

    domains: tuple[Text, ...] | None = Field(default=None, description="keep events of these domains only")
    exclude_domains: tuple[Text, ...] = Field(default=(), description="leave out events of these domains")
    after: Text | None = Field(default=None, description="keep events at or after this time")
    before: Text | None = Field(default=None, description="keep events before this time")
    min_item_events: PositiveInt = Field(default=5, description="source events of an item, for the catalogue")
    min_user_events: PositiveInt = Field(default=1, description="events left of a user, for a sequence")
    max_history: PositiveInt = Field(default=200, description="the most recent events kept of a user")
    repeats: Literal["keep", "drop"] = Field(default="keep", description="consecutive events with the same item")
    rare_items: Literal["drop", "unk"] = Field(default="drop", description="drop them, or keep their place as [UNK]")

    @model_validator(mode="after")
    def _check_max_history(self) -> Self:
        if self.min_user_events > self.max_history:
            raise ValueError("min_user_events is above max_history: no user would be left")
        return self


class LabelTableConfig(LaterSettingsConfig):
    """A table with one row per user and a column to predict."""

    path: str = Field(description="Parquet or CSV file")
    user: str = Field(default="user_id", description="column with the user id")
    label: str = Field(description="column to predict; users without a value are left out")
    columns: tuple[str, ...] | None = Field(default=None, description="names for a CSV file without a header line")
    separator: Separator | None = Field(default=None, description="of a CSV file; found by itself if not given")
    missing: tuple[Mark, ...] = Field(
        default=("NULL", "NA", "N/A", "<NA>", "NaN", r"\N"),
        description="labels, in any case, that mean that there is none; an empty one always does",
    )


class LabelsConfig(LabelTableConfig):
    """A table with one row per user and a column of classes to predict."""

    later_settings: ClassVar[frozenset[str]] = frozenset({"bins"})

    bins: tuple[float, ...] = Field(
        default=(),
        description="bounds that make classes of a column of numbers: 25, 45 are `below 25`, `25 to 45` and "
        "`45 and above`, each with its lower bound and without its upper one",
    )

    @field_validator("bins")
    @classmethod
    def _check_bins(cls, bins: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in itertools.pairwise(bins)):
            raise ValueError("bounds of bins must rise")
        return bins


class LabelSetsConfig(LabelTableConfig):
    """A table with one row per user and a column with any number of labels for each."""

    label_separator: Text = Field(
        default="|",
        description="what stands between the labels of a user in a column of text; a column of lists needs none",
    )


class ActivityConfig(Config):
    """A label by later activity: whether the user has any event, of any domain, in [after, before)."""

    after: Text = Field(description="start of the period; the source must end here or earlier")
    before: Text | None = Field(default=None, description="end of the period; none: the end of the events")
    active: Text = Field(default="yes", description="name of the class of users with an event")
    inactive: Text = Field(default="no", description="name of the class of users without one")

    @model_validator(mode="after")
    def _check_class_names(self) -> Self:
        if self.active == self.inactive:
            raise ValueError("`active` and `inactive` are the names of two classes: give them two names")
        return self


class HistoryCutConfig(LaterSettingsConfig):
    """The events of a user's sequence that the model of a task reads, where these are not the most recent of all."""

    later_settings: ClassVar[frozenset[str]] = frozenset({"first_events", "last_events", "until"})

    until: Text | None = Field(default=None, description="read only events before this time")
    first_events: PositiveInt | None = Field(
        default=None, description="of those left by all filters, `until` and repeats, read only so many of the earliest"
    )
    last_events: PositiveInt | None = Field(default=None, description="of these, read only so many of the most recent")

    @model_validator(mode="after")
    def _check_cut(self) -> Self:
        for name in ("first_events", "last_events"):
            count = getattr(self, name)
            if count is not None and getattr(self, "min_user_events", 1) > count:
                raise ValueError(f"min_user_events is above {name}: no user would be left")
        return self


class ClassificationTaskConfig(HistoryCutConfig):
    """A task to predict an attribute of a user. Exactly one of `labels` and `activity` is given."""

    kind: Literal["classification"] = Field(default="classification", description="what tells this task from others")
    name: Name = Field(description="of the task, and of its folder")
    labels: LabelsConfig | None = Field(default=None, description="a table of users with the label")
    activity: ActivityConfig | None = Field(default=None, description="the label is whether the user is active later")
    min_user_events: PositiveInt = Field(default=1, description="events in the sequence of a user of the task")
    min_class_users: PositiveInt = Field(default=1, description="users of rarer classes are left out")

    @model_validator(mode="after")
    def _check_one_source(self) -> Self:
        if (self.labels is None) == (self.activity is None):
            raise ValueError("give exactly one of `labels` and `activity`")
        return self


class RegressionTaskConfig(HistoryCutConfig):
    """A task to predict a number of a user: spend, lifetime value, age in years.

    Users without a number are left out, as those without a label. What is no finite number is refused.
    """

    kind: Literal["regression"] = Field(default="regression", description="what tells this task from others")
    name: Name = Field(description="of the task, and of its folder")
    labels: LabelTableConfig = Field(description="a table of users with the number, in the column `label`")
    min_user_events: PositiveInt = Field(default=1, description="events in the sequence of a user of the task")


class MultilabelTaskConfig(HistoryCutConfig):
    """A task to predict which of several labels a user has: interests, departments bought from, segments.

    The column is a list of texts or integers for each user, or a text with a separator. A user with an empty list has
    none of the labels, and counts; one without a value (an empty text is none) is left out.
    """

    kind: Literal["multilabel"] = Field(default="multilabel", description="what tells this task from others")
    name: Name = Field(description="of the task, and of its folder")
    labels: LabelSetsConfig = Field(description="a table of users with their labels, in the column `label`")
    min_user_events: PositiveInt = Field(default=1, description="events in the sequence of a user of the task")
    min_label_users: PositiveInt = Field(
        default=10, description="users of the task who have a label; rarer ones are left out, their users are not"
    )


class RankingTaskConfig(HistoryCutConfig):
    """A task to recommend items of a target domain, of a later time, or of other files.

    With `history: before-first-target` the model sees only the events before the user's first target event, so that
    the user is cold in the target domain at that moment, and the targets are the items of that first visit (the
    events with that same time).
    """

    kind: Literal["ranking"] = Field(default="ranking", description="what tells this task from others")
    name: Name = Field(description="of the task, and of its folder")
    events: EventsConfig | None = Field(
        default=None, description="other files with the target events; what is not said of them is as in the source"
    )
    domains: tuple[Text, ...] | None = Field(default=None, description="targets are events of these domains")
    after: Text | None = Field(default=None, description="targets are events at or after this time")
    before: Text | None = Field(default=None, description="targets are events before this time")
    history: Literal["all", "before-first-target"] = Field(
        default="all", description="what of the user's source sequence the model sees"
    )
    min_item_events: PositiveInt = Field(default=5, description="users who have it, for an item to be a target")
    min_user_events: PositiveInt = Field(default=1, description="events in the sequence of a user of the task")

    @model_validator(mode="after")
    def _check_targets_are_named(self) -> Self:
        if self.events is None and self.domains is None and self.after is None:
            raise ValueError("say which events are targets: `domains`, `after` or `events`")
        return self


class FirstTargetConfig(Config):
    """Filter of target events, of a model that read only the events before the first target event of a user."""

    domains: tuple[Text, ...] | None = Field(default=None, description="target events are of these domains")
    after: Text | None = Field(default=None, description="target events are at or after this time")
    before: Text | None = Field(default=None, description="target events are before this time")
    separate_files: bool = Field(
        default=False, description="target events are in files of the task's own: what is asked about comes before them"
    )


class PreprocessingConfig(LaterSettingsConfig):
    """Settings by which events became the sequences that a model was trained on.

    They are kept with every backbone and bundle, and applied to the events that these are asked about.
    """

    later_settings: ClassVar[frozenset[str]] = frozenset({"cut"})

    columns: ColumnsConfig = Field(default=ColumnsConfig(), description="of the log that was prepared")
    time_kind: Literal["integer", "float", "decimal", "time", "text"] = Field(
        default="time", description="what the times of that log are"
    )
    units_per_second: Positive = Field(
        default=1.0, description="of the times, where they are numbers: 1,000 for milliseconds since 1970"
    )
    source: SourceConfig = Field(default=SourceConfig(), description="which events the model reads")
    first_target: FirstTargetConfig | None = Field(
        default=None, description="the model reads what came before this event (history: before-first-target)"
    )
    cut: HistoryCutConfig = Field(
        default=HistoryCutConfig(), description="which events of a sequence the model of a task reads"
    )


TaskKind = Literal["classification", "ranking", "regression", "multilabel"]
"""Of all tasks; what each is, layer by layer: docs/concepts.md."""

TaskConfig = Annotated[
    ClassificationTaskConfig | RankingTaskConfig | RegressionTaskConfig | MultilabelTaskConfig,
    Field(discriminator="kind"),
]


class SplitConfig(Config):
    """Fractions of a task's users, drawn by a hash of the user id (paper, section 4.1: 70 / 3 / 27)."""

    train: Fraction = Field(default=0.70, description="fraction of users to train on")
    valid: Fraction = Field(default=0.03, description="fraction of users that early stopping and settings look at")
    test: Fraction = Field(default=0.27, description="fraction of users that only `evaluate` looks at")
    salt: str = Field(default="peterrec", description="another text draws another split")

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        if abs(self.train + self.valid + self.test - 1.0) > 1e-9:
            raise ValueError("train + valid + test must be 1")
        return self


class NewUsersConfig(Config):
    """Users who are kept out of all that is learned without labels, so that they are as new as tomorrow's users.

    Nothing of them is in pre-training, in the catalogue and its counts, in item factors, or in what baselines learn of
    unlabelled sequences. They have sequences, and are train, valid and test users of tasks as others are. Where several
    settings are given, users of any of them are kept out.
    """

    parts: tuple[Literal["train", "valid", "test"], ...] = Field(
        default=(), description="users of these parts of the split"
    )
    fraction: Fraction = Field(default=0.0, description="fraction of all users, drawn by a hash of the user id")
    seed: int = Field(default=0, description="of that draw, which is independent of the split")
    first_event_after: Text | None = Field(
        default=None, description="users whose first source event is at or after this time"
    )


class KeptOutUsersConfig(NewUsersConfig):
    """The new users that a backbone was not pre-trained on; kept with it and its bundles."""

    split: SplitConfig = Field(description="whose parts are named")
    users: int = Field(description="how many of the corpus of pre-training were kept out")


class PrepareConfig(LaterSettingsConfig):
    """Settings of `prepare`: events, filters of the source, split of the users, and tasks."""

    later_settings: ClassVar[frozenset[str]] = frozenset({"extend_catalogue", "new_users", "engine", "master"})

    events: EventsConfig = Field(description="where the events are")
    source: SourceConfig = Field(default=SourceConfig(), description="what is kept of them")
    tasks: tuple[TaskConfig, ...] = Field(default=(), description="what is to be learned of the users")
    split: SplitConfig = Field(default=SplitConfig(), description="of the users of every task")
    new_users: NewUsersConfig = Field(
        default=NewUsersConfig(), description="who is kept out of all that is learned without labels"
    )
    catalogue: str | None = Field(
        default=None, description="a corpus or backbone whose catalogue is used, instead of a new one"
    )
    extend_catalogue: bool = Field(
        default=False,
        description="append items that the `catalogue` given lacks, most frequent first: for `grow`",
    )
    memory_limit: str = Field(default="2GB", description="of the embedded engine; past it, it spills to disk")
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="of the engine; all cores if not given"
    )

    engine: Literal["duckdb", "spark"] = Field(
        default="duckdb",
        description="what does the work: DuckDB in this process, or Apache Spark, with the same result",
    )
    master: str | None = Field(
        default=None, description="of Spark, such as spark://host:7077 or yarn; none: threads of this machine"
    )

    @field_validator("tasks")
    @classmethod
    def _check_distinct_names(cls, tasks: tuple[TaskConfig, ...]) -> tuple[TaskConfig, ...]:
        twice = [name for name, count in Counter(task.name for task in tasks).items() if count > 1]
        if twice:
            raise ValueError(f"two tasks have the name {twice[0]!r}: name one otherwise")
        return tasks

    @model_validator(mode="after")
    def _check_extended(self) -> Self:
        if self.extend_catalogue and self.catalogue is None:
            raise ValueError("extend_catalogue needs the catalogue that is to be extended")
        return self

    @model_validator(mode="after")
    def _check_master(self) -> Self:
        if self.master is not None and self.engine != "spark":
            raise ValueError("master is of Spark: set engine to spark, or leave master out")
        return self

    @model_validator(mode="after")
    def _check_first_events(self) -> Self:
        for task in self.tasks:
            if (task.first_events or 0) > self.source.max_history:
                raise ValueError(
                    f"first_events of task {task.name!r} is {task.first_events}, and a model reads source.max_history "
                    f"({self.source.max_history}) events: raise that, or lower first_events"
                )
        return self
