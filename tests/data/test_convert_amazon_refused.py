"""The public dumps of Amazon's reviews: which column is which, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.amazon_reviews import (
    FOOD,
    KITCHEN,
    events,
    expected,
    in_csv,
    json_of_2014,
    of_2014,
    of_2018,
    of_2023,
    write,
)
from peterrec.config import AmazonConfig
from peterrec.data.sources import convert, json_lines, text_tables
from peterrec.errors import ConfigError, DataError

# ---------------------------------------------------------------- which column is which

STRANGE = in_csv(("u1", "i1", 5, 10), ("u2", "i2", 4, 11))


@pytest.mark.parametrize("order", [("user", "item", "rating", "timestamp"), ("timestamp", "rating", "item", "user")])
def test_the_order_of_columns_may_be_said(tmp_path: Path, order: tuple[Any, ...]) -> None:
    rows = [dict(zip(("user", "item", "rating", "timestamp"), row, strict=True)) for row in KITCHEN]
    path = write(tmp_path, "a.csv", in_csv(*([row[name] for name in order] for row in rows)))
    out = convert("amazon", [f"kitchen={path}"], tmp_path / "out", config=AmazonConfig(columns=order))
    assert events(out) == expected("", kitchen=KITCHEN)


def test_the_order_of_columns_must_be_said_where_ids_do_not_tell(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", STRANGE)
    with pytest.raises(DataError, match="does not tell users from items") as caught:
        convert("amazon", [f"kitchen={path}"], tmp_path / "out")
    assert "--columns user,item,rating,timestamp or --columns item,user,rating,timestamp" in caught.value.remedy
    config = AmazonConfig(columns=("item", "user", "rating", "timestamp"))
    out = convert("amazon", [f"kitchen={path}"], tmp_path / "out", config=config)
    assert [row[1:3] for row in events(out)] == [("i1", "u1"), ("i2", "u2")]


def test_an_order_that_the_ids_contradict_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", of_2018(KITCHEN))
    config = AmazonConfig(columns=("user", "item", "rating", "timestamp"))
    with pytest.raises(DataError, match="has items, by the form of their ids") as caught:
        convert("amazon", [f"kitchen={path}"], tmp_path / "out", config=config)
    assert caught.value.remedy == "write --columns item,user,rating,timestamp"


def test_a_header_that_is_none_of_amazon_is_to_be_removed(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "user,item,rating,time\n" + of_2014(KITCHEN))
    for columns in (None, ("user", "item", "rating", "timestamp")):
        with pytest.raises(DataError, match="line 1 has the timestamp 'time'") as caught:
            convert("amazon", [f"kitchen={path}"], tmp_path / "out", config=AmazonConfig(columns=columns))
        assert "remove the line if it is a header" in caught.value.remedy


@pytest.mark.parametrize("columns", [["user", "item"], ["user", "item", "item", "timestamp"], []])
def test_an_order_names_each_column(columns: Any) -> None:
    with pytest.raises(ConfigError, match="each of user, item, rating and timestamp once"):
        AmazonConfig(columns=columns)


# ---------------------------------------------------------------- what is refused

REVIEW = json_of_2014(KITCHEN)
LINES = REVIEW.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", of_2014(KITCHEN) + "A1KLRMWW2FWPL4,B00004OCKR\n", "Expected 4 columns, got 2"),
        ("a.csv", of_2014(KITCHEN).replace(",2.0,", ",good,"), "line 2 has the rating 'good', which is not a number"),
        ("a.csv", of_2014(KITCHEN).replace(",2.0,", ",6.0,"), r"line 2 has the rating '6\.0', which is not in 0 to 5"),
        ("a.csv", of_2014(KITCHEN).replace("1400000000", "soon"), "line 3 has the timestamp 'soon'"),
        ("a.csv", of_2014(KITCHEN).replace("A2G5TCU2WDFZ65", ""), "line 2 has the user '', which is no id"),
        ("a.csv", in_csv(("A1", "B0", 5)), "has 3 values in its first line"),
        ("a.csv", in_csv((1369699200, 5.0, "A1KLRMWW2FWPL4", "B00004OCKR")), "line 1 has the timestamp 'B0"),
        ("a.csv", of_2023(KITCHEN).replace("parent_asin", "sku"), "does not have the field parent_asin or asin"),
        ("a.csv", of_2023(KITCHEN).replace("rating", "user_id"), "names the column 'user_id' twice"),
        ("a.csv", of_2023(KITCHEN).partition("\n")[0] + "\n", "has no rows"),
        ("a.json", LINES[0] + "{broken\n", "line 2 is not a JSON object: '{broken'"),
        ("a.json", LINES[0] + "\n" + LINES[1][:-9] + "\n", "line 3 is not a JSON object"),
        ("a.json", LINES[0] + LINES[1].strip() + LINES[2], "line 2 is not a JSON object"),
        ("a.json", LINES[0] + "[1]\n", r"line 2 is not a JSON object: '\[1\]'"),
        ("a.json", "[" + LINES[0].strip() + "]", "line 1 is not a JSON object"),
        ("a.json", "{\n" + LINES[0][1:], "line 1 is not a JSON object"),
        ("a.json", REVIEW.replace("reviewerID", "user", 3).replace('"user"', '"reviewerID"', 2),
         "line 3 has no reviewerID that is a text"),
        ("a.json", REVIEW.replace("1400000000", '"2014"'), "line 3 has no unixReviewTime that is a whole number"),
        ("a.json", REVIEW.replace("1400000000", "1.5"), "line 3 has no unixReviewTime that is a whole number"),
        ("a.json", REVIEW.replace('"overall": 4.0', '"overall": "four"'), "line 3 has no overall that is a number"),
        ("a.json", REVIEW.replace('"overall": 4.0', '"overall": NaN'), "line 3 has the overall nan"),
        ("a.json", REVIEW.replace('"overall": 4.0', '"overall": 40'), r"line 3 has the overall 40\.0"),
        ("a.json", REVIEW.replace("A3JM6GV9MNOF9X", ""), "line 4 has the reviewerID '', which is no id"),
        ("a.json", '{"reviewerID": "A1", "unixReviewTime": 5}\n', "does not have the field parent_asin or asin"),
        ("a.json", '{"title": "a", "price": 5}\n', "does not have the field parent_asin or asin"),
        ("meta.json", '{"asin": "B0", "title": "a"}\n', "is metadata, and there are no reviews of kitchen"),
    ],
)  # fmt: skip
def test_files_that_are_not_of_amazon(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError, match=message) as caught:
        convert("amazon", [f"kitchen={path}"], tmp_path / "out")
    assert caught.value.path == path
    assert caught.value.remedy
    assert [path_left.name for path_left in tmp_path.iterdir()] == [name]


def test_lines_are_counted_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (text_tables, json_lines):
        monkeypatch.setattr(module, "BLOCK", 500)
    many = [(f"A{n:013d}", "B00004OCKR", 5.0, n) for n in range(100)]
    for name, content in (("a.json", json_of_2014(many)), ("a.csv", of_2014(many))):
        path = write(tmp_path, name, content.replace("A0000000000090", ""))
        with pytest.raises(DataError, match=r"line 91 has the \w+ ''"):
            convert("amazon", [f"kitchen={path}"], tmp_path / "out")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(REVIEW.encode().replace(b"A3JM6GV9MNOF9X", b"A3JM6GV9MNOF9\xff"))
    with pytest.raises(DataError, match="line 4 is not a JSON object"):
        convert("amazon", [f"kitchen={path}"], tmp_path / "out")


@pytest.mark.parametrize("second", ["b.csv", "b.json.gz"])
@pytest.mark.parametrize("domain", ["kitchen", "food"])
def test_the_same_reviews_twice_are_refused_in_whatever_form(tmp_path: Path, second: str, domain: str) -> None:
    first = write(tmp_path, "a.csv", of_2014(KITCHEN))
    content = of_2018(KITCHEN[::-1]) if second == "b.csv" else json_of_2014(KITCHEN)
    path = write(tmp_path, second, content)
    with pytest.raises(DataError, match="holds the same reviews as") as caught:
        convert("amazon", [f"kitchen={first}", f"{domain}={path}"], tmp_path / "out")
    assert caught.value.path == path
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", second}


def test_files_alike_but_for_who_took_what_are_not_the_same(tmp_path: Path) -> None:
    exchanged = [(KITCHEN[3][0], *KITCHEN[0][1:]), *KITCHEN[1:3], (KITCHEN[0][0], *KITCHEN[3][1:])]
    paths = [
        f"a={write(tmp_path, 'a.csv', of_2014(KITCHEN))}",
        f"b={write(tmp_path, 'b.csv', of_2014(exchanged))}",
    ]
    assert len(events(convert("amazon", paths, tmp_path / "out"))) == 8


def test_releases_are_not_mixed(tmp_path: Path) -> None:
    paths = [
        f"kitchen={write(tmp_path, 'a.csv', of_2014(KITCHEN))}",
        f"food={write(tmp_path, 'b.csv', of_2023(FOOD))}",
    ]
    with pytest.raises(DataError, match="has times in milliseconds, but there are times in seconds") as caught:
        convert("amazon", paths, tmp_path / "out")
    assert caught.value.path == tmp_path / "b.csv"


def test_a_domain_without_events_is_refused(tmp_path: Path) -> None:
    paths = [
        f"kitchen={write(tmp_path, 'a.csv', of_2014(KITCHEN))}",
        f"food={write(tmp_path, 'b.csv', of_2014(FOOD[1:]))}",
    ]
    with pytest.raises(DataError, match="no event is left in food: min_item_events=2") as caught:
        convert("amazon", paths, tmp_path / "out", config=AmazonConfig(min_item_events=2))
    assert "kitchen" not in caught.value.message
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "b.csv"}


def test_paths_that_say_no_domain(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", of_2014(KITCHEN))
    cases: list[tuple[list[str | Path], type[Exception], str]] = [
        ([path], ConfigError, "does not say which domain it is"),
        ([f"kitchen={''}"], ConfigError, "does not say which domain it is"),
        ([f"my kitchen={path}"], ConfigError, "cannot be the name of a domain"),
        ([f"={path}"], ConfigError, "cannot be the name of a domain"),
        ([f"kitchen={tmp_path}"], DataError, "is a folder"),
        ([f"kitchen={tmp_path / 'no.csv'}"], DataError, "there is no such file"),
        ([f"kitchen={path}", f"food={path}"], DataError, "is named twice"),
    ]
    for paths, error, message in cases:
        with pytest.raises(error, match=message):
            convert("amazon", paths, tmp_path.parent / f"{tmp_path.name}-out")


def test_settings_that_do_not_fit_the_files(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", REVIEW)
    with pytest.raises(ConfigError, match="there is one domain, kitchen, so no users are shared"):
        convert("amazon", [f"kitchen={path}"], tmp_path / "out", config=AmazonConfig(users="shared"))
    config = AmazonConfig(columns=("user", "item", "rating", "timestamp"))
    with pytest.raises(ConfigError, match="no file is a CSV file without a header line"):
        convert("amazon", [f"kitchen={path}"], tmp_path / "out", config=config)
    with pytest.raises(ConfigError, match="Amazon has no task files"):
        convert("amazon", [f"kitchen={path}"], tmp_path / "out", targets="items")
    with pytest.raises(ConfigError, match="the format tenrec has no settings"):
        convert("tenrec", [path], tmp_path / "out", config=AmazonConfig())
