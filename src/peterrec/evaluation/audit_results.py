"""Results of an audit, as plain values that go to JSON and back."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from peterrec.evaluation.intervals import Verdict
from peterrec.evaluation.results import MetricEstimate


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProbeResult(_Frozen):
    """How well a probe guesses the attribute of users that it was not fitted on.

    Attributes:
        reads: what it is given: nothing, the vectors of the backbone, what a bundle's head reads, its answers, or the
            items that people had.
        bundle: whose, or None.
        probe: what guesses.
        family: `floor` and `ceiling` are what a probe stands between.
        values: `auc` (macro, one class against the rest), `accuracy`, `log_loss` in nats.
        verdict: on the AUC against 0.5, that of a guess without looking; None of the floor.
    """

    reads: Literal["nothing", "backbone", "readout", "answers", "bag of items"]
    bundle: str | None
    probe: str
    family: Literal["floor", "probe", "ceiling"]
    values: dict[str, MetricEstimate]
    verdict: Verdict | None


class GroupDifference(_Frozen):
    """How differently a bundle serves groups of test users of its own task.

    Attributes:
        bundle: that answers.
        task: of the bundle.
        metric: mean over users of a group.
        groups: the metric of each.
        users: of each group.
        difference: of the groups with the largest and the smallest, with its interval.
    """

    bundle: str
    task: str
    metric: str
    groups: dict[str, float]
    users: dict[str, int]
    difference: MetricEstimate


class AuditResult(_Frozen):
    """Result of an audit: how well an attribute is read, and how bundles serve its groups.

    Attributes:
        attribute: its name.
        source: where its labels come from.
        classes: users of each class, in order.
        probes: a row for each of what was probed, by each probe; floor first, ceiling last.
        differences: between groups, for each bundle and metric.
        notes: in words, what is to be known.
        settings: of the audit.
    """

    attribute: str
    source: str
    classes: dict[str, int]
    probes: list[ProbeResult]
    differences: list[GroupDifference]
    notes: list[str]
    settings: dict[str, Any]

    @property
    def users(self) -> int:
        """Users whose attribute was guessed."""
        return sum(self.classes.values())

    def to_json(self) -> dict[str, Any]:
        """Return plain values.

        Returns:
            As `AuditResult.model_validate` reads them again.
        """
        return self.model_dump(mode="json")
