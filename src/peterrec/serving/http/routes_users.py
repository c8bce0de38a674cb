"""Routes of users whose events the service keeps."""

from __future__ import annotations

import time
from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Path, Response
from pydantic import BeforeValidator

from peterrec.errors import RequestError
from peterrec.serving.http.auth import allow
from peterrec.serving.http.common import ServiceOf, faults
from peterrec.serving.http.errors import ApiError
from peterrec.serving.http.replies import (
    ErasedReply,
    ErasuresReply,
    EventsReply,
    KeptEvent,
    OptOutsReply,
    UserReply,
    reply,
)
from peterrec.serving.http.schemas import FULL_TEXT, AskBody, BundleName, EventsBody, check_limits
from peterrec.serving.http.service import Service
from peterrec.serving.requests import Answer
from peterrec.serving.store.base import Event

router = APIRouter(prefix="/v1", tags=["users"])
# What is still encoded of the path: a slash of an id is %2F.
DAY = 86_400.0
User = Annotated[
    str, BeforeValidator(unquote), Path(min_length=1, pattern=FULL_TEXT, description="id of the user; / is %2F in it")
]
TaskName = Annotated[BundleName, Path(description="of the bundle that answers it, loaded or not")]


@router.post(
    "/events",
    dependencies=[allow("write")],
    response_model=EventsReply,
    responses=faults(429, 503, 504),
    summary="Append events",
)
async def append(body: EventsBody, service: ServiceOf) -> Response:
    """Keep events of any users, all or none; when this answers, they are durable. Sending them again does no harm."""
    check_limits(body, service.limits)
    latest = time.time() + DAY
    if any(event.timestamp is not None and event.timestamp > latest for event in body.events):
        raise RequestError(
            "a timestamp is more than a day ahead of the service's clock",
            remedy="send seconds since 1970, not milliseconds",
        )
    events = [Event(sent.user, sent.id, sent.item, sent.timestamp, sent.domain, sent.features) for sent in body.events]
    service.check_features(events)
    new = await service.append(events)
    is_known = service.in_catalogue([event.item for event, is_new in zip(events, new, strict=True) if is_new])
    stored = sum(new)
    return reply(
        EventsReply,
        EventsReply(stored=stored, duplicates=len(new) - stored, unknown_items=len(is_known) - sum(is_known)),
    )


@router.post(
    "/users/{user}/predict",
    dependencies=[allow("read")],
    response_model=Answer,
    responses=faults(403, 404, 429, 503, 504),
    summary="Ask tasks about a stored user",
)
async def predict(user: User, service: ServiceOf, body: AskBody | None = None) -> Response:
    """Answer any tasks about a user by the stored events; a user who is not stored has none."""
    body = body or AskBody()
    _check_id(user, service)
    check_limits(body, service.limits)
    return reply(Answer, await service.answer_user(user, body.question()))


@router.get(
    "/users/{user}",
    dependencies=[allow("read")],
    response_model=UserReply,
    responses=faults(404, 429, 503, 504, body=False),
    summary="Show what is kept of a user",
)
async def show(user: User, service: ServiceOf) -> Response:
    """Return the events of a user, oldest first."""
    _check_id(user, service)
    stored = await service.read(user)
    kept_events = stored.events
    if not kept_events and not stored.opted_out:
        raise ApiError(404, "unknown_user", "nothing is kept of this user", "append events first")
    is_known_item = service.in_catalogue([event.item for event in kept_events])
    events = [
        KeptEvent(
            id=event.event_id,
            item=event.item,
            timestamp=event.timestamp,
            domain=event.domain,
            features=event.features,
            known=is_known,
        )
        for event, is_known in zip(kept_events, is_known_item, strict=True)
    ]
    return reply(UserReply, UserReply(user=user, count=len(events), events=events, opt_outs=sorted(stored.opted_out)))


@router.delete(
    "/users/{user}",
    dependencies=[allow("write")],
    response_model=ErasedReply,
    responses=faults(429, 503, 504, body=False),
    summary="Erase a user",
)
async def erase(user: User, service: ServiceOf) -> Response:
    """Erase all that is kept of a user: events, opt-outs, states, what is cached.

    Nobody can read it any more when this answers. Where files of the store may still hold it, `complete` is false: it
    is pending then, and goes on by itself, whatever is restarted.
    """
    _check_id(user, service)
    erased = await service.erase(user)
    return reply(ErasedReply, ErasedReply(erased=erased.events, complete=erased.complete))


@router.get(
    "/users/{user}/opt-outs",
    dependencies=[allow("read")],
    response_model=OptOutsReply,
    responses=faults(429, 503, 504, body=False),
    summary="Show which tasks a user has opted out of",
)
async def opt_outs(user: User, service: ServiceOf) -> Response:
    """Return the tasks that are not answered about a user; an empty list where there are none."""
    _check_id(user, service)
    return _opt_outs_reply(user, (await service.read(user)).opted_out)


@router.put(
    "/users/{user}/opt-outs/{task}",
    dependencies=[allow("write")],
    response_model=OptOutsReply,
    responses=faults(429, 503, 504, body=False),
    summary="Opt a user out of a task",
)
async def opt_out(user: User, task: TaskName, service: ServiceOf) -> Response:
    """Do not answer a task about a user from now on, whether or not the user or the task is there already.

    A question that names it is refused (403, `opted_out`); one that asks for all tasks is answered without it.
    """
    _check_id(user, service)
    return _opt_outs_reply(user, await service.set_opt_out(user, task, opted_out=True))


@router.delete(
    "/users/{user}/opt-outs/{task}",
    dependencies=[allow("write")],
    response_model=OptOutsReply,
    responses=faults(429, 503, 504, body=False),
    summary="Answer a task about a user again",
)
async def opt_in(user: User, task: TaskName, service: ServiceOf) -> Response:
    """Take an opt-out back; nothing is changed where there is none."""
    _check_id(user, service)
    return _opt_outs_reply(user, await service.set_opt_out(user, task, opted_out=False))


@router.get(
    "/erasures",
    dependencies=[allow("write")],
    response_model=ErasuresReply,
    responses=faults(429, 503, 504, body=False),
    summary="Show which erasures are pending",
)
async def erasures(service: ServiceOf) -> Response:
    """Return the number of erased users that files of the store may still hold, and since when; not who they were."""
    erasures = await service.erasures()
    return reply(ErasuresReply, ErasuresReply(pending=erasures.pending, since=erasures.since))


def _opt_outs_reply(user: str, tasks: frozenset[str]) -> Response:
    return reply(OptOutsReply, OptOutsReply(user=user, opt_outs=sorted(tasks)))


def _check_id(user: str, service: Service) -> None:
    max_length = service.limits.id_length
    if len(user) > max_length:
        raise RequestError(
            f"user: {len(user):,} characters, at most {max_length:,} are allowed", remedy="use a shorter id"
        )
