"""Values that sort: numbers, times and text, none of them rounded on the way.

CSV is text throughout, so what a column holds is counted over all of its rows, file by file; a value counts as of a
kind if it can be read as that kind without becoming equal to another. What a value means rests on nothing but its own
text.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ibis

from peterrec.data.prepare.engine import Engine
from peterrec.data.prepare.files import FILE
from peterrec.errors import DataError

SortKind = Literal["integer", "float", "decimal", "time", "text"]
NUMBERS: tuple[SortKind, ...] = ("integer", "float", "decimal")

INTEGER = r"^\s*[-+]?[0-9]{1,19}\s*$"  # times in nanoseconds have 19 digits
NUMBER = r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$"
# No two numbers of so few digits are the same float64; and the shortest text of a float64 is no other's.
FEW_DIGITS = r"^[-+]?[0.]*([0-9]\.?){1,15}[0.]*([eE][-+]?[0-9]+)?$"
DECIMAL = "decimal(38, 18)"
OF_DECIMAL = r"^[-+]?0*[0-9]{0,20}(\.[0-9]{0,18}0*)?$"
LARGEST = 2**53  # up to here every integer is a float64
# The engine knows names of zones too, but lets one of them change other rows of its batch, and BST is Bangladesh's.
CLOCK, SECONDS, OFFSET = "[0-9]{1,2}:[0-9]{2}", r":[0-9]{2}(\.[0-9]{1,9}0*)?", "[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?"
UTC_NAME = " ?(Z|z|UTC|GMT)$"
TIME = (
    f"^[0-9]{{4,6}}[-/][0-9]{{1,2}}[-/][0-9]{{1,2}}(( +|T){CLOCK}(({SECONDS})?( ?(Z|z|UTC|GMT))?|{SECONDS}{OFFSET}))?$"
)
FINE = r"\.[0-9]{6}0*[1-9]"  # finer than a microsecond
UTC = "timestamp('UTC')"
NANOSECONDS = "timestamp(9)"
YEARS_IN_NANOSECONDS = (1678, 2262)
EXAMPLE = "2001-02-28 12:00:00"


@dataclass(frozen=True)
class ValueCounts:
    """Counts of rows of one column of one file, by how its values can be read.

    Attributes:
        file: where they are.
        present: rows with a value.
        kinds: rows that can be read as each kind; as text only those that are nothing else.
        fine: times that are no whole microseconds.
        unreadable: a value that is neither number nor time, if there is one.
    """

    file: str
    present: int
    kinds: dict[SortKind, int]
    fine: int
    unreadable: str | None


def integer_flags(table: Any, column: str) -> dict[str, Any]:
    """Return the conditions that a row has a value, one that is an integer, and one that is a float64 too."""
    integers = read_sortable(table[column], "integer")
    return {
        f"present_{column}": table[column].notnull(),
        f"integer_{column}": integers.notnull(),
        f"float_{column}": integers.between(-LARGEST, LARGEST),
    }


def count_values(engine: Engine, table: Any, column: str, counts: Sequence[dict[str, Any]]) -> list[ValueCounts]:
    """Count, for each file of a table, what the values of a column can be read as.

    Args:
        engine: of the table.
        table: raw values.
        column: its name.
        counts: of each file, what `count_flags` says of `integer_flags`.
    """
    names = ("present", "integer", "float")
    rows = [{FILE: row[FILE]} | {name: row[f"{name}_{column}"] for name in names} for row in counts]
    if all(row["present"] == row["integer"] for row in rows):  # most often; spares the search for everything else
        return [_value_counts(row, {}) for row in rows]
    value = table[column]
    other_rows = table.filter(value.notnull() & read_sortable(value, "integer").isnull())
    value = other_rows[column]
    read = {kind: read_sortable(value, kind).notnull() for kind in ("float", "decimal", "time", "text")}
    text = value.cast("string")
    odd = (read["float"] | read["decimal"] | read["time"]).ifelse(None, text)
    other_counts = {row[FILE]: row for row in count_flags(engine, other_rows, read | {"fine": _is_fine(value)}, odd)}
    return [_value_counts(row, other_counts.get(row[FILE], {})) for row in rows]


def count_flags(engine: Engine, table: Any, flags: dict[str, Any], odd: Any = None) -> list[dict[str, Any]]:
    """Count the rows of each file of a table that meet conditions; `odd` are texts of which the first is told."""
    values = engine.rows(table.select(FILE, **flags, **({} if odd is None else {"odd": odd})))
    sums = {name: values[name].cast("int64").sum().fill_null(0) for name in flags}
    first = {} if odd is None else {"odd": values["odd"].min()}
    rows: list[dict[str, Any]] = (
        values.group_by(FILE).aggregate(**sums, **first).order_by(FILE).to_pyarrow().to_pylist()
    )
    return rows


def _value_counts(row: dict[str, Any], others_row: dict[str, Any]) -> ValueCounts:
    integers: int = row["integer"]
    kinds: dict[SortKind, int] = {
        "integer": integers,
        "float": row["float"] + others_row.get("float", 0),
        "decimal": integers + others_row.get("decimal", 0),
        "time": others_row.get("time", 0),
        "text": others_row.get("text", 0),
    }
    return ValueCounts(row[FILE], row["present"], kinds, others_row.get("fine", 0), others_row.get("odd"))


def decide_sort_kind(counts: Sequence[ValueCounts], role: str, column: str, *, text_allowed: bool = False) -> SortKind:
    """Decide how the values of a column compare.

    The first of integer, float, decimal, time, text that fits every row of a file; else the one that fits most rows,
    the others being unreadable.

    Raises:
        DataError: nothing fits, or files differ.
    """
    kinds: dict[SortKind, ValueCounts] = {}
    for file_counts in counts:
        if not file_counts.present:
            continue
        best = _best(file_counts, text_allowed)
        if not file_counts.kinds[best]:
            raise DataError(
                f"the {role} column {column!r} holds neither numbers nor dates such as {EXAMPLE}, but "
                f"{file_counts.unreadable!r}",
                remedy="say how it is written, e.g. time_format %d/%m/%Y (--time-format), or name another column; "
                "times with an offset such as +02:00 are read, those with the name of a zone are not",
                path=file_counts.file,
            )
        kinds.setdefault(best, file_counts)
    if len(kinds) <= 1:
        return next(iter(kinds), "integer")
    if set(kinds) <= set(NUMBERS):
        for kind in ("float", "decimal"):
            if all(
                file_counts.kinds[kind] == file_counts.kinds[_best(file_counts, text_allowed)] for file_counts in counts
            ):
                return kind
    (first, first_file), (second, second_file) = list(kinds.items())[:2]
    too_long = " (with too many digits to compare them)" if set(kinds) <= set(NUMBERS) else ""
    raise DataError(
        f"the {role} column {column!r} holds values of kind {first} here but {second} in {second_file.file}{too_long}",
        remedy="write it alike in all files",
        path=first_file.file,
    )


def _best(counts: ValueCounts, text_allowed: bool) -> SortKind:
    kinds = [kind for kind in counts.kinds if kind != "text" or text_allowed]
    return max(kinds, key=lambda kind: counts.kinds[kind])  # the first of equals: every integer is a number too


def read_sortable(value: Any, kind: SortKind, *, nanoseconds: bool = False) -> Any:
    """Return values in a form that compares, null where they are not of the kind or would be rounded.

    Args:
        value: a column of any type.
        kind: what to read it as: int64, float64, decimal(38, 18), a timestamp in UTC without a zone, or text.
        nanoseconds: hold times in nanoseconds (years 1678 to 2261), else in microseconds.
    """
    if kind == "time":
        return _read_time(value, nanoseconds)
    if kind == "text":
        return _read_text(value)
    if value.type().is_timestamp() or value.type().is_date():
        return _nulls(value, {"integer": "int64", "float": "float64", "decimal": DECIMAL}[kind])
    return {"integer": read_integer, "float": _read_float, "decimal": _read_decimal}[kind](value)


def _nulls(value: Any, type_: str) -> Any:
    return value.isnull().ifelse(ibis.null(type_), ibis.null(type_))


def read_integer(value: Any) -> Any:
    """Return whole numbers as int64, null where they are none or too large."""
    type_, integer = value.type(), value.try_cast("int64")  # which rounds 1.5
    if type_.is_string():
        return value.re_search(INTEGER).ifelse(integer, None)
    if type_.is_decimal():
        return (integer.try_cast(type_) == value).ifelse(integer, None)
    return integer if type_.is_integer() else _nulls(value, "int64")


def _read_float(value: Any) -> Any:
    type_ = value.type()
    if type_.is_floating():
        return _finite(value.cast("float64"))
    if type_.is_integer():
        return value.between(-LARGEST, LARGEST).ifelse(value.cast("float64"), None)
    text = value.cast("string").strip()
    number = _finite(text.re_search(NUMBER).ifelse(text, None).try_cast("float64"))
    exact_integer = read_integer(text).between(-LARGEST, LARGEST).fill_null(False)
    return (exact_integer | text.re_search(FEW_DIGITS) | (text == number.cast("string"))).ifelse(number, None)


def _finite(number: Any) -> Any:
    # Not by `isinf`, which is FALSE of everything on Spark; NaN is above all numbers on every engine.
    return (number.abs() > sys.float_info.max).ifelse(None, number)


def _read_decimal(value: Any) -> Any:
    type_, number = value.type(), value.try_cast(DECIMAL)
    if type_.is_string():
        text = value.strip()
        return (text.re_search(NUMBER) & text.re_search(OF_DECIMAL)).ifelse(text, None).try_cast(DECIMAL)
    if type_.is_decimal():  # of a finer one digits are cut off
        return (number.try_cast(type_) == value).ifelse(number, None) if type_.scale > 18 else number
    return number if type_.is_integer() else _nulls(value, DECIMAL)


def _read_time(value: Any, nanoseconds: bool) -> Any:
    type_ = value.type()
    if type_.is_string():
        # Through a zone, so that an offset in the text (`+02:00`) counts; text without one is UTC.
        text = _time_text(value)
        time = text.try_cast(UTC).cast("timestamp")
        return _fits_nanoseconds(time).ifelse(text, None).try_cast(NANOSECONDS) if nanoseconds else time
    if not (type_.is_timestamp() or type_.is_date()):
        return _nulls(value, NANOSECONDS if nanoseconds else "timestamp")
    if nanoseconds and in_nanoseconds(type_):
        return value
    time = value.try_cast("timestamp")
    return _fits_nanoseconds(time).ifelse(time, None).cast(NANOSECONDS) if nanoseconds else time


def _fits_nanoseconds(time: Any) -> Any:  # else the engine breaks off
    first, last = (ibis.literal(f"{year}-01-01").cast("timestamp") for year in YEARS_IN_NANOSECONDS)
    return (time >= first) & (time < last)


def _time_text(value: Any) -> Any:
    """Return what the engine reads row by row and without settings of its own; null for everything else."""
    text = value.strip()
    return text.re_search(TIME).ifelse(text.re_replace(UTC_NAME, ""), None)


def in_nanoseconds(type_: Any) -> bool:
    """Return whether a type is that of times in nanoseconds."""
    return bool(type_.is_timestamp() and type_.scale == 9 and type_.timezone is None)


def _is_fine(value: Any) -> Any:
    """Return whether times are no whole microseconds."""
    if value.type().is_string():
        return value.re_search(FINE) & _read_time(value, nanoseconds=True).notnull()
    if in_nanoseconds(value.type()):
        return value != value.cast("timestamp").cast(NANOSECONDS)
    return value.isnull() & False


def _read_text(value: Any) -> Any:
    """Return text that is neither a number nor a time: one of those among texts was meant as something else."""
    if not value.type().is_string():
        return _nulls(value, "string")
    is_number_or_time = value.strip().re_search(NUMBER) | _read_time(value, nanoseconds=False).notnull()
    return is_number_or_time.ifelse(None, value)
