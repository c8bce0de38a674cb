"""Error documentation and dependencies that all routes share."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import Depends, Request

from peterrec.serving.http.replies import ErrorReply
from peterrec.serving.http.service import Service

MEANINGS = {
    400: "The body is not JSON.",
    401: "No key, or a wrong one.",
    403: "The key may not do this.",
    404: "There is no such thing.",
    405: "The method is not one of this address.",
    408: "The body did not arrive in time.",
    409: "The bundle belongs to another backbone or catalogue.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    422: "The request is not as described, or asks for more than is allowed.",
    429: "The service has more to do than it can take on; see Retry-After.",
    500: "A fault of the service.",
    503: "The store does not answer, or the service is stopping.",
    504: "There was no answer in time.",
}
ALWAYS = (401, 403, 422, 500, 503)
WITH_BODY = (400, 408, 413, 415, 429)


def faults(*statuses_of_route: int, body: bool = True) -> dict[int | str, dict[str, Any]]:
    """Return the errors of a route for the document: those of all routes, of those with a body, and `more`."""
    statuses = {*ALWAYS, *statuses_of_route, *(WITH_BODY if body else ())}
    return {status: {"model": ErrorReply, "description": MEANINGS[status]} for status in sorted(statuses)}


async def service_of(request: Request) -> Service:
    """Return the service that a request is for."""
    return cast("Service", request.app.state.service)


ServiceOf = Annotated[Service, Depends(service_of)]
