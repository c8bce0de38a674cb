"""Raw events of any files as one table of a known form: ids as ids, times that compare, bad rows refused.

Opening files is the engine's own; everything after it is an Ibis expression that compiles for PySpark too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ibis

from peterrec.config import EventsConfig
from peterrec.data.catalogue import IdType
from peterrec.data.prepare.columns import (
    Seen,
    SortKind,
    check_types,
    id_kind,
    look,
    read_id,
    read_sortable,
    sort_kind,
)
from peterrec.data.prepare.duplicates import look_alike, named_twice, refuse_equal_files
from peterrec.data.prepare.engine import engine_errors, scalars, try_strptime
from peterrec.data.prepare.files import FILE, InputFile, check_whole, describe, find_files
from peterrec.errors import DataError

Reader = Callable[[Any], Any]


@dataclass(frozen=True)
class Events:
    """Checked events.

    Attributes:
        table: expression with the columns user (text), item (text or int64), time (int64, float64, or timestamp in
            UTC) and, where the configuration names them, order and domain (text). No value is null.
        item_kind: what item ids are.
        time_kind: how times compare.
        files: where the events come from.
        rows: events in `table`.
        dropped: rows left out by `invalid_rows: drop`.
        warnings: what does not stop a preparation, but should be known.
    """

    table: Any
    item_kind: IdType
    time_kind: SortKind
    files: tuple[InputFile, ...]
    rows: int
    dropped: int
    warnings: tuple[str, ...] = ()


def open_events(connection: Any, config: EventsConfig, name: str = "events") -> Events:
    """Read files of events into tables of the engine (called `name`...) and check every row.

    Raises:
        DataError: no such file, two with equal content, a missing column, a wrong type, rows without a user, item or
            time, no rows at all, or ids that are integers in one file and text in another. The message names the file.
    """
    files = _describe_all(config)
    refuse_equal_files(files)
    groups = _alike(files)
    raw = [
        load(connection, f"{name}_{number}", group, _mapping(config), config.time_format)
        for number, group in enumerate(groups)
    ]
    read, item_kind, time_kind = _readers(raw, [group[0].kind == "parquet" for group in groups], config)
    tables = [table.select(FILE, **{column: how(table) for column, how in read.items()}) for table in raw]
    whole = tables[0] if len(tables) == 1 else ibis.union(*tables)
    dropped = _check_rows(whole, config)
    complete = whole.drop_null([*read])
    valid = complete.drop(FILE)
    rows = int(scalars(valid.aggregate(n=valid.count()))["n"])
    if rows == 0:
        raise DataError("there are no events in the input", remedy="name a file with events", path=files[0].path)
    warnings = (*named_twice(config.paths), *(look_alike(complete) if len(files) > 1 else ()))
    return Events(valid, item_kind, time_kind, files, rows, dropped, warnings)


def _describe_all(config: EventsConfig) -> tuple[InputFile, ...]:
    columns = _mapping(config)
    files = tuple(
        describe(path, list(columns.values()), separator=config.separator, columns=config.columns)
        for path in find_files(config.paths)
    )
    sortable = [columns[name] for name in ("time", "order") if name in columns]
    for file in files:
        check_types(file, [config.user, config.item], sortable)
    return files


def _mapping(config: EventsConfig) -> dict[str, str]:
    names = {"user": config.user, "item": config.item, "time": config.time}
    optional = {"order": config.order, "domain": config.domain}
    return names | {name: column for name, column in optional.items() if column is not None}


def _alike(files: Sequence[InputFile]) -> list[list[InputFile]]:
    """Group files that can be read as one table."""
    groups: dict[Any, list[InputFile]] = {}
    for file in files:
        key = (file.kind, file.columns, tuple(str(t) for t in file.types), file.separator, file.header)
        groups.setdefault(key, []).append(file)
    return list(groups.values())


def load(
    connection: Any, name: str, files: Sequence[InputFile], columns: dict[str, str], time_format: str | None = None
) -> Any:
    """Copy columns of files of the same form into a table of the engine.

    Args:
        connection: of the engine.
        name: of the table.
        files: what to read.
        columns: what each column is called in the table, and in the files. The table has also `FILE`.
        time_format: how the column `time` is written, if it is text.

    Raises:
        DataError: a file is damaged or not in the form it seems to have; the message names it.
    """
    for file in files:
        check_whole(file)
    try:
        with engine_errors(files[0].path if len(files) == 1 else None):
            table = _read_files(connection, files, columns)
            if time_format is not None and table["time"].type().is_string():
                # The engine's own, as opening files is: no expression of all engines lets a bad row be.
                table = table.mutate(time=try_strptime(table["time"], time_format))
            return connection.create_table(name, table, overwrite=True)
    except DataError:
        for file in files if len(files) > 1 else ():
            load(connection, name, [file], columns, time_format)  # the first that cannot be read says so
        raise


def _read_files(connection: Any, files: Sequence[InputFile], columns: dict[str, str]) -> Any:
    # The engine would take a [1] in a name for a pattern, and read a1.csv for a[1].csv.
    paths = [re.sub(r"([*?\[])", r"[\1]", str(file.path)) for file in files]
    first = files[0]
    if first.kind == "parquet":
        table = connection.read_parquet(paths, filename=FILE, hive_partitioning=False)
        return table.select(FILE, **{name: table[column] for name, column in columns.items()})
    # Nothing is left to the engine's guessing: it would skip lines and change ids (007) on its own. Nor does it see the
    # names of columns, which it compares without regard to case, and does not take empty.
    places = [f"column{place}" for place in range(len(first.columns))]
    table = connection.read_csv(
        paths,
        auto_detect=False,
        header=first.header,
        delim=first.separator,
        quote='"',
        escape='"',
        columns=dict.fromkeys(places, "VARCHAR"),
        filename=FILE,
    )
    return table.select(FILE, **{name: table[places[first.columns.index(column)]] for name, column in columns.items()})


def _readers(
    raw: Sequence[Any], typed: Sequence[bool], config: EventsConfig
) -> tuple[dict[str, Reader], IdType, SortKind]:
    """Decide, over all files, how each column is to be read."""

    def seen(column: str) -> list[Seen]:
        return [one for table, is_typed in zip(raw, typed, strict=True) for one in look(table, column, typed=is_typed)]

    user_kind, item_kind = (id_kind(seen(column), column, config.ids) for column in ("user", "item"))
    read_already = all(table["time"].type().is_timestamp() for table in raw)
    time_kind: SortKind = "time" if read_already else sort_kind(seen("time"), "time", config.time)
    read: dict[str, Reader] = {
        "user": lambda table: read_id(table, "user", user_kind).cast("string"),
        "item": lambda table: read_id(table, "item", item_kind),
        "time": lambda table: read_sortable(table, "time", time_kind),
    }
    if config.order is not None:
        order_kind = sort_kind(seen("order"), "order", config.order, text_allowed=True)
        read["order"] = lambda table: read_sortable(table, "order", order_kind)
    if config.domain is not None:
        read["domain"] = lambda table: table["domain"].cast("string").nullif("")
    return read, item_kind, time_kind


def _check_rows(table: Any, config: EventsConfig) -> int:
    """Return how many rows have a missing or unreadable value.

    Raises:
        DataError: there are some, and they are not to be dropped.
    """
    columns = _mapping(config)
    empty = {name: table[name].isnull() for name in columns}
    bad = table.filter(ibis.or_(*empty.values()))
    found = bad.group_by(FILE).aggregate(
        rows=bad.count(), **{name: bad[name].isnull().cast("int64").sum() for name in columns}
    )
    rows = found.order_by(FILE).to_pyarrow().to_pylist()
    if rows and config.invalid_rows == "error":
        worst = rows[0]
        wanted = _WANTED if config.ids != "integer" else _WANTED | _WANTED_INTEGERS
        parts = [f"{worst[name]:,} without {wanted[name]} ({columns[name]!r})" for name in columns if worst[name]]
        raise DataError(
            f"{worst['rows']:,} row{'s' if worst['rows'] > 1 else ''} cannot be used: {', '.join(parts)}",
            remedy="correct them, or leave them out: invalid_rows drop (--invalid-rows drop)"
            + (f" (a time must be written as {config.time_format})" if worst["time"] and config.time_format else ""),
            path=worst[FILE],
        )
    return sum(row["rows"] for row in rows)


_WANTED = {
    "user": "a user id",
    "item": "an item id",
    "time": "a readable, finite time",
    "order": "a value to order by",
    "domain": "a domain",
}
_WANTED_INTEGERS = {"user": "an integer user id", "item": "an integer item id"}
