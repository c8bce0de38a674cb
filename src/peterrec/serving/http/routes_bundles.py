"""Routes of bundles, for operators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from peterrec.serving.http.auth import allow
from peterrec.serving.http.common import ServiceOf, faults
from peterrec.serving.http.replies import DroppedReply, VersionsReply, reply
from peterrec.serving.http.schemas import BundleName, LoadBody, RollBackBody
from peterrec.serving.http.service import Service
from peterrec.serving.requests import VersionInfo

router = APIRouter(prefix="/v1/bundles", tags=["bundles"], dependencies=[allow("operate")])
Name = Annotated[BundleName, Path(description="of the bundle, as it is asked for")]


@router.get("", response_model=VersionsReply, responses=faults(body=False), summary="List all bundles")
async def versions(service: ServiceOf) -> Response:
    """List all versions of all bundles in memory."""
    return reply(VersionsReply, _listed(service))


@router.get("/{name}", response_model=VersionsReply, responses=faults(404, body=False), summary="List one's versions")
async def versions_of(name: Name, service: ServiceOf) -> Response:
    """List the versions of a bundle in memory, the one that was loaded last first."""
    return reply(VersionsReply, _listed(service, name))


@router.put(
    "/{name}", response_model=VersionInfo, responses=faults(404, 409, 429, 503), summary="Load a bundle, or replace it"
)
async def load(name: Name, body: LoadBody, service: ServiceOf) -> Response:
    """Load a bundle's folder. Questions that were asked before are answered by the version of then."""
    return reply(VersionInfo, await service.change(lambda: service.bundles.load(name, body.path)))


@router.post(
    "/{name}/rollback",
    response_model=VersionInfo,
    responses=faults(404, 429, 503),
    summary="Let another version answer",
)
async def roll_back(name: Name, service: ServiceOf, body: RollBackBody | None = None) -> Response:
    """Let a version answer that is still in memory."""
    version = None if body is None else body.version
    return reply(VersionInfo, await service.change(lambda: service.bundles.roll_back(name, version)))


@router.delete(
    "/{name}", response_model=DroppedReply, responses=faults(404, 429, 503, body=False), summary="Drop a bundle"
)
async def drop(name: Name, service: ServiceOf) -> Response:
    """Forget all versions of a bundle; its folder stays."""
    generation = await service.change(lambda: service.bundles.drop(name))
    dropped = DroppedReply(dropped=name, generation=generation)
    return Response(dropped.model_dump_json(exclude_none=True), media_type="application/json")


def _listed(service: Service, name: str | None = None) -> VersionsReply:
    failed = [failure for failure in service.bundles.failed.values() if name in (None, failure.name)]
    generation = service.bundles.generation  # first: what is listed is not older
    versions = [] if name in service.bundles.failed else service.parts.engine.versions(name)
    return VersionsReply(versions=versions, failed=failed, generation=generation)
