"""Settings of a grid of experiments: data sets x tasks x methods x seeds, and the questions it is to answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from peterrec.arguments import did_you_mean
from peterrec.config.base import Config, Name, check_name
from peterrec.config.data import PrepareConfig
from peterrec.config.run import EvaluateConfig

Seed = Annotated[int, Field(ge=0)]
LabelledFraction = Annotated[float, Field(gt=0.0, le=1.0)]


def _check_task_path(value: str) -> str:
    data, separator, task = value.partition("/")
    if not separator:
        raise ValueError("a task of a grid is named DATA/TASK")
    return f"{check_name(data)}/{check_name(task)}"


TaskPath = Annotated[str, AfterValidator(_check_task_path)]


def _default_backbones() -> dict[str, dict[str, Any]]:
    return {"base": {}}


class SyntheticConfig(Config):
    """Settings of synthetic events and labels, whose right answers are known."""

    users: PositiveInt = Field(default=1_200, description="each with a taste, which is its cluster")
    items: PositiveInt = Field(default=300, description="source items, dealt to the clusters")
    targets: PositiveInt = Field(default=40, description="target items, dealt to the clusters")
    mean_events: PositiveInt = Field(default=20, description="source events of a user")
    clusters: PositiveInt = Field(default=4, description="tastes; label `cluster` says which, label `noise` nothing")
    labelled_fraction: LabelledFraction = Field(
        default=1.0, description="fraction of users with labels and target events"
    )
    seed: int = Field(default=0, description="of all draws; the data is the same for every seed of the grid")


class GridDataConfig(Config):
    """One data set of a grid, and settings that are its own."""

    fetch: str | None = Field(
        default=None, description="a public data set to fetch into `data_root` if it is not there"
    )
    synthetic: SyntheticConfig | None = Field(
        default=None, description="make the data up; its files are `events.parquet` and `users.parquet`"
    )
    prepare: PrepareConfig = Field(
        description="relative paths are under `data_root`, or under the made-up data; the seed is added to `split.salt`"
    )
    pretrain: dict[str, Any] = Field(
        default_factory=dict, description="settings that differ from the grid's `pretrain`"
    )
    adapt: dict[str, Any] = Field(default_factory=dict, description="settings that differ from the grid's `adapt`")
    task_overrides: dict[Name, dict[str, Any]] = Field(
        default_factory=dict,
        description="by task: settings of `adapt` that differ for it; not of what trains all tasks",
    )


class MethodConfig(Config):
    """A method of a grid: a strategy on a backbone, or a baseline."""

    adapt: dict[str, Any] | None = Field(
        default=None, description="settings of `adapt` that make this method, such as `strategy`"
    )
    backbone: Name = Field(default="base", description="of `backbones`, which `adapt` starts from")
    baseline: str | None = Field(default=None, description="name of a baseline: as tables show it, or `dupn`, `conet`")
    settings: dict[str, Any] = Field(default_factory=dict, description="of the baseline: `dupn` and `conet` have some")
    trained_on: dict[Name, Name] = Field(
        default_factory=dict,
        description="by task: the task of the same data set whose train and valid users it is fitted to, such as the "
        "same question about whole histories; it is asked about the test users of the first. Of no other task if given",
    )
    label: str | None = Field(default=None, description="shown instead of the name")

    @model_validator(mode="after")
    def _check_exactly_one(self) -> Self:
        if sum(choice is not None for choice in (self.adapt, self.baseline)) != 1:
            raise ValueError("a method is exactly one of `adapt` and `baseline`")
        if self.settings and self.baseline is None:
            raise ValueError("`settings` are those of a baseline; those of `adapt` stand under `adapt`")
        return self


class QuestionConfig(Config):
    """A question: the methods, tasks and fractions of the labels whose cells answer it, and which pairs decide."""

    name: Name = Field(description="short, for files and links")
    text: str = Field(description="the question, as the report prints it")
    tasks: tuple[TaskPath, ...] = Field(default=(), description="DATA/TASK; all tasks if none is named")
    methods: tuple[Name, ...] = Field(min_length=1, description="of `methods`; a baseline only where it suits the task")
    label_fractions: tuple[LabelledFraction, ...] = Field(
        default=(1.0,), min_length=1, description="of the labelled train users that are used; smaller ones are nested"
    )
    compare: tuple[tuple[Name, Name], ...] = Field(
        default=(), description="pairs (method, reference): is the first better? Tested on the same users"
    )
    sections: tuple[Literal["map", "metrics", "costs", "curves", "label_fractions", "events"], ...] = Field(
        default=("metrics",), description="tables and figures; events: by the number of source events of the user"
    )
    seeds: tuple[Seed, ...] | None = Field(default=None, description="fewer than the grid's")

    @model_validator(mode="after")
    def _check_no_duplicates(self) -> Self:
        for field in ("tasks", "methods", "label_fractions", "compare", "seeds"):
            values = getattr(self, field) or ()
            if len(set(values)) < len(values):
                raise ValueError(f"question {self.name!r} names one of its {field} twice")
        if any(method == reference for method, reference in self.compare):
            raise ValueError(f"question {self.name!r} compares a method with itself")
        return self


class ExperimentConfig(Config):
    """A grid of experiments and the report that answers the questions."""

    title: str = Field(default="peterrec experiment", description="of the report")
    description: str = Field(default="", description="a paragraph under the title")
    data_root: str = Field(default="runs/data", description="folder of the data sets")
    seeds: tuple[Seed, ...] = Field(
        default=(0, 1, 2), min_length=1, description="each is another split of users and another draw of all weights"
    )
    data: dict[Name, GridDataConfig] = Field(min_length=1, description="data sets by name")
    pretrain: dict[str, Any] = Field(default_factory=dict, description="settings of `pretrain` for all backbones")
    backbones: dict[Name, dict[str, Any]] = Field(
        default_factory=_default_backbones,
        min_length=1,
        description="settings of `pretrain` that make each; last of all to apply",
    )
    adapt: dict[str, Any] = Field(default_factory=dict, description="settings of `adapt` for all methods")
    methods: dict[Name, MethodConfig] = Field(min_length=1, description="by name")
    questions: tuple[QuestionConfig, ...] = Field(min_length=1, description="in the order of the report")
    evaluate: EvaluateConfig = Field(default=EvaluateConfig(), description="of every cell; the seed is the cell's")
    event_strata: tuple[PositiveInt, ...] = Field(
        default=(1, 2, 6, 21), description="least source events of each group of users in `events`"
    )
    jobs: PositiveInt | None = Field(default=None, description="cells at a time; one for each core if not given")

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [question.name for question in self.questions]
        if len(set(names)) < len(names):
            raise ValueError("two questions have the same name")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds names one of them twice")
        for question in self.questions:
            self._check_question(question)
        for name, method in self.methods.items():
            if method.adapt is not None and method.backbone not in self.backbones:
                raise ValueError(f"method {name!r} names backbone {method.backbone!r}, which `backbones` does not have")
            self._check_trained_on(name, method.trained_on)
        for name, data in self.data.items():
            tasks = [task.name for task in data.prepare.tasks]
            strange = next((task for task in data.task_overrides if task not in tasks), None)
            if strange is not None:
                raise ValueError(f"task_overrides of {name!r} name {strange!r}; its tasks are {tasks}")
        return self

    def _check_trained_on(self, method: str, trained_on: dict[str, str]) -> None:
        """Check that a data set has both tasks of each pair."""
        tasks_by_data = [{task.name for task in data.prepare.tasks} for data in self.data.values()]
        for pair in trained_on.items():
            if not any(tasks.issuperset(pair) for tasks in tasks_by_data):
                raise ValueError(f"trained_on of method {method!r}: no data set has tasks {pair[0]!r} and {pair[1]!r}")

    def _check_question(self, question: QuestionConfig) -> None:
        """Check that what a question names is there."""
        tasks = {f"{name}/{task.name}" for name, data in self.data.items() for task in data.prepare.tasks}
        pairs = [name for pair in question.compare for name in pair]
        asks = f"question {question.name!r}"
        for name in (*question.methods, *pairs):
            if name not in self.methods:
                near = did_you_mean(name, self.methods)
                raise ValueError(f"{asks} names method {name!r}, which `methods` does not have{near}")
        for name in pairs:
            if name not in question.methods:
                raise ValueError(f"{asks} compares {name!r}, which is not one of its methods")
        for path in question.tasks:
            if path not in tasks:
                raise ValueError(f"{asks} names task {path!r}{did_you_mean(path, tasks)}; there are {sorted(tasks)}")
        for seed in question.seeds or ():
            if seed not in self.seeds:
                raise ValueError(f"{asks} names seed {seed}, which is none of the grid's")
