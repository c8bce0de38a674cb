"""False alarms of `drift` on MovieLens-1M: honest draws of test users, and made-up shifts of the same size.

    peterrec fetch ml-1m --out runs/data/ml-1m
    python benchmarks/drift.py runs/data/ml-1m

A draw is `--users` of the test users, who are compared with the valid users that the bundle keeps. A shift replaces a
fifth of the users of a draw: by users of one class only, by users with a quarter of their events, or by users whose
items are drawn from the catalogue. The two sets of users never meet; all draws are of one training.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import tempfile
from pathlib import Path

import numpy as np
from calibration import QUIET, prepared

import peterrec
from peterrec.data.corpus import TaskPart
from peterrec.data.reference import Reference, Values
from peterrec.data.sequences import FIRST_ITEM, Sequences
from peterrec.evaluation.observed import observe
from peterrec.evaluation.stability import compare

SHARE = 0.2  # of the users of a draw that are replaced in a made-up shift


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with events.parquet and users.parquet")
    parser.add_argument("--tasks", nargs="+", default=["gender"])
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--levels", type=float, nargs="+", default=[0.01, 0.05])
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-history", type=int, default=50)
    options = parser.parse_args()
    logging.getLogger("peterrec").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        corpus = prepared(options, Path(folder))
        model = peterrec.pretrain(
            corpus, Path(folder) / "backbone", epochs=options.epochs, runner=QUIET,
            backbone=peterrec.BackboneConfig(channels=options.channels),
        )  # fmt: skip
        print("| task | users | level | " + " | ".join(SHIFTS) + " |\n|---|---|---|" + "---|" * len(SHIFTS))
        for task in options.tasks:
            bundle = peterrec.adapt(model, corpus, task, Path(folder) / task, strategy="head", runner=QUIET)
            assert bundle.reference is not None
            name, test = model.add_bundle(bundle), corpus.task(task).part("test")
            counted = {shift: observed(model, name, shifted(test, shift), bundle.reference) for shift in SHIFTS}
            for level in options.levels:
                shares = [f"{alarms(bundle.reference, counted, shift, level, options):.0%}" for shift in SHIFTS]
                print(f"| {task} | {options.users} | {level} | {' | '.join(shares)} |", flush=True)


SHIFTS = ("none (false alarms)", "one class", "a quarter of the events", "random items")


def shifted(test: TaskPart, shift: str) -> tuple[TaskPart, np.ndarray]:
    """Return the test users as a shift makes them, and which of them it may be made of."""
    generator, everybody = np.random.default_rng(1), np.arange(len(test))
    sequences = test.sequences
    if shift == "one class":
        return test, np.flatnonzero(np.asarray(test.labels) == 0)
    if shift == "a quarter of the events":
        recent = [row[-max(1, len(row) // 4) :] for row in rows_of(sequences)]
        return TaskPart(test.user_ids, Sequences.from_rows(recent), labels=test.labels), everybody
    if shift == "random items":
        items = int(sequences.items.max()) + 1
        drawn = [generator.integers(FIRST_ITEM, items, len(row)).tolist() for row in rows_of(sequences)]
        return TaskPart(test.user_ids, Sequences.from_rows(drawn), labels=test.labels), everybody
    return test, everybody


def rows_of(sequences: Sequences) -> list[list[int]]:
    items, offsets = np.asarray(sequences.items), sequences.offsets
    return [items[start:end].tolist() for start, end in itertools.pairwise(offsets)]


def observed(
    model: peterrec.UserModel, name: str, users: tuple[TaskPart, np.ndarray], reference: Reference
) -> tuple[dict[str, Values], np.ndarray]:
    part, rows = users
    return observe(model, name, part.sequences, reference.directions, reference.centre), rows


def alarms(
    reference: Reference,
    counted: dict[str, tuple[dict[str, Values], np.ndarray]],
    shift: str,
    level: float,
    options: argparse.Namespace,
) -> float:
    """Return the share of draws in which something is said to have shifted."""
    generator, sounded = np.random.default_rng(0), 0
    (honest, everybody), (changed, pool) = counted[SHIFTS[0]], counted[shift]
    for draw in range(options.draws):
        rows = generator.choice(everybody, options.users, replace=False)
        replaced = int(options.users * SHARE) if shift != SHIFTS[0] else 0
        shifted_rows = generator.choice(pool, replaced, replace=replaced > len(pool))
        values = {name: joined(honest[name], rows[replaced:], changed[name], shifted_rows) for name in honest}
        sounded += any(quantity.shifted for quantity in compare(reference.quantities, values, level, seed=draw))
    return sounded / options.draws


def joined(honest: Values, rows: np.ndarray, changed: Values, shifted_rows: np.ndarray) -> Values:
    if isinstance(honest, list) or isinstance(changed, list):
        return [honest[row] for row in rows] + [changed[row] for row in shifted_rows]
    return np.concatenate([honest[rows], changed[shifted_rows]])


if __name__ == "__main__":
    main()
