"""The public dumps of Amazon's reviews."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from peterrec.config import AmazonConfig
from peterrec.data.sources import convert, json_lines, text_tables
from peterrec.data.sources.amazon_files import open_file
from peterrec.data.sources.least_events import drop_rare
from peterrec.errors import ConfigError, DataError
from peterrec.storage import read_json

Review = tuple[str, str, float, int]  # user, item, rating, seconds

KITCHEN: list[Review] = [
    ("A1KLRMWW2FWPL4", "B00004OCKR", 5.0, 1369699200),
    ("A2G5TCU2WDFZ65", "B00004OCKR", 2.0, 1355443200),
    ("A1KLRMWW2FWPL4", "0205616461", 4.0, 1400000000),
    ("A3JM6GV9MNOF9X", "B00004OCIP", 1.0, 1300000000),
]
FOOD: list[Review] = [
    ("A1KLRMWW2FWPL4", "B000E1FZBQ", 3.0, 1369699200),
    ("A3JM6GV9MNOF9X", "B000E1FZBQ", 5.0, 1369699201),
    ("A9RQL4VLSDRA2K", "B000LKZ9OE", 5.0, 1369699202),
]


def in_csv(*rows: tuple[Any, ...]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def in_lines(texts: Iterable[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def of_2014(reviews: list[Review]) -> str:
    return in_csv(*reviews)


def of_2018(reviews: list[Review]) -> str:
    return in_csv(*((item, user, rating, time) for user, item, rating, time in reviews))


def of_2023(reviews: list[Review]) -> str:
    rows = [(user, item, rating, 1000 * time) for user, item, rating, time in reviews]
    return in_csv(("user_id", "parent_asin", "rating", "timestamp"), *rows)


def fields_of_2014(review: Review) -> dict[str, Any]:
    user, item, rating, time = review
    fields = {"reviewerID": user, "asin": item, "helpful": [0, 1], "reviewText": 'Isn\'t "bad", é\n'}
    return fields | {"overall": rating, "unixReviewTime": time, "reviewTime": "05 28, 2013"}


def json_of_2014(reviews: list[Review]) -> str:
    return in_lines(json.dumps(fields_of_2014(review)) for review in reviews)


def loose_json_of_2014(reviews: list[Review]) -> str:
    return in_lines(str(fields_of_2014(review)) for review in reviews)


def json_of_2023(reviews: list[Review]) -> str:
    objects = [
        {"rating": rating, "title": "Good", "images": [{"small": "x"}], "asin": "B0VARIANT0", "parent_asin": item,
         "user_id": user, "timestamp": 1000 * time, "verified_purchase": True}
        for user, item, rating, time in reviews
    ]  # fmt: skip
    return in_lines(map(json.dumps, objects))


FORMS = {
    "2014.csv": of_2014,
    "2018.csv": of_2018,
    "2023.csv": of_2023,
    "2014.json": json_of_2014,
    "loose.json": loose_json_of_2014,
    "2023.jsonl": json_of_2023,
}


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    return path


def table(out: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / f"{name}.parquet").to_pylist()
    return rows


def events(out: Path) -> list[tuple[Any, ...]]:
    names = ("domain", "user_id", "item_id", "timestamp", "rating")
    return [tuple(row[name] for name in names) for row in table(out, "events")]


def expected(form: str, **reviews: list[Review]) -> list[tuple[Any, ...]]:
    factor = 1000 if form.startswith("2023") else 1
    rows = {(domain, u, i, t * factor, r) for domain in reviews for u, i, r, t in reviews[domain]}
    return sorted(rows, key=lambda row: (row[0], row[1], row[3], row[2]))


@pytest.mark.parametrize("form", FORMS)
def test_any_release_and_form_gives_the_same_events(tmp_path: Path, form: str) -> None:
    paths = [
        f"kitchen={write(tmp_path, f'kitchen-{form}.gz', FORMS[form](KITCHEN))}",
        f"food={write(tmp_path, f'food-{form}', FORMS[form](FOOD))}",
    ]
    out = convert("amazon", paths, tmp_path / "out")
    assert events(out) == expected(form, kitchen=KITCHEN, food=FOOD)
    types = ["string", "string", "int64", "string", "double"]
    assert [str(t) for t in pq.read_schema(out / "events.parquet").types] == types
    assert table(out, "users") == [{"user_id": user} for user in sorted({row[0] for row in KITCHEN + FOOD})]
    items = {(row[1], domain) for domain, rows in (("food", FOOD), ("kitchen", KITCHEN)) for row in rows}
    assert table(out, "items") == [
        {"item_id": item, "domain": domain} for item, domain in sorted(items, key=lambda pair: (pair[1], pair[0]))
    ]
    notes = read_json(out / "source.json")["notes"]
    assert "kitchen: events: 4, users: 3, items: 3" in notes
    assert "food: events: 3, users: 3, items: 2" in notes
    assert "users in all domains: 2" in notes
    assert {path.name for path in tmp_path.iterdir()} == {f"kitchen-{form}.gz", f"food-{form}", "out"}


IDS = st.integers(0, 30)
REVIEWS = st.lists(st.tuples(IDS, IDS, st.integers(0, 5), st.integers(10**8, 2 * 10**9)), min_size=1, max_size=25)


@settings(max_examples=30)
@given(
    drawn=REVIEWS,
    form=st.sampled_from([*FORMS]),
    ends=st.sampled_from(["\n", "\r\n"]),
    packed=st.booleans(),
    mark=st.booleans(),
    block=st.sampled_from([400, 1 << 20]),
)
def test_any_reviews_come_back_from_any_form(
    drawn: list[tuple[int, int, int, int]], form: str, ends: str, packed: bool, mark: bool, block: int
) -> None:
    reviews = [(f"A{user:013d}", f"B{item:09d}", float(rating), time) for user, item, rating, time in drawn]
    content = "\ufeff" * mark + FORMS[form](reviews).replace("\n", ends)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for module in (text_tables, json_lines):
            patch.setattr(module, "BLOCK", block)
        file = open_file(write(Path(folder), form + ".gz" * packed, content), "kitchen", None)
        rows = pa.concat_tables(file.reviews()).to_pylist()
    factor = 1000 if form.startswith("2023") else 1
    assert [(row["user_id"], row["item_id"], row["rating"], row["timestamp"] // factor) for row in rows] == reviews


# ---------------------------------------------------------------- what is left out


@pytest.fixture(scope="module")
def connection() -> Any:
    connection = ibis.duckdb.connect()
    yield connection
    connection.disconnect()


def oracle(pairs: list[tuple[str, str, str]], config: AmazonConfig) -> Counter[tuple[str, str, str]]:
    """Drop one event after the other that may not stay."""
    remaining = list(pairs)
    domains = {domain for domain, _, _ in pairs}

    def may_stay(event: tuple[str, str, str]) -> bool:
        domain, user, item = event
        of_user = sum(d == domain and u == user for d, u, _ in remaining)
        of_item = sum(d == domain and i == item for d, _, i in remaining)
        shared = {d for d, u, _ in remaining if u == user} == domains
        enough = of_user >= config.min_user_events and of_item >= config.min_item_events
        return enough and (shared or config.users == "all")

    while refused := [event for event in remaining if not may_stay(event)]:
        remaining.remove(refused[0])
    return Counter(remaining)


CHAIN = [("k", "a", "x"), ("k", "a", "y"), ("k", "b", "y"), ("k", "b", "z"), ("k", "c", "z"), ("f", "a", "x")]


@settings(max_examples=5, deadline=None)
@example(pairs=CHAIN, users="all", of_user=2, of_item=2)  # each drop is the reason for another
@example(pairs=CHAIN, users="shared", of_user=1, of_item=2)
@given(
    pairs=st.lists(st.tuples(st.sampled_from("kf"), st.sampled_from("abcd"), st.sampled_from("xyz")), max_size=30),
    users=st.sampled_from(["all", "shared"]),
    of_user=st.integers(1, 3),
    of_item=st.integers(1, 4),
)
def test_what_is_asked_of_users_and_items_holds_of_all_that_is_left_and_nothing_else_goes(
    connection: Any, pairs: list[tuple[str, str, str]], users: Any, of_user: int, of_item: int
) -> None:
    config = AmazonConfig(users=users, min_user_events=of_user, min_item_events=of_item)
    pairs = [*pairs, ("k", "z", "x"), ("f", "z", "x")]  # there are two domains
    columns = dict(zip(("domain", "user_id", "item_id"), map(list, zip(*pairs, strict=True)), strict=True))
    connection.create_table("events", pa.table(columns), overwrite=True)
    remaining = drop_rare(connection, "events", config, 2)
    rows = remaining.select(*columns).to_pyarrow().to_pylist()
    for name in connection.list_tables():
        connection.drop_table(name)
    assert Counter(tuple(row.values()) for row in rows) == oracle(pairs, config)


def test_settings_say_which_reviews_are_events(tmp_path: Path) -> None:
    paths = [
        f"kitchen={write(tmp_path, 'a.csv', of_2014(KITCHEN))}",
        f"food={write(tmp_path, 'b.csv', of_2018(FOOD))}",
    ]
    lines: list[str] = []
    config = AmazonConfig(users="shared", min_rating=2)
    out = convert("amazon", paths, tmp_path / "out", config=config, report=lines.append)
    assert events(out) == expected("", kitchen=[KITCHEN[0], KITCHEN[2]], food=[FOOD[0]])
    notes = read_json(out / "source.json")["notes"]
    assert (
        "kitchen: a.csv: reviews: 4; left out because they are rated below 2: 1; columns: user, item, rating, timestamp"
        in notes
    )
    assert "food: b.csv: reviews: 3; columns: item, user, rating, timestamp" in notes
    assert "what is left is with users=shared, min_rating=2.0" in notes
    assert "users in all domains: 1" in notes
    assert set(notes) <= set(lines)
    config = AmazonConfig(min_user_events=2, min_item_events=1)
    out = convert("amazon", paths[:1], tmp_path / "two", config=config)
    assert events(out) == expected("", kitchen=[KITCHEN[0], KITCHEN[2]])


def test_a_domain_may_have_several_files_and_a_review_counts_once(tmp_path: Path) -> None:
    paths = [
        f"kitchen={write(tmp_path, 'ratings.csv', of_2018(KITCHEN[:3]))}",
        f"kitchen={write(tmp_path, 'reviews.json', json_of_2014(KITCHEN[1:] + KITCHEN[3:]))}",
    ]
    out = convert("amazon", paths, tmp_path / "out")
    assert events(out) == expected("", kitchen=KITCHEN)
    notes = read_json(out / "source.json")["notes"]
    assert "reviews of the same user, item and time as another, which count once: 3" in notes


def test_titles_are_those_of_the_metadata(tmp_path: Path) -> None:
    first = [{"asin": "B00004OCKR", "title": 'Corer\'s "best"', "price": 9.5}, {"asin": "0205616461", "title": ""}]
    second = [{"asin": "B00004OCKR", "title": "Another"}, {"asin": "0205616461", "title": " Book "}, {"asin": "B0"}]
    paths = [
        f"kitchen={write(tmp_path, 'reviews.json.gz', json_of_2014(KITCHEN))}",
        f"kitchen={write(tmp_path, 'meta_a.json.gz', in_lines(map(str, first)))}",  # as in 2014
        f"kitchen={write(tmp_path, 'meta_b.json', in_lines(map(json.dumps, second)))}",
    ]
    out = convert("amazon", paths, tmp_path / "out")
    titles = {"B00004OCKR": 'Corer\'s "best"', "0205616461": "Book", "B00004OCIP": None}
    items = [{"item_id": item, "domain": "kitchen", "title": titles[item]} for item in sorted(titles)]
    assert table(out, "items") == items
    assert events(out) == expected("", kitchen=KITCHEN)
    assert [file["name"] for file in read_json(out / "source.json")["files"]] == [
        "reviews.json.gz", "meta_a.json.gz", "meta_b.json",
    ]  # fmt: skip


def test_files_of_ids_and_times_alone_have_no_ratings(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "timestamp,parent_asin,user_id,history\n5,B0,U1,B1 B2\n")
    out = convert("amazon", f"kitchen={path}", tmp_path / "out")
    assert events(out) == [("kitchen", "U1", "B0", 5, None)]
    with pytest.raises(DataError, match="has no ratings") as caught:
        convert("amazon", f"kitchen={path}", tmp_path / "new", config=AmazonConfig(min_rating=1))
    assert caught.value.path == path


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
