"""Reviews in the forms of Amazon's public dumps, and what `convert` makes of them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

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
