"""Files of the public dumps of Amazon's reviews: which form a file has, and its reviews or items as tables.

| release | reviews | ratings alone | items |
|---|---|---|---|
| 2014 | JSON: `reviewerID`, `asin`, `overall`, `unixReviewTime` | CSV: user, item, rating, time | `asin`, `title` |
| 2018 | the same | CSV: item, user, rating, time | the same |
| 2023 | JSON: `user_id`, `parent_asin`, `rating`, `timestamp` | CSV with that header | `parent_asin`, `title` |

Times are in seconds, those of 2023 in milliseconds. No CSV file of 2014 and 2018 has a header.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from peterrec.data.sources.json_lines import first_object, json_blocks
from peterrec.data.sources.text_tables import (
    LINE,
    UNREADABLE,
    UTF8,
    Lines,
    blocks,
    open_bytes,
    refuse_first,
    refuse_twice,
    unreadable,
    whole_numbers,
)
from peterrec.errors import DataError

USER, ITEM, RATING, TIME, TITLE = "user", "item", "rating", "timestamp", "title"
FIELDS = {  # names in the releases
    USER: ("reviewerID", "user_id"),
    ITEM: ("parent_asin", "asin"),  # a review of 2023 has both, and the first is that of its metadata
    RATING: ("overall", "rating"),
    TIME: ("unixReviewTime", "timestamp"),
    TITLE: ("title",),
}
ASIN = r"^(B[0-9A-Z]{9}|[0-9]{9}[0-9X])$"  # which no id of a user is: these have A and nine or more behind it
NUMBER = r"^[0-9]{1,3}(\.[0-9]{1,15})?$"
MAX_RATING = 5.0
REMEDY = "name reviews (reviews_*.json.gz, *.jsonl.gz), ratings (*.csv) or metadata (meta_*) of Amazon's public dumps"
WHICH_COLUMNS = "say which it is: --columns user,item,rating,timestamp or --columns item,user,rating,timestamp"


@dataclass(frozen=True)
class AmazonFile:
    """One file.

    Attributes:
        path: where it is.
        domain: the domain that its events are of.
        format: of its rows.
        names: what the file calls `user`, `item`, `rating`, `timestamp` and `title`, as far as it has them.
        columns: of a CSV file, in their order.
        has_header: whether the first line of a CSV file is one.
    """

    path: Path
    domain: str
    format: str
    names: dict[str, str]
    columns: tuple[str, ...] = ()
    has_header: bool = False

    @property
    def is_metadata(self) -> bool:
        """Whether it tells of items, not of events."""
        return USER not in self.names

    def reviews(self) -> Iterator[pa.Table]:
        """Yield `user_id`, `item_id`, `timestamp` (int64) and `rating` (float64, null if there is none).

        Raises:
            DataError: the file is damaged, or a row is no review; the message names the line.
        """
        fields = [field for field in (USER, ITEM, TIME, RATING) if field in self.names]
        rows = self._csv_rows(fields) if self.format == "csv" else self._json_rows(fields)
        for columns, lines in rows:
            for field in (USER, ITEM):
                self._refuse_empty(columns[field], field, lines)
            rating = columns.get(RATING, pa.chunked_array([pa.nulls(len(lines), pa.float64())]))
            table = {"user_id": columns[USER], "item_id": columns[ITEM], "timestamp": columns[TIME], "rating": rating}
            yield pa.table(table)

    def items(self) -> Iterator[pa.Table]:
        """Yield `item_id` and `title`, null where there is none.

        Raises:
            DataError: the file is damaged, or an object has no item; the message names the line.
        """
        for columns, lines in self._json_rows((ITEM, TITLE)):
            self._refuse_empty(columns[ITEM], ITEM, lines)
            titles = pc.utf8_trim_whitespace(columns[TITLE])
            no_title = pa.scalar(None, pa.string())
            titles = pc.if_else(pc.fill_null(pc.equal(titles, ""), True), no_title, titles)
            yield pa.table({"item_id": columns[ITEM], "title": titles})

    def _json_rows(self, fields: Sequence[str]) -> Iterator[tuple[dict[str, pa.ChunkedArray], Lines]]:
        types = {TIME: pa.int64(), RATING: pa.float64()}
        schema = pa.schema([(self.names[field], types.get(field, pa.string())) for field in fields])
        for block, lines in json_blocks(self.path, schema):
            columns = {field: block[self.names[field]] for field in fields}
            for field in set(fields) - {TITLE}:
                self._refuse_missing(columns[field], field, lines)
            if RATING in columns:
                self._refuse_rating(columns[RATING], columns[RATING], lines)
            yield columns, lines

    def _csv_rows(self, fields: Sequence[str]) -> Iterator[tuple[dict[str, pa.ChunkedArray], Lines]]:
        wanted = [self.names[field] for field in fields]
        for block, lines in blocks(self.path, self.columns, wanted, ",", has_header=self.has_header):
            columns = {field: block[self.names[field]] for field in fields}
            columns[TIME] = whole_numbers(columns[TIME], self.names[TIME], self.path, lines)
            if RATING in columns:
                texts = columns[RATING]
                is_number = pc.match_substring_regex(texts, NUMBER)
                refuse_first(is_number, texts, self.names[RATING], "which is not a number", self.path, lines)
                columns[RATING] = pc.cast(texts, pa.float64())
                self._refuse_rating(columns[RATING], texts, lines)
            yield columns, lines

    def _refuse_rating(self, ratings: pa.ChunkedArray, written: pa.ChunkedArray, lines: Lines) -> None:
        good = pc.and_(pc.greater_equal(ratings, 0.0), pc.less_equal(ratings, MAX_RATING))
        refuse_first(good, written, self.names[RATING], "which is not in 0 to 5", self.path, lines)

    def _refuse_empty(self, ids: pa.ChunkedArray, field: str, lines: Lines) -> None:
        refuse_first(pc.not_equal(ids, ""), ids, self.names[field], "which is no id", self.path, lines)

    def _refuse_missing(self, values: pa.ChunkedArray, field: str, lines: Lines) -> None:
        place = pc.index(pc.is_valid(values), False).as_py()
        if place >= 0:
            kind = {TIME: "a whole number", RATING: "a number"}.get(field, "a text")
            problem = f"line {lines[place]:,} has no {self.names[field]} that is {kind}"
            raise DataError(problem, remedy="correct or remove the line, or download the file again", path=self.path)


def open_file(path: Path, domain: str, order: Sequence[str] | None) -> AmazonFile:
    """Find out the form of a file by its beginning.

    Args:
        path: the file.
        domain: of its events.
        order: of the columns, if it is a CSV file without a header line; None: item ids tell by their form.

    Raises:
        DataError: it is no file of Amazon, or the columns cannot be told.
    """
    if path.is_dir():
        raise DataError("is a folder", remedy=REMEDY, path=path)
    line = _first_line(path)
    if line.lstrip().startswith(("{", "[")):
        fields = [*first_object(path)]
        names = _names(fields)
        needed = [ITEM, TITLE] if USER not in names and TIME not in names else [USER, ITEM, TIME]
        _refuse_without(names, needed, fields, path)
        return AmazonFile(path, domain, "json", {TITLE: TITLE} | names)
    columns = next(csv.reader(io.StringIO(line)), [])
    names = _names(columns)
    if USER in names or ITEM in names:
        refuse_twice(columns, path)
        _refuse_without(names, [USER, ITEM, TIME], columns, path)
        return AmazonFile(path, domain, "csv", names, tuple(columns), has_header=True)
    names = {name: name for name in _columns_without_header(path, len(columns), order)}
    return AmazonFile(path, domain, "csv", names, tuple(names))


def _first_line(path: Path) -> str:
    """Return the first line that is not empty, or the beginning of a long one."""
    try:
        with open_bytes(path) as file:
            line = file.readline(LINE)
            while line and line.isspace():
                line = file.readline(LINE)
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    if not line:
        raise no_reviews(path)
    try:
        return line.decode("utf-8-sig", "strict" if len(line) < LINE else "ignore").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", remedy=UTF8, path=path) from error


def no_reviews(path: Path) -> DataError:
    """Return the complaint about a file without reviews."""
    return DataError("has no rows", remedy=REMEDY, path=path)


def _names(fields: Sequence[str]) -> dict[str, str]:
    """Return what a release calls the fields, of those that are there."""
    present = {field: [name for name in names if name in fields] for field, names in FIELDS.items()}
    return {field: names[0] for field, names in present.items() if names}


def _refuse_without(names: dict[str, str], needed: Sequence[str], fields: Sequence[str], path: Path) -> None:
    missing = [" or ".join(FIELDS[field]) for field in needed if field not in names]
    if missing:
        problem = f"does not have the field {' and '.join(missing)}; it has {', '.join(fields)}"
        raise DataError(problem, remedy=REMEDY, path=path)


def _columns_without_header(path: Path, width: int, order: Sequence[str] | None) -> Sequence[str]:
    """Return the order of the columns: what is said of it, unless the ids say the opposite, or else what these say."""
    if width != len((USER, ITEM, RATING, TIME)):
        problem = f"has {width} values in its first line, where user, item, rating and time are 4"
        raise DataError(problem, remedy=REMEDY, path=path)
    columns = order or (USER, ITEM, RATING, TIME)
    block, _ = next(blocks(path, columns, columns, ",", has_header=False))
    first_time = block[TIME][0].as_py()
    if not first_time.removesuffix(".0").isdecimal():
        problem = f"line 1 has the timestamp {first_time!r}, which is not a whole number"
        remedy = "remove the line if it is a header; else say the order, such as --columns user,item,rating,timestamp"
        raise DataError(problem, remedy=remedy, path=path)
    shares = {field: pc.mean(pc.match_substring_regex(block[field], ASIN)).as_py() for field in (USER, ITEM)}
    if shares[ITEM] == 1.0 and shares[USER] < 1.0:
        return columns
    exchanged = [{USER: ITEM, ITEM: USER}.get(field, field) for field in columns]
    if order is None and shares[USER] == 1.0 and shares[ITEM] < 1.0:
        return exchanged
    if order is None:
        raise DataError("does not tell users from items by the form of their ids", remedy=WHICH_COLUMNS, path=path)
    if shares[USER] == 1.0 and shares[ITEM] == 0.0:
        problem = f"has items, by the form of their ids, where {','.join(order)} has users"
        raise DataError(problem, remedy=f"write --columns {','.join(exchanged)}", path=path)
    return columns
