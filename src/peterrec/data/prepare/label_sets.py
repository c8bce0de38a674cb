"""Users of a multilabel task: each with those of the labels that the table says, any number of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from peterrec.config import EventsConfig, LabelSetsConfig, MultilabelTaskConfig
from peterrec.data.arrow_arrays import single_array
from peterrec.data.prepare.engine import Engine
from peterrec.data.prepare.files import InputFile
from peterrec.data.prepare.labels import Labelled, Mask, describe_labels, labelled_rows, user_step
from peterrec.data.prepare.source_events import Step, Users
from peterrec.data.sequences import IntArray, Sequences
from peterrec.errors import DataError, TaskError


def label_sets_from_table(
    engine: Engine, task: MultilabelTaskConfig, events: EventsConfig, users: Users, eligible: Mask
) -> Labelled:
    """Read the labels of users from a table with one row per user; users without a value are left out.

    Labels come in the order of how many users have them, those of as many by name. Blanks around labels in a text,
    labels without a letter and second ones do not count.

    Raises:
        DataError: a user stands twice in the table, it cannot be read, or the column holds no labels.
        TaskError: no labelled user has source events, or a text never holds the separator.
    """
    _check_column(describe_labels(task.labels), task.labels)
    rows, steps = labelled_rows(engine, task.labels, task, (events, users, eligible))
    owners, labels = _pairs(single_array(rows["label"]), task.labels.label_separator)
    if kinds.is_string(rows["label"].type) and len(owners) and np.bincount(owners).max() == 1:
        raise TaskError(
            f"no user of task {task.name!r} has two labels: {task.labels.label_separator!r} stands in no value of "
            f"{task.labels.label!r}",
            remedy="name what separates them, labels.label_separator, or predict classes (--classify)",
            path=task.labels.path,
        )
    owners, labels, names = _common_labels(owners, labels, task, len(rows), steps)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(rows)))]).astype(np.int64)
    places = rows["place"].to_numpy().astype(np.int64)
    sets = Sequences(labels.astype(np.int32), offsets)
    return Labelled(places, single_array(rows["user"]), class_names=names, label_sets=sets, steps=steps)


def _check_column(file: InputFile, config: LabelSetsConfig) -> None:
    type_ = file.type_of(config.label)
    in_list = kinds.is_list(type_) or kinds.is_large_list(type_) or kinds.is_fixed_size_list(type_)
    value = type_.value_type if in_list or kinds.is_dictionary(type_) else type_
    is_text = kinds.is_string(value) or kinds.is_large_string(value) or kinds.is_string_view(value)
    if not (is_text or (in_list and kinds.is_integer(value))):
        raise DataError(
            f"column {config.label!r} is of type {type_}; the labels of a user are a list of texts or integers, or a "
            "text with a separator",
            remedy="write it so, or predict classes (--classify) or numbers (--regress)",
            path=file.path,
        )


def _pairs(values: pa.Array, separator: str) -> tuple[IntArray, pa.Array]:
    """Return the place of a user and a label, of every label of every user, each pair once."""
    if not (kinds.is_list(values.type) or kinds.is_large_list(values.type)):
        values = pc.split_pattern(values, separator)
        owners, labels = pc.list_parent_indices(values), pc.utf8_trim_whitespace(pc.list_flatten(values))
    else:
        owners, labels = pc.list_parent_indices(values), pc.list_flatten(values)
    pairs = pa.table({"owner": owners.cast(pa.int64()), "label": labels.cast(pa.string())})
    present = pc.fill_null(pc.not_equal(pairs["label"], ""), False)
    pairs = pairs.filter(present).group_by(["owner", "label"], use_threads=False).aggregate([])
    return pairs["owner"].to_numpy(), single_array(pairs["label"])


def _common_labels(
    owners: IntArray, labels: pa.Array, task: MultilabelTaskConfig, users: int, steps: list[Step]
) -> tuple[IntArray, IntArray, tuple[str, ...]]:
    """Return the pairs of users and labels that enough users have, by user and label; and the names of the labels.

    Raises:
        TaskError: there is no such label.
    """
    encoded = labels.dictionary_encode()
    present, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
    counts = np.bincount(codes, minlength=len(present))
    ordered = sorted(range(len(present)), key=lambda code: (-counts[code], present[code]))
    common = [code for code in ordered if counts[code] >= task.min_label_users]
    if not common:
        frequent = (
            f"{present[ordered[0]]!r}, the most frequent, has {counts[ordered[0]]}" if ordered else "there is none"
        )
        raise TaskError(
            f"no label of task {task.name!r} has {task.min_label_users} users ({frequent})",
            remedy="lower its min_label_users, or check the column of labels",
            path=task.labels.path,
        )
    if len(common) < len(present):
        rare, example = len(present) - len(common), present[ordered[len(common)]]
        description = (
            f"with labels of {task.min_label_users} users or more; left out: {rare} rarer, such as {example!r}"
        )
        steps.append(user_step(description, users))
    ranks = np.full(len(present), -1, dtype=np.int64)
    ranks[common] = np.arange(len(common))
    chosen = np.flatnonzero(ranks[codes] >= 0)
    chosen = chosen[np.lexsort((ranks[codes[chosen]], owners[chosen]))]
    return owners[chosen], ranks[codes[chosen]], tuple(present[code] for code in common)


def check_label_sets(task: MultilabelTaskConfig, labelled: Labelled, train: IntArray) -> None:
    """Refuse labels of which nothing can be learned.

    Args:
        task: settings.
        labelled: its users.
        train: rows of the train users.

    Raises:
        TaskError: a label that no train user has, or that all of them have.
    """
    assert labelled.label_sets is not None
    counts = label_counts(labelled.label_sets.take(train), len(labelled.class_names))
    everybody = label_counts(labelled.label_sets, len(labelled.class_names))
    missing, universal = np.flatnonzero(counts == 0), np.flatnonzero(counts == len(train))
    if len(missing):
        name, users = labelled.class_names[int(missing[0])], int(everybody[missing[0]])
        raise TaskError(
            f"the label {name!r} of task {task.name!r} occurs only among valid or test users ({users} of them), so it "
            "cannot be learned",
            remedy=f"leave rare labels out with min_label_users: {users + 1} or more",
        )
    if len(universal):
        raise TaskError(
            f"all train users of task {task.name!r} have the label {labelled.class_names[int(universal[0])]!r}",
            remedy="leave it out of the column: there is nothing to predict",
        )


def label_counts(label_sets: Sequences, labels: int) -> IntArray:
    """Return how many users have each label, (labels,)."""
    return np.bincount(label_sets.items, minlength=labels).astype(np.int64)
