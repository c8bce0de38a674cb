"""The record of a whole run: plain values, enough to draw the report again from `run.json` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from peterrec.evaluation.results import TaskEvaluation


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Frozen):
    """The machine of a run. `device` is the one that torch computed on; `cores` those the process may use."""

    cpu: str
    cores: int
    device: str
    system: str
    python: str
    torch: str
    lightning: str
    peterrec: str


class Stage(_Frozen):
    """One stage of the run; `seconds` of a reused stage are those of finding it there."""

    name: str
    seconds: float
    reused: bool


class Curve(_Frozen):
    """A learning curve: one row per epoch, and which epoch was kept (counted from 0)."""

    monitor: str
    best_epoch: int
    rows: list[dict[str, float | None]]

    @property
    def best(self) -> dict[str, float | None]:
        """The row of the epoch that was kept; empty if it is not there."""
        return next((row for row in self.rows if row.get("epoch") == self.best_epoch), {})

    @property
    def seconds(self) -> float:
        """Time of all epochs together."""
        return sum(row.get("seconds") or 0.0 for row in self.rows)


class InputFile(_Frozen):
    """A file that the corpus was made from."""

    path: str
    bytes: int | None = None


class Step(_Frozen):
    """One step of preparing: its name, how many (events or users) were left and dropped, and the reason.

    In `run.json` the keys are those of the corpus's manifest: `what`, `left`, `why`.
    """

    model_config = ConfigDict(populate_by_name=True)

    description: str = Field(alias="what")
    remaining: int = Field(alias="left")
    dropped: int
    reason: str = Field(default="", alias="why")


class Histogram(_Frozen):
    """Counts per bin. `edges` are the bins' lower bounds; the last bin is open."""

    edges: list[int]
    counts: list[int]


class ClassFacts(_Frozen):
    """A class of a task and how many users, of all parts together, have it."""

    name: str
    users: int


class TaskFacts(_Frozen):
    """A task as prepared. `users` by part; `classes` of a classification; `targets` and `pairs` of a ranking."""

    name: str
    kind: Literal["classification", "ranking"]
    users: dict[str, int]
    median_history: float | None = None
    classes: list[ClassFacts] = Field(default_factory=list)
    targets: int | None = None
    pairs: int | None = None
    steps: list[Step] = Field(default_factory=list)


class DataFacts(_Frozen):
    """The corpus: sizes, where it came from, what was kept, and its shape."""

    fingerprint: str
    catalogue_fingerprint: str
    users: int
    events: int
    items: int
    rare_items: str
    inputs: list[InputFile] = Field(default_factory=list)
    steps: list[Step] = Field(default_factory=list)
    history_length: Histogram | None = None
    item_events: Histogram | None = None
    median_history: float | None = None
    top_share: dict[str, float] = Field(default_factory=dict)
    first: str | None = None
    last: str | None = None
    tied_fraction: float = 0.0  # of the source events: nothing in the log orders them
    warnings: list[str] = Field(default_factory=list)


class BackboneFacts(_Frozen):
    """The backbone: its shape, and how it was pre-trained. `item_table` are the parameters of item embeddings.

    `kernel_size` and `dilations` are of dilated ones, `layers` and `heads` of transformers.
    """

    kind: Literal["causal", "noncausal"] = "causal"
    parameters: int
    item_table: int
    channels: int
    kernel_size: int | None
    dilations: list[int]
    layers: int | None = None
    heads: int | None = None
    receptive_field: int
    max_length: int
    users: int
    windows: int
    loss: str
    fingerprint: str
    bytes: int
    curve: Curve


class BundleFacts(_Frozen):
    """A bundle: one strategy trained on one task. All shares are of backbone, patch and head together."""

    strategy: str
    patch_params: int
    head_params: int
    backbone_params: int
    all_params: int
    outputs: int
    seed: int
    fingerprint: str
    bytes: int
    curve: Curve
    warnings: list[str] = []

    @property
    def patch_share(self) -> float:
        """Share of the patch alone."""
        return self.patch_params / self.all_params

    @property
    def head_share(self) -> float:
        """Share of the head alone; for a ranking task that is a whole item table."""
        return self.head_params / self.all_params

    @property
    def backbone_share(self) -> float:
        """Share of what was trained of the task's own copy of the backbone."""
        return self.backbone_params / self.all_params

    @property
    def trained_params(self) -> int:
        """All that was trained."""
        return self.backbone_params + self.patch_params + self.head_params

    @property
    def trainable_fraction(self) -> float:
        """Share of all that was trained."""
        return self.trained_params / self.all_params


def bundle_folder(task: str, strategy: str) -> Path:
    """Return where in a run's folder a bundle is: those of a joint training are one artifact."""
    return Path("joint", task) if strategy == "joint" else Path("bundles", task, strategy)


class TaskRecord(_Frozen):
    """One task: the data, what was trained on it, and how that did on the test users."""

    facts: TaskFacts
    bundles: list[BundleFacts]
    evaluation: TaskEvaluation

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.facts.name

    def bundle(self, strategy: str) -> BundleFacts | None:
        """Return what a strategy trained, if it is one of the run."""
        return next((bundle for bundle in self.bundles if bundle.strategy == strategy), None)


class RunRecord(_Frozen):
    """A whole run.

    Attributes:
        date: when the report was made, ISO 8601 with time zone.
        seeds: what each was for, and the seed.
        config: the resolved configuration, as YAML.
    """

    title: str
    command: str
    date: str
    machine: Machine
    seeds: dict[str, int | str]
    stages: list[Stage]
    data: DataFacts
    backbone: BackboneFacts
    tasks: list[TaskRecord]
    config: str
