"""Histories from JSON lines: what is read, and what is refused with the file and the line."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peterrec.config import EventsConfig
from peterrec.data import histories
from peterrec.errors import DataError
from whole_histories import read_histories

GOOD = '{"user": "a", "items": ["x", "y"]}'
needs_prepare = pytest.mark.skipif(
    importlib.util.find_spec("peterrec.data.prepare") is None, reason="peterrec.data.prepare is not there"
)


def write(folder: Path, text: str, name: str = "histories.jsonl") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("name", ["h.jsonl", "h.ndjson", "h.json", "h.JSONL"])
def test_one_history_a_line_blank_lines_ignored(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, f'{GOOD}\n\n  \r\n{{"user": 7, "items": [3, "3"], "more": null}}', name)
    histories = read_histories(str(path))
    assert histories.user_ids == ["a", "7"]
    assert histories.items == [["x", "y"], [3, "3"]]
    assert len(histories.user_ids) == 2


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert read_histories(write(tmp_path, "\ufeff" + GOOD)).user_ids == ["a"]


def test_an_open_stream() -> None:
    assert read_histories(io.StringIO(GOOD + "\n")).items == [["x", "y"]]


def test_empty_histories_only_when_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, '{"user": "a", "items": []}')
    assert read_histories(path, allow_empty=True).items == [[]]
    with pytest.raises(DataError, match=r"line 1: user 'a' has no items"):
        read_histories(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"user": "b", "items": ["x"', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('["b", ["x"]]', "not an object with `user` and `items`"),
        ('{"items": ["x"]}', "not an object with `user` and `items`"),
        ('{"user": "b"}', "not an object with `user` and `items`"),
        ('{"user": null, "items": ["x"]}', "the user None"),
        ('{"user": "", "items": ["x"]}', "the user ''"),
        ('{"user": 1.5, "items": ["x"]}', "the user 1.5"),
        ('{"user": "b", "items": "x"}', "`items` is not a list"),
        ('{"user": "b", "items": ["x", null]}', "`items` is not a list"),
        ('{"user": "b", "items": [1.0]}', "`items` is not a list"),
        ('{"user": "b", "items": [true]}', "`items` is not a list"),
        ('{"user": "b", "items": [9223372036854775808]}', "`items` is not a list"),
        ('{"user": "b", "items": ["\\ud800"]}', "`items` is not a list"),
        ('{"user": "a", "items": ["z"]}', "user 'a' was already on line 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, f"{GOOD}\n\n{line}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_histories(path)
    assert f"{path}, line 3" in str(caught.value)
    assert caught.value.remedy


def test_the_same_user_as_text_and_integer_is_one_user(tmp_path: Path) -> None:
    path = write(tmp_path, '{"user": 1, "items": ["x"]}\n{"user": "1", "items": ["x"]}')
    with pytest.raises(DataError, match="already on line 1"):
        read_histories(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_histories(tmp_path / "no.jsonl")
    with pytest.raises(DataError, match="there are no histories"):
        read_histories(write(tmp_path, "\n\n"))
    (tmp_path / "latin.jsonl").write_bytes(b'{"user": "\xe9", "items": ["x"]}\n')
    with pytest.raises(DataError, match="not UTF-8"):
        read_histories(tmp_path / "latin.jsonl")


@needs_prepare
def test_events_become_histories_in_order_of_time(tmp_path: Path) -> None:
    table = pa.table({"who": ["a", "b", "a"], "item_id": ["y", "z", "x"], "timestamp": [2, 5, 1]})
    pq.write_table(table, tmp_path / "events.parquet")
    events = EventsConfig(paths=("replaced",), user="who")
    histories = read_histories(tmp_path / "events.parquet", events=events)
    assert dict(zip(histories.user_ids, histories.items, strict=True)) == {"a": ["x", "y"], "b": ["z"]}


def test_lines_are_read_some_users_at_a_time_and_a_user_on_two_of_them_is_refused(tmp_path: Path) -> None:
    lines = [f'{{"user": "{user}", "items": ["x", {user}]}}' for user in range(10)]
    with histories.read_histories(io.StringIO("\n".join(lines)), at_once=6) as stored:
        assert [piece.user_ids for piece in stored] == [["0", "1"], ["2", "3"], ["4", "5"], ["6", "7"], ["8", "9"]]
        assert [piece.items for piece in stored][4] == [["x", 8], ["x", 9]]
    with pytest.raises(DataError, match="user '0' was already on line 1") as caught:
        histories.read_histories(io.StringIO("\n".join([*lines, lines[0]])), at_once=6)
    assert "line 11" in str(caught.value)
