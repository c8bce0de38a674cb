"""The half of `next_item.py` that runs in a side's own virtual environment: its job in, its recommendations out.

Imports nothing but the standard library, whatever else the side has.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOP = 10
Ranking = Sequence[Sequence[str]]  # for each question the best items, best first


@dataclass(frozen=True)
class Job:
    """What a side is asked to do.

    Attributes:
        data: folder with `events.csv` and `questions.json`, see `next_item_data.py`.
        out: file of the result.
        model: one of those that the worker has.
        settings: of the model, in its library's own names.
        free_epochs: whether the number of epochs is the side's to choose by the budget.
        budget: seconds of training.
        seed: of every draw.
        identity: all that a result depends on; it is kept with it, so that one of other settings is not taken for it.
    """

    data: Path
    out: Path
    model: str
    settings: dict[str, Any]
    free_epochs: bool
    budget: float
    seed: int
    identity: dict[str, Any]

    @classmethod
    def read(cls) -> Job:
        """Read the job that the command line names."""
        tree = json.loads(Path(sys.argv[1]).read_text())
        return cls(**tree | {"data": Path(tree["data"]), "out": Path(tree["out"])})

    def events(self, *parts: str) -> Iterator[tuple[str, str, int, str]]:
        """Yield user, item, place in the user's order, and part (`train` or `valid`) of the events of these parts."""
        with (self.data / "events.csv").open(newline="") as file:
            for user, item, order, part in list(csv.reader(file))[1:]:
                if part in parts:
                    yield user, item, int(order), part

    @property
    def histories(self) -> list[list[str]]:
        """The items of each user to be recommended to, oldest first: train events, validation event and all."""
        histories: list[list[str]] = json.loads((self.data / "questions.json").read_text())
        return histories

    def write(
        self, training: Training, *, parameters: int, all_items: Ranking, unseen_items: Ranking, notes: str = ""
    ) -> None:
        """Write the result, whole or not at all.

        Args:
            training: how it was trained.
            parameters: trained numbers.
            all_items: the ten best of the catalogue for each question.
            unseen_items: the ten best of those that do not stand in the history.
            notes: what a reader of the table should know.
        """
        tree = {
            "identity": self.identity, "seconds": training.seconds, "cpu_seconds": training.cpu_seconds,
            "epochs": training.epochs, "stopped_by": training.stopped_by, "parameters": parameters, "notes": notes,
            "all_items": [list(items) for items in all_items],
            "unseen_items": [list(items) for items in unseen_items],
        }  # fmt: skip
        temporary = self.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(tree))
        os.replace(temporary, self.out)  # noqa: PTH105


@dataclass
class Training:
    """The clock of a training, started when it is made.

    Attributes:
        budget: seconds.
        seconds: spent, once it is finished.
        cpu_seconds: of all threads, which tell of a machine that did something else, too.
        epochs: whole and begun ones, such as 2.4.
        stopped_by: `budget`, `early stopping` or `epochs`.
    """

    budget: float
    seconds: float = 0.0
    epochs: float = 0.0
    stopped_by: str = ""
    cpu_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._start, self._cpu_start = time.perf_counter(), time.process_time()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        return self.elapsed >= self.budget

    def finish(self, epochs: float, stopped_by: str = "epochs") -> None:
        """Stop the clock; the budget, where it is used up, is what stopped the training."""
        self.seconds, self.cpu_seconds, self.epochs = self.elapsed, time.process_time() - self._cpu_start, epochs
        self.stopped_by = "budget" if self.spent else stopped_by
