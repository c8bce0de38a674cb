"""Matching of bundles and tasks: outputs matched by name, users it was not trained on, events prepared alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from peterrec.artifacts.bundle_io import Bundle
from peterrec.config import KeptOutUsersConfig, PreprocessingConfig
from peterrec.data.corpus import PARTS, Corpus, Part, Task, TaskPart
from peterrec.data.hashing import id_hash
from peterrec.data.new_users import kept_out_by_id
from peterrec.data.preprocessing import differences
from peterrec.data.sequences import IntArray
from peterrec.data.splits import assign_parts, uniform
from peterrec.errors import FingerprintError, TaskError

READ_OTHERWISE = ("repeats", "rare_items")  # a model of one has never seen the sequences of the other


def output_columns(task: Task, bundle: Bundle) -> IntArray:
    """Return, for each class or target of a task, the output of the bundle that has its name; (n,) int64.

    None of a regression task, whose outputs have a meaning of their own.

    Raises:
        TaskError: another kind of task, or the bundle lacks a class or a target of the task, or has other classes.
    """
    if bundle.kind != task.kind:
        raise TaskError(
            f"is a {task.kind} task here, but the bundle was trained on a {bundle.kind} task of the name {task.name!r}",
            remedy="adapt to this task", path=task.path,
        )  # fmt: skip
    if task.kind == "regression":
        return np.arange(0)
    if task.targets is None:
        if set(task.class_names) != set(bundle.class_names):
            raise TaskError(
                f"its classes are {_first_names(task.class_names)}, "
                f"but the bundle tells {_first_names(bundle.class_names)} apart",
                remedy="prepare the labels with the same names, or adapt to this task", path=task.path,
            )  # fmt: skip
        return np.array([bundle.class_names.index(name) for name in task.class_names], dtype=np.int64)
    assert bundle.targets is not None
    columns = bundle.targets.encode(task.targets.ids) - bundle.targets.first
    missing = np.flatnonzero(columns < 0)
    if len(missing):
        example = task.targets.ids[int(missing[0])].as_py()
        raise TaskError(
            f"{len(missing):,} of its {len(columns):,} targets are unknown to the bundle, such as {example!r}",
            remedy="adapt to this task", path=task.path,
        )  # fmt: skip
    return columns


def _first_names(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def comparable(
    corpus: Corpus,
    task: Task,
    bundles: Sequence[Bundle],
    pretraining: Mapping[str, Any],
    *,
    new_users: KeptOutUsersConfig | None = None,
) -> tuple[Task, list[str]]:
    """Return a task with the test users on whom bundles may be judged, and in words what is not as it was in training.

    Args:
        corpus: that the task is of.
        task: as prepared.
        bundles: that are judged.
        pretraining: of the backbone, as its metadata have it.
        new_users: who was kept out of it; None: nobody.

    Raises:
        FingerprintError: the events were prepared so that the sequences are of another kind.
        TaskError: no test user is left.
    """
    notes: list[str] = []
    rules = {bundle.exclude_seen for bundle in bundles}
    if len(rules) == 1:  # the lists that `recommend` shows, of all methods
        task = replace(task, exclude_seen=rules.pop())
    elif rules:
        notes.append("the bundles do not agree whether seen items are recommended: here they are as in this corpus")
    for bundle in bundles:
        trained = None if bundle.provenance is None else bundle.provenance.preprocessing
        notes += check_preprocessing(corpus, task, trained)
    if any(bundle.provenance is None or bundle.provenance.split is None for bundle in bundles):
        notes.append("a bundle does not say on which split it was trained: test users here may be train users there")
    ids = task.part("test").user_ids
    rows = np.flatnonzero(~_used_users(ids, task, bundles, pretraining, new_users))
    if len(rows) == len(ids):
        return task, list(dict.fromkeys(notes))
    if not len(rows):
        raise TaskError(
            f"all of its {len(ids):,} test users are ones that a bundle was trained on, or chosen by",
            remedy="evaluate on the corpus that it was adapted to, or prepare with the same settings under `split`",
            path=corpus.path,
        )
    notes.append(
        f"this is another split than that of training: {len(ids) - len(rows):,} of {len(ids):,} test users, on whom a "
        "bundle or the backbone was trained or chosen, are left out"
    )
    values = {attribute.name: getattr(task, attribute.name) for attribute in fields(task)}
    return _TaskWithTestUsers(**values, test_rows=rows), list(dict.fromkeys(notes))


def check_preprocessing(corpus: Corpus, task: Task, trained: PreprocessingConfig | None) -> list[str]:
    """Return in words how the events of a corpus were prepared otherwise than those that a bundle was trained on.

    Raises:
        FingerprintError: its sequences are of another kind: repeats or unknown items were treated otherwise.
    """
    changed = differences(trained, task.provenance.preprocessing)
    severe = [line for line in changed if line.startswith(tuple(f"source.{name}:" for name in READ_OTHERWISE))]
    if severe:
        raise FingerprintError(
            f"was prepared otherwise than the data that the bundle was trained on (there, here: {'; '.join(severe)})",
            remedy="prepare it with the same settings under `source`",
            path=corpus.path,
        )
    return [f"these data were prepared otherwise than those of training (there, here: {line})" for line in changed]


def _used_users(
    ids: pa.Array,
    task: Task,
    bundles: Sequence[Bundle],
    pretraining: Mapping[str, Any],
    new_users: KeptOutUsersConfig | None,
) -> npt.NDArray[np.bool_]:
    """Return which users a bundle of another split, or the choice of the backbone's epoch, was made on; (n,)."""
    used = np.zeros(len(ids), dtype=bool)
    splits = [None if bundle.provenance is None else bundle.provenance.split for bundle in bundles]
    other_splits = [split for split in splits if split is not None and split != task.provenance.split]
    if not other_splits:
        return used
    hashes = id_hash(ids.to_pylist())
    for split in other_splits:
        used |= assign_parts(hashes, split) != PARTS.index("test")
    if "valid_fraction" in pretraining:
        held_out = uniform(hashes, f"pretrain-{pretraining['seed']}") < pretraining["valid_fraction"]
        used |= held_out if new_users is None else held_out & ~kept_out_by_id(hashes, new_users, new_users.split)
    return used


@dataclass(frozen=True)
class _TaskWithTestUsers(Task):
    """A task of whose test users only some rows are left."""

    test_rows: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64), compare=False)

    def part(self, part: Part) -> TaskPart:
        """Read the users of one part; errors as those of `Task.part`."""
        users = super().part(part)
        return users.take(self.test_rows) if part == "test" else users
