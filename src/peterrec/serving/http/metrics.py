"""Metrics of the service, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from peterrec.data.reference import Reference
from peterrec.serving.http.batcher import BatchRun
from peterrec.serving.http.watch import AnswerCounts, expected_shares
from peterrec.serving.requests import VersionInfo

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one service, in a registry of its own.

    Args:
        workers: folder in which prometheus_client has the counters of all workers, whose sums are told; None: it is one
            process. Gauges are always those of this process.
    """

    def __init__(self, workers: Path | None = None) -> None:
        self.registry = registry = CollectorRegistry()
        self._gauges, self._workers = CollectorRegistry(), workers
        about = ["route", "method"]
        self.requests = Counter(
            "peterrec_requests", "Requests by route, method and status.", [*about, "status"], registry=registry
        )
        self.latency = Histogram(
            "peterrec_request_seconds", "From the headers to the answer.", about, buckets=SECONDS, registry=registry
        )
        self.refused = Counter("peterrec_busy", "Requests refused with 429.", registry=registry)
        self.batches = Histogram(
            "peterrec_batch_rows", "Rows that ran together.", ["queue"], buckets=ROWS, registry=registry
        )
        self.seconds = Histogram(
            "peterrec_batch_seconds", "Seconds of a run in its thread.", ["queue"], buckets=SECONDS, registry=registry
        )
        self.stored = Counter("peterrec_events_stored", "Events that are new.", registry=registry)
        self.duplicates = Counter("peterrec_events_duplicate", "Events that their user had.", registry=registry)
        self.store_errors = Counter("peterrec_store_errors", "Calls that the store failed.", registry=registry)
        self.answers = AnswerCounts(registry)

    def observer(self, queue: str) -> Callable[[BatchRun], None]:
        """Return what a batcher tells of its runs."""
        rows, seconds = self.batches.labels(queue), self.seconds.labels(queue)

        def observe(run: BatchRun) -> None:
            rows.observe(run.rows)
            seconds.observe(run.seconds)

        return observe

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self.requests.labels(route, method, str(status)).inc()
        self.latency.labels(route, method).observe(seconds)
        if status == 429:
            self.refused.inc()

    def watch(
        self,
        gauges: Callable[[], dict[str, tuple[str, float]]],
        queues: Callable[[], dict[str, int]],
        versions: Callable[[], list[VersionInfo]],
        references: Callable[[], dict[str, Reference]],
    ) -> None:
        """Read these whenever the metrics are asked for: (what it is, value) by name; rows that wait; bundles."""
        self._gauges.register(_GaugeCollector(gauges, queues, versions, references))

    def text(self) -> bytes:
        """Return all of it in Prometheus' text form."""
        counters = self.registry
        if self._workers is not None:
            counters = CollectorRegistry()
            MultiProcessCollector(counters, path=str(self._workers))  # type: ignore[no-untyped-call]
        return generate_latest(counters) + generate_latest(self._gauges)


class _GaugeCollector(Collector):
    def __init__(
        self,
        gauges: Callable[[], dict[str, tuple[str, float]]],
        queues: Callable[[], dict[str, int]],
        versions: Callable[[], list[VersionInfo]],
        references: Callable[[], dict[str, Reference]],
    ) -> None:
        self._gauges, self._queues, self._versions, self._references = gauges, queues, versions, references

    def describe(self) -> Iterable[Any]:
        """Return no metrics: none is known before the service has started."""
        return ()

    def collect(self) -> Iterable[Any]:
        """Return what is true now."""
        for name, (about, value) in self._gauges().items():
            yield GaugeMetricFamily(f"peterrec_{name}", about, value)
        queued = GaugeMetricFamily("peterrec_queue_rows", "Rows that wait.", labels=["queue"])
        for name, rows in self._queues().items():
            queued.add_metric([name], rows)
        yield queued
        bundles = GaugeMetricFamily(
            "peterrec_bundle_info", "Versions of bundles in memory.", labels=["name", "version", "kind", "active"]
        )
        for bundle in self._versions():
            bundles.add_metric([bundle.name, bundle.version, bundle.kind, str(bundle.active).lower()], 1)
        yield bundles
        expected = GaugeMetricFamily(
            "peterrec_expected_share", "Share of the valid users of a bundle.", labels=["task", "quantity", "bin"]
        )
        for place, share in expected_shares(self._references()):
            expected.add_metric(place, share)
        yield expected
