"""The distributed engine: Apache Spark behind Ibis, in a database of its own.

What stands in files is read by DuckDB in Spark's Python workers (`spark_reader`), some files or rows at a time, so that
a value means the same on both engines. All else (filters, joins, groups, orders) is Spark's.
"""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.operations as ops
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark.sql.functions as F
import pyspark.sql.types as spark_types
from ibis.backends.pyspark import Backend
from ibis.backends.pyspark.datatypes import PySparkType
from ibis.formats.pyarrow import PyArrowSchema
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema

from peterrec.data.prepare.duckdb_engine import row_texts
from peterrec.data.prepare.engine import OrderedPart
from peterrec.data.prepare.files import FILE, InputFile, is_packed
from peterrec.data.prepare.spark_reader import (
    RAW,
    ROWS_OF_A_TASK,
    FilesRead,
    FrameRead,
    ReadTask,
    apply_function,
    check_files,
    read_rows,
    read_values,
)
from peterrec.data.prepare.spark_session import SETTINGS, is_local
from peterrec.errors import DataError

FRAME = "the DataFrame"  # in place of the name of a file
PART, ROW = "peterrec_part", "peterrec_row"
ROWS_OF_A_PART = 2**33  # of `monotonically_increasing_id`
PARTITIONS_OF_A_CORE = 4  # so that none waits long for another
BYTES_OF_A_PARTITION = 1 << 25  # of files that it reads, one after the other
SENT_WITH_QUERIES = 1 << 24  # bytes of a table that is not worth to be stored


class ArrowBackend(Backend):  # type: ignore[misc]
    """Ibis on Spark with answers in Arrow: its own go through pandas, which makes floats of integers with gaps."""

    def to_pyarrow(self, expr: Any, /, *, params: Any = None, limit: Any = None, **_: Any) -> Any:
        """Run an expression and return its values."""
        table = expr.as_table()
        answer = self._session.sql(self.compile(table, params=params, limit=limit)).toArrow()
        return expr.__pyarrow_result__(answer.cast(PyArrowSchema.from_ibis(table.schema())))


def connect(session: SparkSession) -> Any:
    """Return Ibis on a session, whose zone becomes UTC."""
    backend = ArrowBackend()
    backend.register_options()
    return backend.connect(session)


@contextlib.contextmanager
def spark_database(session: SparkSession, scratch: Path) -> Iterator[Any]:
    """Yield an Ibis connection with a new database of the session as the current one; it is dropped at the end."""
    connection = connect(session)
    name = f"peterrec_{uuid.uuid4().hex}"
    local = is_local(session.sparkContext.master)
    connection.create_database(name, path=scratch / name if local else None)
    try:
        session.catalog.setCurrentDatabase(name)
        yield connection
    finally:
        session.catalog.setCurrentDatabase("default")
        connection.drop_database(name, force=True)


@contextlib.contextmanager
def session_engine(session: SparkSession) -> Iterator[SparkEngine]:
    """Yield an engine that stores nothing, over a session which is in the end as it was before.

    What is made of its tables meanwhile stays good.
    """
    changed = (*SETTINGS, "spark.sql.mapKeyDedupPolicy")  # the last by Ibis
    before = {name: session.conf.get(name, None) for name in changed}
    prefix = f"peterrec_{uuid.uuid4().hex}_"
    try:
        connection = connect(session)
        for name, value in SETTINGS.items():
            session.conf.set(name, value)
        engine = SparkEngine(session, connection, prefix=prefix, stores=False)
        try:
            yield engine
        finally:
            for view in engine.views:
                session.catalog.dropTempView(view)
    finally:
        for name, value in before.items():
            session.conf.set(name, value) if value is not None else session.conf.unset(name)


def quoted(column: str) -> str:
    """Return the name of a column as Spark reads it, whatever is in it."""
    escaped = column.replace("`", "``")
    return f"`{escaped}`"


class SparkEngine:
    """Spark as the engine of `prepare`: see `Engine`, whose methods these are.

    Args:
        session: whose current database the tables are made in.
        connection: of Ibis to that session, as `spark_database` gives it.
        prefix: of the names of tables.
        stores: whether tables are written; else they are computed whenever they are asked for.

    Attributes:
        views: names of the temporary views that were made.
    """

    def __init__(self, session: SparkSession, connection: Any, *, prefix: str = "", stores: bool = True) -> None:
        self.session = session
        self.connection = connection
        self.prefix = prefix
        self.stores = stores
        self.views: list[str] = []
        self._numbers = itertools.count()
        self._reads: dict[str, FilesRead | FrameRead] = {}

    def read(
        self,
        name: str,
        files: Sequence[InputFile],
        columns: dict[str, str],
        time_format: str | None = None,
        *,
        file_number: int | None = None,
    ) -> Any:
        """Note what is to be read; `rows` reads it."""
        files = [replace(file, path=file.path.absolute()) for file in files]  # a worker may be in another folder
        packed = [file for file in files if is_packed(file.path)]
        if packed:
            self._numbered(packed, packed).mapInArrow(partial(check_files, files=packed), "id long").collect()
        name, read = self._name(name), FilesRead(tuple(files), columns, time_format, file_number)
        self._reads[name] = read
        return ibis.table(read.schema(), name=name)

    def read_frame(self, name: str, frame: DataFrame, columns: dict[str, str], time_format: str | None = None) -> Any:
        """Note columns of a DataFrame as those to be read, for `rows`, as `read` does those of files."""
        named = frame.select(
            F.lit(FRAME).alias(FILE), *(F.col(quoted(column)).alias(role) for role, column in columns.items())
        )
        name, read = self._name(name), FrameRead(named, to_arrow_schema(named.schema), time_format)
        self._reads[name] = read
        return ibis.table(read.schema(), name=name)

    def rows(self, table: Any, *, reused: bool = False) -> Any:
        """Let the workers read the files, each some of them, and compute the expression with DuckDB.

        Of a table that Spark has already, it is Spark's.
        """
        names = {unbound.name for unbound in table.op().find(ops.UnboundTable)}
        if not names:
            return self.store("values", table) if reused else table
        name = names.pop()
        read = self._reads[name]
        fine = [column for column, type_ in table.schema().items() if type_.is_timestamp() and type_.scale == 9]
        if fine:
            raise DataError(
                f"the column {fine[0]!r} holds times finer than a microsecond, which Spark does not have",
                remedy="use the engine of this machine (--engine duckdb of prepare, else --engine local), or write the "
                "times in microseconds",
                path=read.files[0].path if isinstance(read, FilesRead) else FRAME,
            )
        sql = ibis.to_sql(table, dialect="duckdb").replace(f'"{name}"', RAW)
        schema, spark_schema = PyArrowSchema.from_ibis(table.schema()), _spark_schema(table.schema())
        if isinstance(read, FrameRead):
            reading = partial(read_rows, time_format=read.time_format, sql=sql, schema=schema)
            frame = read.frame.mapInArrow(reading, spark_schema)
        else:
            tasks = _tasks(read)
            reading = partial(read_values, tasks=tasks, sql=sql, schema=schema)
            frame = self._numbered(tasks, read.files).mapInArrow(reading, spark_schema)
        return self._save("values", frame) if reused else self._view("values", frame)

    def store(self, name: str, table: Any) -> Any:
        """Make a table of an expression."""
        return self._save(name, self._frame(table))

    def upload(self, name: str, table: pa.Table) -> Any:
        """Make a table from one in memory."""
        frame = self.session.createDataFrame(table)
        return self._view(name, frame) if table.nbytes <= SENT_WITH_QUERIES else self._save(name, frame)

    def apply(self, name: str, table: Any, function: Callable[[pa.Table], pa.Table], schema: pa.Schema) -> Any:
        """Let the workers apply the function to batches of rows."""
        applying = partial(apply_function, function=function, schema=schema)
        return self._save(name, self._frame(table).mapInArrow(applying, _spark_schema(ibis.schema(schema))))

    def number(self, name: str, table: Any, by: str, column: str) -> Any:
        """Number the rows of each part of a sorted table, and add how many are in the parts before."""
        frame = self._frame(table).orderBy(by)
        frame = frame.withColumn(ROW, F.monotonically_increasing_id() % ROWS_OF_A_PART)
        numbered = self._save(f"sorted_{name}", frame.withColumn(PART, F.spark_partition_id()))
        counts = numbered.group_by(PART).aggregate(n=numbered.count()).order_by(PART).to_pyarrow()
        if len(counts) <= 1:
            return numbered.mutate(**{column: numbered[ROW]}).drop(PART, ROW)
        rows = counts["n"].to_pylist()
        starts = pa.table({PART: counts[PART], "start": list(itertools.accumulate([0, *rows[:-1]]))})
        joined = numbered.inner_join(self.upload("starts", starts), PART)
        return joined.mutate(**{column: joined[ROW] + joined["start"]}).drop(PART, ROW, "start")

    def in_order(self, name: str, table: Any, keys: Sequence[str], parts: Sequence[OrderedPart]) -> Iterator[pa.Table]:
        """Make a table that is sorted, so that Parquet's statistics tell where a part of it can be."""
        frame, key = self._frame(table), keys[0]
        sorted_table = self._save(name, frame.repartitionByRange(frame[key]).sortWithinPartitions(key))
        for part in parts:
            rows = sorted_table.filter(sorted_table[key].between(part.first, part.last))
            yield rows.order_by(*keys).to_pyarrow()

    def texts(self, table: Any) -> dict[str, str | None]:
        """Let DuckDB write the values of a table of one row."""
        connection = ibis.duckdb.connect()
        with contextlib.closing(connection.con):
            return row_texts(connection.create_table("row", table.to_pyarrow()))

    def _name(self, name: str) -> str:
        return f"{self.prefix}{name}_{next(self._numbers)}"

    def _frame(self, table: Any) -> DataFrame:
        return self.session.sql(self.connection.compile(table))

    def _numbered(self, tasks: Sequence[Any], files: Sequence[InputFile]) -> DataFrame:
        """Return the numbers of tasks, of which small ones share a partition: Spark takes as long to start each."""
        size = sum(file.path.stat().st_size for file in files)
        partitions = max(
            PARTITIONS_OF_A_CORE * self.session.sparkContext.defaultParallelism, size // BYTES_OF_A_PARTITION
        )
        return self.session.range(0, len(tasks), 1, min(len(tasks), partitions))

    def _save(self, name: str, frame: DataFrame) -> Any:
        if not self.stores:
            return self._view(name, frame)
        name = self._name(name)
        frame.write.saveAsTable(name, format="parquet")
        return self.connection.table(name)

    def _view(self, name: str, frame: DataFrame) -> Any:
        name = self._name(name)
        frame.createTempView(name)
        self.views.append(name)
        return self.connection.table(name)


def _tasks(read: FilesRead) -> list[ReadTask]:
    """Split what is to be read: files, and large ones of Parquet into ranges of rows."""
    tasks = []
    for file in read.files:
        in_lines = file.kind != "parquet" or read.file_number is not None
        rows = (
            0 if in_lines or "file_row_number" in map(str.lower, file.columns) else pq.read_metadata(file.path).num_rows
        )
        if rows <= ROWS_OF_A_TASK:
            tasks.append(ReadTask(read, file))
        else:
            starts = range(0, rows, ROWS_OF_A_TASK)
            tasks += [ReadTask(read, file, (start, start + ROWS_OF_A_TASK)) for start in starts]
    return tasks


def _spark_schema(schema: Any) -> spark_types.StructType:
    return spark_types.StructType([spark_types.StructField(name, _spark_type(type_)) for name, type_ in schema.items()])


def _spark_type(type_: Any) -> spark_types.DataType:
    # For Ibis, a time without a zone is Spark's with the session's.
    return spark_types.TimestampNTZType() if type_.is_timestamp() else PySparkType.from_ibis(type_)
