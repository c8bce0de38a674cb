"""Files of events, or of rows of users, as Spark DataFrames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from peterrec.data.histories import JSON_ENDINGS
from peterrec.data.history_lines import parse_line
from peterrec.data.prepare.files import describe, find_files
from peterrec.data.prepare.spark_reader import errors_as_text
from peterrec.errors import DataError

ITEMS = "items"  # column of a DataFrame with a row a user


def read_source(session: Any, source: str, *, allow_empty: bool) -> Any | None:
    """Return files as a DataFrame; None if they are local files of events, which `group_events` reads.

    Args:
        session: of Spark.
        source: JSON lines of users and items; Parquet of the same; or events, as `EventsConfig.paths`. Executors read
            them, so they see them at the same path. Parquet may be at a URI, such as s3a://bucket/events.
        allow_empty: accept users without items in JSON lines.

    Raises:
        DataError: no such file, or one that cannot be used.
    """
    if source.lower().endswith(JSON_ENDINGS) and not Path(source).is_dir():
        return _lines(session, source, allow_empty)
    if "://" in source:
        return _parquet(session, [source])
    files = find_files([source])
    described = describe(files[0], [])
    if described.kind == "parquet" and ITEMS in described.columns and pa.types.is_list(described.type_of(ITEMS)):
        return _parquet(session, [_as_path(file) for file in files])
    return None


def has_items(dataframe: Any) -> bool:
    """Return whether a DataFrame has a row a user, with all of the user's items."""
    types = {field.name: field.dataType for field in dataframe.schema.fields}
    return type(types.get(ITEMS)).__name__ == "ArrayType"


def _lines(session: Any, source: str, allow_empty: bool) -> Any:
    if "://" not in source and not Path(source).is_file():
        raise DataError("cannot be read (No such file or directory)", remedy="check the path", path=source)

    def parse(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return parse_lines(batches, source, allow_empty)

    path = source if "://" in source else _as_path(Path(source))
    return session.read.text(path).mapInArrow(parse, "user string, items array<string>")


def parse_lines(batches: Iterator[pa.RecordBatch], source: str, allow_empty: bool) -> Iterator[pa.RecordBatch]:
    """Yield users and their items, all as text, out of batches of JSON lines.

    Raises:
        DataError: a line cannot be used; the message has its beginning.
    """
    with errors_as_text():
        for batch in batches:
            users, histories = [], []
            for line in batch.column(0).to_pylist():
                text = line.removeprefix("\ufeff")
                if not text.strip():
                    continue
                place = f"{source}, the line {text:.60}"
                history = parse_line(text, place, allow_empty)
                if history.seconds is not None or history.features is not None:
                    remedy = "give Spark the events themselves, or ask without Spark"
                    raise DataError("tells times or features of events", remedy=remedy, path=place)
                users.append(history.user)
                histories.append([str(item) for item in history.items])
            columns = {"user": pa.array(users, pa.string()), "items": pa.array(histories, pa.list_(pa.string()))}
            yield pa.RecordBatch.from_pydict(columns)


def check_distinct_users(dataframe: Any) -> None:
    """Refuse rows of which two are of one user: each would be answered by a part of what is known.

    Raises:
        DataError: with such a user.
    """
    counts = dataframe.groupBy("user").count().where("count > 1").limit(1).collect()
    if counts:
        raise DataError(
            f"user {counts[0]['user']!r} stands in {counts[0]['count']} rows",
            remedy="give each user one row with all of the user's items",
        )


def _parquet(session: Any, paths: Sequence[str]) -> Any:
    from pyspark.errors import AnalysisException  # noqa: PLC0415 - an extra

    try:
        return session.read.parquet(*paths)
    except AnalysisException as error:
        reason = str(error).splitlines()[0][:200]
        raise DataError(f"cannot be read ({reason})", remedy="check the path", path=paths[0]) from error


def _as_path(path: Path) -> str:
    return as_pattern(f"file://{path.resolve()}")


def as_pattern(uri: str) -> str:
    """Return a URI as Spark reads it: patterns and escapes stand for themselves."""
    return "".join(f"\\{letter}" if letter in "*?[]{}\\" else letter for letter in uri)
