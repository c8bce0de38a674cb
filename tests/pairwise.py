"""Fewer cases of a product of parameters: every pair of their traits at least once, not every combination."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import combinations
from typing import TypeVar

FULL = os.environ.get("PETERREC_FULL") == "1"
Case = TypeVar("Case")


def pairwise(cases: Sequence[Case], traits: Callable[[Case], Iterable[Hashable]], *, full: bool = FULL) -> list[Case]:
    """Some of the cases, in their order, that together have every trait and every pair of traits that any case has.

    Args:
        cases: all of them.
        traits: of a case.
        full: whether all are returned; `PETERREC_FULL=1` (`make test-full`).
    """
    if full:
        return list(cases)
    covers = [set(combinations(sorted(map(repr, traits(case))), 2)) for case in cases]
    missing, chosen = set().union(*covers), []
    while missing:
        best = max(range(len(cases)), key=lambda number: len(covers[number] & missing))
        chosen.append(best)
        missing -= covers[best]
    return [cases[number] for number in sorted(chosen)]
