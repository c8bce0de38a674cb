"""Routes of questions about users whose events come with them, and of the tasks that may be asked for."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from peterrec.serving.http.auth import allow
from peterrec.serving.http.common import ServiceOf, faults
from peterrec.serving.http.replies import (
    FoundItem,
    ItemsReply,
    ModelInfo,
    PredictReply,
    TasksReply,
    TitlesReply,
    reply,
)
from peterrec.serving.http.schemas import FULL_TEXT, ExplainBody, PredictBody, TitlesBody, check_limits
from peterrec.serving.requests import Explanation, Question, Request

router = APIRouter(prefix="/v1", tags=["questions"], dependencies=[allow("read")])


@router.post(
    "/predict", response_model=PredictReply, responses=faults(404, 429, 504), summary="Ask tasks about given histories"
)
async def predict(body: PredictBody, service: ServiceOf) -> Response:
    """Answer any tasks about any users, whose events come with the question. All are answered, or none."""
    check_limits(body, service.limits)
    requests = [Request(sent.items, sent.question(), sent.times, features=sent.features) for sent in body.requests]
    return reply(PredictReply, PredictReply.model_construct(answers=await service.answer(requests)))


@router.post(
    "/explain", response_model=Explanation, responses=faults(404, 429, 504), summary="Ask which events mattered"
)
async def explain(body: ExplainBody, service: ServiceOf) -> Response:
    """Leave out each event in turn: `contributions` says what the answer's value loses without it."""
    check_limits(body, service.limits)
    question = Question([body.task], exclude_seen=body.exclude_seen, patched=body.patched)
    return reply(Explanation, await service.explain(Request(body.items, question), body.task))


@router.get("/tasks", response_model=TasksReply, responses=faults(body=False), summary="List what may be asked")
async def tasks(service: ServiceOf) -> Response:
    """List the loaded bundles, and say what the backbone is."""
    model = service.parts.engine.model
    config: Any = model.network.backbone.config
    info = ModelInfo(
        items=len(model.catalogue),
        max_length=model.pretrained.max_length,
        channels=config.channels,
        blocks=len(model.network.backbone.blocks),
        kind=config.kind,
        fingerprint=model.fingerprint,
    )
    return reply(TasksReply, TasksReply(tasks=service.parts.engine.tasks(), model=info))


Wanted = Annotated[
    str, Query(max_length=200, pattern=FULL_TEXT.replace("+", "*"), description="part of an id or a title")
]
Limit = Annotated[int, Query(ge=1, le=100, description="items")]


@router.get(
    "/items", response_model=ItemsReply, responses=faults(429, 504, body=False), summary="Search in the catalogue"
)
async def items(service: ServiceOf, q: Wanted = "", limit: Limit = 20) -> Response:
    """Find items by id or title, upper or lower case; without `q`, the most frequent."""
    matches = await service.call(lambda: service.parts.items.search(q, limit))
    listed = [FoundItem(item=match.item, title=match.title, count=match.count) for match in matches]
    return reply(ItemsReply, ItemsReply(items=listed))


@router.post("/items/titles", response_model=TitlesReply, responses=faults(429, 504), summary="Look titles up")
async def titles(body: TitlesBody, service: ServiceOf) -> Response:
    """Return the titles of items, by id as text, of those that have one."""
    check_limits(body, service.limits)
    return reply(TitlesReply, TitlesReply(titles=await service.call(lambda: service.parts.items.titles(body.items))))
