"""A corpus as if only some of its labelled users were there to train on: a read-only view, for learning curves."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from peterrec.data.catalogue import Catalogue
from peterrec.data.corpus import Corpus, Part, Task, TaskPart
from peterrec.data.hashing import id_hash
from peterrec.data.sequences import IntArray
from peterrec.data.splits import uniform
from peterrec.errors import ConfigError, TaskError

FEWEST = 2  # train users; of one there is nothing to learn


def with_share(corpus: Corpus, share: float, seed: int) -> Corpus:
    """Return a corpus whose tasks have only a share of their train users; all else is as it was.

    Smaller shares lie inside larger ones: users are taken in the order of a hash of their id with the seed. Users to
    validate and to test stay, and so does everything that has no label: the sequences of all users. The counts of a
    target catalogue, which heads and negatives start from, are those of the users who are left.

    Args:
        corpus: as prepared.
        share: of the train users of each task, above 0; 1 gives the corpus itself.
        seed: another one draws other users.

    Raises:
        ConfigError: a share that is not in (0, 1].
    """
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"a share of labelled users of {share} cannot be taken", remedy="give one above 0, at most 1")
    return corpus if share == 1.0 else _SharedCorpus(corpus, share, seed)


def chosen_rows(user_ids: pa.Array, share: float, seed: int) -> IntArray:
    """Return which users a share of them is, in their order; (max(1, round(share * n)),) int64, none of none."""
    draw = uniform(id_hash(user_ids.to_pylist()), f"labelled-{seed}")
    count = min(len(draw), max(1, round(share * len(draw))))
    return np.sort(np.argsort(draw, kind="stable")[:count]).astype(np.int64)


class _SharedCorpus(Corpus):
    def __init__(self, corpus: Corpus, share: float, seed: int) -> None:
        text = f"{corpus.manifest['fingerprint']} {share!r} of the train users by {seed}"
        fingerprint = hashlib.sha256(text.encode()).hexdigest()  # what is trained on it is not the whole's
        super().__init__(corpus.path, {**corpus.manifest, "fingerprint": fingerprint})
        self._share, self._seed = share, seed

    def task(self, name: str) -> Task:
        """Open a task; errors as those of `Corpus.task`, and TaskError if fewer than 2 train users are left."""
        full_task = super().task(name)
        task_fields = {field.name: getattr(full_task, field.name) for field in fields(full_task)}
        task = _SharedTask(**task_fields, share=self._share, seed=self._seed)
        train = task.part("train")
        if len(train) < FEWEST:
            raise TaskError(
                f"{100 * self._share:g} % of the train users of task {name!r} are {len(train)}, which is too few",
                remedy="take a larger share, or label more users",
                path=full_task.path,
            )
        return count_targets(task, train)


@dataclass(frozen=True)
class _SharedTask(Task):
    share: float = 1.0
    seed: int = 0

    def part(self, part: Part) -> TaskPart:
        """Read the users of one part; errors as those of `Task.part`."""
        return self._train if part == "train" else super().part(part)

    @cached_property
    def _train(self) -> TaskPart:
        all_users = super().part("train")
        rows = chosen_rows(all_users.user_ids, self.share, self.seed)
        return all_users.take(rows)


def count_targets(task: Task, train: TaskPart) -> Task:
    """Return the task with the counts of its target catalogue, if it has one, taken from these train users alone."""
    if task.targets is None:
        return task
    assert train.targets is not None
    counts: npt.NDArray[np.int64] = np.bincount(train.targets.items, minlength=len(task.targets)).astype(np.int64)
    return replace(task, targets=Catalogue(task.targets.ids, counts, first=task.targets.first))
