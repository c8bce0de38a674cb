"""The public dumps of Amazon's reviews (McAuley: 2014, 2018, 2023), of which a review is an event.

Each domain has a file or several. What users and items must have at least is asked of again until it holds of all that
is written; for that, the events are held in an embedded database on disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from peterrec.config import AmazonConfig
from peterrec.config.base import NAME_RULE, check_name
from peterrec.data.prepare.duckdb_engine import database
from peterrec.data.sources.amazon_files import RATING, AmazonFile, no_reviews, open_file
from peterrec.data.sources.base import Converted, Fill, Report, Write
from peterrec.data.sources.least_events import (
    count,
    distinct,
    drop_rare,
    files_summary,
    shared_users,
    titled,
    totals,
)
from peterrec.errors import ConfigError, DataError

REVIEWS = pa.schema(
    [
        ("file", pa.int64()),
        ("domain", pa.string()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("timestamp", pa.int64()),
        ("rating", pa.float64()),
    ]
)
TITLES = pa.schema([("domain", pa.string()), ("place", pa.int64()), ("item_id", pa.string()), ("title", pa.string())])
EVENTS = pa.schema([REVIEWS.field(name) for name in ("user_id", "item_id", "timestamp", "domain", "rating")])
WRITTEN_AT_ONCE = 1 << 20  # events
ROWS_OF_A_FILE = 2**40  # more than any has
FIRST_MILLISECONDS = 10**11  # which are in 1973; as seconds, they are in the year 5138
REMEDY = "write DOMAIN=FILE, such as kitchen=ratings_Home_and_Kitchen.csv"


def split_domains(paths: Sequence[str | Path]) -> tuple[list[str], list[str]]:
    """Split each `DOMAIN=FILE`.

    Returns:
        The domains and the files, as many of each.

    Raises:
        ConfigError: there is no domain, or it is no name.
    """
    domains, files = [], []
    for text in map(str, paths):
        domain, separator, path = text.partition("=")
        if not separator or not path:
            raise ConfigError(f"{text!r} does not say which domain it is", remedy=REMEDY)
        try:
            domains.append(check_name(domain))
        except ValueError:
            problem = f"{domain!r}, before the first =, cannot be the name of a domain"
            raise ConfigError(problem, remedy=f"{REMEDY}; a name is made of {NAME_RULE}") from None
        files.append(path)
    return domains, files


def open_amazon(
    paths: Sequence[Path],
    targets: str | None,
    report: Report,
    *,
    domains: Sequence[str],
    config: AmazonConfig,
    scratch: Path,
) -> Fill:
    """Find the form of each file by its beginning, and return how to read them.

    Args:
        paths: reviews, ratings and metadata.
        targets: None.
        report: called with one sentence at a time.
        domains: the domain of each file.
        config: which reviews become events.
        scratch: folder in which the database lies meanwhile, in one of its own.

    Raises:
        ConfigError: `targets` is given, or the settings do not fit the files.
        DataError: a file is no file of Amazon, or a domain has no reviews.
    """
    if targets is not None:
        raise ConfigError("Amazon has no task files", remedy="leave --targets out: it is for the format peterrec")
    files = [open_file(path, domain, config.columns) for path, domain in zip(paths, domains, strict=True)]
    names = list(dict.fromkeys(domains))
    if config.users == "shared" and len(names) == 1:
        remedy = "leave --users out, or name files of another domain"
        raise ConfigError(f"there is one domain, {names[0]}, so no users are shared", remedy=remedy)
    if config.columns is not None and not any(file.format == "csv" and not file.has_header for file in files):
        problem = "no file is a CSV file without a header line, so the order of columns is known"
        raise ConfigError(problem, remedy="leave --columns out")
    for file in files:
        if file.is_metadata and all(other_file.is_metadata for other_file in files if other_file.domain == file.domain):
            problem = f"is metadata, and there are no reviews of {file.domain}"
            raise DataError(problem, remedy=f"name them too: {file.domain}=FILE", path=file.path)
        if config.min_rating > 0 and not file.is_metadata and RATING not in file.names:
            raise DataError("has no ratings", remedy="leave --min-rating out, or name another file", path=file.path)
    return partial(_fill, files, names, config, scratch, report)


def _fill(
    files: Sequence[AmazonFile],
    domains: Sequence[str],
    config: AmazonConfig,
    scratch: Path,
    report: Report,
    write: Write,
) -> Converted:
    with (
        tempfile.TemporaryDirectory(dir=scratch, prefix=".peterrec-convert-") as folder,
        database(Path(folder), config.memory_limit, None) as connection,
    ):
        reader = _Reader(connection, files, domains, config, report)
        reader.read()
        return reader.write(write)


@dataclass
class _Reader:
    """Reader of the files, one after the other, into the database, and of what is left of them there."""

    connection: Any
    files: Sequence[AmazonFile]
    domains: Sequence[str]
    config: AmazonConfig
    report: Report
    notes: list[str] = field(default_factory=list)

    def read(self) -> None:
        """Read all files into the tables `reviews` and `titles`."""
        for name, schema in (("reviews", REVIEWS), ("titles", TITLES)):
            self.connection.create_table(name, schema=ibis.schema(schema))
        for number, file in enumerate(self.files):
            self.report(f"reading {file.path}")
            if file.is_metadata:
                self._read_titles(file, number)
            else:
                self._read_reviews(file, number)
        summary = files_summary(self.connection.table("reviews"))
        self._refuse_equal_files(summary)
        self._refuse_several_units(summary)

    def _read_reviews(self, file: AmazonFile, number: int) -> None:
        least, rows, rows_below = self.config.min_rating, 0, 0
        for block in file.reviews():
            rated_well = block.filter(pc.greater_equal(block["rating"], least)) if least > 0 else block
            rows += len(block)
            rows_below += len(block) - len(rated_well)
            columns = {"file": pa.repeat(number, len(rated_well)), "domain": pa.repeat(file.domain, len(rated_well))}
            columns |= {name: rated_well[name] for name in block.column_names}
            self.connection.insert("reviews", pa.table(columns).select(REVIEWS.names).cast(REVIEWS))
        if not rows:
            raise no_reviews(file.path)
        order = f"; columns: {', '.join(file.columns)}" if file.columns and not file.has_header else ""
        below = f"; left out because they are rated below {least:g}: {rows_below:,}" if rows_below else ""
        self.notes.append(f"{file.domain}: {file.path.name}: reviews: {rows:,}{below}{order}")

    def _read_titles(self, file: AmazonFile, number: int) -> None:
        rows = 0
        for block in file.items():
            places = pa.array(np.arange(rows, rows + len(block)) + number * ROWS_OF_A_FILE)
            columns = {"domain": pa.repeat(file.domain, len(block)), "place": places}
            columns |= {name: block[name] for name in block.column_names}
            self.connection.insert("titles", pa.table(columns).cast(TITLES))
            rows += len(block)
        if not rows:
            raise no_reviews(file.path)
        self.notes.append(f"{file.domain}: {file.path.name}: items: {rows:,}")

    def _refuse_equal_files(self, summary: Sequence[dict[str, Any]]) -> None:
        """Refuse two files with the same reviews, in whatever form: as two domains, they would say the same twice."""
        paths: dict[tuple[int, Any], Path] = {}
        for row in summary:
            path, content = self.files[row["file"]].path, (row["rows"], row["content"])
            if content in paths:
                raise DataError(f"holds the same reviews as {paths[content]}", remedy="name one of them", path=path)
            paths[content] = path

    def _refuse_several_units(self, summary: Sequence[dict[str, Any]]) -> None:
        """Refuse files of several releases: a user has another id in 2023, and times have another unit."""
        units: dict[bool, Path] = {}
        for row in summary:
            for extreme in ("first", "last"):
                units.setdefault(row[extreme] >= FIRST_MILLISECONDS, self.files[row["file"]].path)
        if len(units) > 1:
            problem = f"has times in milliseconds, but there are times in seconds in {units[False]}"
            remedy = "name files of one release: users of 2023 have other ids than those of 2014 and 2018"
            raise DataError(problem, remedy=remedy, path=units[True])

    def write(self, write: Write) -> Converted:
        """Drop what is to be left out, and write the events, ordered by domain, user, time and item."""
        events = self._chosen()
        if not (sizes := totals(events)).keys() >= {*self.domains}:
            missing = ", ".join(name for name in self.domains if name not in sizes)
            problem = f"no event is left in {missing}: {self._settings()}"
            raise DataError(problem, remedy="lower what is asked of users, items and ratings", path=self.files[0].path)
        for name in self.domains:
            numbers = "events: {:,}, users: {:,}, items: {:,}".format(*sizes[name])
            self.notes.append(f"{name}: {numbers}")
        if len(self.domains) > 1:
            self.notes.append(f"users in all domains: {shared_users(events, len(self.domains)):,}")
            self.notes.append("to recommend items of a domain: prepare with --domain domain --rank DOMAIN")
        ordered = events.order_by("domain", "user_id", "timestamp", "item_id").select(EVENTS.names)
        for batch in ordered.to_pyarrow_batches(chunk_size=WRITTEN_AT_ONCE):
            write(pa.Table.from_batches([batch]).cast(EVENTS))
        users = events.select("user_id").distinct().order_by("user_id").to_pyarrow()
        items = events.select("item_id", "domain").distinct()
        if any(file.is_metadata for file in self.files):
            items = titled(items, self.connection.table("titles"))
        items = items.order_by("domain", "item_id").to_pyarrow()
        return Converted(users, items, tuple(file.path for file in self.files), tuple(self.notes))

    def _chosen(self) -> Any:
        """Return the events that are left of the reviews."""
        reviews = self.connection.table("reviews")
        events = self.connection.create_table("events", distinct(reviews))
        repeats = count(reviews) - count(events)
        self.connection.drop_table("reviews")
        if repeats:
            self.notes.append(f"reviews of the same user, item and time as another, which count once: {repeats:,}")
        if settings := self._settings():
            self.notes.append(f"what is left is with {settings}")
        return drop_rare(self.connection, "events", self.config, len(self.domains))

    def _settings(self) -> str:
        """Return the settings that leave something out, as on the command line."""
        values = self.config.model_dump(exclude_defaults=True, exclude={"columns", "memory_limit"})
        return ", ".join(f"{name}={value}" for name, value in values.items())
