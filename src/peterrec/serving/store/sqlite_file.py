"""An SQLite file: its connections and transactions, and its errors as `StoreError`."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from peterrec.errors import FormatVersionError, StoreError
from peterrec.serving.store.in_use import InUseMark, wal_path

APPLICATION = 0x70726563  # "prec": in the file's header, marks it as a store of events
VERSION = 4
MAX_LOG_BYTES = 64 << 20  # of the write-ahead log; past it a writer waits shortly for readers, to begin it again
LOG_WAIT_MS = 50
PROBLEMS = {
    sqlite3.SQLITE_FULL: ("the disk is full; nothing of this call was kept", "free some space, then try again"),
    sqlite3.SQLITE_IOERR: (
        "cannot be read or written ({}); nothing of this call was kept",
        "see that the disk is well and has space, then try again",
    ),
    sqlite3.SQLITE_BUSY: ("is locked by another program", "end the program that holds it, or try again later"),
    sqlite3.SQLITE_READONLY: ("may not be written", "give this user the right to write the file and its folder"),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "check that it is a file, in a folder that may be written"),
    sqlite3.SQLITE_CORRUPT: ("is damaged ({})", "restore it from a backup, or move it away to start without events"),
    sqlite3.SQLITE_NOTADB: ("is not a store of events", "choose another folder, or move the file away"),
}


Change = Callable[[sqlite3.Connection], None]


class SqliteFile:
    """One writer at a time, any number of readers that no writer holds up (a write-ahead log).

    What was committed is on the disk (synchronous=FULL). Several processes may use the file, each with an object of its
    own. What is deleted is overwritten (secure_delete).

    Args:
        path: of the file; made if it is not there, readable by its owner only.
        timeout: seconds to wait for another writer.
        create: makes the tables, in a transaction.
        upgrades: by earlier version, a function that upgrades its file to this version, in a transaction.

    Raises:
        StoreError: it cannot be opened or is something else.
        FormatVersionError: another release made it.
    """

    def __init__(self, path: Path, timeout: float, create: Change, upgrades: Mapping[int, Change]) -> None:
        self.path = path
        self._log = wal_path(path)
        self._mark = InUseMark(path)
        self._timeout = timeout
        self._create, self._upgrades = create, upgrades
        self._lock = threading.Lock()  # of the writer
        self._writer: sqlite3.Connection | None = None
        self._readers: list[sqlite3.Connection] = []  # idle ones; list.append and list.pop are atomic
        self._closed = False
        self._process = os.getpid()
        with self._errors():
            has_log = self._log.exists()
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._identity = self._identify()
            with self.exclusive() as connection:
                self._prepare(connection)
                with self.transaction(connection):  # others may open or close it at the same moment
                    self._mark.check(connection, has_log=has_log)
                    self._mark.put(connection)
                self._checkpoint(connection)  # so that the file itself has the mark

    # ------------------------------------------------------------ transactions

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[sqlite3.Connection]:
        """Yield the writer's connection to one thread at a time.

        After an error the next one gets a fresh connection, so that it works again when the cause is gone.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._errors():
            if not self._lock.acquire(timeout=self._timeout):
                raise StoreError("is busy with other writes", remedy="try again later", path=self.path)
            try:
                self._check_usable()
                self._writer = self._writer or self._connect()
                yield self._writer
            except BaseException:
                if self._writer is not None:
                    self._writer.close()
                self._writer = None
                raise
            finally:
                self._lock.release()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection whose changes are on the disk when the block ends well, and gone if not.

        Raises:
            StoreError: the file cannot be written.
        """
        with self.exclusive() as connection, self.transaction(connection):
            yield connection

    @contextlib.contextmanager
    def transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Put what is done in the block on the disk; inside `exclusive`, which undoes it after an error."""
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
        if not self._log.exists():
            raise StoreError("lost its log (-wal), which was removed while in use", remedy="restart", path=self.path)
        self._checkpoint_if_long(connection)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that sees the file as it is now, whatever is written meanwhile.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._errors():
            self._check_usable()
            try:
                connection = self._readers.pop()
            except IndexError:  # all are in use
                connection = self._connect()
            try:
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.close()  # a fresh one next time: whatever was wrong with this one is gone with it
                raise
            self._readers.append(connection)
            if self._closed:  # meanwhile
                self._close_readers()

    def checkpoint(self) -> bool:
        """Move the log into the file and truncate it: deleted rows are in neither then.

        Returns:
            Whether it could be done: not while another program reads for long.

        Raises:
            StoreError: the file cannot be written.
        """
        with self.exclusive() as connection:
            return self._checkpoint(connection)

    def close(self) -> None:
        """Close all connections; those in use when they are given back."""
        if self._closed:
            return
        self._closed = True
        with self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
        self._close_readers()
        with contextlib.suppress(OSError):
            if self._identify() == self._identity:
                self._mark.remove()

    def _close_readers(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._readers.pop().close()

    # ------------------------------------------------------------ connections

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=self._timeout,
            isolation_level=None,  # transactions are begun and ended here
            check_same_thread=False,  # a connection is used by one thread at a time, not always the same
            cached_statements=1024,
        )
        # temp_store: nothing of a user in temporary files
        settings = ("synchronous=FULL", "secure_delete=ON", "temp_store=MEMORY", f"journal_size_limit={MAX_LOG_BYTES}")
        try:
            for setting in settings:
                connection.execute(f"PRAGMA {setting}").fetchall()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the tables if the file is new; refuse a file that is no store of events."""
        if self._is_current(connection):
            return
        self._enable_wal(connection)
        connection.execute("BEGIN IMMEDIATE")
        if not self._is_current(connection):  # another process may have been quicker
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            self._upgrades.get(version, self._create)(connection)
            self._mark.create(connection)
            connection.execute(f"PRAGMA application_id={APPLICATION}")
            connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")

    def _is_current(self, connection: sqlite3.Connection) -> bool:
        application, version, tables = (
            connection.execute(statement).fetchone()[0]
            for statement in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_schema")
        )
        if (application, version, tables) == (0, 0, 0):
            return False
        if application != APPLICATION:
            problem, remedy = PROBLEMS[sqlite3.SQLITE_NOTADB]
            raise StoreError(problem, remedy=remedy, path=self.path)
        if version in self._upgrades:
            return False
        if version != VERSION:
            raise FormatVersionError(
                f"has format version {version}; this release reads version {VERSION}",
                remedy="use the release that wrote it, or choose another folder and send the events again",
                path=self.path,
            )
        return True

    def _enable_wal(self, connection: sqlite3.Connection) -> None:
        """Switch to a write-ahead log; tried until the timeout, as SQLite does not wait for other processes here."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
                continue
            if mode != "wal":
                raise StoreError("is on a disk that SQLite's log does not work on", remedy="choose a local disk")
            return

    def _checkpoint_if_long(self, connection: sqlite3.Connection) -> None:
        """Truncate the log if it is long: SQLite does not while there is a reader at every moment."""
        with contextlib.suppress(OSError, sqlite3.Error):  # what was written is safe already
            if self._log.stat().st_size > MAX_LOG_BYTES:
                self._checkpoint(connection)

    def _checkpoint(self, connection: sqlite3.Connection) -> bool:
        """Move the log into the file and truncate it; return whether that succeeded.

        Writers wait meanwhile, so it waits for readers only shortly.
        """
        connection.execute(f"PRAGMA busy_timeout={LOG_WAIT_MS}")
        try:
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.execute(f"PRAGMA busy_timeout={int(1000 * self._timeout)}")
        return not busy

    # ------------------------------------------------------------ errors

    def _identify(self) -> tuple[int, int]:
        status = self.path.stat()
        return status.st_dev, status.st_ino

    def _check_usable(self) -> None:
        """Refuse a file that was closed, removed or replaced, and use in a forked process: events would be lost."""
        if self._closed:
            raise StoreError("is closed", remedy="open the store again", path=self.path)
        if self._process != os.getpid():
            raise StoreError("was opened by another process", remedy="open it in each process", path=self.path)
        with contextlib.suppress(FileNotFoundError):
            if self._identify() == self._identity:
                return
        raise StoreError(
            "was removed or replaced while it was in use", remedy="put it back, or restart", path=self.path
        )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # Errors of the module itself have no code: a connection that was closed under a call.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_BUSY) & 0xFF
            problem, remedy = PROBLEMS.get(code, ("cannot be used ({})", "see what SQLite says"))
            raise StoreError(problem.format(error), remedy=remedy, path=self.path) from error
        except OSError as error:
            problem, remedy = PROBLEMS[sqlite3.SQLITE_CANTOPEN]
            raise StoreError(f"{problem} ({error.strerror})", remedy=remedy, path=self.path) from error
