"""Atomic files of RecBole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from peterrec.data.sources import convert
from peterrec.data.sources import text_tables as reading
from peterrec.errors import DataError
from peterrec.storage import read_json

INTER = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t10\t5\t978300760\n2\t20\t\t1.5e3\n1\t20\t-.5\t7\n"
)
USER = "user_id:token\tage:token\tgender:token\n1\t007\tF\n2\t56\t\n3\t1\tM\n"
ITEM = 'item_id:token\ttitle:token_seq\tvector:float_seq\n10\t"A" Team\t0.5 1\n20\t\t\n'


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for ending, content in files.items():
        (folder / f"set.{ending}").write_text(content)
    return folder


def table(out: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / f"{name}.parquet").to_pylist()
    return rows


@pytest.mark.parametrize("named", ["folder", "file"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_fields_keep_their_names_and_get_their_types(tmp_path: Path, named: str, ends: str) -> None:
    folder = write(tmp_path / "set", **{n: t.replace("\n", ends) for n, t in (("inter", INTER), ("user", USER))})
    (folder / "set.item").write_bytes(ITEM.replace("\n", ends).encode())
    out = convert("recbole", [folder if named == "folder" else folder / "set.inter"], tmp_path / "out")
    names = ("user_id", "item_id", "rating", "timestamp")
    rows = [(1, 10, 5.0, 978300760.0), (2, 20, None, 1500.0), (1, 20, -0.5, 7.0)]
    assert table(out, "events") == [dict(zip(names, row, strict=True)) for row in rows]
    assert [str(t) for t in pq.read_schema(out / "events.parquet").types] == ["int64", "int64", "double", "double"]
    assert table(out, "users") == [
        {"user_id": 1, "age": "007", "gender": "F"},
        {"user_id": 2, "age": "56", "gender": None},
        {"user_id": 3, "age": "1", "gender": "M"},
    ]
    assert table(out, "items") == [
        {"item_id": 10, "title": '"A" Team', "vector": "0.5 1"},
        {"item_id": 20, "title": None, "vector": None},
    ]
    assert [file["name"] for file in read_json(out / "source.json")["files"]] == ["set.inter", "set.user", "set.item"]


def test_without_siblings_users_and_items_are_those_of_the_events(tmp_path: Path) -> None:
    out = convert("recbole", [write(tmp_path / "set", inter=INTER)], tmp_path / "out")
    assert table(out, "users") == [{"user_id": 1}, {"user_id": 2}]
    assert table(out, "items") == [{"item_id": 10}, {"item_id": 20}]


@pytest.mark.parametrize("block", [40, 1 << 20])
def test_without_times_the_order_of_the_rows_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(reading, "BLOCK", block)
    rows = "".join(f"{n % 3}\t{n}\n" for n in range(50))
    out = convert("recbole", [write(tmp_path / "set", inter=f"user_id:token\titem_id:token\n{rows}")], tmp_path / "out")
    assert [(row["item_id"], row["timestamp"]) for row in table(out, "events")] == [(n, n) for n in range(50)]
    assert "there is no timestamp" in read_json(out / "source.json")["notes"][1]


@pytest.mark.parametrize(
    ("changed", "users", "items"),
    [
        ({}, 1, 10),
        ({"inter": INTER.replace("\n2\t", "\n02\t")}, "1", 10),
        ({"inter": INTER.replace("\t20\t", "\tx\t")}, 1, "10"),
        ({"user": USER.replace("\n3\t", "\nc\t")}, "1", 10),  # an id must be the same in each of the files
        ({"item": ITEM.replace("\n20\t", "\n0020\t")}, 1, "10"),
        ({"item": ITEM.replace("\n20\t", "\n99999999999999999999\t")}, 1, "10"),
    ],
)
def test_ids_are_integers_where_all_of_them_are(
    tmp_path: Path, changed: dict[str, str], users: object, items: object
) -> None:
    folder = write(tmp_path / "set", **({"inter": INTER, "user": USER, "item": ITEM} | changed))
    out = convert("recbole", [folder], tmp_path / "out")
    first = table(out, "events")[0]
    assert (first["user_id"], first["item_id"]) == (users, items)
    assert table(out, "users")[0]["user_id"] == users
    assert table(out, "items")[0]["item_id"] == items


@pytest.mark.parametrize(
    ("changed", "name", "message"),
    [
        ({"inter": INTER.replace("item_id:", "sku:")}, "inter", "does not have the field item_id; it has user_id, sku"),
        ({"inter": INTER.replace("rating:float", "rating")}, "inter", "has 'rating' in its header"),
        ({"inter": INTER.replace("rating:float", "rating:int")}, "inter", "has 'rating:int' in its header"),
        ({"inter": INTER.replace("rating:float", "item_id:float")}, "inter", "has the field 'item_id' twice"),
        (
            {"inter": INTER.replace("\t", ",")},
            "inter",
            "does not have the field user_id and item_id; it has user_id:token,item",
        ),
        ({"inter": INTER.partition("\n")[0] + "\n"}, "inter", "has no rows"),
        ({"inter": INTER.partition("\n")[0] + "\n\n"}, "inter", "has no rows"),
        ({"inter": INTER.replace("\n2\t20", "\n2\t")}, "inter", "line 3 has the item_id '', which is no id"),
        ({"inter": INTER.replace("\t5\t", "\tgood\t")}, "inter", "line 2 has the rating 'good', which is not a number"),
        ({"inter": INTER + "1\t2\n"}, "inter", "cannot be read as a table .*Expected 4 columns, got 2"),
        ({"user": "age:token\n7\n"}, "user", "does not have the field user_id"),
        ({"user": USER.partition("\n")[0] + "\n\n"}, "user", "has no rows"),
        ({"item": ITEM + "\t\t\n"}, "item", "line 4 has the item_id ''"),
    ],
)
def test_files_that_are_not_of_recbole(tmp_path: Path, changed: dict[str, str], name: str, message: str) -> None:
    folder = write(tmp_path / "set", **({"inter": INTER} | changed))
    with pytest.raises(DataError, match=message) as caught:
        convert("recbole", [folder], tmp_path / "out")
    assert caught.value.path == folder / f"set.{name}"
    assert caught.value.remedy
    assert [path_left.name for path_left in tmp_path.iterdir()] == ["set"]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    out = convert("recbole", [write(tmp_path / "set", inter=f"\ufeff{INTER}")], tmp_path / "out")
    assert [row["user_id"] for row in table(out, "events")] == [1, 2, 1]


def test_one_data_set_at_a_time(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", inter=INTER)
    (folder / "set.part.inter").write_text(INTER)
    with pytest.raises(DataError, match=r"holds 2 \.inter files: set\.inter, set\.part\.inter"):
        convert("recbole", [folder], tmp_path / "out")
    with pytest.raises(DataError, match="more than one path"):
        convert("recbole", [folder / "set.inter", folder / "set.part.inter"], tmp_path / "out")
    with pytest.raises(DataError, match=r"holds 0 \.inter files"):
        convert("recbole", [tmp_path], tmp_path / "out")
    (tmp_path / "set.csv").write_text(INTER)
    with pytest.raises(DataError, match=r"does not end in \.inter"):
        convert("recbole", [tmp_path / "set.csv"], tmp_path / "out")
