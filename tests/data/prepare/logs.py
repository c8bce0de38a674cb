"""Writing small logs in every form that `prepare` reads, and looking at what it made of them."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.prepare.oracle import hash_of
from peterrec.config import PrepareConfig, build_config
from peterrec.data.corpus import PARTS, Corpus
from peterrec.data.prepare import prepare

START = datetime(2001, 2, 1)
COLUMNS = ("user_id", "item_id", "timestamp")
Rows = Sequence[Sequence[Any]]
# A log of two parts of the day for whoever needs any log: item a is frequent, z is rare.
SMALL: Rows = [
    (f"u{user}", item, 10 * place + user) for user in range(8) for place, item in enumerate("abcab" + "z" * (user == 3))
]


def write_csv(
    path: Path, rows: Rows, columns: Sequence[str] | None = COLUMNS, *, separator: str = ",", end: str = "\n"
) -> Path:
    """Write text, packed if the name says so; `columns=None` leaves out the header line."""
    lines = [list(columns), *rows] if columns is not None else list(rows)
    if len(separator) == 1:
        buffer = io.StringIO()
        csv.writer(buffer, delimiter=separator, lineterminator=end).writerows(lines)
        text = buffer.getvalue()
    else:
        text = "".join(separator.join("" if value is None else str(value) for value in line) + end for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_parquet(path: Path, rows: Rows, columns: Sequence[str] = COLUMNS, **types: pa.DataType) -> Path:
    """Write Parquet; `types` of columns by their name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    arrays = [pa.array(column, types.get(name)) for name, column in zip(columns, values, strict=True)]
    pq.write_table(pa.table(arrays, names=list(columns)), path)
    return path


def times(kind: str, values: Sequence[int]) -> tuple[list[Any], pa.DataType | None]:
    """Small integers as times of a kind, in their order, and their Parquet type (None: text)."""
    moments = [START + timedelta(hours=9 * value) for value in values]
    days: list[date] = [(START + timedelta(days=value)).date() for value in values]
    if kind == "integer":
        return [10**18 + value for value in values], pa.int64()  # nanoseconds: floats would make ties of them
    if kind == "float":
        return [value / 4 - 2 for value in values], pa.float64()
    if kind == "decimal":
        return [f"{value}.50" for value in values], pa.decimal128(12, 2)
    if kind == "date":
        return list(days), pa.date32()
    if kind == "text":
        return [f"{moment:%Y-%m-%d %H:%M:%S}" for moment in moments], pa.string()
    if kind == "zone":
        return [moment.replace(tzinfo=UTC) for moment in moments], pa.timestamp("us", "America/New_York")
    return list(moments), pa.timestamp(kind)  # the unit


def seconds(kind: str, value: int) -> float:
    """The same in seconds since 1970, as ties are broken by; numbers of no unit as they are."""
    moment = times(kind, [value])[0][0]
    if kind == "integer":
        return float(moment) / 1e9  # nanoseconds, by their size
    if kind == "text":
        moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        return moment.replace(tzinfo=UTC).timestamp()
    if isinstance(moment, date):
        return datetime(moment.year, moment.month, moment.day, tzinfo=UTC).timestamp()
    return float(moment)


def bound(kind: str, value: int | None) -> str | None:
    """The same as a bound in the configuration."""
    if value is None:
        return None
    moment = times(kind, [value])[0][0]
    if kind == "zone":
        return (moment + timedelta(hours=2)).replace(tzinfo=None).isoformat() + "+02:00"
    return str(moment)


def settings(path: Path | Sequence[Path], **values: Any) -> PrepareConfig:
    """A configuration; `events`, `source`, ... as trees. Shares are such that a few users fill every part."""
    paths = [str(path)] if isinstance(path, Path) else [str(one) for one in path]
    tree: dict[str, Any] = {"threads": 1, "source": {"min_item_events": 1}, "split": SPLIT} | values
    tree["events"] = {"paths": paths} | values.get("events", {})
    return build_config(PrepareConfig, tree)


SPLIT = {"train": 0.5, "valid": 0.25, "test": 0.25}


def made(path: Path | Sequence[Path], out: Path, **values: Any) -> Corpus:
    """Prepare with `settings`, over what is there."""
    return prepare(settings(path, **values), out, overwrite=True)


def sequences_of(corpus: Corpus) -> dict[str, list[int]]:
    """Every user's indices, from the folder for people, which must say the same as the cache."""
    table = pa.concat_tables([pq.read_table(path) for path in sorted((corpus.path / "sequences").iterdir())])
    rows = table["sequence"].to_pylist()
    assert [corpus.sequences[row].tolist() for row in range(len(corpus.sequences))] == rows
    assert corpus.user_hashes.tolist() == [hash_of(user) for user in table["user_id"].to_pylist()]
    return dict(zip(table["user_id"].to_pylist(), rows, strict=True))


def items_of(corpus: Corpus) -> dict[str, list[Any]]:
    """Every user's item ids; "[UNK]" for that token."""
    names = {index: item for index, item in enumerate(corpus.catalogue.ids.to_pylist(), start=4)} | {3: "[UNK]"}
    return {user: [names[index] for index in row] for user, row in sequences_of(corpus).items()}


def train_and_valid(corpus: Corpus, name: str) -> dict[str, dict[str, tuple[list[int], Any]]]:
    """History, and label or targets, of each user of each part."""
    task, found = corpus.task(name), {}
    for part in PARTS:
        one = task.part(part)
        answers = one.labels.tolist() if one.labels is not None else [one.targets[i].tolist() for i in range(len(one))]
        histories = [one.sequences[i].tolist() for i in range(len(one))]
        users = one.user_ids.to_pylist()
        assert len(set(users)) == len(users)
        found[part] = dict(zip(users, zip(histories, answers, strict=True), strict=True))
    return found


def assert_account_adds_up(corpus: Corpus) -> None:
    """Each step has what the one before left, less what it dropped, and says why; the last has what is there."""
    steps = [(corpus.manifest["steps"], "events", corpus.manifest["events"])]
    steps += [(task["steps"], "users", sum(task["users"].values())) for task in corpus.manifest["tasks"]]
    for lines, unit, last in steps:
        assert lines[0]["dropped"] == 0
        for before, after in itertools.pairwise(lines):
            assert after[unit] + after["dropped"] == before[unit], (before, after)
            assert not after["dropped"] or after["why"]
        assert lines[-1][unit] == last


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, hidden files too."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
