"""Histories of more users than memory holds: on disk, read some users at a time."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from peterrec.data.ids import HistoryFeatures, UserHistories
from peterrec.storage import storage_errors

EVENTS_AT_ONCE = 500_000  # some 60 MB of ids; a catalogue that is hashed for each piece costs little beside the network


class StoredHistories(contextlib.AbstractContextManager["StoredHistories"]):
    """Histories that are written once, and read as often as wanted; leaving the context removes them.

    The file has no name, so nothing of it stays behind, even of a process that is killed.

    Attributes:
        notes: what was left out of the histories, and what was assumed, in words.
        users: how many there are.
        events: of all of them.
    """

    def __init__(self) -> None:
        self.notes: tuple[str, ...] = ()
        self.users = 0
        self.events = 0
        self._folder = Path(tempfile.gettempdir())
        with storage_errors(self._folder):
            self._file = tempfile.TemporaryFile(prefix="peterrec-")  # noqa: SIM115 - __exit__ closes it
        self._ends = [0]

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a full disk, of which the caller knows already
            self._file.close()

    def append(self, piece: UserHistories) -> None:
        """Write the histories of some more users, who are read together.

        Raises:
            StorageError: the disk is full.
        """
        data = json.dumps(piece).encode()
        with storage_errors(self._folder):
            self._file.seek(self._ends[-1])
            self._file.write(data)
            self._file.flush()
        self._ends.append(self._ends[-1] + len(data))
        self.users += len(piece.user_ids)
        self.events += sum(map(len, piece.items))

    def __iter__(self) -> Iterator[UserHistories]:
        """Yield the histories as they were appended."""
        for start, end in zip(self._ends, self._ends[1:], strict=False):
            self._file.seek(start)
            user_ids, items, features = json.loads(self._file.read(end - start))
            yield UserHistories(user_ids, items, None if features is None else HistoryFeatures(*features))
