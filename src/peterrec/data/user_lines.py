"""On which line of a file a user stands: SQLite in a file without a name, for more users than memory holds."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path

from peterrec.errors import StorageError

CACHE = 64 * 2**10  # KiB


class UserLines(contextlib.AbstractContextManager["UserLines"]):
    """Lines by user; leaving the context forgets them."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("")  # temporary: on disk as soon as the cache is full
        self._connection.execute(f"PRAGMA cache_size = -{CACHE}")
        self._connection.execute("PRAGMA journal_mode = OFF")  # nothing is ever rolled back
        self._connection.execute("CREATE TABLE lines (user BLOB PRIMARY KEY, line INTEGER) WITHOUT ROWID")

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def add(self, user: str, line: int) -> int:
        """Note the line of a user; return the first line that was noted for that user, which may be this one.

        Raises:
            StorageError: the disk is full.
        """
        key = user.encode()
        try:
            if self._connection.execute("INSERT OR IGNORE INTO lines VALUES (?, ?)", (key, line)).rowcount:
                return line
            first: int = self._connection.execute("SELECT line FROM lines WHERE user = ?", (key,)).fetchone()[0]
        except sqlite3.OperationalError as error:
            raise StorageError(
                f"users cannot be kept on disk meanwhile ({error})",
                remedy="free some space, or name another folder for what is temporary: TMPDIR",
                path=Path(tempfile.gettempdir()),
            ) from error
        return first
