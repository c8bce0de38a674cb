"""The public dumps of Amazon's reviews: what becomes an event."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.amazon_reviews import (
    FOOD,
    FORMS,
    KITCHEN,
    events,
    expected,
    in_lines,
    json_of_2014,
    of_2014,
    of_2018,
    table,
    write,
)
from peterrec.config import AmazonConfig
from peterrec.data.sources import convert, json_lines, text_tables
from peterrec.data.sources.amazon_files import open_file
from peterrec.data.sources.least_events import drop_rare
from peterrec.errors import DataError
from peterrec.storage import read_json


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
