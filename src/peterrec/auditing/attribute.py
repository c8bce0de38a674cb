"""The attribute that is audited: a classification task of the corpus, or a column of a table of users."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from peterrec.arguments import names_there
from peterrec.config import AuditConfig
from peterrec.data.corpus import PARTS, Corpus, TaskPart
from peterrec.data.hashing import id_hash
from peterrec.data.sequences import IntArray
from peterrec.errors import ConfigError, DataError, TaskError

USER_COLUMN = "user_id"


@dataclass(frozen=True)
class Attribute:
    """Labelled users of whom an attribute is guessed.

    Attributes:
        name: of the attribute.
        source: of the labels, in words.
        class_names: of the classes, in their order.
        part: the users, with `labels`.
        label_of: class of every labelled user by id, also of those whose attribute is not guessed.
        notes: who is left out, in words.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    part: TaskPart
    label_of: dict[str, int]
    notes: tuple[str, ...]


def read_attribute(spec: str, corpus: Corpus, config: AuditConfig) -> Attribute:
    """Return the labelled users of an attribute.

    Args:
        spec: name of a classification task, or FILE:COLUMN of a table (CSV, Parquet) with a column `user_id`.
        corpus: with the histories.
        config: folds, and how small a class may be.

    Raises:
        TaskError: no such task, another kind of task, or too few users.
        DataError: the table cannot be read, or lacks a column.
        ConfigError: the name is neither.
    """
    file, separator, column = spec.rpartition(":")
    if separator and spec not in corpus.task_names:
        return _of_table(Path(file), column, corpus, config)
    if not corpus.task_names and not separator:
        raise ConfigError(f"{spec!r} is no task of the corpus", remedy="name a table and its column: users.csv:gender")
    task = corpus.task(spec)
    if task.kind != "classification":
        raise TaskError(
            f"is a {task.kind} task: groups are classes", remedy="name a classification task", path=task.path
        )
    parts = {name: task.part(name) for name in PARTS}
    labels = {
        user: int(label)
        for part in parts.values()
        for user, label in zip(part.user_ids.to_pylist(), np.asarray(part.labels), strict=True)
    }
    # Of its test users only: nothing, an eraser neither, was fitted on what is known of them.
    part, names, notes = _large_classes(parts["test"], task.class_names, config, task.path)
    source = f"test users of the task {spec!r}"
    return Attribute(spec, source, names, part, _named(labels, task.class_names, names), notes)


def _named(labels: dict[str, int], before: tuple[str, ...], names: tuple[str, ...]) -> dict[str, int]:
    """Return classes by the places of their names after small ones were left out."""
    return {user: names.index(before[label]) for user, label in labels.items() if before[label] in names}


def _of_table(path: Path, column: str, corpus: Corpus, config: AuditConfig) -> Attribute:
    table = _read_table(path, column)
    ids, texts = table[USER_COLUMN].to_pylist(), table[column].to_pylist()
    if len(set(ids)) < len(ids):
        raise DataError("a user has two rows", remedy="give one row for each user", path=path)
    hashes = np.asarray(corpus.user_hashes)
    order = np.argsort(hashes)
    wanted = id_hash(ids)
    places = np.searchsorted(hashes[order], wanted).clip(max=len(order) - 1)
    in_corpus = hashes[order][places] == wanted
    if not in_corpus.any():
        raise DataError(
            "none of its users is in the corpus", remedy=f"its ids are those of events ({USER_COLUMN})", path=path
        )
    names = tuple(sorted(set(texts)))
    labels = np.array([names.index(text) for text in texts], dtype=np.int64)
    rows = np.flatnonzero(in_corpus)
    part = TaskPart(
        pa.array([ids[row] for row in rows]), corpus.sequences.take(order[places[rows]]), labels=labels[rows]
    )
    guessed, large, notes = _large_classes(part, names, config, path)
    absent = int((~in_corpus).sum())
    notes = (*notes, f"{absent:,} users of the table are not in the corpus") if absent else notes
    label_of = _named(dict(zip(ids, labels.tolist(), strict=True)), names, large)
    return Attribute(column, f"{path.name}, column {column!r}", large, guessed, label_of, notes)


def _read_table(path: Path, column: str) -> pa.Table:
    """Return the column beside `user_id`, as texts, without rows that lack either."""
    if not path.is_file():
        raise DataError("is no file", remedy="name a table as FILE:COLUMN, or a task of the corpus", path=path)
    try:
        table: Any = pq.read_table(path) if path.suffix == ".parquet" else pacsv.read_csv(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot be read ({error})", remedy="give CSV or Parquet", path=path) from error
    for name in (USER_COLUMN, column):
        if name not in table.column_names:
            alternatives = names_there(name, table.column_names, "it has")
            raise DataError(f"has no column {name!r}{alternatives}", remedy="name one of these", path=path)
    texts = pa.table({name: table[name].cast(pa.string()) for name in (USER_COLUMN, column)})
    present = [pc.fill_null(pc.not_equal(texts[name], ""), False) for name in texts.column_names]  # of CSV: no value
    return texts.filter(pc.and_(*present))


def _large_classes(
    part: TaskPart, class_names: tuple[str, ...], config: AuditConfig, path: Path
) -> tuple[TaskPart, tuple[str, ...], tuple[str, ...]]:
    """Return the users of classes that are large enough, the names of these, and who was left out.

    Raises:
        TaskError: fewer than two are.
    """
    labels = np.asarray(part.labels, dtype=np.int64)
    counts = np.bincount(labels, minlength=len(class_names))
    least = max(config.min_class_users, config.folds)
    large = np.flatnonzero(counts >= least)
    if len(large) < 2:
        raise TaskError(
            f"fewer than two of its classes have {least} users to audit",
            remedy="label more users, or lower min_class_users and folds", path=path,
        )  # fmt: skip
    place: IntArray = np.full(len(class_names), -1)
    place[large] = np.arange(len(large))
    rows = np.flatnonzero(place[labels] >= 0)
    chosen = part.take(rows)
    names = tuple(class_names[index] for index in large)
    small = [f"{class_names[index]} ({counts[index]})" for index in np.flatnonzero(counts < least)]
    notes = (f"left out are classes of fewer than {least} users: {', '.join(small)}",) if small else ()
    relabelled = TaskPart(chosen.user_ids, chosen.sequences, labels=place[labels[rows]])
    return relabelled, names, notes
