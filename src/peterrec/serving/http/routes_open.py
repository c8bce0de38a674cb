"""Routes without a key, since they hold nothing of users: the page, health, metrics, the document."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from peterrec.serving.http.common import ServiceOf
from peterrec.serving.http.errors import ApiError
from peterrec.serving.http.metrics import CONTENT_TYPE
from peterrec.serving.http.replies import ErrorReply, ReadyReply, StatusReply, reply

PAGE = Path(__file__).parents[1] / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
    ".json": "application/json",
}
POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; img-src 'self' data:; "
    "object-src 'none'"
)


class Pages:
    """The page and its files, in memory: nothing outside the folder can be asked for.

    Args:
        folder: with index.html and what it needs.
    """

    def __init__(self, folder: Path = PAGE) -> None:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        files = {path.name: path.read_bytes() for path in paths if path.suffix in TYPES and path.is_file()}
        self._files = {name: (data, f'"{hashlib.sha256(data).hexdigest()[:20]}"') for name, data in files.items()}

    def get(self, name: str, request: Request) -> Response:
        """Return a file, or that the browser has it.

        Raises:
            ApiError: there is no such file.
        """
        if name not in self._files:
            raise ApiError(404, "not_found", "there is no such file", "open / for the page")
        data, tag = self._files[name]
        headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers | {"Content-Type": TYPES[Path(name).suffix]})


router = APIRouter(tags=["service"])


@router.get("/healthz", response_model=StatusReply, summary="Say whether the process is alive")
async def healthz() -> Response:
    """Answer as long as the process can."""
    return reply(StatusReply, StatusReply(status="ok"))


@router.get(
    "/readyz",
    response_model=ReadyReply,
    responses={
        503: {
            "model": ErrorReply,
            "description": "No event can be kept, no bundle answers, or the service stops or is behind its registry.",
        }
    },
    summary="Say whether to send requests here",
)
async def readyz(service: ServiceOf) -> Response:
    """Return whether events can be kept, bundles answer, and the service is not stopping."""
    failed = sorted(service.bundles.failed)
    if not await service.ready():
        message = "the service is stopping" if service.stopping else "the store of events cannot be written"
    elif (reason := service.bundles.not_ready()) is not None:
        message = reason
    elif failed and not service.parts.engine.tasks():
        message = f"none of the bundles could be loaded ({', '.join(failed)})"
    else:
        return reply(ReadyReply, ReadyReply(status="degraded" if failed else "ok", failed=failed))
    raise ApiError(503, "not_ready", message, "ask again shortly", {"Retry-After": "1"})


@router.get("/metrics", response_class=Response, summary="Metrics for Prometheus",
            responses={200: {"content": {"text/plain": {}}}})  # fmt: skip
async def metrics(service: ServiceOf) -> Response:
    """Return the counters of this process."""
    return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


@router.get("/openapi.json", include_in_schema=False)
async def document(request: Request) -> Response:
    """Return the document of this interface."""
    return JSONResponse(request.app.openapi())


@router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    """Return the page."""
    return _pages(request).get("index.html", request)


@router.get("/assets/{file}", include_in_schema=False)
async def asset(file: str, request: Request) -> Response:
    """Return a file of the page."""
    return _pages(request).get(file, request)


def _pages(request: Request) -> Pages:
    pages_of_app: Pages = request.app.state.pages
    return pages_of_app
