"""Files of events, or of rows of users, as Spark DataFrames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from peterrec.config import EventsConfig, PreprocessingConfig
from peterrec.data.histories import JSON_ENDINGS, parse_history
from peterrec.data.prepare import event_histories
from peterrec.data.prepare.duplicates import refuse_equal_files
from peterrec.data.prepare.files import InputFile, check_complete, describe, find_files
from peterrec.data.prepare.spark_reader import errors_as_text
from peterrec.errors import ConfigError, DataError
from peterrec.spark.events import event_columns, quoted

ITEMS = "items"  # column of a DataFrame with a row a user


def read_source(
    session: Any, source: str, events: EventsConfig | None, preprocessing: PreprocessingConfig | None, *,
    allow_empty: bool
) -> tuple[Any, EventsConfig | None, list[str]]:  # fmt: skip
    """Return a file, or files, as a DataFrame, with how its columns are read, and in words what it lacks.

    Args:
        session: of Spark.
        source: JSON lines of users and items; Parquet of the same; or events, as `EventsConfig.paths`. Executors read
            them, so they see them at the same path. Parquet may be at a URI, such as s3a://bucket/events.
        events: what columns are called, where they are not as in preparation.
        preprocessing: of the model that is asked.
        allow_empty: accept users without items in JSON lines.

    Raises:
        DataError: no such file, or one that cannot be used.
    """
    if source.lower().endswith(JSON_ENDINGS) and not Path(source).is_dir():
        return _lines(session, source, allow_empty), None, []
    if "://" in source:
        return _parquet(session, [source]), events, []
    files = find_files([source])
    described = describe(files[0], [])
    if described.kind == "parquet" and ITEMS in described.columns and pa.types.is_list(described.type_of(ITEMS)):
        return _parquet(session, [_as_path(file) for file in files]), events, []
    config = EventsConfig(paths=(source,)) if events is None else events.model_copy(update={"paths": (source,)})
    resolved, notes = event_histories._resolve_columns(config, preprocessing)
    frames = _event_frames(session, files, resolved)
    return frames, resolved, [note for note in notes if not note.startswith("assumed: ")]


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
                user, history = parse_history(text, f"{source}, the line {text:.60}", allow_empty)
                users.append(user)
                histories.append([str(item) for item in history])
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


def _event_frames(session: Any, files: Sequence[Path], config: EventsConfig) -> Any:
    needed = list(dict.fromkeys(event_columns(config).values()))
    described = [describe(file, needed, separator=config.separator, columns=config.columns) for file in files]
    refuse_equal_files(described)
    forms: dict[Any, list[InputFile]] = {}
    for file in described:
        forms.setdefault((file.kind, file.columns, file.types, file.separator, file.header), []).append(file)
    frames = [_frame(session, group, needed) for group in forms.values()]
    types = {str(sorted(frame.dtypes)) for frame in frames}
    if len(types) > 1:
        raise ConfigError(
            f"files of events are of several types of columns ({'; '.join(sorted(types))})",
            remedy="write them alike, or ask about them one after the other",
        )
    union = frames[0]
    for frame in frames[1:]:
        union = union.unionByName(frame)
    return union


def _frame(session: Any, files: Sequence[InputFile], needed: Sequence[str]) -> Any:
    from pyspark.sql import functions  # noqa: PLC0415 - an extra

    for file in files:
        check_complete(file)
    first, paths = files[0], [_as_path(file.path) for file in files]
    if first.kind == "parquet":
        _refuse_nanoseconds(first, needed)
        return _parquet(session, paths).select(*(functions.col(quoted(name)) for name in needed))
    places = [f"column{place}" for place in range(len(first.columns))]
    schema = ", ".join(f"{place} string" for place in places)
    # As text, so that 007 stays what it is. A value in quotes may go on on the next line: no file is split.
    reader = session.read.schema(schema).option("sep", first.separator).option("header", first.header)
    reader = reader.option("quote", '"').option("escape", '"').option("multiLine", True).option("mode", "FAILFAST")
    frame = reader.csv(paths)
    return frame.select(*(functions.col(places[first.columns.index(name)]).alias(name) for name in needed))


def _parquet(session: Any, paths: Sequence[str]) -> Any:
    from pyspark.errors import AnalysisException  # noqa: PLC0415 - an extra

    try:
        return session.read.parquet(*paths)
    except AnalysisException as error:
        reason = str(error).splitlines()[0][:200]
        raise DataError(f"cannot be read ({reason})", remedy="check the path", path=paths[0]) from error


def _refuse_nanoseconds(file: InputFile, needed: Sequence[str]) -> None:
    for name in needed:
        if pa.types.is_timestamp(file.type_of(name)) and file.type_of(name).unit == "ns":
            raise DataError(
                f"the column {name!r} holds times in nanoseconds, which Spark does not have",
                remedy="ask with --engine local, or write the times in microseconds",
                path=file.path,
            )


def _as_path(path: Path) -> str:
    """Return a path as Spark reads it: patterns and escapes stand for themselves."""
    escaped = "".join(f"\\{letter}" if letter in "*?[]{}\\" else letter for letter in str(path.resolve()))
    return f"file://{escaped}"
