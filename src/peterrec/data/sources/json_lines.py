"""Reading large files with a JSON object in each line a block at a time: few of their fields, and little is held."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json

from peterrec.data.sources.text_tables import BLOCK, UNREADABLE, Lines, open_bytes, unreadable
from peterrec.errors import DataError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
NOT_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def json_blocks(path: Path, schema: pa.Schema) -> Iterator[tuple[pa.Table, Lines]]:
    """Yield some fields of the objects in a file, some at a time, with the number of the line of each.

    A field that an object lacks, or has with a value of another type than the schema says, is null. Empty lines are no
    objects. Objects may be Python's dictionaries, too, as in the first files of Amazon (`{'asin': '0205616461'}`).

    Args:
        path: the file.
        schema: fields to read, of the types string, int64 and float64.

    Raises:
        DataError: the file is damaged, or a line is no object; the message names the line.
    """
    first = 1
    try:
        with open_bytes(path) as file:
            while lines := file.readlines(BLOCK):
                if first == 1:
                    lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
                filled = np.flatnonzero([not line.isspace() and line != b"" for line in lines])
                if len(filled):
                    numbers = filled + first
                    yield _fields([lines[place] for place in filled], numbers, schema, path), numbers
                first += len(lines)
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def first_object(path: Path) -> dict[str, Any]:
    """Return the object in the first line that is not empty.

    Raises:
        DataError: as `json_blocks`.
    """
    try:
        with open_bytes(path) as file:
            for number, line in enumerate(file, start=1):
                if not line.isspace():
                    return _object(line.removeprefix(BYTE_ORDER_MARK), number, path)
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    return {}


def _fields(lines: Sequence[bytes], numbers: Lines, schema: pa.Schema, path: Path) -> pa.Table:
    text = b"".join(lines)
    reading = pa_json.ReadOptions(block_size=len(text) + 1)
    parsing = pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = pa_json.read_json(pa.BufferReader(text), read_options=reading, parse_options=parsing)
        table.validate(full=True)  # that texts are UTF-8
        if len(table) == len(lines):
            return table
    except pa.ArrowException:
        pass  # what is wrong, and in which line, is found below, or nothing is
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of escapes in Python's texts
        objects = [_object(line, number, path) for line, number in zip(lines, numbers, strict=True)]
    return pa.table({field.name: pa.array([_value(o, field) for o in objects], field.type) for field in schema})


def _object(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(line.decode().strip())
        except NOT_LITERAL:
            value = None
    if isinstance(value, dict):
        return value
    problem = f"line {number:,} is not a JSON object: {line[:60].decode(errors='replace').strip()!r}"
    remedy = "correct or remove the line, or download the file again: a JSON object in each line, in UTF-8"
    raise DataError(problem, remedy=remedy, path=path)


def _value(values: dict[str, Any], field: pa.Field) -> Any:
    """Return a field of an object, None where it is of another type."""
    value = values.get(field.name)
    if pa.types.is_string(field.type):
        return value if isinstance(value, str) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    if pa.types.is_floating(field.type):
        return float(value) if abs(value) < 1e300 else None
    return int(value) if value == value // 1 and abs(value) < 2**63 else None
