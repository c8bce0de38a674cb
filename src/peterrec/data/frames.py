"""DataFrames of any library that narwhals reads, written to a file that every engine reads."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import narwhals as nw
import pyarrow as pa
import pyarrow.parquet as pq

from peterrec.arguments import describe
from peterrec.errors import DataError, PeterRecError
from peterrec.storage import sha256_file, storage_errors

LIBRARIES = "pandas, Polars, PyArrow, DuckDB, Ibis, PySpark or another library that narwhals reads"


def is_dataframe(value: Any) -> bool:
    """Return whether a value is a table of a library that is read: a DataFrame, a lazy one, a relation."""
    return isinstance(nw.from_native(value, pass_through=True), nw.DataFrame | nw.LazyFrame)


class FrameFiles:
    """DataFrames as Parquet files, which are there while this is open.

    Args:
        parent: folder in which a temporary one is made for them; it is made if there is any DataFrame.

    Attributes:
        names: what each file is called in messages and in what is recorded, such as `<a pandas DataFrame>`.
        session: of a DataFrame of Spark, if there is one.
    """

    def __init__(self, parent: Path) -> None:
        self.names: dict[Path, str] = {}
        self.session: Any = None
        self._parent = parent
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, frame: Any, name: str, columns: Sequence[str] | None = None) -> Path:
        """Write a DataFrame; return the file.

        Args:
            frame: of a library that narwhals reads.
            name: of the file, without an ending.
            columns: those that are needed; None for all. One that is not there is left for the reader to miss, who is
                told the names of all.

        Raises:
            DataError: it is of another library, or a column holds what a file of columns cannot hold.
        """
        path = self._make_folder() / f"{name}.parquet"
        self.names[path] = f"<{describe(frame)}>"
        try:
            table = nw.from_native(frame)
            names = table.collect_schema().names()
            needed = [column for column in columns or names if column in names] or names
            is_missing = columns is not None and len(needed) < len(set(columns))
            unneeded = [nw.lit("").alias(name) for name in names if is_missing and name not in needed]
            self._write(table.select(*needed, *unneeded), path)
        except (TypeError, ValueError, pa.ArrowException, nw.exceptions.NarwhalsError) as error:
            raise DataError(
                f"{describe(frame)} cannot be read ({str(error).splitlines()[0]})",
                remedy=f"pass a DataFrame of {LIBRARIES}, each column of one type; or write it to Parquet and pass the "
                "path",
            ) from error
        return path

    def _write(self, table: nw.DataFrame[Any] | nw.LazyFrame[Any], path: Path) -> None:
        if isinstance(table, nw.DataFrame):
            pq.write_table(_plain(table.to_arrow()), path, compression="zstd")
        elif table.implementation.is_pyspark():
            self.session = table.to_native().sparkSession
            table.to_native().write.parquet(path.as_uri())  # a folder, written by the executors
        else:
            table.sink_parquet(path)

    def _make_folder(self) -> Path:
        if self._folder is None:
            with storage_errors(self._parent):
                self._parent.mkdir(parents=True, exist_ok=True)
                self._folder = Path(tempfile.mkdtemp(prefix=".peterrec-frames-", dir=self._parent.resolve()))
        return self._folder

    def name_of(self, path: Path) -> str | None:
        """Return what a file is called: itself one that was written, or a part of a folder that was."""
        return self.names.get(path, self.names.get(path.parent))

    def identity(self, path: Path) -> dict[str, str | int]:
        """Return what tells whether a DataFrame has the same rows: its sha256, as a file."""
        return {"path": self.name_of(path) or "", "bytes": path.stat().st_size, "sha256": sha256_file(path)}

    @contextlib.contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Let errors about one of the files speak of the DataFrame."""
        try:
            yield
        except PeterRecError as error:
            name = self.name_of(Path(str(error.path)))
            if name is None:
                raise
            raise type(error)(error.message, remedy=error.remedy, path=name) from error


def _plain(table: pa.Table) -> pa.Table:
    """Return a table without what belongs to a library alone: categories, and the metadata of an index."""
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in table.itercolumns()
    ]
    return pa.table(columns, names=table.column_names)


def id_type(path: Path, column: str) -> pa.DataType:
    """Return the type of a column of ids in a file or folder of Parquet, which answers about them should have again."""
    schema = pq.ParquetDataset(path).schema
    return schema.field(column).type if column in schema.names else pa.string()


def ids_as(ids: Sequence[str], type_: pa.DataType) -> pa.Array:
    """Return ids, which are kept as texts, in the type that they were given in; as texts where that cannot be."""
    texts = pa.array(ids, pa.string())
    try:
        return texts.cast(type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return texts
