"""Authentication: keys with scopes, or loopback alone; checked before a body is read."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from peterrec.serving.http.errors import ApiError

if TYPE_CHECKING:
    from peterrec.serving.keys import Keys

ScopeName = Literal["read", "write", "operate"]
SCOPES: frozenset[str] = frozenset({"read", "write", "operate"})
API = "/v1/"
CLIENT = "peterrec.client"
WITH_BODY = {"POST", "PUT", "PATCH"}

# For the document only: the middleware has read the key before a route is looked for.
SECURITY_SCHEMES: dict[str, dict[str, str]] = {
    "bearer": {"type": "http", "description": "`Authorization: Bearer KEY`", "scheme": "bearer"},
    "header": {"type": "apiKey", "description": "`X-API-Key: KEY`", "in": "header", "name": "X-API-Key"},
}


@dataclass(frozen=True)
class Client:
    """Client of a request.

    Attributes:
        name: of its key; empty without keys.
        scopes: what it may do.
    """

    name: str
    scopes: frozenset[str]


def is_loopback(host: str) -> bool:
    """Return whether a host name or address can only be this machine: localhost, 127.0.0.0/8, ::1."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class AuthenticationMiddleware:
    """Middleware that refuses clients without a key, and foreign pages that reach a keyless service by another name.

    Args:
        app: what is guarded.
        keys: of clients; None: everyone on this machine may do everything.
    """

    def __init__(self, app: ASGIApp, keys: Keys | None) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on.

        Raises:
            ApiError: it is refused.
        """
        if scope["type"] == "http":
            scope[CLIENT] = self._client(scope, Headers(scope=scope))
        await self._app(scope, receive, send)

    def _client(self, scope: Scope, headers: Headers) -> Client:
        if len(headers.getlist("host")) > 1:
            raise ApiError(400, "bad_request", "there are two Host headers", "send one")
        if self._keys is None and not is_loopback(_host(headers.get("host", ""))):
            raise ApiError(
                403, "forbidden", "without keys the service answers only to names of this machine",
                "ask http://localhost or http://127.0.0.1, or start the service with keys",
            )  # fmt: skip
        if not scope["path"].startswith(API):
            return Client("", frozenset())
        client = Client("", SCOPES) if self._keys is None else _authenticate(self._keys, headers)
        packed = headers.get("content-encoding", "")  # looked at before the framework takes the body for bad JSON
        if packed.lower() not in {"", "identity"} and _has_body(headers):
            raise ApiError(415, "not_json", "the body is compressed (Content-Encoding)", "send it as it is")
        return client


def _authenticate(keys: Keys, headers: Headers) -> Client:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    presented = key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    name_and_scopes = keys.scopes(presented) if presented else None
    if name_and_scopes is None:
        message = "the key is not known" if presented else "no key was given"
        remedy = "send `Authorization: Bearer KEY` with a key of the service's keys file"
        raise ApiError(401, "unauthenticated", message, remedy, {"WWW-Authenticate": "Bearer"})
    return Client(*name_and_scopes)


def _check_json(headers: Headers) -> None:
    """Refuse a body that is not said to be JSON.

    A page on another site cannot send JSON here without asking first, and nothing here answers such a question. It can
    send no body at all, but a browser then says where the page is from; programs do not, and may leave the body out.
    """
    if not _has_body(headers) and "content-type" not in headers and "origin" not in headers:
        return
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            415, "not_json", "the body must be JSON, and say so", "send the header `Content-Type: application/json`"
        )


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _host(value: str) -> str:
    """Return the name of a Host header, without the port."""
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value.partition(":")[0]


def allow(scope: ScopeName) -> Any:
    """Return the dependency of a route that only clients with a scope may use."""
    return Depends(_scope_check(scope))


def _scope_check(required_scope: ScopeName) -> Callable[..., Any]:
    async def check(request: Request) -> None:
        if required_scope not in request.scope[CLIENT].scopes:
            raise ApiError(
                403,
                "forbidden",
                f"the key does not have the scope {required_scope!r}",
                "use a key that has, or ask who runs it",
            )
        if request.method in WITH_BODY:
            _check_json(request.headers)

    check.scope = required_scope  # type: ignore[attr-defined]
    return check
