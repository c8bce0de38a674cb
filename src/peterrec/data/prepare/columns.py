"""What the columns of events hold: ids that are text or integers, and values that can be sorted.

CSV is text throughout, so what a column holds is counted over all of its rows, file by file. Ibis expressions that
compile for PySpark too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ibis

from peterrec.data.catalogue import IdType
from peterrec.data.prepare.files import FILE, InputFile
from peterrec.errors import DataError

SortKind = Literal["integer", "float", "time", "text"]

INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"  # as in `Catalogue.encode`: 007 is text
WHOLE = r"^\s*[-+]?[0-9]{1,19}\s*$"  # times in nanoseconds have 19 digits
STARTS_WITH_DIGIT = r"^\s*[0-9]"  # the engine would take `inf` for a time
UTC = "timestamp('UTC')"


@dataclass(frozen=True)
class Seen:
    """What the values of one column of one file look like; counts of rows."""

    file: str
    present: int
    integers: int
    wholes: int
    numbers: int
    times: int


def look(table: Any, column: str, *, typed: bool) -> list[Seen]:
    """Count, for each file of a table, what its values of a column look like.

    In a `typed` file (Parquet) text is meant as text: digits in it make no integer id.
    """
    value, kind = table[column], table[column].type()
    present = value.notnull()
    if kind.is_string():
        present = present & (value != "")
        wholes = value.re_search(WHOLE) & value.try_cast("int64").notnull()
        integers = value.re_search(INTEGER) & wholes & (not typed)
        numbers = _finite(value.try_cast("float64")).notnull()
        times = value.re_search(STARTS_WITH_DIGIT) & value.try_cast(UTC).notnull()
    else:
        integers = wholes = value.try_cast("int64").notnull() if kind.is_integer() else ibis.literal(False)
        numbers = present & kind.is_numeric()
        times = present & (kind.is_timestamp() or kind.is_date())
    found = table.group_by(FILE).aggregate(
        **{name: flag.cast("int64").sum() for name, flag in _flags(present, integers, wholes, numbers, times)}
    )
    rows = found.order_by(FILE).to_pyarrow().to_pylist()
    return [Seen(row[FILE], *(row[name] or 0 for name in _NAMES)) for row in rows]


def _finite(number: Any) -> Any:
    return (number.isnan() | number.isinf()).ifelse(None, number)


_NAMES = ("present", "integers", "wholes", "numbers", "times")


def _flags(present: Any, *others: Any) -> list[tuple[str, Any]]:
    flags = [present, *(present & other for other in others)]
    return list(zip(_NAMES, flags, strict=True))


def id_kind(seen: Sequence[Seen], what: str, asked: Literal["auto", "text", "integer"]) -> IdType:
    """Decide whether ids are integers or text.

    Raises:
        DataError: by themselves they are integers in one file and text in another: that would make two items of one.
    """
    if asked != "auto":
        return asked
    kinds: dict[IdType, str] = {}
    for one in seen:
        if one.present:
            kinds.setdefault("integer" if one.integers == one.present else "text", one.file)
    if len(kinds) > 1:
        raise DataError(
            f"{what} ids are text here but integers in {kinds['integer']}",
            remedy="write them alike, or say how to read them: ids (--ids text or --ids integer)",
            path=kinds["text"],
        )
    return next(iter(kinds), "text")


def read_id(table: Any, column: str, kind: IdType) -> Any:
    """Return the ids, null where there is none (or none of this kind)."""
    value = table[column]
    if kind == "integer":
        return _read_integer(value)
    return value.cast("string").nullif("")


def _read_integer(value: Any) -> Any:
    whole = value.try_cast("int64")  # the engine would round 1.5
    return value.re_search(WHOLE).ifelse(whole, None) if value.type().is_string() else whole


def sort_kind(seen: Sequence[Seen], what: str, column: str, *, text_allowed: bool = False) -> SortKind:
    """Decide how the values of a column compare.

    The first of integer, number, time that fits every row; else the one that fits most rows, the others being
    unreadable.

    Raises:
        DataError: nothing fits, or files differ.
    """
    kinds: dict[SortKind, str] = {}
    for one in seen:
        if not one.present:
            continue
        counts: dict[SortKind, int] = {"integer": one.wholes, "float": one.numbers, "time": one.times}
        best = max(counts, key=lambda kind: counts[kind])  # the first of equals: every integer is a number too
        if counts[best] < one.present and text_allowed:
            best = "text"
        elif not counts[best]:
            raise DataError(
                f"the {what} column {column!r} holds neither numbers nor dates such as 2001-02-28 12:00:00",
                remedy="say how it is written, e.g. time_format %d/%m/%Y (--time-format), or name another column",
                path=one.file,
            )
        kinds.setdefault(best, one.file)
    if set(kinds) == {"integer", "float"}:
        return "float"
    if len(kinds) > 1:
        (first, here), (second, there) = list(kinds.items())[:2]
        raise DataError(
            f"the {what} column {column!r} holds values of kind {first} here but {second} in {there}",
            remedy="write it alike in all files",
            path=here,
        )
    return next(iter(kinds), "integer")


def read_sortable(table: Any, column: str, kind: SortKind) -> Any:
    """Return the values in a form that compares, null where they are unreadable; times in UTC without a zone."""
    value = table[column]
    text = value.type().is_string()
    if kind == "time":
        return _read_time(value, text)
    if kind == "text":
        return value.cast("string").nullif("")
    if kind == "integer":
        return _read_integer(value)
    return _finite(value.try_cast("float64") if text else value.cast("float64"))


def _read_time(value: Any, text: bool) -> Any:
    if text:
        # Through a zone, so that an offset in the text (`+02:00`) counts; text without one is UTC.
        return value.re_search(STARTS_WITH_DIGIT).ifelse(value.try_cast(UTC).cast("timestamp"), None)
    return value.try_cast("timestamp")


def check_types(file: InputFile, ids: Sequence[str], sortable: Sequence[str]) -> None:
    """Refuse columns of a Parquet file that cannot be ids or cannot be sorted.

    Raises:
        DataError: the message names the file, the column and its type.
    """
    import pyarrow.types as kinds  # noqa: PLC0415 - a module of predicates; here it reads as words

    def plain(type_: Any) -> Any:
        return type_.value_type if kinds.is_dictionary(type_) else type_

    def text(type_: Any) -> bool:
        return str(type_) in ("string", "large_string", "string_view")

    for column in ids:
        type_ = plain(file.type_of(column))
        if not (kinds.is_integer(type_) or text(type_)):
            gaps = " (a column of integers with gaps becomes float in pandas: convert it with astype('Int64'))"
            raise DataError(
                f"column {column!r} is of type {type_}; ids are text or integers",
                remedy=f"write it as text or as integers{gaps if kinds.is_floating(type_) else ''}",
                path=file.path,
            )
    good = (kinds.is_integer, kinds.is_floating, kinds.is_date, kinds.is_timestamp, kinds.is_decimal, text)
    for column in sortable:
        type_ = plain(file.type_of(column))
        if not any(test(type_) for test in good):
            raise DataError(
                f"column {column!r} is of type {type_}; it must be a number, a date, a time or text",
                remedy="convert it, or name another column",
                path=file.path,
            )
