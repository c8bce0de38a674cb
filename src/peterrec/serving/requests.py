"""Questions to the engine and its answers: plain values, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from peterrec.arguments import describe
from peterrec.config import TaskKind
from peterrec.data.catalogue import ItemId
from peterrec.data.event_features import EventFeatureEncoder, EventValues
from peterrec.data.event_values import Problem, features_problem, length_problem, seconds_array
from peterrec.data.sequences import IntArray
from peterrec.data.ties import FloatArray
from peterrec.errors import RequestError

EVERY_TASK = "*"


@dataclass(frozen=True)
class Question:
    """The tasks to answer about a user, and how.

    A question is checked when it is prepared (`Engine.prepare`), not when it is made.

    Attributes:
        tasks: names of loaded bundles, or `*` for all of them.
        k: items of a ranking task, at least 1.
        exclude_seen: leave out items of the user's own history; None: as each bundle says.
        patched: apply the patches; False: every head reads the plain backbone, to show the effect of the patch.
    """

    tasks: Sequence[str] | Literal["*"] = EVERY_TASK
    k: int = 10
    exclude_seen: bool | None = None
    patched: bool = True


def check_question(question: Question) -> None:
    """Refuse a question whose fields are not valid, whatever is loaded.

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
    """A question about a user whose T events come with it.

    Attributes:
        items: T external ids, oldest first; empty for a user without events.
        question: tasks and options.
        times: T times of the events, never decreasing: seconds since 1970, or numbers as the prepared log has.
            None: nothing is left out by its time.
        domains: T domains of the events, None for an event without one; None: nothing is left out by its domain.
        features: of T events, what each says beside its item, by the columns of the prepared log: `{"type": "view"}`;
            what an event does not say is missing. None: nothing is told.
    """

    items: Sequence[ItemId]
    question: Question = Question()
    times: Sequence[float] | None = None
    domains: Sequence[str | None] | None = None
    features: Sequence[EventValues | None] | None = None


@dataclass(frozen=True)
class ClassAnswer:
    """The answer of a classification task.

    Attributes:
        version: of the bundle that answered.
        label: the most probable class, or by the threshold of the bundle.
        probabilities: of each class by name, in [0, 1]; they sum to 1.
        class_set: classes among which the true one is as often as the bundle promises; none where it promises nothing.
        kind: of the task.
    """

    version: str
    label: str
    probabilities: dict[str, float]
    class_set: list[str] = field(default_factory=list)
    kind: Literal["classification"] = "classification"


@dataclass(frozen=True)
class ItemsAnswer:
    """The answer of a ranking task.

    Attributes:
        version: of the bundle that answered.
        items: at most k external ids, best first.
        scores: of these items; higher is better.
        kind: of the task.
    """

    version: str
    items: list[ItemId]
    scores: list[float]
    kind: Literal["ranking"] = "ranking"


@dataclass(frozen=True)
class NumberAnswer:
    """The answer of a regression task, in the unit of its numbers.

    Attributes:
        version: of the bundle that answered.
        prediction: the number; of a bundle that learned quantiles the median.
        quantiles: by name (`q0.1`, ...), ascending; none where only the prediction was learned.
        kind: of the task.
    """

    version: str
    prediction: float
    quantiles: dict[str, float]
    kind: Literal["regression"] = "regression"


@dataclass(frozen=True)
class LabelsAnswer:
    """The answer of a multilabel task.

    Attributes:
        version: of the bundle that answered.
        labels: those that reach the threshold of the bundle, 0.5 unless one was chosen, the most frequent one among the
            train users first; any number.
        probabilities: of each label by name, in [0, 1]; they have no sum.
        kind: of the task.
    """

    version: str
    labels: list[str]
    probabilities: dict[str, float]
    kind: Literal["multilabel"] = "multilabel"


TaskAnswer = ClassAnswer | ItemsAnswer | NumberAnswer | LabelsAnswer


@dataclass(frozen=True)
class Answer:
    """The answer to one request.

    Attributes:
        tasks: answer of each task of the question, by name.
        events: number of events of the user.
        unknown_items: number of events whose items the backbone's catalogue does not have.
        known_events: number of events that the task with the fewest reads as items of the catalogue, without those that
            were left out when its data were prepared; 0: it answers with the class or label shares, the most popular
            items or the mean number of the users that the bundle was trained on.
        assumptions: lines about times and domains that were assumed because the events have none.
    """

    tasks: dict[str, TaskAnswer]
    events: int
    unknown_items: int
    known_events: int
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """The contribution of each event to an answer (leave one out).

    Attributes:
        task: its name.
        version: of the bundle.
        of: the class, or the item, whose value is explained: the answered or most probable, the best; or `prediction`.
        value: its probability, its score, or the predicted number, with all events.
        contributions: (T,) `value` minus the value without event t; positive: the event supports the answer.
    """

    task: str
    version: str
    of: ItemId
    value: float
    contributions: list[float]


@dataclass(frozen=True)
class TaskInfo:
    """A task that questions may name: a loaded bundle.

    Attributes:
        name: in questions.
        kind: of the task.
        version: of the bundle that answers now.
        classes: names of the classes of a classification task, else none.
        targets: items that a ranking task chooses from, else 0.
        exclude_seen: whether a ranking leaves out items of the user's own history unless a question says otherwise.
        exclude_seen_reason: why, in words.
    """

    name: str
    kind: TaskKind
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
        strategy: of its training, such as `patch` or `head`.
        parameters: number of parameters that it adds to the backbone: patch, head, modules of its own.
        patched_blocks: blocks with a patch.
        streamed: whether users' states are kept up to date event by event; else a window is computed again.
        index: how targets are searched: `kind` (exact, approximate), `recall`; None for classes.
        metrics: as the bundle's metrics.json has them under `valid`.
        withdrawn: whether it was rolled back: it answers again only if it is named, or loaded.
        generation: of the registry that replicas share, in the answer to a change: this replica has made it, and so has
            every replica whose `GET /v1/bundles` tells this generation or a later one. Else None.
    """

    name: str
    version: str
    active: bool
    path: str
    loaded_at: float
    kind: TaskKind
    strategy: str
    parameters: int
    patched_blocks: int
    streamed: bool
    index: dict[str, Any] | None
    metrics: dict[str, Any] = field(default_factory=dict)
    withdrawn: bool = False
    generation: int | None = None


@dataclass(frozen=True)
class FailedBundle:
    """A version of a bundle that answered before a restart and could not be loaded.

    Attributes:
        name: of the bundle.
        version: that should answer.
        message: of the error.
        remedy: of the error.
        path: file or folder of the error.
    """

    name: str
    version: str
    message: str
    remedy: str
    path: str


def times_and_domains(request: Request) -> tuple[FloatArray | None, Sequence[str | None] | None]:
    """Return the times and the domains of a request.

    Raises:
        RequestError: they are not such, or not one for each item.
    """
    for name, values in (("times", request.times), ("domains", request.domains), ("features", request.features)):
        if (problem := length_problem(name, values, len(request.items))) is not None:
            raise RequestError(problem.message, remedy=problem.remedy)
    if request.times is None:
        return None, request.domains
    times = seconds_array(request.times)
    if isinstance(times, Problem):
        raise RequestError(times.message, remedy=times.remedy)
    return times, request.domains


def feature_codes(request: Request, encoder: EventFeatureEncoder | None, seconds: FloatArray | None) -> IntArray | None:
    """Return the codes of the features of the events of a request, (T,); None where nothing is told or read.

    Args:
        request: whose features are as many as its items.
        encoder: of the model; None: it reads items alone.
        seconds: (T,) times.

    Raises:
        RequestError: they are not such, there is no such feature, or a value cannot be one of its column.
    """
    events = [None] * len(request.items) if request.features is None else request.features
    if (problem := features_problem(events, encoder)) is not None:
        raise RequestError(problem.message, remedy=problem.remedy)
    if encoder is None or (request.features is None and not (encoder.needs_times and seconds is not None)):
        return None
    return encoder.encode_values(events, seconds)
