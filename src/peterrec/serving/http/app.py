"""The application: routes, and what stands around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from peterrec._version import __version__
from peterrec.errors import PeterRecError
from peterrec.serving.http import routes_ask, routes_bundles, routes_open, routes_users
from peterrec.serving.http.auth import AuthenticationMiddleware
from peterrec.serving.http.errors import ApiError, as_api_error
from peterrec.serving.http.middleware import ObservabilityMiddleware, RequestBodyMiddleware
from peterrec.serving.http.openapi import describe
from peterrec.serving.http.routes_open import Pages
from peterrec.serving.http.service import Service

ROUTERS = (routes_ask.router, routes_users.router, routes_bundles.router, routes_open.router)


def make_app(service: Service, pages: Pages | None = None) -> FastAPI:
    """Return the ASGI application of a service; when it ends, the service is closed.

    Args:
        service: answers.
        pages: the page; the package's own if not given.
    """

    @asynccontextmanager
    async def run_lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work()) for work in (service.follower.follow, service.follower.fence)]
        yield
        for task in tasks:
            task.cancel()
        await service.close()

    app = FastAPI(
        title="peterrec", version=__version__, openapi_url=None, docs_url=None, redoc_url=None, lifespan=run_lifespan,
        redirect_slashes=False, routes=[route for router in ROUTERS for route in router.routes],
    )  # fmt: skip
    app.state.service, app.state.pages = service, pages or Pages()
    document: Callable[[], dict[str, Any]] = lambda: describe(app, service.limits, keyed=service.parts.keys is not None)  # noqa: E731
    app.openapi = document  # type: ignore[method-assign]
    for kind in (ApiError, PeterRecError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _error_response)
    app.add_middleware(RequestBodyMiddleware, limits=service.limits)  # the last one is the outermost
    app.add_middleware(AuthenticationMiddleware, keys=service.parts.keys)
    app.add_middleware(ObservabilityMiddleware, log=service.log, metrics=service.metrics)
    return app


async def _error_response(request: Request, error: Exception) -> Response:
    api_error = as_api_error(error)
    if api_error.status == 405:
        api_error.headers["Allow"] = ", ".join(_allowed_methods(request))
    return api_error.response()


def _allowed_methods(request: Request) -> list[str]:
    """Return what may be done with an address: the framework names only the methods of the first route."""
    methods: set[str] = set()
    for route in (route for router in ROUTERS for route in router.routes):
        pattern = getattr(route, "path_regex", None)
        if pattern is not None and pattern.match(request.scope["path"]):
            methods |= set(getattr(route, "methods", ()) or ())
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))
