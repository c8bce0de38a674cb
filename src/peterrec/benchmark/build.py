"""The verb `benchmark build`: a public data set in, plain Parquet files out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined

from peterrec.arguments import checked
from peterrec.benchmark.folder import DESCRIPTION, write_table
from peterrec.benchmark.protocol import (
    BOOTSTRAP_SEED,
    CONFIDENCE,
    FIRST_EVENTS,
    LABEL_COLUMNS,
    LABEL_PERCENTS,
    LABEL_SEED,
    METRICS,
    NEW_USERS,
    RESAMPLES,
    SOURCE,
    SPLIT,
    VERSION,
    K,
    history_file,
    label_file,
    list_tasks,
    target_column,
)
from peterrec.config import ClassificationTaskConfig, EventsConfig, LabelsConfig, PrepareConfig
from peterrec.data.corpus import PARTS, Corpus
from peterrec.data.prepare import prepare
from peterrec.data.sequences import FIRST_ITEM, IntArray
from peterrec.data.splits import assign_parts
from peterrec.data.subset import chosen_rows
from peterrec.errors import ArtifactError, ConfigError, DataError
from peterrec.storage import FORMAT_VERSION, new_folder, read_json, remove_folder, write_file, write_json

Report = Callable[[str], None]
Texts = npt.NDArray[np.object_]
TRAIN, VALID, TEST = range(3)
RESERVED = ("user_id", "part", *map(target_column, FIRST_EVENTS))  # other columns of the tables with labels


@checked
def build_benchmark(
    out: str | Path,
    data: str | Path,
    *,
    labels: Sequence[str] = LABEL_COLUMNS,
    overwrite: bool = False,
    report: Report | None = None,
) -> Path:
    """Build the transfer benchmark: users, split, histories, tasks and answers that are the same for everybody.

    Valid and test users are new: no event of theirs is in `events.parquet` and `items.parquet`. The same events and
    labels give the same rows on every machine; `benchmark.json` has a fingerprint of each file's rows.

    Args:
        out: folder to write; it appears only when everything is in it. Its README.md says what the files are.
        data: folder that `fetch` or `convert` wrote, such as of `ml-1m`: `events.parquet` and `users.parquet`.
        labels: columns of `users.parquet` that are to be predicted.
        overwrite: replace the benchmark at `out`.
        report: called with one line at a time about events and users that are kept and dropped, and why.

    Returns:
        The folder `out`.

    Raises:
        DataError: the events or labels cannot be used as they are, or there are too few of them.
        TaskError: a label cannot be learned from, such as one that no train user has.
        ConfigError: `labels` is empty, names a column twice, or one that the benchmark has itself.
        ArtifactError: `out` exists and `overwrite` is false; or it is no benchmark, or the data lie in it.
        StorageError: the disk is full or the place is not writable.
    """
    out, data = Path(out), Path(data)
    if not labels or len({*labels, *RESERVED}) < len(labels) + len(RESERVED):
        remedy = f"name one or more columns of users.parquet, each once, and none of {', '.join(RESERVED)}"
        raise ConfigError(f"the labels are {list(labels)}", remedy=remedy)
    if data.resolve().is_relative_to(out.resolve()):
        raise ArtifactError(
            "holds the data that are read: they would be replaced", remedy="choose another folder", path=out
        )
    with new_folder(out, overwrite=overwrite, kind="benchmark") as folder:
        corpus = prepare(_preparation(data, labels), folder / "scratch", report=report)
        source = _Source(corpus, data, tuple(labels))
        _write(folder, source)
        remove_folder(folder / "scratch")
    return out


def _preparation(data: Path, labels: Sequence[str]) -> PrepareConfig:
    users = str(data / "users.parquet")
    return PrepareConfig(
        events=EventsConfig(paths=(str(data / "events.parquet"),), ties="hash"),
        source=SOURCE,
        tasks=tuple(
            ClassificationTaskConfig(name=label, labels=LabelsConfig(path=users, label=label)) for label in labels
        ),
        split=SPLIT,
        new_users=NEW_USERS,
    )


@dataclass(frozen=True)
class _Source:
    """A prepared corpus as plain tables; its U users are in the order of the corpus."""

    corpus: Corpus
    data: Path
    labels: tuple[str, ...]

    @cached_property
    def parts(self) -> IntArray:
        """(U,) 0 train, 1 valid, 2 test."""
        return assign_parts(self.corpus.user_hashes, SPLIT)

    @cached_property
    def user_ids(self) -> pa.Array:
        """(U,) text."""
        files = sorted((self.corpus.path / "sequences").glob("*.parquet"))
        tables = [pq.read_table(file, columns=["user_id"]) for file in files]
        return pa.concat_tables(tables)["user_id"].combine_chunks()

    @cached_property
    def events(self) -> pa.Table:
        """All events of the catalogue's items: user (0 .. U - 1), position (from 0), item_id, timestamp."""
        sequences = self.corpus.sequences
        rows = sequences.repeat()
        return pa.table(
            {
                "user": rows,
                "position": pa.array(np.arange(len(rows)) - sequences.offsets[rows], pa.int32()),
                "item_id": self.corpus.catalogue.ids.take(pa.array(np.asarray(sequences.items) - FIRST_ITEM)),
                "timestamp": self._timestamps(rows),
            }
        )

    def _timestamps(self, rows: IntArray) -> pa.ChunkedArray:
        """Return the times of all events: sequences are sorted by them, so that they need no key but the user."""
        path = self.data / "events.parquet"
        log = pq.read_table(path, columns=["user_id", "item_id", "timestamp"])
        if not (pa.types.is_integer(log["timestamp"].type) or pa.types.is_temporal(log["timestamp"].type)):
            raise DataError("its times are no whole numbers or times", remedy="write `timestamp` as one", path=path)
        users = pc.index_in(log["user_id"].cast(pa.string()), value_set=self.user_ids)
        in_catalogue = pa.array(self.corpus.catalogue.knows(log["item_id"].combine_chunks()))
        times = pa.table({"user": users, "timestamp": log["timestamp"]})
        times = times.filter(pc.and_(pc.is_valid(users), in_catalogue))
        times = times.sort_by([("user", "ascending"), ("timestamp", "ascending")])
        if not np.array_equal(times["user"].to_numpy(), rows):
            raise DataError(
                "its ids are not read as `prepare` reads them", remedy="write ids as whole numbers or texts", path=path
            )
        return times["timestamp"]

    @cached_property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Names of the classes of each label, in order."""
        return {label: self.corpus.task(label).class_names for label in self.labels}

    @cached_property
    def answers(self) -> dict[str, Texts]:
        """(U,) name of the class of each user, None without, by label."""
        answers = {}
        for label in self.labels:
            names: Texts = np.full(len(self.user_ids), None, dtype=object)
            for part in PARTS:
                users = self.corpus.task(label).part(part)
                assert users.labels is not None
                places = pc.index_in(users.user_ids, value_set=self.user_ids).to_numpy()
                names[places] = np.array(self.classes[label], dtype=object)[users.labels]
            answers[label] = names
        return answers

    def targets(self, first_events: int) -> pa.Array:
        """(U,) the item after each user's first events; null where there is none, or it is one of these already."""
        sequences = self.corpus.sequences
        offsets, items = sequences.offsets[:-1], np.asarray(sequences.items)
        has_next = sequences.lengths > first_events
        targets = np.full(len(sequences), -1, dtype=np.int64)
        targets[has_next] = items[offsets[has_next] + first_events]
        rows = sequences.repeat()
        repeated = (self.events["position"].to_numpy() < first_events) & (items == targets[rows])
        targets[rows[repeated]] = -1
        return self.corpus.catalogue.ids.take(pa.array(targets - FIRST_ITEM, mask=targets < 0))

    def named(self, rows: IntArray) -> pa.Array:
        """Return the ids of users, as whole numbers where the data have such."""
        ids = self.user_ids.take(pa.array(rows))
        is_integer = pa.types.is_integer(pq.read_schema(self.data / "events.parquet").field("user_id").type)
        return ids.cast(pa.int64()) if is_integer else ids


def _write(folder: Path, source: _Source) -> None:
    tables = dict(_tables(source))
    files = {name: write_table(folder, name, table) for name, table in tables.items()}
    answers = tables["test_answers.parquet"]
    users = {name: len(answers) - answers[name].null_count for name in answers.column_names}
    origin = source.data / "source.json"
    name = read_json(origin).get("name") if origin.is_file() else None
    description: dict[str, Any] = {
        "kind": "benchmark",
        "format_version": FORMAT_VERSION,
        "version": VERSION,
        "name": str(name or source.data.resolve().name),
        "fingerprint": _overall(files),
        "users": {part: int((source.parts == number).sum()) for number, part in enumerate(PARTS)},
        "split": SPLIT.model_dump(mode="json"),
        "metrics": METRICS,
        "bootstrap": {"resamples": RESAMPLES, "confidence": CONFIDENCE, "seed": BOOTSTRAP_SEED},
        "tasks": [task.to_json() for task in list_tasks(source.classes, users)],
        "files": files,
    }
    write_json(folder / DESCRIPTION, description)
    templates = Environment(loader=PackageLoader("peterrec", "benchmark"), undefined=StrictUndefined)
    text = templates.get_template("readme.md.jinja").render(
        description, k=K, cuts=FIRST_EVENTS, percents=LABEL_PERCENTS, source=SOURCE
    )
    write_file(folder / "README.md", (text.rstrip() + "\n").encode())


def _overall(files: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [f"{name} {file['fingerprint']}\n" for name, file in files.items()]
    return hashlib.sha256("".join([f"version {VERSION}\n", *lines]).encode()).hexdigest()


def _tables(source: _Source) -> list[tuple[str, pa.Table]]:
    """Return all tables by the name of their file."""
    events, catalogue = source.events, source.corpus.catalogue
    part_of_event = source.parts[events["user"].to_numpy()]
    tables = [
        ("events.parquet", _log(source, events.filter(pa.array(part_of_event == TRAIN)))),
        ("items.parquet", pa.table({"item_id": catalogue.ids, "train_events": catalogue.counts})),
    ]
    for first in FIRST_EVENTS:
        is_early = events["position"].to_numpy() < first
        for number, part in enumerate(PARTS):
            history = events.filter(pa.array(is_early & (part_of_event == number)))
            tables.append((history_file(part, first), _log(source, history)))
    tables += [(label_file(percent), _labels(source, percent)) for percent in LABEL_PERCENTS]
    valid, test = np.flatnonzero(source.parts == VALID), np.flatnonzero(source.parts == TEST)
    targets = {target_column(first): source.targets(first) for first in FIRST_EVENTS}
    columns = {name: pa.array(names, pa.string()) for name, names in source.answers.items()} | targets
    tables.append(("valid_targets.parquet", _users(source, valid, targets)))
    tables.append(("test_answers.parquet", _users(source, test, columns)))
    return tables


def _log(source: _Source, events: pa.Table) -> pa.Table:
    return events.set_column(0, "user_id", source.named(events["user"].to_numpy()))


def _users(source: _Source, rows: IntArray, columns: dict[str, pa.Array]) -> pa.Table:
    return pa.table(
        {"user_id": source.named(rows)} | {name: column.take(pa.array(rows)) for name, column in columns.items()}
    )


def _labels(source: _Source, percent: int) -> pa.Table:
    """Return the labels of valid users, and of a share of the train users of each class of each label."""
    columns, labelled = {}, np.zeros(len(source.parts), dtype=bool)
    for label, names in source.answers.items():
        remaining = names.copy()
        remaining[source.parts != VALID] = None
        for name in source.classes[label]:
            rows = np.flatnonzero((source.parts == TRAIN) & (names == name))
            remaining[rows[chosen_rows(source.user_ids.take(pa.array(rows)), percent / 100, LABEL_SEED)]] = name
        labelled |= remaining != None  # noqa: E711 - of each element
        columns[label] = pa.array(remaining, pa.string())
    part = pa.array(np.array(PARTS, dtype=object)[source.parts], pa.string())
    return _users(source, np.flatnonzero(labelled), {"part": part} | columns)
