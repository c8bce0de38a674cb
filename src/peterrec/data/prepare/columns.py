"""Columns as they are read: ids that are text or integers, types, and marks of missing values.

CSV is text throughout, so what a column holds is counted over all of its rows, file by file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from peterrec.data.catalogue import IdType
from peterrec.data.prepare.files import InputFile
from peterrec.data.prepare.sortable import read_integer
from peterrec.data.sequences import IntArray
from peterrec.errors import DataError

INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"  # as in `Catalogue.encode`: 007 is text
MOST_DIGITS = 38  # beyond which the engine makes floats of decimals
# Marks that often mean that a value is missing; the empty text always does, these only where the settings say so.
MARK_LIKE = (
    "NULL", "Null", "null", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "NAN", "None", "none", "nil", r"\N", "undefined"
)  # fmt: skip


@dataclass(frozen=True)
class IdCounts:
    """Counts of the values of one column of one file, and of the integers among them."""

    file: str
    present: int
    integers: int


def id_flags(table: Any, columns: Sequence[str], *, typed: bool) -> dict[str, Any]:
    """Return the conditions that a row of a table has an id in a column, and one that is an integer.

    In a `typed` file (Parquet) text is meant as text: digits in it make no integer id.
    """
    present = {f"present_{column}": table[column].notnull() for column in columns}
    return present | {f"integer_{column}": _is_integer(table[column], typed=typed) for column in columns}


def _is_integer(value: Any, *, typed: bool) -> Any:
    integers = read_integer(value).notnull()
    if value.type().is_string():
        integers = value.re_search(INTEGER) & integers & (not typed)
    return value.notnull() & integers


def decide_id_type(counts: Sequence[IdCounts], column: str, setting: Literal["auto", "text", "integer"]) -> IdType:
    """Decide whether ids are integers or text.

    Raises:
        DataError: by themselves they are integers in one file and text in another: that would make two items of one.
    """
    if setting != "auto":
        return setting
    kinds: dict[IdType, str] = {}
    for file_counts in counts:
        if file_counts.present:
            kinds.setdefault("integer" if file_counts.integers == file_counts.present else "text", file_counts.file)
    if len(kinds) > 1:
        raise DataError(
            f"{column} ids are text here but integers in {kinds['integer']}",
            remedy="write them alike, or say how to read them: ids (--ids text or --ids integer)",
            path=kinds["text"],
        )
    return next(iter(kinds), "text")


def read_id(value: Any, kind: IdType) -> Any:
    """Return the ids of a column, null where there is none (or none of this kind)."""
    if kind == "integer":
        return read_integer(value)
    return value.cast("string").nullif("")


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
        if kinds.is_decimal(type_) and type_.precision > MOST_DIGITS:
            raise DataError(
                f"column {column!r} is of type {type_}; numbers of more than {MOST_DIGITS} digits are not read",
                remedy=f"write it as decimal of at most {MOST_DIGITS} digits, or as integers",
                path=file.path,
            )
        if not any(test(type_) for test in good):
            raise DataError(
                f"column {column!r} is of type {type_}; it must be a number, a date, a time or text",
                remedy="convert it, or name another column",
                path=file.path,
            )


def check_fractions(file: InputFile, column: str) -> None:
    """Refuse times of a Parquet file that the engine would cut to microseconds: those of a zone, or of 96 bits.

    Raises:
        DataError: the message names the file, the column and a time.
    """
    type_ = file.type_of(column)
    if file.kind != "parquet" or not (pa.types.is_timestamp(type_) and type_.unit == "ns"):
        return
    # Times of 96 bits, and only they, are of the unit that is asked for; the engine reads the others without a zone.
    with pq.ParquetFile(file.path) as fine, pq.ParquetFile(file.path, coerce_int96_timestamp_unit="us") as coarse:
        in_96_bits = coarse.schema_arrow.field(column).type.unit == "us"
        if type_.tz is None and not in_96_bits:
            return
        batches = [parquet.iter_batches(columns=[column]) for parquet in (fine, coarse)]
        for times, coarse_times in zip(*batches, strict=True):
            cut = _numbers(times) % 1000 != 0
            if in_96_bits:  # what nanoseconds cannot hold has wrapped around, and is no such time
                cut &= _numbers(times) // 1000 == _numbers(coarse_times)
            if cut.any():
                example = times.column(0).drop_null()[int(np.argmax(cut))].cast(pa.string()).as_py()
                raise DataError(
                    f"column {column!r} holds times finer than a microsecond, such as {example}, which are not read "
                    f"{'from 96 bits' if in_96_bits else 'with a zone'}",
                    remedy="write them in UTC and without a zone (in pandas: dt.tz_convert('UTC').dt.tz_localize(None))"
                    if not in_96_bits
                    else "write them as Parquet's own times (in pyarrow: without use_deprecated_int96_timestamps)",
                    path=file.path,
                )


def _numbers(batch: pa.RecordBatch) -> IntArray:
    numbers: IntArray = batch.column(0).cast(pa.int64()).drop_null().to_numpy(zero_copy_only=False)
    return numbers


def is_mark(value: Any, marks: Sequence[str]) -> Any:
    """Return whether a value, of any type, is one of the marks; null where there is no value."""
    text = value.cast("string")
    return text.isin([""]) if not marks else text.lower().isin(["", *(mark.lower() for mark in marks)])


def without_mark(value: Any, marks: Sequence[str]) -> Any:
    """Return a value with null where a mark stands."""
    if not (value.type().is_string() or (marks and value.type().is_integer())):
        return value
    return is_mark(value, marks).ifelse(None, value)
