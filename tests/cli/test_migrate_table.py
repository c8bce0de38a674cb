"""The table of `migrate` in a terminal of 80 columns."""

from __future__ import annotations

import io
from itertools import combinations

from rich.console import Console

from peterrec.cli.migrate import print_migration
from peterrec.evaluation.migration_results import BundleVersion, MigratedBundle, MigrationReport, Version
from peterrec.evaluation.results import Comparison, MetricEstimate

VERSIONS: tuple[Version, ...] = ("before", "kept", "refitted", "anew")


def test_no_limit_is_cut_off_where_all_versions_are_there() -> None:
    versions = [
        BundleVersion(version=version, value=MetricEstimate(value=0.5, low=0.4, high=0.6), epochs=12)
        for version in VERSIONS
    ]
    comparisons = [
        Comparison(method=method, reference=reference, metric="log_loss", difference=-0.125, low=-0.251, high=-0.013,
                   verdict="better")
        for reference, method in combinations(VERSIONS, 2)
    ]  # fmt: skip
    bundle = MigratedBundle(
        name="next-department", task="returns", kind="classification", users=300, metric="log_loss",
        versions=versions, comparisons=comparisons, verdict="refit", epochs_saved=10, written="refitted", notes=[],
    )  # fmt: skip
    report = MigrationReport(
        previous_fingerprint="a", backbone_fingerprint="b", corpus_fingerprint="c", bundles=[bundle], settings={}
    )
    printed = io.StringIO()
    print_migration(report, Console(file=printed, width=80))
    assert printed.getvalue().count("[-0.251,") == 3
    assert printed.getvalue().count("-0.013]") == 3
    assert "…" not in printed.getvalue()
    assert all(text in printed.getvalue() for text in ("next-department", "log_loss", "refit", "10 epochs"))
