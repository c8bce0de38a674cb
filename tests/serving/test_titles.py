from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peterrec.data.catalogue import Catalogue
from peterrec.errors import DataError
from peterrec.serving import titles as titles_module
from peterrec.serving.titles import FoundItem, ItemSearch

TITLES = {
    "tt1": "Star Wars",
    "tt2": "The Star",
    "tt3": "Astarte",
    "tt4": "Amélie",
    "tt5": 'Say "Hi"; <script>alert(1)</script>',
    "tt6": "ÀÉÎÕÜ Straße",
    "tt7": "Party 🎬 now",
    "star": "Something else",
    "tt9": "Star-Crossed",
    "10": "Ten",
    "ru": "Звёзды",
}


def catalogue(ids: list[Any], counts: list[int] | None = None, first: int = 4) -> Catalogue:
    return Catalogue(pa.array(ids), np.array(counts or range(len(ids), 0, -1)), first=first)


def parquet(path: Path, titles: dict[Any, Any]) -> Path:
    pq.write_table(pa.table({"item_id": list(titles), "title": list(titles.values()), "more": [1] * len(titles)}), path)
    return path


@pytest.fixture
def search(tmp_path: Path) -> ItemSearch:
    return ItemSearch(catalogue([*TITLES, "untitled"]), parquet(tmp_path / "titles.parquet", TITLES))


def found_items(search: ItemSearch, q: str, limit: int = 20) -> list[Any]:
    return [match.item for match in search.search(q, limit)]


def test_without_a_question_the_most_frequent_come(search: ItemSearch) -> None:
    assert search.search("", 2) == [FoundItem("tt1", "Star Wars", 12), FoundItem("tt2", "The Star", 11)]
    assert search.search("  ", 2) == search.search("", 2)
    assert len(search.search("", 100)) == 12
    assert search.search("untitled") == [FoundItem("untitled", None, 1)]


def test_the_very_id_then_beginnings_then_words_then_anything(search: ItemSearch) -> None:
    assert found_items(search, "star") == ["star", "tt1", "tt9", "tt2", "tt3"]
    assert found_items(search, "star", 3) == ["star", "tt1", "tt9"]
    assert found_items(search, "star", 1) == ["star"]


@pytest.mark.parametrize("question", ["STAR WARS", "star-wars", " star  wars ", "ar wa", "Star, Wars!"])
def test_case_and_punctuation_do_not_matter(search: ItemSearch, question: str) -> None:
    assert found_items(search, question) == ["tt1"]


@pytest.mark.parametrize(
    ("question", "item"),
    [
        ("amelie", "tt4"), ("AMÉLIE", "tt4"), ("ame\u0301lie", "tt4"), ("aeiou", "tt6"), ("straße", "tt6"),
        ("🎬", "tt7"), ("<script>", "tt5"), ('"hi"', "tt5"), ("звезды", "ru"), ("ЗВЁЗ", "ru"), ("10", "10"),
        ("untit", "untitled"),
    ],
)  # fmt: skip
def test_any_text_is_found(search: ItemSearch, question: str, item: str) -> None:
    assert found_items(search, question)[0] == item


@pytest.mark.parametrize("question", ["nothing of it", "\ud800x!", "%", "_", "\\", "(", ".*", "x" * 10_000, "a\nst"])
def test_what_nothing_has_finds_nothing_that_is_odd(search: ItemSearch, question: str) -> None:
    assert all(isinstance(item, FoundItem) for item in search.search(question))
    if question in ("nothing of it", ".*", "%"):
        assert search.search(question) == []


def test_ids_of_signs_are_found_as_a_whole(tmp_path: Path) -> None:
    search = ItemSearch(catalogue(["a", "%", "***"]))
    assert found_items(search, "%") == ["%"]
    assert found_items(search, "***") == ["***"]


def test_an_unordered_catalogue_is_searched_from_the_most_frequent(tmp_path: Path) -> None:
    search = ItemSearch(catalogue(["x1", "x2", "x3", "ax"], [1, 5, 5, 9]))
    assert search.search("x") == [FoundItem("x2", None, 5), FoundItem("x3", None, 5), FoundItem("x1", None, 1),
                                  FoundItem("ax", None, 9)]  # fmt: skip
    assert found_items(search, "", 2) == ["ax", "x2"]


@pytest.mark.parametrize("first", [0, 4])
def test_blocks_say_what_the_whole_says(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    rng = np.random.default_rng(0)
    letters = ["".join(rng.choice(list("ab -"), 4)) for _ in range(300)]
    ids = [f"{text}{i}" if i % 40 == 39 else f"{i} {text}" for i, text in enumerate(letters)]
    unblocked = ItemSearch(catalogue(ids, rng.integers(0, 9, 300).tolist(), first))
    for limit in (1, 3, 20, 1000):
        for question in ("a", "b", "ab", "a b", "7", "aaaa", ids[200], ids[0]):
            monkeypatch.setattr(titles_module, "BLOCK", 1 << 16)
            expected = unblocked.search(question, limit)
            monkeypatch.setattr(titles_module, "BLOCK", 7)
            assert unblocked.search(question, limit) == expected


# ---------------------------------------------------------------- titles


def test_titles_are_told_of_those_that_have_one(search: ItemSearch) -> None:
    item_ids = ["tt5", "untitled", "nobody", 10, "10", "\ud800"]
    assert search.titles(item_ids) == {"tt5": TITLES["tt5"], "10": "Ten"}


@pytest.mark.parametrize("ids", [[7, 12], ["7", "12"]])
@pytest.mark.parametrize("titled", [[12, 7, 99], ["12", "7", "99"]])
def test_integers_and_their_digits_are_the_same_ids(tmp_path: Path, ids: list[Any], titled: list[Any]) -> None:
    path = parquet(tmp_path / "titles.parquet", dict(zip(titled, ["Twelve", "Seven", "Other"], strict=True)))
    search = ItemSearch(catalogue(ids), path)
    assert search.search("sev") == [FoundItem(ids[0], "Seven", 2)]
    assert search.titles([7, "12", 99]) == {"7": "Seven", "12": "Twelve", "99": "Other"}  # of targets, say
    assert search.search("other") == []


def test_csv_keeps_ids_and_titles_as_text(tmp_path: Path) -> None:
    path = tmp_path / "titles.csv"
    path.write_text('title,item_id\n1984,007\n"two\nlines, ""quoted""",7\nNA,8\n  ,9\n,10\nDune,7\n')
    search = ItemSearch(catalogue(["007", "7", "8", "9", "10"]), path)
    assert search.titles(["007", "7", "8", "9", "10"]) == {"007": "1984", "7": 'two\nlines, "quoted"', "8": "NA"}
    assert found_items(search, "lines") == ["7"]
    assert found_items(search, "dune") == []  # the first title counts


def test_missing_ids_and_titles_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "titles.parquet"
    pq.write_table(pa.table({"item_id": ["a", None, "b"], "title": [None, "x", "B"]}), path)
    assert ItemSearch(catalogue(["a", "b"]), path).titles(["a", "b", "None"]) == {"b": "B"}


def test_without_titles_ids_are_searched(tmp_path: Path) -> None:
    search = ItemSearch(catalogue([100, 101, 210]))
    assert found_items(search, "10") == [100, 101, 210]
    assert found_items(search, "101") == [101]
    assert search.titles([100]) == {}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("titles.csv", b"item,title\n1,x\n"),
        ("titles.csv", b"item_id,name\n1,x\n"),
        ("titles.csv", b""),
        ("titles.csv", b"item_id,title\n1,x,3\n"),
        ("titles.csv", b"item_id,title\n1,\xff\xfe\n"),
        ("titles.parquet", b"not parquet"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="item_id and title"):
        ItemSearch(catalogue(["a"]), tmp_path / name)


def test_parquet_without_a_column_and_no_file_at_all(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item_id": ["a"], "name": ["x"]}), tmp_path / "titles.parquet")
    for path in (tmp_path / "titles.parquet", tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError, match="What to do"):
            ItemSearch(catalogue(["a"]), path)
    pq.write_table(pa.table({"item_id": ["a"], "title": [["x"]]}), tmp_path / "titles.parquet")
    with pytest.raises(DataError, match="What to do"):
        ItemSearch(catalogue(["a"]), tmp_path / "titles.parquet")
