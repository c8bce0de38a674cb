"""Questions to the engine and its answers: plain values, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from peterrec.arguments import describe
from peterrec.data.catalogue import ItemId
from peterrec.errors import RequestError

EVERY_TASK = "*"


@dataclass(frozen=True)
class Question:
    """What is asked about a user.

    Attributes:
        tasks: names of loaded bundles, or `*` for all of them.
        k: items of a ranking task.
        exclude_seen: leave out items of the user's own history; None: as each bundle says.
        patched: with the patches; without, every head reads the plain backbone, to see what the patch does.
    """

    tasks: Sequence[str] | Literal["*"] = EVERY_TASK
    k: int = 10
    exclude_seen: bool | None = None
    patched: bool = True


def check_question(question: Question) -> None:
    """Refuse a question that is none, whatever is loaded.

    Raises:
        RequestError: it asks for no items, or its tasks are no list of names.
    """
    if not isinstance(question, Question):
        raise RequestError(f"a question is {describe(question)}", remedy="pass e.g. Question(['age'], k=10)")
    tasks, k = question.tasks, question.k
    if isinstance(tasks, str):
        if tasks != EVERY_TASK:
            raise RequestError("tasks are a list of names", remedy=f"write [{tasks!r}], or {EVERY_TASK!r} for all")
    elif not isinstance(tasks, list | tuple) or not all(isinstance(name, str) for name in tasks):
        raise RequestError(f"tasks are {describe(tasks)}", remedy=f"pass a list of names, or {EVERY_TASK!r} for all")
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise RequestError(f"k is {k!r:.40}", remedy="ask for at least one item, as a whole number")
    for name, value in (("exclude_seen", question.exclude_seen), ("patched", question.patched)):
        if not isinstance(value, bool) and not (name == "exclude_seen" and value is None):
            raise RequestError(f"{name} is {describe(value)}", remedy="say True or False")


@dataclass(frozen=True)
class Request:
    """A question about a user whose events are given.

    Attributes:
        items: external ids, oldest first; none for a user of whom nothing is known.
        question: what is asked.
        times: of the events, never decreasing: seconds since 1970, or numbers where the prepared log has numbers. None:
            nothing is left out by its time.
        domains: of the events, None for one without; None: nothing is left out by its domain.
    """

    items: Sequence[ItemId]
    question: Question = Question()
    times: Sequence[float] | None = None
    domains: Sequence[str | None] | None = None


@dataclass(frozen=True)
class ClassAnswer:
    """Of a classification task: the most probable class, and the probability of each by name.

    `version` is that of the bundle that answered.
    """

    version: str
    label: str
    probabilities: dict[str, float]
    kind: Literal["classification"] = "classification"


@dataclass(frozen=True)
class ItemsAnswer:
    """Of a ranking task: items from best to worst and their scores (higher is better)."""

    version: str
    items: list[ItemId]
    scores: list[float]
    kind: Literal["ranking"] = "ranking"


TaskAnswer = ClassAnswer | ItemsAnswer


@dataclass(frozen=True)
class Answer:
    """Of one request.

    Attributes:
        tasks: answer of each task that was asked for, by name.
        events: events of the user.
        unknown_items: how many of them are of items that the backbone's catalogue does not have.
        known_events: how many the task that reads fewest reads as items of the catalogue, none of those that were left
            out when its data were prepared; 0: it answers by what is known of everybody, the class shares or the most
            popular items of the users that the bundle was trained on.
        assumptions: what was assumed of the events because they do not tell it, in words.
    """

    tasks: dict[str, TaskAnswer]
    events: int
    unknown_items: int
    known_events: int
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """Which events mattered: what the answer loses without each of them (leave one out).

    Attributes:
        task: its name.
        version: of the bundle.
        of: the class, or the item, whose value is explained: the most probable, the best.
        value: its probability, or its score, with all events.
        contributions: (T,) `value` less what it is without event t; positive: the event speaks for the answer.
    """

    task: str
    version: str
    of: ItemId
    value: float
    contributions: list[float]


@dataclass(frozen=True)
class TaskInfo:
    """What may be asked: a loaded bundle, for those who ask.

    Attributes:
        name: to ask for it by.
        kind: of the task.
        version: of the bundle that answers now.
        classes: names of the classes of a classification task, else none.
        targets: items that a ranking task chooses from, else 0.
        exclude_seen: whether a ranking leaves out items of the user's own history unless a question says otherwise.
        exclude_seen_reason: why, in words.
    """

    name: str
    kind: Literal["classification", "ranking"]
    version: str
    classes: tuple[str, ...]
    targets: int
    exclude_seen: bool = True
    exclude_seen_reason: str = ""


@dataclass(frozen=True)
class VersionInfo:
    """One version of a bundle, for operators.

    Attributes:
        name: of the task, as it is asked for.
        version: made from the fingerprint of its tensors: the same bundle has the same one everywhere.
        active: whether it answers now.
        path: folder it was read from; empty for one made in memory.
        loaded_at: seconds since 1970.
        kind: of the task.
        strategy: what was trained.
        parameters: numbers it adds to the backbone: patch, head, modules of its own.
        patched_blocks: blocks with a patch.
        streamed: whether users' states are kept up to date event by event; else a window is computed again.
        index: how targets are searched: `kind` (exact, approximate), `recall`; None for classes.
        metrics: as the bundle's metrics.json has them under `valid`.
        withdrawn: whether somebody went back from it: it answers again only if it is named, or loaded.
    """

    name: str
    version: str
    active: bool
    path: str
    loaded_at: float
    kind: Literal["classification", "ranking"]
    strategy: str
    parameters: int
    patched_blocks: int
    streamed: bool
    index: dict[str, Any] | None
    metrics: dict[str, Any] = field(default_factory=dict)
    withdrawn: bool = False


@dataclass(frozen=True)
class FailedBundle:
    """A version of a bundle that was there before a restart, and could not be loaded.

    Attributes:
        name: of the bundle.
        version: that should answer.
        message: what is wrong.
        remedy: what to do.
        path: file or folder that it is about.
    """

    name: str
    version: str
    message: str
    remedy: str
    path: str
