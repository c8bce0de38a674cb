"""Marks that mean that a value is missing: the empty text always, others (`NULL`, `\\N`) where the settings say so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MARK_LIKE = (
    "NULL", "Null", "null", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "NAN", "None", "none", "nil", r"\N", "undefined"
)  # fmt: skip


def is_mark(value: Any, marks: Sequence[str]) -> Any:
    """Return whether a value, of any type, is one of the marks; null where there is no value."""
    text = value.cast("string")
    return text.isin([""]) if not marks else text.lower().isin(["", *(mark.lower() for mark in marks)])


def without_mark(value: Any, marks: Sequence[str]) -> Any:
    """Return a value with null where a mark stands."""
    if not (value.type().is_string() or (marks and value.type().is_integer())):
        return value
    return is_mark(value, marks).ifelse(None, value)
