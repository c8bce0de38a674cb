"""Files of Tenrec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from peterrec.data.sources import convert
from peterrec.data.sources import text_tables as reading
from peterrec.errors import DataError
from peterrec.storage import read_json

VIDEO = """user_id,item_id,click,follow,like,share,video_category,watching_times,gender,age
1,4,0,0,0,0,1,0,1,4
1,5,1,0,1,0,\\N,3,1,4
2,4,1,0,0,0,0,1,0,\\N
3,6,0,0,0,0,0,0,2,1
1,4,1,0,0,0,1,2,1,4
"""
# As pandas writes it where a column has fractions or gaps.
ARTICLE = """user_id,item_id,click,gender,age,read
2.0,9.0,1.0,2.0,3.0,1.0
7.0,4.0,0.0,1.0,3.0,0.0
2.0,4.0,1.0,1.0,0.0,
"""


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content)
    return path


def table(out: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / f"{name}.parquet").to_pylist()
    return rows


@pytest.mark.parametrize("block", [64, 1 << 20])
def test_clicked_rows_are_events_in_order_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    content = VIDEO if block > 64 else VIDEO.replace(",follow,like,share,video_category,watching_times", ",a,b,c,d,e")
    monkeypatch.setattr(reading, "BLOCK", block)
    out = convert("tenrec", [write(tmp_path, "QB-video.csv", content)], tmp_path / "out")
    columns = ("user_id", "item_id", "timestamp", "domain")
    events = [tuple(row[name] for name in columns) for row in table(out, "events")]
    assert events == [(1, 5, 1, "QB-video"), (2, 4, 2, "QB-video"), (1, 4, 4, "QB-video")]
    types = {field.name: str(field.type) for field in pq.read_schema(out / "events.parquet")}
    assert [types[name] for name in columns] == ["int64", "int64", "int64", "string"]
    assert table(out, "users") == [
        {"user_id": 1, "gender": "1", "age": "4"},
        {"user_id": 2, "gender": None, "age": None},
    ]
    assert table(out, "items") == [{"item_id": item, "domain": "QB-video"} for item in (5, 4)]
    notes = read_json(out / "source.json")["notes"]
    assert notes[0] == "QB-video: rows: 5; left out because they were not clicked: 2"


def test_what_else_is_known_of_an_event_is_kept_as_it_stands(tmp_path: Path) -> None:
    content = VIDEO.replace("age\n", "age,hist_1,hist_10\n").replace(",4\n", ",4,8,8\n").replace(",1\n", ",1,8,8\n")
    content = content.replace(",\\N\n", ",\\N,8,8\n")
    out = convert("tenrec", [write(tmp_path, "ctr_data_1M.csv", content)], tmp_path / "out")
    further_columns = [
        {name: row[name] for name in list(row)[4:]} for row in pq.read_table(out / "events.parquet").to_pylist()[:2]
    ]
    names = ("follow", "like", "share", "video_category", "watching_times")
    assert further_columns == [
        dict(zip(names, values, strict=True)) for values in (("0", "1", "0", None, "3"), (*"0000", "1"))
    ]


def test_files_are_domains_of_the_same_users(tmp_path: Path) -> None:
    paths = [write(tmp_path, "QB-video.csv", VIDEO), write(tmp_path, "cold_data_0.3.csv", ARTICLE)]
    out = convert("tenrec", paths, tmp_path / "out")
    events = [
        tuple(row[name] for name in ("user_id", "item_id", "timestamp", "domain")) for row in table(out, "events")
    ]
    assert events[3:] == [(2, 9, 5, "cold_data_0.3"), (2, 4, 7, "cold_data_0.3")]
    assert [row["read"] for row in table(out, "events")] == [None, None, None, "1.0", None]
    assert [row["like"] for row in table(out, "events")] == ["1", "0", "0", None, None]
    # The first value that is known, of all files; 3 and 7 have no event.
    assert table(out, "users") == [{"user_id": 1, "gender": "1", "age": "4"}, {"user_id": 2, "gender": "2", "age": "3"}]
    items = [(row["item_id"], row["domain"]) for row in table(out, "items")]
    assert items == [(5, "QB-video"), (4, "QB-video"), (9, "cold_data_0.3"), (4, "cold_data_0.3")]
    notes = read_json(out / "source.json")["notes"]
    assert "gender: users without (0 means unknown): 0 of 2; with several values, of which the first counts: 1" in notes


def test_the_first_known_value_of_a_user_is_that_of_the_file_among_many(tmp_path: Path) -> None:
    rows = [(n * 7919 % 1000, n // 1000) for n in range(5000)]  # each user five times, with 0 to 4
    content = "user_id,item_id,gender\n" + "".join(f"{user},1,{value}\n" for user, value in rows)
    out = convert("tenrec", [write(tmp_path, "a.csv", content)], tmp_path / "out")
    assert table(out, "users") == [{"user_id": n, "gender": "1"} for n in range(1000)]


def test_without_clicks_every_row_is_an_event(tmp_path: Path) -> None:
    path = write(tmp_path, "some.csv", "item_id,user_id\n5,1\n6,1\n")
    out = convert("tenrec", [path], tmp_path / "out")
    assert [(row["user_id"], row["item_id"], row["timestamp"]) for row in table(out, "events")] == [
        (1, 5, 0),
        (1, 6, 1),
    ]
    assert table(out, "users") == [{"user_id": 1}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (VIDEO.replace("item_id", "item"), "does not have the column item_id"),
        (VIDEO.replace("like", "timestamp"), "has the column timestamp, which no file of Tenrec has"),
        (VIDEO.replace("like", "share"), "names the column 'share' twice"),
        (VIDEO.partition("\n")[0], "has no rows"),
        (VIDEO.partition("\n")[0] + "\n\n", "has no rows"),
        (VIDEO.replace("\n2,4,", "\nb,4,"), "line 4 has the user_id 'b', which is not a whole number"),
        (VIDEO.replace("\n2,4,", "\n2,4.5,"), r"line 4 has the item_id '4\.5'"),
        (VIDEO.replace("\n2,4,", "\n2,,"), "line 4 has the item_id ''"),
        (VIDEO.replace("\n3,6,0", "\n3,6,yes"), "line 5 has the click 'yes', which is neither 0 nor 1"),
        (VIDEO + "1,2,3\n", "cannot be read as a table .*Expected 10 columns, got 3"),
        ("user_id,item_id,click\n1,2,0\n3,4,\\N\n", "no row of the files was clicked"),
    ],
)
def test_files_that_are_not_of_tenrec(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path, "QB-video.csv", content)
    with pytest.raises(DataError, match=message) as caught:
        convert("tenrec", [path], tmp_path / "out")
    assert caught.value.path == path
    assert caught.value.remedy
    assert [path_left.name for path_left in tmp_path.iterdir()] == [path.name]


def test_lines_are_counted_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK", 100)
    rows = "".join(f"{n},{n},{n % 2}\n" for n in range(500))
    path = write(tmp_path, "a.csv", f"user_id,item_id,click\n{rows}x,1,1\n")
    with pytest.raises(DataError, match="line 502 has the user_id 'x'"):
        convert("tenrec", [path], tmp_path / "out")
    out = convert("tenrec", [write(tmp_path, "b.csv", f"user_id,item_id,click\n{rows}")], tmp_path / "out")
    assert [row["timestamp"] for row in table(out, "events")] == list(range(1, 500, 2))
    assert all(row["timestamp"] == row["user_id"] for row in table(out, "events"))


def test_two_files_of_the_same_name_are_no_two_domains(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    paths = [write(tmp_path, "a.csv", VIDEO), write(tmp_path / "other", "a.csv", VIDEO)]
    with pytest.raises(DataError, match="both called a"):
        convert("tenrec", paths, tmp_path / "out")
    with pytest.raises(DataError, match="is a folder"):
        convert("tenrec", [tmp_path / "other"], tmp_path / "out")
