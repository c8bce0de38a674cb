"""Bodies of answers, for the document; they are written from the engine's own dataclasses."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from fastapi import Response
from pydantic import BaseModel, Field, TypeAdapter

from peterrec.data.catalogue import ItemId
from peterrec.serving.requests import Answer, Explanation, FailedBundle, TaskInfo, VersionInfo

T = TypeVar("T")


class Fault(BaseModel):
    """Error for programs and people."""

    code: str = Field(description="for programs", examples=["unknown_task"])
    message: str = Field(description="for people")
    remedy: str = Field(description="what to do; may be empty")


class ErrorReply(BaseModel):
    """Body of every error."""

    error: Fault


class PredictReply(BaseModel):
    """Answers in the order of the requests."""

    answers: list[Answer]


class EventsReply(BaseModel):
    """Counts of the events, which are durable now."""

    stored: int = Field(description="that are new")
    duplicates: int = Field(description="whose id the user already had")
    unknown_items: int = Field(description="of the new ones, of items that the catalogue does not have")


class KeptEvent(BaseModel):
    """An event of a user."""

    id: str
    item: ItemId
    timestamp: float = Field(description="seconds since 1970")
    domain: str | None = Field(description="as it came with the event")
    features: dict[str, str | bool | int | float] | None = Field(description="as they came with the event")
    known: bool = Field(description="whether the catalogue has the item")


class UserReply(BaseModel):
    """All that is kept of a user, oldest first."""

    user: str
    count: int
    events: list[KeptEvent]
    opt_outs: list[str] = Field(default=[], description="tasks that are not answered about the user")


class OptOutsReply(BaseModel):
    """Tasks that are not answered about a user."""

    user: str
    opt_outs: list[str] = Field(description="names of tasks, sorted")


class ErasedReply(BaseModel):
    """Number of erased events; 0 for a user who is not stored."""

    erased: int
    complete: bool = Field(description="false: files of the store may still hold them; see GET /v1/erasures")


class ErasuresReply(BaseModel):
    """Erasures that are not yet seen to have reached all files of the store; they go on by themselves."""

    pending: int
    since: float | None = Field(description="seconds since 1970, of the longest pending one")


class ModelInfo(BaseModel):
    """The backbone."""

    items: int = Field(description="of its catalogue")
    max_length: int = Field(description="events that it was trained to read")
    channels: int
    blocks: int
    kind: str = Field(examples=["causal"])
    fingerprint: str


class TasksReply(BaseModel):
    """Tasks and the backbone."""

    tasks: list[TaskInfo]
    model: ModelInfo


class FoundItem(BaseModel):
    """An item of the catalogue."""

    item: ItemId
    title: str | None
    count: int = Field(description="events of it that the backbone was trained on")


class ItemsReply(BaseModel):
    """Items that were found, best first."""

    items: list[FoundItem]


class TitlesReply(BaseModel):
    """Titles by id as text, of those that have one."""

    titles: dict[str, str]


class VersionsReply(BaseModel):
    """Versions in memory, of each name the one that was loaded last first."""

    versions: list[VersionInfo]
    failed: list[FailedBundle] = Field(description="that were there before a restart, and could not be loaded")
    generation: int | None = Field(
        default=None, description="of the registry that replicas share: all changes up to it are made here; else null"
    )


class DroppedReply(BaseModel):
    """The name that nothing answers to any more."""

    dropped: str
    generation: int | None = Field(default=None, description="of the change; only where replicas share a registry")


class StatusReply(BaseModel):
    """Sign that the process answers."""

    status: str = Field(examples=["ok"])


class ReadyReply(BaseModel):
    """Readiness for requests."""

    status: Literal["ok", "degraded"] = Field(description="degraded: some bundles do not answer, all else does")
    failed: list[str] = Field(description="names of bundles that could not be loaded after a restart")


DATACLASSES = (Answer, Explanation, FailedBundle, TaskInfo, VersionInfo)
_adapters: dict[Any, TypeAdapter[Any]] = {}


def reply(kind: type[T], value: T, status: int = 200) -> Response:
    """Return the JSON of a value; quicker than letting the framework check what we made ourselves."""
    adapter = _adapters.get(kind)
    if adapter is None:
        adapter = _adapters[kind] = TypeAdapter(kind)
    return Response(adapter.dump_json(value), status, media_type="application/json")
