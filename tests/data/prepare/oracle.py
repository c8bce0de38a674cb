"""`prepare` once more, in dictionaries and loops: what must come out of a small log.

Times here are small integers, whatever they are in the files; ids are what the catalogue must hold. Nothing of the
package is used.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

UNK, FIRST_ITEM = 3, 4
PARTS = ("train", "valid", "test")
Id = str | int


class RefusedError(Exception):
    """Input that `prepare` must refuse."""


@dataclass(frozen=True)
class Row:
    """An event; `order` and `domain` are None where the log has no such column; `seconds` is its time in the log."""

    user: str
    item: Id
    time: int
    order: int | None = None
    domain: str | None = None
    seconds: float = 0.0

    def key(self) -> tuple[Any, ...]:
        return (self.time, self.order or 0, tie_of(self.user, self.seconds, self.item))

    def content(self) -> tuple[Any, ...]:
        """Return the values by which two rows of two files are the same event."""
        return (self.user, self.item, self.time, self.domain)


@dataclass(frozen=True)
class TaskSettings:
    """A task of any kind: `labels` (a table of users and labels), `activity`, or targets."""

    name: str
    labels: tuple[tuple[str, str | None], ...] | None = None
    activity: bool = False
    after: int | None = None
    before: int | None = None
    domains: tuple[str, ...] | None = None
    own_events: tuple[Row, ...] | None = None
    first_only: bool = False
    min_item_events: int = 1
    min_user_events: int = 1
    min_class_users: int = 1
    first_events: int | None = None
    last_events: int | None = None
    until: int | None = None


@dataclass(frozen=True)
class Settings:
    """Filters of the source, and the split of users."""

    domains: tuple[str, ...] | None = None
    exclude_domains: tuple[str, ...] = ()
    after: int | None = None
    before: int | None = None
    min_item_events: int = 1
    min_user_events: int = 1
    max_history: int = 200
    repeats: str = "keep"
    rare_items: str = "drop"
    split: tuple[float, float] = (0.5, 0.25)  # train, valid
    salt: str = "peterrec"
    new_parts: tuple[str, ...] = ()
    new_fraction: float = 0.0
    new_seed: int = 0
    first_event_after: int | None = None


@dataclass
class ExpectedTask:
    """Users of each part: history, and label or targets; what the classes or targets are."""

    parts: dict[str, dict[str, tuple[list[int], Any]]] = field(default_factory=lambda: {part: {} for part in PARTS})
    class_names: list[str] = field(default_factory=list)
    targets: list[tuple[Id, int]] = field(default_factory=list)


def hash_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def mix(value: int) -> int:
    mask = 2**64 - 1
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & mask
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & mask
    return value ^ (value >> 31)


def tie_of(user: str, seconds: float, item: Id) -> int:
    """Return the key that orders events of a user with equal times: a hash of all three."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", seconds))
    return mix(mix(hash_of(user) ^ mix(bits)) ^ hash_of(str(item)))


def draw_of(user: str, salt: str) -> float:
    return (mix(hash_of(user) ^ hash_of(f"salt:{salt}")) >> 11) * 2.0**-53


def part_of(user: str, settings: Settings) -> str:
    drawn = draw_of(user, settings.salt)
    train, valid = settings.split
    return "train" if drawn < train else "valid" if drawn < train + valid else "test"


def id_order(item: Id) -> Any:
    return item.encode() if isinstance(item, str) else item


def within(time: int, after: int | None, before: int | None) -> bool:
    return (after is None or time >= after) and (before is None or time < before)


class Oracle:
    """The whole of `prepare` on rows in memory.

    Raises:
        RefusedError: no source event is left.
    """

    def __init__(self, rows: list[Row], settings: Settings, catalogue: list[Id] | None = None) -> None:
        self.rows, self.settings = rows, settings
        self.chosen = [
            row
            for row in rows
            if (settings.domains is None or row.domain in settings.domains)
            and row.domain not in settings.exclude_domains
            and within(row.time, settings.after, settings.before)
        ]
        self.new_users = {row.user for row in self.chosen if self.is_new(row.user)}
        if self.chosen and len(self.new_users) == len({row.user for row in self.chosen}):
            raise RefusedError("nobody to pre-train on")
        counts = Counter(row.item for row in self.chosen if row.user not in self.new_users)
        if catalogue is None:
            frequent = [item for item, count in counts.items() if count >= settings.min_item_events]
            self.catalogue = sorted(frequent, key=lambda item: (-counts[item], id_order(item)))
        else:
            self.catalogue = catalogue
        self.counts = [counts[item] for item in self.catalogue]
        self.index = {item: FIRST_ITEM + place for place, item in enumerate(self.catalogue)}
        if not any(row.item in self.index for row in self.chosen):
            raise RefusedError("no event is left")
        self.events: dict[str, list[Row]] = {}
        for row in self.chosen:
            if row.item in self.index or settings.rare_items == "unk":
                self.events.setdefault(row.user, []).append(row)
        for rows_of_user in self.events.values():
            rows_of_user.sort(key=Row.key)
        histories = {user: self.history(rows_of_user) for user, rows_of_user in self.events.items()}
        self.sequences = {user: items for user, items in histories.items() if len(items) >= settings.min_user_events}
        if not self.sequences:
            raise RefusedError("no user has enough events")
        if set(self.sequences) <= self.new_users:
            raise RefusedError("nobody with enough events to pre-train on")

    def is_new(self, user: str) -> bool:
        settings = self.settings
        first = min(row.time for row in self.chosen if row.user == user)
        return (
            part_of(user, settings) in settings.new_parts
            or draw_of(user, f"new-users-{settings.new_seed}") < settings.new_fraction
            or (settings.first_event_after is not None and first >= settings.first_event_after)
        )

    def history(self, events: list[Row], until: int | None = None, task: TaskSettings | None = None) -> list[int]:
        read: list[Row] = []
        for row in events:
            if until is not None and row.time >= until:
                continue
            if task is not None and task.until is not None and row.time >= task.until:
                continue
            if self.settings.repeats == "drop" and read and read[-1].item == row.item:
                continue
            read.append(row)
        if task is not None and task.first_events is not None:
            read = read[: task.first_events]
        if task is not None and task.last_events is not None:
            read = read[-task.last_events :]
        return [self.index.get(row.item, UNK) for row in read[-self.settings.max_history :]]

    def task_histories(self, task: TaskSettings) -> dict[str, list[int]]:
        return {user: self.history(self.events[user], None, task) for user in self.sequences}

    def task(self, task: TaskSettings) -> ExpectedTask:
        """Return the task as it must be.

        Raises:
            RefusedError: it cannot be learned, or its answers are in the source.
        """
        if task.labels is not None:
            return self._labelled(task, list(task.labels))
        if task.activity:
            if any(row.time >= (task.after or 0) for row in self.chosen):
                raise RefusedError("leak")
            active = {row.user for row in self.rows if within(row.time, task.after, task.before)}
            return self._labelled(task, [(user, "yes" if user in active else "no") for user in self.events])
        return self._ranking(task)

    def _labelled(self, task: TaskSettings, table: list[tuple[str, str | None]]) -> ExpectedTask:
        users = [user for user, _ in table]
        if len(set(users)) < len(users):
            raise RefusedError("a user twice")
        with_events = {user: label for user, label in table if label is not None and user in self.events}
        if not with_events:
            raise RefusedError("nobody is labelled")
        histories = self.task_histories(task)
        enough = {user: label for user, label in with_events.items() if self._long(histories.get(user), task)}
        if not task.activity:
            common = Counter(enough.values())
            enough = {user: label for user, label in enough.items() if common[label] >= task.min_class_users}
        expected = ExpectedTask()
        expected.class_names = ["no", "yes"] if task.activity else sorted(set(enough.values()), key=class_order(enough))
        for user, label in enough.items():
            code = expected.class_names.index(label)
            expected.parts[part_of(user, self.settings)][user] = (histories[user], code)
        self._check(expected)
        classes = [{label for _, label in users.values()} for users in expected.parts.values()]
        if len(set.union(*classes)) < 2 or classes[0] != set.union(*classes):
            raise RefusedError("a class cannot be learned")
        return expected

    def _ranking(self, task: TaskSettings) -> ExpectedTask:
        def is_target(row: Row) -> bool:
            return (task.domains is None or row.domain in task.domains) and within(row.time, task.after, task.before)

        targets = [row for row in (self.rows if task.own_events is None else task.own_events) if is_target(row)]
        if not targets:
            raise RefusedError("no targets")
        self._no_leak(task, {row.content() for row in targets if row.user in self.events or task.own_events is None})
        histories, wanted = self._visits(task, targets)
        users_of: dict[Id, set[str]] = {}
        for user, rows in wanted.items():
            for row in rows:
                users_of.setdefault(row.item, set()).add(user)
        counts = {
            item: sum(part_of(user, self.settings) == "train" for user in users)
            for item, users in users_of.items()
            if len(users) >= task.min_item_events
        }
        if len(counts) < 2:
            raise RefusedError("too few targets")
        expected = ExpectedTask()
        expected.targets = sorted(counts.items(), key=lambda pair: (-pair[1], id_order(pair[0])))
        index = {item: place for place, (item, _) in enumerate(expected.targets)}
        for user, rows in wanted.items():
            in_catalogue = sorted(
                (row for row in rows if row.item in index), key=lambda r: (*r.key()[:2], index[r.item])
            )
            if in_catalogue:
                distinct = list(dict.fromkeys(index[row.item] for row in in_catalogue))
                expected.parts[part_of(user, self.settings)][user] = (histories[user], distinct)
        self._check(expected)
        return expected

    def _no_leak(self, task: TaskSettings, targets: set[tuple[Any, ...]]) -> None:
        later = [row for row in self.chosen if task.domains is None and row.time >= (task.after or 0)]
        if (later and task.own_events is None) or any(row.content() in targets for row in self.chosen):
            raise RefusedError("leak")

    def _visits(self, task: TaskSettings, targets: list[Row]) -> tuple[dict[str, list[int]], dict[str, list[Row]]]:
        """The history and the target events of every user who has enough history."""
        histories, wanted = {}, {}
        for user in {row.user for row in targets} & set(self.sequences):
            user_targets = [row for row in targets if row.user == user]
            first = min(row.time for row in user_targets)
            history = self.history(self.events[user], first if task.first_only else None, task)
            if self._long(history, task):
                histories[user] = history
                wanted[user] = [row for row in user_targets if row.time == first or not task.first_only]
        return histories, wanted

    @staticmethod
    def _long(history: list[int] | None, task: TaskSettings) -> bool:
        return history is not None and len(history) >= task.min_user_events

    @staticmethod
    def _check(expected: ExpectedTask) -> None:
        if not all(expected.parts.values()):
            raise RefusedError("a part is empty")


def class_order(labels: dict[str, str]) -> Any:
    try:
        return {label: (float(label), label) for label in labels.values()}.__getitem__
    except ValueError:
        return str
