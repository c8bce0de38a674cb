"""The files of the paper's authors."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peterrec.data.sources import authors, convert
from peterrec.errors import ConfigError, DataError
from peterrec.storage import read_json

PRETRAIN = "13,18,76\n0,0,4\n\n0,5,6\n"
# The demonstration of the authors has several targets in a line, and several lines for a user.
TASK = "13,18,76,,1845,1846\n0,4,,7\n5,6,,7\r\n5,6,,9\n8,9,,4\n"


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_bytes(content.encode())
    return path


def events(out: Path) -> dict[tuple[str, str], list[int]]:
    """Return the items of each user and domain, in order of time."""
    rows = sorted(pq.read_table(out / "events.parquet").to_pylist(), key=lambda row: row["timestamp"])
    items_of_users: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        items_of_users.setdefault((row["user_id"], row["domain"]), []).append(row["item_id"])
    return items_of_users


def table(out: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / f"{name}.parquet").to_pylist()
    return rows


def test_pretraining_file(tmp_path: Path) -> None:
    out = convert("peterrec", [write(tmp_path, "pre.csv", PRETRAIN)], tmp_path / "out")
    assert table(out, "events") == [
        {"user_id": user, "item_id": item, "timestamp": time, "domain": "source"}
        for user, items in (("u1", [13, 18, 76]), ("u2", [4]), ("u3", [5, 6]))
        for time, item in enumerate(items)
    ]
    assert str(pq.read_schema(out / "events.parquet").field("item_id").type) == "int64"
    assert table(out, "users") == [{"user_id": f"u{n}"} for n in (1, 2, 3)]
    assert table(out, "items") == [{"item_id": item, "domain": "source"} for item in (4, 5, 6, 13, 18, 76)]


def test_rows_with_the_same_sequence_are_one_user_in_all_files(tmp_path: Path) -> None:
    paths = [write(tmp_path, "pre.csv", PRETRAIN), write(tmp_path, "fine.csv", TASK)]
    out = convert("peterrec", paths, tmp_path / "out", targets="items")
    assert events(out) == {
        ("u1", "source"): [13, 18, 76],
        ("u2", "source"): [4],
        ("u3", "source"): [5, 6],
        ("u4", "source"): [8, 9],
        ("u1", "target"): [1845, 1846],
        ("u2", "target"): [7],
        ("u3", "target"): [7, 9],  # of two rows
        ("u4", "target"): [4],
    }
    times = {(r["user_id"], r["item_id"]): r["timestamp"] for r in table(out, "events") if r["domain"] == "target"}
    expected = {"u1": [(1845, 3), (1846, 4)], "u2": [(7, 1)], "u3": [(7, 2), (9, 3)], "u4": [(4, 2)]}
    assert times == {(user, item): time for user, pairs in expected.items() for item, time in pairs}
    assert "which are of the same user: 4" in " ".join(read_json(out / "source.json")["notes"])


def test_targets_keep_the_order_of_the_rows_however_many(tmp_path: Path) -> None:
    content = "".join(f"{5 + n % 2},,{1000 - n}\n" for n in range(400))
    out = convert("peterrec", [write(tmp_path, "fine.csv", content)], tmp_path / "out", targets="items")
    assert events(out)["u1", "target"] == list(range(1000, 600, -2))
    assert events(out)["u2", "target"] == list(range(999, 600, -2))


def test_items_of_two_domains_share_numbers_and_nothing_else(tmp_path: Path) -> None:
    out = convert("peterrec", [write(tmp_path, "fine.csv", TASK)], tmp_path / "out", targets="items")
    items = [(row["item_id"], row["domain"]) for row in table(out, "items")]
    assert {(4, "source"), (4, "target"), (9, "source"), (9, "target")} <= set(items)
    assert len(items) == len(set(items)) == 8 + 5


def test_an_item_keeps_its_id_whatever_else_is_in_the_file(tmp_path: Path) -> None:
    first = convert("peterrec", [write(tmp_path, "a.csv", "900,5\n")], tmp_path / "a")
    second = convert("peterrec", [write(tmp_path, "b.csv", "1,2,3,900,,8\n")], tmp_path / "b", targets="items")
    assert events(first)["u1", "source"] == [900, 5]
    assert events(second)["u1", "source"] == [1, 2, 3, 900]


def test_labels_are_those_on_which_all_rows_of_a_user_agree(tmp_path: Path) -> None:
    task = "13,18,76,,male\n0,4,,0\n5,6,,1\n5,6,,2\n8,9,,3\n0,8,9,,3\n7,,1,2\n"
    paths = [write(tmp_path, "pre.csv", PRETRAIN + "99\n"), write(tmp_path, "age.csv", task)]
    out = convert("peterrec", paths, tmp_path / "out", targets="labels")
    labels = {row["user_id"]: row["label"] for row in table(out, "users")}
    assert labels == {"u1": "male", "u2": "0", "u3": None, "u4": None, "u5": "3", "u6": None}
    assert {domain for _, domain in events(out)} == {"source"}
    notes = " ".join(read_json(out / "source.json")["notes"])
    assert "users with different labels in several rows, who are given none: 2" in notes
    assert "users with a label: 3 of 6" in notes


def test_several_tasks_are_called_like_their_files(tmp_path: Path) -> None:
    paths = [write(tmp_path, "age.csv", "1,2,,old\n3,,young\n"), write(tmp_path, "sex.csv.gz", "")]
    paths[1].write_bytes(gzip.compress(b"1,2,,f\n4,,m\n"))
    out = convert("peterrec", paths, tmp_path / "labels", targets="labels")
    assert table(out, "users") == [
        {"user_id": "u1", "age": "old", "sex": "f"},
        {"user_id": "u2", "age": "young", "sex": None},
        {"user_id": "u3", "age": None, "sex": "m"},
    ]
    paths = [write(tmp_path, "click.csv", "1,2,,5\n3,,6\n"), write(tmp_path, "like.csv", "1,2,,5\n1,2,,7\n")]
    out = convert("peterrec", paths, tmp_path / "items", targets="items")
    assert events(out) == {
        ("u1", "source"): [1, 2],
        ("u2", "source"): [3],
        ("u1", "click"): [5],
        ("u2", "click"): [6],
        ("u1", "like"): [5, 7],
    }
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    with pytest.raises(DataError, match="'like' is taken"):
        convert("peterrec", [paths[1], write(other_folder, "like.csv", "1,,2\n")], tmp_path / "out", targets="items")
    with pytest.raises(DataError, match="'source' is taken"):
        convert("peterrec", [paths[1], write(other_folder, "source.csv", "1,,2\n")], tmp_path / "out", targets="items")


def test_padding_is_no_item_and_a_row_of_it_no_user(tmp_path: Path) -> None:
    content = "0,0,0,,5\n0,7,0,8,,5,0\n"
    out = convert("peterrec", [write(tmp_path, "fine.csv", content)], tmp_path / "out", targets="items")
    assert events(out) == {("u1", "source"): [7, 8], ("u1", "target"): [5]}
    assert "rows with padding only, which are left out: 1" in read_json(out / "source.json")["notes"]
    with pytest.raises(DataError, match="no row has an item other than 0"):
        convert("peterrec", [write(tmp_path, "zero.csv", "0,0\n")], tmp_path / "zero")


def test_spaces_byte_order_marks_and_windows_lines(tmp_path: Path) -> None:
    out = convert("peterrec", [write(tmp_path, "pre.csv", "\ufeff007, 8 \r\n 7,8\r\n")], tmp_path / "out")
    assert events(out) == {("u1", "source"): [7, 8]}


@pytest.mark.quick_cases(10)
@pytest.mark.parametrize(
    ("content", "targets", "message"),
    [
        ("1,2\n\n3,,4\n", None, "line 3 has a ',,', but the first line makes it a pre-training file"),
        ("1,,2\n3,4\n", "items", "line 2 has no ',,', but the first line makes it a task file"),
        ("1,,2\n3,,4,,5\n", "items", "line 2 has several ',,'"),
        ("1,2\n3,x\n", None, "line 2 has the item 'x', which is not a whole number"),
        ("1,2\n3,\n", None, "line 2 has the item '', which is not a whole number"),
        ("1,2\n-3\n", None, "line 2 has the item '-3'"),
        ("1,2\n3.5\n", None, r"line 2 has the item '3\.5'"),
        ("1,2\n9999999999999999999\n", None, "line 2 has the item '9999999999999999999'"),
        ("1,,2\n3,,x\n", "items", "line 2 has the target 'x', which is not a whole number"),
        ("1,,2\n3,,\n", "items", "line 2 has no target"),
        ("1,,2\n3,,0\n", "items", "line 2 has no target"),
        ("1,,a\n3,,\n", "labels", "line 2 has no target"),
        ("1,,a\n3,,b,\n", "labels", "line 2 has no target"),
        ("1,,2\n,,3\n", "items", "line 2 has the item ''"),
        ("1,,2\n3,,,4\n", "items", "line 2 has no target|line 2 has the target ''"),
    ],
)
@pytest.mark.parametrize("block", [1, 1 << 20])
def test_lines_that_are_wrong_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, targets: str | None, message: str, block: int
) -> None:
    monkeypatch.setattr(authors, "BLOCK", block)  # 1: every line comes by itself
    path = write(tmp_path, "bad.csv", content)
    with pytest.raises(DataError, match=message) as caught:
        convert("peterrec", [path], tmp_path / "out", targets=targets)
    assert caught.value.path == path
    assert ",,target" in caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_targets_are_asked_for_where_there_are_some_and_only_there(tmp_path: Path) -> None:
    pre, task = write(tmp_path, "pre.csv", PRETRAIN), write(tmp_path, "fine.csv", TASK)
    with pytest.raises(ConfigError, match=r"fine\.csv is a task file, and it is not said") as caught:
        convert("peterrec", [pre, task], tmp_path / "out")
    assert "--targets items" in caught.value.remedy
    assert "--targets labels" in caught.value.remedy
    with pytest.raises(ConfigError, match="there is no task file"):
        convert("peterrec", [pre], tmp_path / "out", targets="labels")
    with pytest.raises(ConfigError, match="targets cannot be 'classes'"):
        convert("peterrec", [pre, task], tmp_path / "out", targets="classes")


sequences = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(rows=st.lists(st.tuples(sequences, st.integers(0, 2), st.integers(1, 9)), min_size=1, max_size=20))
def test_every_row_is_found_again_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[list[int], int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    lines = [",".join(map(str, [0] * padding + items)) + f",,{target}\n" for items, padding, target in rows]
    path = write(folder, "fine.csv", "".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(authors, "BLOCK", 10)
        out = convert("peterrec", [path], folder / "out", targets="items")
    users: dict[tuple[int, ...], list[int]] = {}
    for items, _, target in rows:
        users.setdefault(tuple(items), []).append(target)
    expected: dict[tuple[str, str], list[int]] = {}
    for number, (source, targets) in enumerate(users.items(), start=1):
        expected |= {(f"u{number}", "source"): list(source), (f"u{number}", "target"): targets}
    assert events(out) == expected
    assert len(table(out, "users")) == len(users)
