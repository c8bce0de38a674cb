"""The protocol of an engine of tables: all that `prepare` knows of DuckDB or Spark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from peterrec.data.prepare.files import InputFile
from peterrec.errors import ConfigError


class EngineMemoryError(ConfigError):
    """The events do not fit in the memory that the engine may use."""


@dataclass(frozen=True)
class OrderedPart:
    """Rows of a table whose first key lies between two numbers.

    Attributes:
        first, last: the numbers, both included.
        rows: how many rows there are.
    """

    first: int
    last: int
    rows: int


class Engine(Protocol):
    """A scratch database of one run. Tables are Ibis expressions; all of what is made here is gone at the end.

    What a table holds is asked by Ibis expressions of its columns, which mean the same on every engine. What text in a
    file means (a number, a time) does not: such expressions go through `rows`, which every engine evaluates alike.
    """

    def read(
        self,
        name: str,
        files: Sequence[InputFile],
        columns: dict[str, str],
        time_format: str | None = None,
        *,
        file_number: int | None = None,
    ) -> Any:
        """Return columns of files of the same form as a table, of which `rows` alone may be asked.

        Args:
            name: of the table, for whoever looks at the database.
            files: what to read.
            columns: what each column is called in the table, and in the files. The table has also `FILE` and, where
                `time_format` was used, `UNREAD`: what is not written as that says.
            time_format: how the column `time` is written, if it is text.
            file_number: of a single file: the table gets a column `line`, in the order of files and of their lines.

        Raises:
            DataError: a file is damaged or not in the form it seems to have; the message names it.
        """

    def rows(self, table: Any, *, reused: bool = False) -> Any:
        """Return as a table what an expression makes of each row of a table that was read, and of nothing else.

        Args:
            table: the expression.
            reused: whether the result is asked more than once.

        Raises:
            DataError: as `read`, where files are read only now; or the engine cannot hold a value.
        """

    def store(self, name: str, table: Any) -> Any:
        """Return a table that is computed once, and not each time that it is asked for."""

    def upload(self, name: str, table: pa.Table) -> Any:
        """Make a table of the engine from one in memory."""

    def apply(self, name: str, table: Any, function: Callable[[pa.Table], pa.Table], schema: pa.Schema) -> Any:
        """Store what a Python function makes of the rows of a table, some of them at a time, in any order.

        Args:
            name: of the new table.
            table: the rows.
            function: of a module, or a `partial` of one, for it may run elsewhere; its result has the `schema`.
            schema: of the new table.
        """

    def number(self, name: str, table: Any, by: str, column: str) -> Any:
        """Store a table with one more column (int64): each row's place, from 0 on, in the order of distinct values."""

    def in_order(self, name: str, table: Any, keys: Sequence[str], parts: Sequence[OrderedPart]) -> Iterator[pa.Table]:
        """Yield all rows of a table in order of some columns, a part at a time.

        Args:
            name: of what is stored meanwhile.
            table: the rows; other tables may be asked, but nothing be stored, until the last part was taken.
            keys: columns in whose order the rows come. The first holds whole numbers.
            parts: ascending; every row is in one of them.
        """

    def texts(self, table: Any) -> dict[str, str | None]:
        """Return the values of a table of one row as texts, written alike by every engine."""


def scalars(expression: Any) -> dict[str, Any]:
    """Run an expression of one row and return its values."""
    rows: list[dict[str, Any]] = expression.to_pyarrow().to_pylist()
    return rows[0]
