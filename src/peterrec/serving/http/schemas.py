"""Bodies of requests. A field with a `Bound` is checked against the settings, and its limit is in the document."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from peterrec.config import LimitsConfig, Name
from peterrec.config.base import NAME_BYTES, NAME_PATTERN
from peterrec.errors import RequestError
from peterrec.serving.requests import Question
from peterrec.serving.store.values import MAX_FEATURES

LARGEST_INTEGER = 2**63 - 1  # what stores and catalogues hold
FULL_TEXT = r"^[^\x00]+$"
MAX_TASKS = 1_000
MAX_EXACT_FLOAT = 2.0**53
MAX_UNKNOWN_KEYS = 10  # keys more than an object has fields that are still told one by one
# Of the service whose request is read. Lists too long are refused before their elements are looked at.
LIMITS: ContextVar[LimitsConfig | None] = ContextVar("limits", default=None)

TextId = Annotated[str, Field(min_length=1, pattern=FULL_TEXT)]


def _integral_float_to_int(value: Any) -> Any:
    """Read 1.0 as 1, which is the same number in JSON; one too large for a float to be exact stays what it is not."""
    is_integral = isinstance(value, float) and value.is_integer() and abs(value) <= MAX_EXACT_FLOAT
    return int(value) if is_integral else value


IntegralFloat = BeforeValidator(_integral_float_to_int)
IntegerId = Annotated[int, Field(ge=-LARGEST_INTEGER - 1, le=LARGEST_INTEGER), IntegralFloat]
Item = TextId | IntegerId
FeatureText = Annotated[str, Field(min_length=1, max_length=1_000, pattern=FULL_TEXT)]
# pydantic names the pattern of keys in the document, but not that there are no other keys.
EventFeatures = Annotated[
    dict[FeatureText, FeatureText | bool | int | float | None],
    Field(max_length=MAX_FEATURES, json_schema_extra={"additionalProperties": False}),
]
BundleName = Annotated[Name, Field(min_length=1, max_length=NAME_BYTES, json_schema_extra={"pattern": NAME_PATTERN})]
Version = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z]+$")]


@dataclass(frozen=True)
class Bound:
    """A limit of the settings.

    Attributes:
        limit: its name in `LimitsConfig`.
        measure: the length of a list, of a text (or of each in a list), or a number.
    """

    limit: str
    measure: Literal["list", "text", "number"]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return a schema that checks the length of a list first; `check_limits` does the rest."""
        schema = handler(source)
        return core_schema.no_info_before_validator_function(self._check, schema) if self.measure == "list" else schema

    def _check(self, value: Any) -> Any:
        limits = LIMITS.get()
        if limits is not None and isinstance(value, list) and len(value) > getattr(limits, self.limit):
            message = _over_limit_message(len(value), getattr(limits, self.limit))
            raise PydanticCustomError("too_long", "{message}", {"message": message})
        return value


class Body(BaseModel):
    """Base of all bodies: unknown keys are errors, numbers are finite, nothing is converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _few_keys(cls, value: Any) -> Any:
        """Refuse an object of any number of unknown keys, before there is an error for each."""
        if isinstance(value, dict) and len(value) > len(cls.__pydantic_fields__) + MAX_UNKNOWN_KEYS:
            raise PydanticCustomError("too_many_keys", "has {keys} keys, far more than there are", {"keys": len(value)})
        return value


class AskBody(Body):
    """Question about a user, and options."""

    tasks: Annotated[
        Literal["*"] | Annotated[list[TextId], Field(fail_fast=True, min_length=1, max_length=MAX_TASKS)],
        Field(description="names of loaded bundles, or * for all", examples=["*", ["age"]]),
    ] = "*"
    k: Annotated[int, Field(ge=1, description="items of a ranking task"), IntegralFloat, Bound("k", "number")] = 10
    exclude_seen: bool | None = Field(
        None, description="leave out items that the user already has; as the bundle says, if not given"
    )
    patched: bool = Field(True, description="with the tasks' patches; false: as the plain backbone would answer")

    def question(self) -> Question:
        """Return what the engine is asked."""
        return Question(self.tasks, self.k, self.exclude_seen, self.patched)


# Without fail_fast there is an error for each wrong element, and a million of them take seconds, and gigabytes.
History = Annotated[
    list[Item],
    Field(
        fail_fast=True,
        description="external ids, oldest first; none for a user of whom nothing is known",
        examples=[["a", "b"]],
    ),
    Bound("id_length", "text"),
]


class RequestBody(AskBody):
    """A question about a user whose events are given."""

    items: Annotated[History, Bound("history", "list")]
    times: Annotated[list[float] | None, Bound("history", "list")] = Field(
        None, description="of the events, seconds since 1970; none: filters and features of time are not applied"
    )
    features: Annotated[list[EventFeatures | None] | None, Bound("history", "list")] = Field(
        None, description="of the events, what each says beside its item, as in POST /v1/events"
    )


class PredictBody(Body):
    """Questions about several users; they are answered together."""

    requests: Annotated[list[RequestBody], Field(fail_fast=True, min_length=1), Bound("requests", "list")]


class ExplainBody(Body):
    """Question about the contribution of each event to the answer of a task."""

    items: Annotated[History, Bound("explained", "list")]
    task: TextId = Field(description="name of a loaded bundle")
    exclude_seen: bool | None = Field(
        None,
        description="of a ranking task: explain the best item that the user has not; default: as the bundle says",
    )
    patched: bool = Field(True, description="with the task's patch")


class EventBody(Body):
    """Event of a user."""

    id: Annotated[TextId, Field(description="the user's own; the same twice is kept once"), Bound("id_length", "text")]
    user: Annotated[TextId, Field(description="who"), Bound("id_length", "text")]
    item: Annotated[Item, Field(description="external id"), Bound("id_length", "text")]
    timestamp: float | None = Field(
        None, description="seconds since 1970; if not given, now, in the order of the request"
    )
    domain: Annotated[
        TextId | None, Field(description="of the item, where the prepared log had domains"), Bound("id_length", "text")
    ] = None

    features: EventFeatures | None = Field(
        None,
        description="what the event says beside its item, by columns of the prepared log; others are kept, unread",
        examples=[{"type": "view", "amount": 12.5}],
    )


class EventsBody(Body):
    """Events of any users. All are kept, or none."""

    events: Annotated[list[EventBody], Field(fail_fast=True, min_length=1), Bound("events", "list")]


class TitlesBody(Body):
    """Items whose titles are wanted."""

    items: Annotated[list[Item], Field(fail_fast=True), Bound("history", "list"), Bound("id_length", "text")]


class LoadBody(Body):
    """Folder of a bundle."""

    path: Annotated[str, Field(min_length=1, max_length=1_000, pattern=FULL_TEXT)] = Field(
        description="folder below the service's bundle_root", examples=["bundles/age"]
    )


class RollBackBody(Body):
    """Version that shall answer again."""

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
        value, max_size = getattr(body, name), getattr(limits, bound.limit)
        size = _size(value, bound)
        if size > max_size:
            raise RequestError(f"{name}: {_over_limit_message(size, max_size)}", remedy=_REMEDIES[bound.measure])
    for name in type(body).model_fields:
        value = getattr(body, name)
        if isinstance(value, list) and value and isinstance(value[0], Body):
            for element in value:
                check_limits(element, limits)


def _over_limit_message(size: int, limit: int) -> str:
    return f"{size:,} given, at most {limit:,} are allowed"


_REMEDIES = {
    "list": "send fewer: the newest, or in several requests",
    "text": "use shorter ids",
    "number": "ask for fewer",
}


def bounds(body: type[BaseModel]) -> Iterator[tuple[str, Bound]]:
    """Yield the bounded fields of a body."""
    for name, field in body.model_fields.items():
        for annotation in field.metadata:
            if isinstance(annotation, Bound):
                yield name, annotation


def _size(value: Any, bound: Bound) -> int:
    if value is None:  # was not given
        return 0
    if bound.measure == "number":
        return int(value)
    if bound.measure == "list":
        return len(value)
    values = value if isinstance(value, list) else [value]
    return max((len(text) for text in values if isinstance(text, str)), default=0)
