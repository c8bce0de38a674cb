"""The document of the interface, with the limits of this service in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from peterrec.config import LimitsConfig
from peterrec.serving.http.auth import API, SECURITY_SCHEMES
from peterrec.serving.http.replies import DATACLASSES
from peterrec.serving.http.schemas import BODIES, LARGEST_INTEGER, Bound, bounds

ABOUT = """
Ask any task about any user: the user's events come with the question (`/v1/predict`), or are kept here
(`/v1/events`, `/v1/users/{user}/predict`). Items are the external ids of the backbone's catalogue, as text or integers;
items that it does not have are counted and skipped.

Every error has the form of `ErrorReply`. Send a key as `Authorization: Bearer KEY`; a service without keys answers only
to its own machine.
"""
FAULTS = {
    "400": "The address is not UTF-8, or names two hosts.",
}
KEYWORDS = {"list": ("array", "maxItems"), "text": ("string", "maxLength"), "number": ("integer", "maximum")}


def describe(app: FastAPI, limits: LimitsConfig, *, keyed: bool) -> dict[str, Any]:
    """Return the OpenAPI document of an application; the same one after the first time.

    Args:
        app: the routes.
        limits: of its service.
        keyed: whether it asks for keys.
    """
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=ABOUT.strip(), routes=app.routes)
        schemas = document["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for kind in DATACLASSES:
            _add_descriptions(schemas[kind.__name__], kind.__doc__ or "")
        _add_limits(document, limits)
        _add_faults(document)
        _write_integer_bounds(document)
        if keyed:
            _add_security(document)
        app.openapi_schema = document
    return app.openapi_schema


def _add_limits(document: dict[str, Any], limits: LimitsConfig) -> None:
    schemas = document["components"]["schemas"]
    for body in BODIES:
        if body.__name__ in schemas:
            for name, bound in bounds(body):
                _add_bound(schemas[body.__name__]["properties"][name], bound, getattr(limits, bound.limit))
    for operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            if parameter["name"] == "user":
                parameter["schema"]["maxLength"] = limits.id_length


def _add_faults(document: dict[str, Any]) -> None:
    """Add the errors that any request may get before its address is looked at."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorReply"}}}
    for operation in _operations(document):
        for status, meaning in FAULTS.items():
            if status not in operation["responses"]:
                operation["responses"][status] = {"description": meaning, "content": content}


def _write_integer_bounds(node: Any) -> None:
    """Write the bounds of integers as integers: as the framework does, the largest would be larger than it may be."""
    if isinstance(node, dict):
        for keyword in {"minimum", "maximum"} & node.keys() if node.get("type") == "integer" else ():
            node[keyword] = min(max(int(node[keyword]), -LARGEST_INTEGER - 1), LARGEST_INTEGER)
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _write_integer_bounds(part)


def _add_security(document: dict[str, Any]) -> None:
    """Say how a key is sent, and which addresses ask for one."""
    document["components"]["securitySchemes"] = SECURITY_SCHEMES
    for path, operations in document["paths"].items():
        for operation in operations.values() if path.startswith(API) else ():
            operation["security"] = [{name: []} for name in SECURITY_SCHEMES]


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def _add_bound(schema: dict[str, Any], bound: Bound, limit: int) -> None:
    """Put a limit where the schema says what kind of value it is."""
    kind, keyword = KEYWORDS[bound.measure]
    if schema.get("type") == kind:
        schema[keyword] = limit
    parts = [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema and bound.measure == "text" else ())]
    for part in parts:
        _add_bound(part, bound, limit)


def _add_descriptions(schema: dict[str, Any], documentation: str) -> None:
    """Describe a schema and its properties as the class does: a summary, then lines `name: meaning.`"""
    summary, _, attributes = documentation.partition("Attributes:")
    schema["description"] = " ".join(summary.split())
    name = ""
    for line in attributes.splitlines():
        key, separator, meaning = line.strip().partition(": ")
        if separator and key in schema["properties"]:
            name = key
            schema["properties"][name]["description"] = meaning
        elif name and line.strip():
            schema["properties"][name]["description"] += f" {line.strip()}"
