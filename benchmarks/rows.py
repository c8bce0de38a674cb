"""Rows of the table, and how a group of sides becomes rows.

A module of rows has a function `lines(run)` that yields `Line`s and is named in `speed.MODULES`. Most describe their
sides as a `Group` and yield what `run.measure` makes of it; one that measures something else makes its own lines.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from limits import Limits
from peers.install import missing, python_of
from sides import FOLDER, Ratio, Side, SideError, Times, interleave, ratio
from work import Work
from worker import Sizes

SCRIPTS = {"ours": "ours_side.py", "plain": "peers/plain_side.py", "recbole": "peers/recbole_side.py"}
TINY = {"channels": 16, "events": 8, "batch": 4, "items": 50, "negatives": 16, "top": 3}


@dataclass(frozen=True)
class Spec:
    """One side of a group.

    Attributes:
        label: as in the table.
        worker: of `SCRIPTS`.
        job: that the worker knows.
        sizes: in place of those of the group.
        tuned: whether its allocator keeps freed memory.
        work: operations of one run, if its share of the machine's limit is to be given.
        units: of the compared work in one run, given its sizes.
        target_ratio: share of the limit that is to be reached.
    """

    label: str
    worker: str
    job: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    tuned: bool = False
    work: Callable[[Sizes], Work] | None = None
    units: Callable[[Sizes], float] = lambda sizes: 1.0
    target_ratio: float | None = None


@dataclass(frozen=True)
class Pair:
    """Labels of two sides of a group, and how many times as fast the second is asked to be."""

    slow: str
    fast: str
    target_ratio: float | None = None


@dataclass(frozen=True)
class Group:
    """Sides that take turns. A side that no pair names has a row for its share alone."""

    name: str
    sizes: Sizes
    sides: tuple[Spec, ...]
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Share:
    """A side's share of the limit: its work, its time and its precision."""

    work: Work
    seconds: float
    precision: str

    def fractions(self, limits: Limits) -> tuple[float, float]:
        """Return the share by the work of the whole window, and by that of the receptive field."""
        possible = limits.rate(self.precision) * self.seconds
        return self.work.window / possible, self.work.receptive_field / possible


@dataclass(frozen=True)
class Line:
    """One row of the table.

    Attributes:
        row: what is done.
        a: the side compared with; empty if there is none.
        b: our side.
        ratio: of the time of `a` to that of `b`.
        share: of `b`.
        target_ratio: what is to be reached.
        skipped: why there are no numbers.
        data: what else the results are to hold.
    """

    row: str
    a: str
    b: str
    ratio: Ratio | str = ""
    share: Share | None = None
    target_ratio: str = ""
    skipped: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def cells(self, limits: Limits | None) -> tuple[str, ...]:
        """Return the texts of the table's columns; without limits there is no share of them."""
        text = f"skipped: {self.skipped}" if self.skipped else str(self.ratio)
        return self.row, self.a, self.b, text, self._share_text(limits), self.target_ratio

    def _share_text(self, limits: Limits | None) -> str:
        if self.share is None or limits is None:
            return ""
        window, receptive_field = self.share.fractions(limits)
        if self.share.work.window == self.share.work.receptive_field:
            return f"{window:.0%}"
        return f"{window:.0%} of the window, {receptive_field:.0%} of the receptive field"


class Run:
    """One run of the benchmark: its options, and processes to run sides in."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self._idle: dict[tuple[str, bool], list[Side]] = {}

    def measure(self, group: Group) -> Iterator[Line]:
        """Time the sides of a group in turns; what cannot be run is a line that says why."""
        if self.options.only is not None and self.options.only not in group.name:
            return
        sizes = {spec.label: self._sizes(group, spec) for spec in group.sides}
        print(f"{group.name} ...", file=sys.stderr, flush=True)
        times: dict[str, Times] = {}
        failed: dict[str, str] = {}
        # A tiny run has no use for turns: one side after the other can then share a process.
        for group_sides in [(spec,) for spec in group.sides] if self.options.tiny else [group.sides]:
            with ExitStack() as stack:
                sides = self._start(group_sides, sizes, failed, stack)
                timed = interleave(list(sides.values()), self.options.rounds, self.options.repeats)
            times |= zip(sides, timed, strict=True)
        yield from self._pairs(group, sizes, times, failed)
        paired = {label for pair in group.pairs for label in (pair.slow, pair.fast)}
        for spec in group.sides:
            if spec.label not in paired:
                yield self._alone(group, spec, sizes[spec.label], times, failed)

    def close(self) -> None:
        """End the processes that were kept."""
        for side in (side for sides in self._idle.values() for side in sides):
            side.close()

    def _sizes(self, group: Group, spec: Spec) -> Sizes:
        sizes = replace(group.sizes, **spec.sizes)
        if self.options.compile and spec.worker == "ours":
            sizes = replace(sizes, compile=True)
        if self.options.tiny:
            small = {name: min(getattr(sizes, name), largest) for name, largest in TINY.items()}
            sizes = replace(sizes, **small, compile=False)  # which would take longer than all else together
        return sizes

    def _start(
        self, specs: Sequence[Spec], sizes: Mapping[str, Sizes], failed: dict[str, str], stack: ExitStack
    ) -> dict[str, Side]:
        """Return the sides that can do their job; why the others cannot goes to `failed`."""
        failed |= {spec.label: reason for spec in specs if (reason := self._unusable(spec)) is not None}
        opened = {spec.label: self._open(spec, stack) for spec in specs if spec.label not in failed}
        sides: dict[str, Side] = {}
        for spec in specs:
            if spec.label in failed:
                continue
            side = opened[spec.label]
            try:
                side.start(spec.job, vars(sizes[spec.label]))
                side.go(1)  # what fails only when it runs is to fail here
                sides[spec.label] = side
            except SideError as error:
                failed[spec.label] = str(error)
        return sides

    def _unusable(self, spec: Spec) -> str | None:
        if spec.worker in self.options.without:
            return f"{spec.worker} is left out"
        return missing(spec.worker) if spec.worker == "recbole" else None

    def _open(self, spec: Spec, stack: ExitStack) -> Side:
        """Return a fresh process; of a tiny run, where numbers mean nothing, one that was used before."""
        idle = self._idle.setdefault((spec.worker, spec.tuned), [])
        idle[:] = [side for side in idle if side.alive]
        if idle:
            side = idle.pop()
            side.label = spec.label
        else:
            python = str(python_of(spec.worker)) if spec.worker == "recbole" else sys.executable
            side = Side(spec.label, FOLDER / SCRIPTS[spec.worker], python, tuned=spec.tuned)
        if self.options.tiny:
            stack.callback(idle.append, side)
        else:
            stack.callback(side.close)
        return side

    def _pairs(
        self, group: Group, sizes: Mapping[str, Sizes], times: Mapping[str, Times], failed: Mapping[str, str]
    ) -> Iterator[Line]:
        specs = {spec.label: spec for spec in group.sides}
        for pair in group.pairs:
            slow, fast = specs[pair.slow], specs[pair.fast]
            target_ratio = _target_text(pair.target_ratio, fast)
            reasons = [failed[spec.label] for spec in (slow, fast) if spec.label in failed]
            if reasons:
                yield Line(group.name, slow.label, fast.label, target_ratio=target_ratio, skipped="; ".join(reasons))
                continue
            a, b = times[slow.label], times[fast.label]
            units = slow.units(sizes[slow.label]), fast.units(sizes[fast.label])
            share = _share(fast, sizes[fast.label], b)
            data = {"a": a.rounds, "b": b.rounds, "units": units}
            yield Line(group.name, slow.label, fast.label, ratio(a, b, units), share, target_ratio, data=data)

    def _alone(
        self, group: Group, spec: Spec, sizes: Sizes, times: Mapping[str, Times], failed: Mapping[str, str]
    ) -> Line:
        target_ratio = _target_text(None, spec)
        if spec.label in failed:
            return Line(group.name, "", spec.label, target_ratio=target_ratio, skipped=failed[spec.label])
        measured = times[spec.label]
        return Line(
            group.name, "", spec.label, "", _share(spec, sizes, measured), target_ratio, data={"b": measured.rounds}
        )


def _share(spec: Spec, sizes: Sizes, times: Times) -> Share | None:
    return Share(spec.work(sizes), times.median, sizes.precision) if spec.work is not None else None


def _target_text(times: float | None, spec: Spec) -> str:
    parts = [f"{times:g} x"] if times is not None else []
    return ", ".join(parts + ([f"{spec.target_ratio:.0%}"] if spec.target_ratio is not None else []))
