"""Filter summary of a preparation: events kept and dropped at each step, and the shape of the data for reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from peterrec.config import NewUsersConfig, PrepareConfig, SourceConfig
from peterrec.data.new_users import NOBODY
from peterrec.data.prepare.plausibility import owner_warning
from peterrec.data.prepare.source_events import Source, Step
from peterrec.data.prepare.tasks import UserHistories
from peterrec.data.sequences import FIRST_ITEM, IntArray

EDGES = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000, 1_000_000)


def sequence_steps(source: Source, histories: UserHistories, config: SourceConfig) -> list[Step]:
    """Return the steps of the filter summary that happen while sequences are cut."""
    events, remaining = int(source.users.events.sum()), len(histories.sequences.items)
    reasons = [f"more than the last {config.max_history} events of a user"]
    if config.repeats == "drop":
        reasons.append("a repeat of the event before")
    if config.min_user_events > 1:
        reasons.append(f"the user has fewer than {config.min_user_events} events")
    dropped = events - remaining
    return [
        {
            "what": "events of the sequences",
            "events": remaining,
            "dropped": dropped,
            "why": _join_reasons(reasons, dropped),
        }
    ]


def _join_reasons(reasons: list[str], dropped: int) -> str:
    return ", or ".join(reasons) if dropped else ""


def new_user_counts(source: Source, histories: UserHistories, config: NewUsersConfig) -> dict[str, dict[str, int]]:
    """Return users and events of the sequences that are kept out of what is learned without labels, as `new_users`.

    Empty where the settings keep nobody out, as in corpora of before there were any.
    """
    if config == NOBODY:
        return {}
    lengths = histories.lengths[source.users.new]
    return {"new_users": {"users": int((lengths > 0).sum()), "events": int(lengths.sum())}}


def new_user_warnings(source: Source, config: PrepareConfig) -> list[str]:
    """Return warnings where users are to be kept out: there is nobody of the kind, or the catalogue may know them."""
    if config.new_users == NOBODY:
        return []
    if not source.users.new.any():
        return ["new_users keeps nobody out: no user with source events is as it says"]
    remark = "the catalogue was made elsewhere: events of new users may count in it, unless they were kept out there"
    return [] if config.catalogue is None else [remark]


def shape(source: Source, histories: UserHistories) -> dict[str, Any]:
    """Return histograms and summary values of the data, as plain values for charts."""
    lengths = histories.sequences.lengths
    counts = np.zeros(len(source.catalogue), dtype=np.int64)
    step = 10_000_000
    for start in range(0, len(histories.sequences.items), step):
        part = np.asarray(histories.sequences.items[start : start + step])
        counts += np.bincount(part, minlength=FIRST_ITEM + len(counts))[FIRST_ITEM:]
    ordered = np.sort(counts)[::-1]
    return {
        "history_length": _histogram(lengths, "users"),
        "item_events": _histogram(counts[counts > 0], "items"),
        "median_history": float(np.median(lengths)),
        "top_share": {str(share): _top_share(ordered, share) for share in (1, 10)},
        **source.time_range,
    }


def owner_warnings(source: Source) -> list[str]:
    """Return warnings about a user or an item that has an implausible share of the source events."""
    users, items = source.users, np.flatnonzero(source.item_events)

    def user(place: int) -> Any:
        return users.table.filter(users.table["place"] == place).select("user").to_pyarrow()["user"][0].as_py()

    names = source.catalogue.ids.take(pa.array(items))
    item_warnings = owner_warning("item", source.item_events[items], lambda place: names[place].as_py())
    return [*owner_warning("user", users.events, user), *item_warnings]


def _histogram(values: IntArray, name: str) -> dict[str, list[int]]:
    edges = [edge for edge in EDGES if not len(values) or edge <= values.max()] or [1]
    bins = np.searchsorted(edges, values, side="right") - 1
    return {"edges": list(edges), name: np.bincount(bins, minlength=len(edges)).tolist()}


def _top_share(ordered: IntArray, percent: int) -> float:
    count = max(1, round(len(ordered) * percent / 100))
    return float(ordered[:count].sum() / max(1, ordered.sum()))


def summary_lines(manifest: dict[str, Any]) -> list[str]:
    """Return the filter summary as lines: what was kept, what was dropped and why."""
    lines = [_line(step["what"], step["events"], "", step) for step in manifest["steps"]]
    if manifest["ties"]["events"]:
        lines.append(tie_line(manifest["ties"]))
    lines.append(f"corpus: {manifest['users']:,} users, {manifest['events']:,} events, {manifest['items']:,} items")
    if "new_users" in manifest:
        lines.append(
            f"new users: {manifest['new_users']['users']:,} of them, with {manifest['new_users']['events']:,} events, "
            "are kept out of all that is learned without labels (pre-training, catalogue, item factors)"
        )
    for task in manifest["tasks"]:
        lines += [_line(step["what"], step["users"], f"task {task['name']}: ", step) for step in task["steps"]]
        parts = ", ".join(f"{count:,} {part}" for part, count in task["users"].items())
        lines.append(f"task {task['name']}: {parts} users; {_task_contents(task)}")
    return lines + [f"warning: {line}" for line in manifest["warnings"]]


def tie_line(ties: dict[str, Any]) -> str:
    """Return the line that says how many events the log itself does not order."""
    return (
        f"{ties['events']:,} of these events ({percent(ties['fraction'])}) share their user and time with another, and "
        "nothing else orders them: they stand in the order of a hash, which has no meaning. If a column tells which "
        "came first, name it (--order COLUMN); if the lines of the files do, say --ties lines"
    )


def percent(fraction: float) -> str:
    """Return a share as people write it."""
    return f"{100 * fraction:.1f} %" if fraction >= 0.001 else "less than 0.1 %"


def _line(description: str, remaining: int, prefix: str, step: dict[str, Any]) -> str:
    dropped = f" ({step['dropped']:,} dropped: {step['why']})" if step["dropped"] else ""
    remark = f" ({step['why']})" if step["why"] and not step["dropped"] else ""
    return f"{prefix}{remaining:,} {description}{dropped}{remark}"


def _task_contents(task: dict[str, Any]) -> str:
    if task["kind"] == "ranking":
        return f"{task['pairs']:,} targets out of {task['targets']:,} items"
    if task["kind"] == "regression":
        numbers = {name: f"{value:,.6g}" for name, value in task["numbers"].items()}
        return "numbers from {min} to {max}, median {median}, mean {mean}, deviation {deviation}".format(**numbers)
    if task["kind"] == "multilabel":
        total = sum(task["users"].values())
        shares = ", ".join(f"{entry['name']}: {100 * entry['users'] / total:.1f} %" for entry in task["labels"][:10])
        return f"{shares}{', ...' if len(task['labels']) > 10 else ''} ({len(task['labels'])} labels)"
    total = sum(entry["users"] for entry in task["classes"])
    shares = ", ".join(f"{entry['name']}: {100 * entry['users'] / total:.1f} %" for entry in task["classes"][:10])
    return shares + (f", ... ({len(task['classes'])} classes)" if len(task["classes"]) > 10 else "")
