"""Settings of the service."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from peterrec.config.base import Config, Fraction, Positive

Window = Literal["trained", "whole"]


class EngineConfig(Config):
    """Settings of the engine: window, states, search, versions and batches."""

    window: Window = Field(
        default="trained",
        description="trained: the last max_length events are read, as in training; states are kept event by event "
        "where that says the same. whole: all events, as far as the receptive field reaches (causal, readout token)",
    )
    states: PositiveInt = Field(
        default=10_000, description="states in memory, one for each user and patch; the longest unused goes first"
    )
    approximate_above: NonNegativeInt = Field(
        default=250_000, description="targets; a larger catalogue of targets is searched by an approximate index"
    )
    least_recall: Fraction = Field(
        default=0.95, description="of the exact best items; an index that finds fewer is not used, and the log says so"
    )
    bounds: Literal["prepared", "none"] = Field(
        default="prepared",
        description="prepared: events outside the bounds in time that data were prepared with (source.after, "
        "source.before, the first target event) are not read, as in training; none: those of any time are",
    )
    keep_versions: PositiveInt = Field(default=3, description="versions of a bundle in memory, to roll back to")
    batch_size: PositiveInt = Field(default=256, description="rows of the network at once")


class LimitsConfig(Config):
    """Limits of the service on requests, stored events and connections: of one client, or of all together."""

    head_bytes: PositiveInt = Field(
        default=32_768, description="of the first line and the headers of a request, while they arrive"
    )
    body_bytes: PositiveInt = Field(default=4_000_000, description="of a request")
    body_seconds: Positive = Field(default=10.0, description="for the body of a request to arrive")
    requests: PositiveInt = Field(default=256, description="users in one POST /v1/predict")
    rows: PositiveInt = Field(default=1_024, description="users times tasks in one request")
    answer_items: PositiveInt = Field(default=100_000, description="items in the answers of one request, at most")
    events: PositiveInt = Field(default=1_000, description="in one POST /v1/events")
    history: PositiveInt = Field(default=10_000, description="items of one user in a request")
    keep_events: PositiveInt = Field(
        default=10_000, description="newest events that are kept of a user; older ones are dropped, a quarter at a time"
    )
    k: PositiveInt = Field(default=1_000, description="items of an answer")
    explained: PositiveInt = Field(default=200, description="events of a question which of them mattered")
    id_length: PositiveInt = Field(default=256, description="characters of an id of a user, an event or an item")
    queue: PositiveInt = Field(default=4_096, description="rows waiting for the network; past it the answer is 429")
    connections: PositiveInt = Field(
        default=2_000, description="open at once, if the open files allow it; past it a request is answered with 503"
    )
    answer_seconds: Positive = Field(default=10.0, description="for computing an answer; past it the answer is 504")
    shutdown_seconds: PositiveInt = Field(default=20, description="for requests in flight when the service is stopped")


class ReplicasConfig(Config):
    """Settings of replicas and workers, which share one registry of bundles (`registry: store`, `workers`)."""

    poll_ms: Annotated[float, Field(ge=10.0, le=10_000.0)] = Field(
        default=250.0, description="milliseconds between two looks at the registry"
    )
    lease_ms: Annotated[float, Field(ge=100.0, le=60_000.0)] = Field(
        default=1_500.0,
        description="milliseconds for which a version may answer after the registry named it: past that the answer is "
        "503 until the registry, or the loaded new version, can be asked; several times poll_ms",
    )
    grace_seconds: Positive = Field(
        default=3_600.0, description="that a copy of a bundle stays after nothing names it any more"
    )

    @model_validator(mode="after")
    def _lease_spans_polls(self) -> Self:
        if self.lease_ms < 2 * self.poll_ms:
            raise ValueError("lease_ms is less than twice poll_ms: a version would lapse between two looks")
        return self


class ServeConfig(Config):
    """Settings of `peterrec serve`: one backbone, its bundles and its users behind one address."""

    host: str = Field(default="127.0.0.1", description="address to listen on; without keys only a loopback one")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(default=8000, description="to listen on; 0: any that is free")
    state: str = Field(default="peterrec-state", description="folder for the events, and for which bundles are loaded")
    store: str = Field(
        default="sqlite", description="sqlite: a file in the folder `state`; redis://...: for several processes"
    )
    registry: Literal["state", "store"] = Field(
        default="state",
        description="state: bundles are this service's own, remembered in the folder `state`; store: in the Redis "
        "server of `store`, shared by all services that have it, with copies in their common `bundle_root`",
    )
    workers: PositiveInt = Field(
        default=1, description="processes that answer at the address; their common memory holds the backbone once"
    )
    keys: str | None = Field(default=None, description="file with the keys of clients and what each may do")
    titles: str | None = Field(default=None, description="Parquet or CSV with columns item_id and title, for the page")
    bundle_root: str = Field(default=".", description="folder that bundles are loaded from while the service runs")
    wait_ms: Annotated[float, Field(ge=0.0, le=1000.0)] = Field(
        default=2.0, description="milliseconds that a question may wait for others to share a batch with"
    )
    threads: PositiveInt | None = Field(
        default=None,
        description="of the network; else OMP_NUM_THREADS, or one less than the cores: one is for who talks to clients",
    )
    engine: EngineConfig = Field(default=EngineConfig(), description="how questions are answered")
    replicas: ReplicasConfig = Field(default=ReplicasConfig(), description="how replicas and workers agree on bundles")
    limits: LimitsConfig = Field(default=LimitsConfig(), description="what may be asked for")
