"""Errors of the interface: a status and a message in one form, for any exception."""

from __future__ import annotations

import http
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from peterrec.errors import (
    AnswerError,
    ArtifactError,
    FingerprintError,
    OptedOutError,
    PeterRecError,
    RequestError,
    StorageError,
    StoreError,
    UnknownTaskError,
)

SHOWN_PROBLEMS = 3  # problems of one body
MAX_NAME_LENGTH = 60  # of a field that a message names
UNION_MEMBER_PREFIXES = (
    "constrained-",
    "function-",
    "literal[",
    "list[",
)  # what pydantic calls the kinds of a value that may be of several

# The first that fits; what none fits is our own fault.
STATUS_BY_ERROR: tuple[tuple[type[PeterRecError], int, str], ...] = (
    (UnknownTaskError, 404, "unknown_task"),
    (OptedOutError, 403, "opted_out"),
    (RequestError, 422, "invalid_request"),
    (AnswerError, 500, "bad_answer"),
    (FingerprintError, 409, "other_backbone"),
    (ArtifactError, 422, "bad_bundle"),
    (StoreError, 503, "store_unavailable"),
    (StorageError, 503, "storage_unavailable"),
    (PeterRecError, 422, "invalid_request"),
)
CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "not_json",
    500: "internal_error",
}


class ApiError(Exception):
    """Error as a client gets it.

    Args:
        status: of HTTP.
        code: for programs.
        message: for people.
        remedy: what to do.
        headers: of the answer.
    """

    def __init__(
        self, status: int, code: str, message: str, remedy: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.remedy = status, code, message, remedy
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the JSON of the answer."""
        return {"error": {"code": self.code, "message": self.message, "remedy": self.remedy}}

    def response(self) -> JSONResponse:
        """Return the answer."""
        return JSONResponse(self.body(), self.status, {"Cache-Control": "no-store"} | self.headers)


def busy(retry_after: int) -> ApiError:
    """Return the error of a full queue."""
    return ApiError(
        429, "busy", "the service has more to do than it can take on", f"try again in {retry_after} s",
        {"Retry-After": str(retry_after)},
    )  # fmt: skip


def stopping() -> ApiError:
    """Return the error of a service that is about to end."""
    return ApiError(503, "stopping", "the service is stopping", "try again shortly", {"Retry-After": "1"})


def too_slow(seconds: float, remedy: str) -> ApiError:
    """Return the error of an answer that took too long."""
    return ApiError(504, "too_slow", f"there was no answer within {seconds:g} s", remedy)


def as_api_error(error: Exception) -> ApiError:
    """Return an error as a client gets it; of a fault of the service, only that there was one."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _from_validation(error.errors())
    if isinstance(error, HTTPException):
        return _from_http_exception(error)
    for kind, status, code in STATUS_BY_ERROR:
        if isinstance(error, kind):
            retry = {"Retry-After": "1"} if status == 503 else None
            return ApiError(status, code, error.message, error.remedy, retry)
    return ApiError(500, CODES[500], "the service failed", "report it with the X-Request-ID of this answer")


def _from_http_exception(error: HTTPException) -> ApiError:
    status = error.status_code
    phrase = http.HTTPStatus(status).phrase.lower()
    if isinstance(error.__cause__, RecursionError):
        return ApiError(400, "malformed_json", "the body is nested too deep", "see /openapi.json for what is expected")
    if status == 400:  # the framework's word for a body that no JSON parser gets through
        return ApiError(400, "malformed_json", "the body is not JSON that can be read", "send JSON in UTF-8")
    remedy = {404: "see /openapi.json for what there is", 405: "see the Allow header"}.get(status, "")
    return ApiError(status, CODES.get(status, "error"), phrase, remedy, error.headers)


def _from_validation(problems: Sequence[Any]) -> ApiError:
    """Return the error of fields that are wrong, with the faults and without the values."""
    if any(problem["type"] == "json_invalid" for problem in problems):
        return ApiError(400, "malformed_json", "the body is not valid JSON", "send JSON in UTF-8")
    problems_by_field: dict[str, list[str]] = {}  # what may be of several kinds has a problem with each of them
    for problem in problems:
        problems_by_field.setdefault(_field_path(problem["loc"]), []).append(_field_message(problem))
    messages = [f"{place}: {', or: '.join(whats)}" for place, whats in list(problems_by_field.items())[:SHOWN_PROBLEMS]]
    remainder = (
        f"; and {len(problems_by_field) - SHOWN_PROBLEMS:,} more" if len(problems_by_field) > SHOWN_PROBLEMS else ""
    )
    return ApiError(422, "invalid_request", "; ".join(messages) + remainder, "see /openapi.json for what is expected")


def _field_message(problem: Mapping[str, Any]) -> str:
    # Of a body that is no object the framework would say something about its own classes.
    message = str(problem["msg"]).removeprefix("Value error, ")
    return "should be an object" if problem["type"] == "model_attributes_type" else message


def _field_path(places: Sequence[str | int]) -> str:
    names = (_printable(str(place)) for place in places[1:] if not str(place).startswith(UNION_MEMBER_PREFIXES))
    return ".".join(names) or str(places[0])


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name[:MAX_NAME_LENGTH])
