"""A mark in an SQLite file that is in use: a copy of it without its log (-wal) is recognised by the mark."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from pathlib import Path

from peterrec.errors import StoreError
from peterrec.storage import replace_file

MARK = "-mark"  # ending of the name of the file beside it


def wal_path(path: Path) -> Path:
    """Return where SQLite first writes what it writes to a file."""
    return path.with_name(f"{path.name}-wal")


class InUseMark:
    """The same random text in the file and in a small one beside it, while the file is in use and after a kill.

    A copy of the file without its log lacks the last changes. SQLite removes the log when the last connection of any
    program is closed: so a file without a log is whole if both texts are there, or none.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark_path = path.with_name(f"{path.name}{MARK}")

    @staticmethod
    def create(connection: sqlite3.Connection) -> None:
        """Make the table where it is not there, in a transaction."""
        connection.execute("CREATE TABLE IF NOT EXISTS in_use (mark TEXT)")
        connection.execute("INSERT INTO in_use SELECT NULL WHERE NOT EXISTS (SELECT 1 FROM in_use)")

    def check(self, connection: sqlite3.Connection, *, has_log: bool) -> None:
        """Refuse a copy without its log.

        Args:
            connection: to the file, in a write transaction: others that open it wait.
            has_log: whether there was a log beside it, before it was opened.

        Raises:
            StoreError: it is such a copy.
        """
        mark = self._read(connection)
        if mark is None or has_log or self._mark_text() == mark:
            return
        raise StoreError(
            "was copied while it was in use, without its log (-wal): the last events are not in it",
            remedy="make copies with `peterrec backup`; to go on without these events, run "
            f"sqlite3 {self._path.name} 'UPDATE in_use SET mark = NULL'",
            path=self._path,
        )

    def put(self, connection: sqlite3.Connection) -> None:
        """Mark the file as in use, unless it is already; in the transaction of `check`."""
        mark = self._read(connection) or secrets.token_hex(8)
        if self._mark_text() != mark:
            with replace_file(self._mark_path) as temporary:
                temporary.write_text(mark)
                temporary.chmod(0o600)
        connection.execute("UPDATE in_use SET mark = ?", (mark,))

    def remove(self) -> None:
        """Remove the mark if no other program uses the file: it is locked exclusively meanwhile."""
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(self._path, timeout=0)) as connection,
        ):
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # from the next transaction until it is closed
            self.clear(connection)
            self._mark_path.unlink(missing_ok=True)

    @staticmethod
    def clear(connection: sqlite3.Connection) -> None:
        """Remove the mark from a file, such as a copy that is whole."""
        with connection:
            connection.execute("UPDATE in_use SET mark = NULL")

    @staticmethod
    def _read(connection: sqlite3.Connection) -> str | None:
        (mark,) = connection.execute("SELECT mark FROM in_use").fetchone()
        return mark if mark is None else str(mark)

    def _mark_text(self) -> str | None:
        try:
            return self._mark_path.read_text()
        except OSError:
            return None
