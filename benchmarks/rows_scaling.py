"""Rows of how our cost grows with channels, events and items: each size against the smallest."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import work
from rows import Group, Line, Pair, Run, Spec
from work import Work
from worker import Sizes

CHANNELS, EVENTS, ITEMS = (32, 64, 128, 256), (25, 50, 100, 200), (5_000, 20_000, 80_000)


def lines(run: Run) -> Iterator[Line]:
    represent, pretrain, rank = ("represent", work.represent), ("pretrain", work.pretrain), ("rank", work.rank)
    for name, label, values in (
        ("channels", represent, CHANNELS), ("channels", pretrain, CHANNELS),
        ("events", represent, EVENTS), ("events", pretrain, EVENTS),
        ("items", rank, ITEMS), ("items", pretrain, ITEMS),
    ):  # fmt: skip
        yield from run.measure(growth(name, *label, values))


def growth(name: str, job: str, count: Callable[[Sizes], Work], values: tuple[int, ...]) -> Group:
    """Return a group whose rows give the cost of each value over that of the smallest."""
    sides = [Spec(f"ours, {value:,} {name}", "ours", job, {name: value}, tuned=True, work=count) for value in values]
    smallest = sides[0].label
    pairs = tuple(Pair(side.label, smallest) for side in sides[1:])
    return Group(f"{job}, growth with {name}", Sizes(loss="sampled"), tuple(sides), pairs)
