"""The record of a whole run: plain values, enough to draw the report again from `run.json` alone.

Corpora, backbones and bundles describe themselves in JSON; what the report shows of that is validated from it directly.
Much has a default: a report after hours of training must not fail because of a fact that is only shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field

from peterrec.config import TaskKind
from peterrec.evaluation.results import TaskEvaluation

FiniteOrNone = Annotated[float | None, AfterValidator(lambda value: value if math.isfinite(value or 0.0) else None)]


class _Facts(BaseModel):
    """Base of what is shown of an artifact: other keys of its description are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True, populate_by_name=True)


class Machine(_Facts):
    """The machine of a run. `device` is the one that torch computed on; `cores` those the process may use."""

    cpu: str
    cores: int
    device: str
    system: str
    python: str
    torch: str
    lightning: str
    peterrec: str


class Stage(_Facts):
    """One stage of the run; `seconds` of a reused stage are those of finding it there."""

    name: str
    seconds: float
    reused: bool


class Curve(_Facts):
    """A learning curve: one row per epoch, and which epoch was kept (counted from 0; -1: the start was better)."""

    monitor: str
    best_epoch: int
    start: dict[str, FiniteOrNone] = {}
    rows: list[dict[str, FiniteOrNone]] = Field(validation_alias=AliasChoices("rows", "curve"))

    @property
    def best(self) -> dict[str, float | None]:
        """The row of the epoch that was kept; empty if it is not there."""
        return next((row for row in self.points if row.get("epoch") == self.best_epoch), {})

    @property
    def points(self) -> list[dict[str, float | None]]:
        """The start as epoch -1, if it was evaluated, and the rows."""
        return with_start(self.start, self.rows)

    @property
    def seconds(self) -> float:
        """Time of all epochs together."""
        return sum(row.get("seconds") or 0.0 for row in self.rows)


def with_start(
    start: Mapping[str, float | None], rows: Sequence[Mapping[str, float | None]]
) -> list[dict[str, float | None]]:
    """Return the rows of a curve, with what was evaluated before the first epoch as epoch -1."""
    return [*([{"epoch": -1.0, **start}] if start else []), *map(dict, rows)]


class InputFile(_Facts):
    """A file that the corpus was made from."""

    path: str
    bytes: int | None = None


class Step(_Facts):
    """One step of preparing: its name, how many (events or users) were left and dropped, and the reason."""

    description: str = Field(alias="what")
    remaining: int = Field(validation_alias=AliasChoices("left", "events", "users"), serialization_alias="left")
    dropped: int
    reason: str = Field(default="", alias="why")


class Histogram(_Facts):
    """Counts per bin. `edges` are the bins' lower bounds; the last bin is open."""

    edges: list[int]
    counts: list[int] = Field(validation_alias=AliasChoices("counts", "users", "items"))


class ClassFacts(_Facts):
    """A class of a task and how many users, of all parts together, have it."""

    name: str
    users: int


class TaskFacts(_Facts):
    """A task as prepared: `users` by part, and what its kind has of classes, labels, targets, pairs and numbers."""

    name: str
    kind: TaskKind
    users: dict[str, int] = {}
    median_history: float | None = None
    classes: list[ClassFacts] = []
    labels: list[ClassFacts] = []
    targets: int | None = None
    pairs: int | None = None
    numbers: dict[str, float] = {}
    steps: list[Step] = []


class DataFacts(_Facts):
    """The corpus: sizes, where it came from, what was kept, and its shape."""

    fingerprint: str
    catalogue_fingerprint: str
    users: int
    events: int
    items: int
    rare_items: str
    inputs: list[InputFile] = []
    steps: list[Step] = []
    history_length: Histogram | None = None
    item_events: Histogram | None = None
    median_history: float | None = None
    top_share: dict[str, float] = {}
    first: str | None = None
    last: str | None = None
    tied_fraction: float = 0.0  # of the source events: nothing in the log orders them
    warnings: list[str] = []


class BackboneFacts(_Facts):
    """The backbone: its shape, and how it was pre-trained. `item_table` are the parameters of item embeddings.

    `kernel_size` and `dilations` are of dilated ones, `layers` and `heads` of transformers.
    """

    kind: Literal["causal", "noncausal"] = "causal"
    parameters: int
    item_table: int
    channels: int
    kernel_size: int | None = None
    dilations: list[int] = []
    layers: int | None = None
    heads: int | None = None
    receptive_field: int
    max_length: int
    users: int
    windows: int
    objective: str = "next item"
    loss: str
    fingerprint: str
    bytes: int
    curve: Curve


class BundleFacts(_Facts):
    """A bundle: one strategy trained on one task."""

    strategy: str
    patch_params: int
    readout_params: int = 0
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
    def trained_params(self) -> int:
        """All that was trained: of the backbone that of the task's own copy, of a ranking head a whole item table."""
        return self.backbone_params + self.patch_params + self.readout_params + self.head_params

    def share(self, params: int) -> float:
        """Return the share of some of the parameters in those of backbone, patch and head together."""
        return params / self.all_params


def bundle_folder(task: str, strategy: str) -> Path:
    """Return where in a run's folder a bundle is: those of a joint training are one artifact."""
    return Path("joint", task) if strategy == "joint" else Path("bundles", task, strategy)


class TaskRecord(_Facts):
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


class RunRecord(_Facts):
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
