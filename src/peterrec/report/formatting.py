"""Numbers and names as the report writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

NBSP = "\u00a0"  # a number and its unit stay on one line
MINUS = "\u2212"
DASH = "\u2013"  # between two numbers
NONE = DASH  # where there is no number
METRICS = {
    **{"auc": "AUC", "macro_f1": "macro-F1", "log_loss": "log-loss", "ece": "ECE"},
    **{"macro_auc": "macro-AUC", "macro_ap": "macro-AP"},
    **{"mae": "MAE", "rmse": "RMSE", "spearman": "Spearman", "pinball": "pinball loss", "loss": "loss"},
    **{"train_loss": "train loss", "valid_loss": "valid loss"},
    **{"hr": "HR", "mrr": "MRR", "ndcg": "NDCG"},
}


def count(value: float) -> str:
    """Return a number with separators: 12,345; halves (of medians) keep their digit."""
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.1f}"


def compact(value: float) -> str:
    """Return a number in few characters: 1.24 M, 48.2 k, 812."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            scaled = value / (1e3 if unit == "k" else size)
            return f"{scaled:.{2 if scaled < 10 else 1}f}{NBSP}{unit}"
    return count(value)


def percent(share: float) -> str:
    """Return a share (0 .. 1) in per cent, with three digits that count; never 0 for what is not 0."""
    value = 100 * share
    if value == 0:
        return f"0{NBSP}%"
    if value < 0.01:
        return f"<{NBSP}0.01{NBSP}%"
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}{NBSP}%"


def duration(seconds: float) -> str:
    """Return a time in its two largest units."""
    if seconds < 10:
        return f"{seconds:.1f}{NBSP}s"
    total = round(seconds)
    hours, minutes, remainder = total // 3600, total % 3600 // 60, total % 60
    if hours:
        return f"{hours}{NBSP}h {minutes}{NBSP}min"
    return f"{minutes}{NBSP}min {remainder}{NBSP}s" if minutes else f"{remainder}{NBSP}s"


def size(count_of_bytes: float) -> str:
    """Return a size in decimal units."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count_of_bytes >= limit:
            return f"{count_of_bytes / limit:.1f}{NBSP}{unit}"
    return f"{count_of_bytes:.0f}{NBSP}bytes"


def digits_for(values: Iterable[float]) -> int:
    """Return how many decimals tell the values of one metric apart: small metrics need one more."""
    return 4 if max((abs(value) for value in values), default=1.0) < 0.1 else 3


def number(value: float | None, digits: int = 3) -> str:
    """Return a metric, or a dash where it is undefined."""
    return NONE if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """Return a difference with its sign."""
    return NONE if value is None else f"{value:+.{digits}f}".replace("-", MINUS)


def limits(low: float | None, high: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """Return the limits of an interval, or say that there is none."""
    if low is None or high is None:
        return "no interval"
    write = signed if sign else number
    return f"{write(low, digits)} to {write(high, digits)}"


def metric(name: str) -> str:
    """Return a metric's name as people write it: `mrr@5 sampled-99` is MRR@5, sampled."""
    short, _, suffix = name.partition(" ")
    kind, at, k = short.partition("@")
    label = METRICS.get(kind, kind) + at + k
    return f"{label}, {suffix.partition('-')[0]}" if suffix else label


def sentence_case(text: str) -> str:
    """Return the text with a capital at its start."""
    return text[:1].upper() + text[1:]


def bins(edges: Sequence[int]) -> list[str]:
    """Return the names of bins by their lower bounds: 1, 2, 3–4, 5–9, 10+."""
    closed = [
        count(low) if following == low + 1 else f"{count(low)}{DASH}{count(following - 1)}"
        for low, following in pairwise(edges)
    ]
    return [*closed, f"{count(edges[-1])}+"] if edges else []


def join(names: Sequence[str], limit: int = 4) -> str:
    """Return names as a phrase; of many, only the first few and how many more."""
    if len(names) > limit:
        return f"{', '.join(names[: limit - 1])} and {len(names) - limit + 1} more"
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def plural(number_of: int, noun: str) -> str:
    """Return `1 task`, `3 tasks`, `2 classes`."""
    if number_of == 1:
        return f"1 {noun}"
    return f"{count(number_of)} {noun}{'es' if noun.endswith('s') else 's'}"


def share(value: float) -> str:
    """Return a share that was chosen, without more digits than it has: 5 %, 0.5 %."""
    return f"{100 * value:g}{NBSP}%"


def p_value(value: float) -> str:
    """Return a p-value as sentences show it."""
    if value < 0.001:
        return f"p{NBSP}<{NBSP}0.001"
    return f"p{NBSP}={NBSP}{value:.3f}" if value < 0.9995 else f"p{NBSP}={NBSP}1"


def counted(groups: Mapping[str, Sequence[str]], total: int, noun: str = "task") -> str:
    """Return how many belong to each group, and which where it is not all: better on 2 of 3 tasks, worse on 1 (age)."""
    parts: list[str] = []
    for name, members in groups.items():
        if len(members) == total:
            tasks = join(members) if total == 1 else f"all {plural(total, noun)}"
        elif parts:
            tasks = f"{len(members)} ({join(members)})"
        else:
            tasks = f"{len(members)} of {plural(total, noun)} ({join(members)})"
        parts.append(f"{name} on {tasks}")
    return ", ".join(parts)
