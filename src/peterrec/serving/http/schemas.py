"""What clients send. What a limit of the settings bounds carries a `Bound`: it is checked, and put in the document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from peterrec.config import LimitsConfig
from peterrec.errors import RequestError
from peterrec.serving.requests import Question

LARGEST_INTEGER = 2**63 - 1  # what stores and catalogues hold
FULL_TEXT = r"^[^\x00]+$"
MOST_TASKS = 1_000
EXACT = 2.0**53

TextId = Annotated[str, Field(min_length=1, pattern=FULL_TEXT)]


def _whole(value: Any) -> Any:
    """Read 1.0 as 1, which is the same number in JSON; one too large for a float to be exact stays what it is not."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) <= EXACT
    return int(value) if whole else value


Whole = BeforeValidator(_whole)
IntegerId = Annotated[int, Field(ge=-LARGEST_INTEGER - 1, le=LARGEST_INTEGER), Whole]
Item = TextId | IntegerId
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$"
BundleName = Annotated[str, Field(min_length=1, max_length=200, pattern=NAME_PATTERN)]
Version = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z]+$")]


@dataclass(frozen=True)
class Bound:
    """A limit of the settings.

    Attributes:
        limit: its name in `LimitsConfig`.
        of: what of a value it bounds: the length of a list, of a text (or of each in a list), or a number.
    """

    limit: str
    of: Literal["list", "text", "number"]


class Body(BaseModel):
    """Base of all bodies: unknown keys are errors, numbers are finite, nothing is converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class AskBody(Body):
    """What is asked about a user."""

    tasks: Annotated[
        Literal["*"] | Annotated[list[TextId], Field(min_length=1, max_length=MOST_TASKS)],
        Field(description="names of loaded bundles, or * for all", examples=["*", ["age"]]),
    ] = "*"
    k: Annotated[int, Field(ge=1, description="items of a ranking task"), Whole, Bound("k", "number")] = 10
    exclude_seen: bool = Field(True, description="leave out items that the user already has")
    patched: bool = Field(True, description="with the tasks' patches; false: as the plain backbone would answer")

    def question(self) -> Question:
        """Return what the engine is asked."""
        return Question(self.tasks, self.k, self.exclude_seen, self.patched)


History = Annotated[
    list[Item],
    Field(description="external ids, oldest first; none for a user of whom nothing is known", examples=[["a", "b"]]),
    Bound("id_length", "text"),
]


class RequestBody(AskBody):
    """A question about a user whose events are given."""

    items: Annotated[History, Bound("history", "list")]


class PredictBody(Body):
    """Questions about several users; they are answered together."""

    requests: Annotated[list[RequestBody], Field(min_length=1), Bound("requests", "list")]


class ExplainBody(Body):
    """A question which events mattered for a task."""

    items: Annotated[History, Bound("explained", "list")]
    task: TextId = Field(description="name of a loaded bundle")
    exclude_seen: bool = Field(True, description="of a ranking task: explain the best item that the user has not")
    patched: bool = Field(True, description="with the task's patch")


class EventBody(Body):
    """Something a user did."""

    id: Annotated[TextId, Field(description="the user's own; the same twice is kept once"), Bound("id_length", "text")]
    user: Annotated[TextId, Field(description="who"), Bound("id_length", "text")]
    item: Annotated[Item, Field(description="external id"), Bound("id_length", "text")]
    timestamp: float | None = Field(None, description="seconds since 1970; now, if not given")


class EventsBody(Body):
    """Events of any users. All are kept, or none."""

    events: Annotated[list[EventBody], Field(min_length=1), Bound("events", "list")]


class TitlesBody(Body):
    """Items whose titles are wanted."""

    items: Annotated[list[Item], Field(), Bound("history", "list"), Bound("id_length", "text")]


class LoadBody(Body):
    """Where a bundle is."""

    path: Annotated[str, Field(min_length=1, max_length=1_000, pattern=FULL_TEXT)] = Field(
        description="folder below the service's bundle_root", examples=["bundles/age"]
    )


class RollBackBody(Body):
    """Which version shall answer again."""

    version: Version | None = Field(None, description="one that is in memory; the one before, if not given")


BODIES: tuple[type[Body], ...] = (
    AskBody, RequestBody, PredictBody, ExplainBody, EventBody, EventsBody, TitlesBody, LoadBody, RollBackBody,
)  # fmt: skip


def check_limits(body: Body, limits: LimitsConfig) -> None:
    """Refuse a body that asks for more than the settings allow.

    Raises:
        RequestError: with the limit in the message.
    """
    for name, bound in bounds(type(body)):
        value, most = getattr(body, name), getattr(limits, bound.limit)
        size = _size(value, bound)
        if size > most:
            raise RequestError(f"{name}: {size:,} given, at most {most:,} are allowed", remedy=_REMEDIES[bound.of])
    for name in type(body).model_fields:
        value = getattr(body, name)
        if isinstance(value, list) and value and isinstance(value[0], Body):
            for one in value:
                check_limits(one, limits)


_REMEDIES = {
    "list": "send fewer: the newest, or in several requests",
    "text": "use shorter ids",
    "number": "ask for fewer",
}


def bounds(body: type[BaseModel]) -> Iterator[tuple[str, Bound]]:
    """Yield the bounded fields of a body."""
    for name, field in body.model_fields.items():
        for found in field.metadata:
            if isinstance(found, Bound):
                yield name, found


def _size(value: Any, bound: Bound) -> int:
    if bound.of == "number":
        return int(value)
    if bound.of == "list":
        return len(value)
    values = value if isinstance(value, list) else [value]
    return max((len(one) for one in values if isinstance(one, str)), default=0)
