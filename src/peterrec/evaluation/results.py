"""Results of an evaluation, as plain values that go to JSON and back."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peterrec.config import TaskKind
from peterrec.display import Tabular
from peterrec.errors import ArtifactError
from peterrec.evaluation.intervals import Interval, Verdict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MetricEstimate(_Frozen):
    """A metric with its interval over users. The limits are None where they are undefined."""

    value: float
    low: float | None
    high: float | None

    @classmethod
    def from_interval(cls, interval: Interval) -> Self:
        """Make one from an interval; JSON has no NaN."""
        return cls(value=interval.value, low=finite_or_none(interval.low), high=finite_or_none(interval.high))


class EvaluationProtocol(_Frozen):
    """Settings of the evaluation: cut-off, sampled negatives, bootstrap resamples, confidence and seed."""

    k: int
    sampled_negatives: int
    bootstrap: int
    confidence: float
    seed: int


class ReliabilityBin(_Frozen):
    """Users whose probabilities are neighbours: their mean, and the share for whom it came true, with its interval."""

    predicted: float
    observed: float
    users: int
    low: float | None
    high: float | None


class MethodResult(_Frozen):
    """One row of the table. `trainable_fraction` is 0 .. 1; both counts are None for a baseline.

    `reliability` has the bins of a reliability diagram, of tasks with probabilities.
    """

    name: str
    family: Literal["model", "baseline"]
    trainable: int | None
    trainable_fraction: float | None
    settings: dict[str, Any] = Field(default_factory=dict)
    values: dict[str, MetricEstimate]
    reliability: list[ReliabilityBin] = Field(default_factory=list)


class Comparison(_Frozen):
    """A model method against a reference on one metric: method minus reference, over the same users and resamples."""

    method: str
    reference: str
    metric: str
    difference: float
    low: float | None
    high: float | None
    verdict: Verdict


class PretrainingOverlap(_Frozen):
    """How many test users were kept out of pre-training, were in it without their labels, or may have been in it."""

    new: int
    pretrained: int
    unknown: int


class TaskEvaluation(_Frozen, Tabular):
    """The result of `evaluate_task`: the table, the comparisons, and what they say in plain English.

    Attributes:
        users: test users.
        rows: what the metrics are means over: users (classification) or (user, target) pairs (ranking).
        candidates: size of the target catalogue; None for classification.
        metrics: order of the table's columns.
        primary: the metric that the sentence is about.
        comparisons: in files under the key `verdicts`.
        notes: what is to be known about the comparison; the sentence ends with them.
        pretraining_overlap: how many test users were in pre-training; None where no backbone is evaluated.
    """

    model_config = ConfigDict(populate_by_name=True)

    task: str
    kind: TaskKind
    users: int
    rows: int
    candidates: int | None
    protocol: EvaluationProtocol
    metrics: list[str]
    primary: str
    lower_is_better: list[str]
    methods: list[MethodResult]
    comparisons: list[Comparison] = Field(alias="verdicts")
    sentence: str
    notes: list[str] = Field(default_factory=list)
    pretraining_overlap: PretrainingOverlap | None = None

    def __repr__(self) -> str:
        names = ", ".join(f"{method.name} {method.values[self.primary].value:.3f}" for method in self.methods)
        return f"TaskEvaluation({self.task!r}: {self.users:,} test users; {self.primary}: {names})"

    __str__ = __repr__

    def to_arrow(self) -> pa.Table:
        """Return the evaluation as a table.

        Returns:
            One row for each method: name, family, trainable_fraction, and of each metric three columns: itself,
            `METRIC_low` and `METRIC_high`, the limits of its interval.
        """
        columns: dict[str, list[Any]] = {
            name: [getattr(method, name) for method in self.methods]
            for name in ("name", "family", "trainable_fraction")
        }
        for metric in self.metrics:
            estimates = [method.values[metric] for method in self.methods]
            columns[metric] = [estimate.value for estimate in estimates]
            columns[f"{metric}_low"] = [estimate.low for estimate in estimates]
            columns[f"{metric}_high"] = [estimate.high for estimate in estimates]
        return pa.table(columns)

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `json.dumps` takes."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            ArtifactError: something is missing, unknown or of another type.
        """
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "top level"
            raise ArtifactError(
                f"not the result of an evaluation ({key}: {first['msg']})", remedy="run `peterrec evaluate` again"
            ) from error


def finite_or_none(value: float) -> float | None:
    """Return None instead of NaN and infinities, which JSON does not have."""
    return value if math.isfinite(value) else None
