"""Results of a migration, as plain values that go to JSON and back."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from peterrec.config import TaskKind
from peterrec.evaluation.results import Comparison, MetricEstimate

Version = Literal["before", "kept", "refitted", "anew"]
Migration = Literal["keep", "refit", "anew"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BundleVersion(_Frozen):
    """A bundle in one of its versions, judged on the valid users of its task.

    Attributes:
        version: `before`: on the earlier backbone; `kept`: the same weights on the new one; `refitted`: trained further
            there; `anew`: trained there from nothing.
        value: the metric, with its interval over users.
        epochs: up to the best one, of those that were trained; 0: none was better than the start.
    """

    version: Version
    value: MetricEstimate
    epochs: int | None = None


class MigratedBundle(_Frozen):
    """Verdict on a bundle, and what it rests on.

    Attributes:
        name: of its folder.
        task: of the bundle.
        kind: of the task.
        users: valid users that it was judged on.
        metric: that decides: log-loss, MAE, or MRR of ranking tasks.
        versions: in the order of `Version`.
        comparisons: paired differences between versions, on the same users and resamples.
        verdict: `keep` the weights, `refit` them, or train `anew`.
        epochs_saved: that a bundle made anew needs more than the refitted one; None where either was not trained.
        written: which version is in the folder of the migration; None: none, for it was not trained.
        notes: in words, what is to be known.
    """

    name: str
    task: str
    kind: TaskKind
    users: int
    metric: str
    versions: list[BundleVersion]
    comparisons: list[Comparison]
    verdict: Migration
    epochs_saved: int | None
    written: Version | None
    notes: list[str]

    def version(self, version: Version) -> BundleVersion | None:
        """Return a version.

        Args:
            version: which.

        Returns:
            None where it was not made.
        """
        return next((row for row in self.versions if row.version == version), None)


class MigrationReport(_Frozen):
    """Result of a migration.

    Attributes:
        previous_fingerprint: of the backbone that the bundles were of.
        backbone_fingerprint: of the backbone that they are for now.
        corpus_fingerprint: of the corpus that judged them.
        bundles: a row for each.
        settings: of the migration.
    """

    previous_fingerprint: str
    backbone_fingerprint: str
    corpus_fingerprint: str
    bundles: list[MigratedBundle]
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return plain values.

        Returns:
            As `MigrationReport.model_validate` reads them again.
        """
        return self.model_dump(mode="json")
