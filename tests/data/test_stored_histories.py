"""Histories on disk: as they were put there, as often as wanted, and nothing of them left behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from builders import file_size_limit
from peterrec.data import user_lines
from peterrec.data.ids import UserHistories
from peterrec.data.stored_histories import StoredHistories
from peterrec.data.user_lines import UserLines
from peterrec.errors import StorageError

PIECES = [
    UserHistories(["a", "ü\n\u2028"], [["x", 3, "3"], []]),
    UserHistories(['b "c", d'], [[-(2**63), 2**63 - 1, "\x00"]]),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_pieces_come_back_as_they_were_each_time(folder: Path) -> None:
    with StoredHistories() as stored:
        for piece in PIECES:
            stored.append(piece)
        assert list(stored) == list(stored) == PIECES
        assert next(iter(stored)) == PIECES[0]
        stored.append(PIECES[0])  # after it was read
        assert list(stored) == [*PIECES, PIECES[0]]
        assert (stored.users, stored.events) == (5, 9)
        assert [type(item) for item in next(iter(stored)).items[0]] == [str, int, str]


def test_no_file_has_a_name_that_could_stay(folder: Path) -> None:
    with StoredHistories() as stored:
        stored.append(PIECES[0])
        assert list(folder.iterdir()) == []


def test_a_full_disk_is_said(folder: Path) -> None:
    with StoredHistories() as stored, file_size_limit(2_000), pytest.raises(StorageError, match="the disk is full"):
        stored.append(UserHistories(["a"], [list(range(1_000))]))


def test_the_first_line_of_a_user_is_remembered() -> None:
    with UserLines() as lines:
        assert [lines.add(user, line) for line, user in enumerate(["a", "b", "A", "a", "a ", "a"])] == [
            0,
            1,
            2,
            0,
            4,
            0,
        ]


def test_a_full_disk_while_users_are_noted_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_lines, "CACHE", 10)  # KiB
    with UserLines() as lines, file_size_limit(4_000), pytest.raises(StorageError, match="TMPDIR"):
        [lines.add(f"user {line}", line) for line in range(5_000)]
