"""Rows of what is done with a trained backbone: representations, and the best items of the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import work
from rows import Group, Line, Pair, Run, Spec
from work import Work
from worker import Sizes

FORMS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "fp32, compiled": {"compile": True},
    "bf16": {"precision": "bf16"},
    "bf16, compiled": {"precision": "bf16", "compile": True},
}
TargetRatios = tuple[float | None, float | None]  # in fp32, and in bf16


def lines(run: Run) -> Iterator[Line]:
    for group in (representations(), long_histories(), ranking()):
        yield from run.measure(group)


def ours(
    job: str, count: Callable[[Sizes], Work], target_ratio: TargetRatios = (None, None), **sizes: Any
) -> tuple[Spec, ...]:
    """Return our sides: in fp32 and bf16, as they are and compiled."""
    return tuple(
        Spec(
            f"ours, {name}",
            "ours",
            job,
            sizes | form,
            tuned=True,
            work=count,
            target_ratio=ratio_of_precision(name, target_ratio),
        )
        for name, form in FORMS.items()
    )


def ratio_of_precision(name: str, target_ratio: TargetRatios) -> float | None:
    """Return what is asked of a form."""
    return target_ratio[name.startswith("bf16")]


def pairs_with(peer: str, target_ratio: TargetRatios = (None, None)) -> tuple[Pair, ...]:
    """Return the pairs of our sides with a peer."""
    return tuple(Pair(peer, f"ours, {name}", ratio_of_precision(name, target_ratio)) for name in FORMS)


def representations() -> Group:
    return Group(
        "user representations, 50 events",
        Sizes(),
        (
            Spec("RecBole NextItNet", "recbole", "represent"),
            Spec("plain form (Conv1d)", "plain", "represent"),
            *ours("represent", work.represent, (0.85, 0.70)),
        ),
        (*pairs_with("RecBole NextItNet", (1.6, 2.6)), Pair("plain form (Conv1d)", "ours, fp32")),
    )


def long_histories() -> Group:
    return Group(
        "user representations, 200 events",
        Sizes(events=200),
        (
            Spec("ours, every position, fp32", "ours", "represent", {"full_pass": True}, tuned=True),
            *ours("represent", work.represent),
        ),
        (
            Pair("ours, every position, fp32", "ours, fp32", 2.5),
            *(Pair("ours, every position, fp32", f"ours, {name}") for name in list(FORMS)[1:]),
        ),
    )


def ranking() -> Group:
    peers: dict[str, TargetRatios] = {"RecBole NextItNet": (1.8, 2.8), "plain form (Tenrec)": (25, 25)}
    return Group(
        "full ranking, top 10",
        Sizes(),
        (
            Spec("RecBole NextItNet", "recbole", "rank"),
            Spec("plain form (Tenrec)", "plain", "rank"),
            *ours("rank", work.rank),
        ),
        tuple(pair for peer, target_ratio in peers.items() for pair in pairs_with(peer, target_ratio)),
    )
