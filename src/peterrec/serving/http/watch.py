"""Counts of what bundles see and say, by the bins of their references, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram

from peterrec.data.reference import Distribution, Reference, Values
from peterrec.serving.bundle_groups import RegistrySnapshot
from peterrec.serving.requests import Answer, ClassAnswer, ItemsAnswer, LabelsAnswer, NumberAnswer, TaskAnswer

EVENTS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class AnswerCounts:
    """Counters of users, their events, and answers.

    Args:
        registry: of the service.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._users = Counter(
            "peterrec_asked_users", "Users who were asked about, with some known events or none.", ["known"],
            registry=registry,
        )  # fmt: skip
        self._events = Counter(
            "peterrec_asked_events", "Their events, of known items or unknown ones.", ["known"], registry=registry
        )
        self._history = Histogram(
            "peterrec_history_events", "Known events of these users.", buckets=EVENTS, registry=registry
        )
        self._answered = Counter(
            "peterrec_answered", "Answers by the bins of the bundle's reference.", ["task", "quantity", "bin"],
            registry=registry,
        )  # fmt: skip

    def count(self, answer: Answer, references: dict[str, Reference]) -> None:
        """Count an answer.

        Args:
            answer: about a user.
            references: of the bundles that have one, by task.
        """
        self._users.labels("some" if answer.known_events else "none").inc()
        self._events.labels("unknown").inc(answer.unknown_items)
        self._events.labels("known").inc(answer.events - answer.unknown_items)
        self._history.observe(answer.known_events)
        if not answer.known_events:
            return  # everybody gets the same answer then
        for task, reference in references.items():
            if task in answer.tasks:
                for quantity, value in quantities_of(answer.tasks[task]):
                    if (distribution := reference.quantities.get(quantity)) is not None:
                        self._answered.labels(task, quantity, bin_of(distribution, value)).inc()


def references_of(snapshot: RegistrySnapshot) -> dict[str, Reference]:
    """Return what the valid users of the bundles that answer were like, by task; of those that have a reference."""
    loaded = snapshot.loaded.items()
    return {name: version.bundle.reference for name, version in loaded if version.bundle.reference is not None}


def quantities_of(answer: TaskAnswer) -> Iterator[tuple[str, float | str]]:
    """Yield what of an answer a reference may have, by its name there (`evaluation.observed`)."""
    match answer:
        case ClassAnswer():
            yield "class", answer.label
            yield "highest probability", max(answer.probabilities.values())
            yield from ((f"p({name})", value) for name, value in answer.probabilities.items())
        case LabelsAnswer():
            yield from ((f"p({name})", value) for name, value in answer.probabilities.items())
        case NumberAnswer():
            yield "prediction", answer.prediction
        case ItemsAnswer() if answer.items:
            yield "best item", str(answer.items[0])
            yield "best score", answer.scores[0]


def bin_of(distribution: Distribution, value: float | str) -> str:
    """Return the name of the bin that a value is in."""
    values: Values = [value] if isinstance(value, str) else np.array([value])
    return distribution.labels[int(distribution.count(values).argmax())]


def expected_shares(references: dict[str, Reference]) -> Iterable[tuple[Sequence[str], float]]:
    """Yield task, quantity and bin, and the share of the valid users in it, of what is counted of answers."""
    for task, reference in references.items():
        for quantity, distribution in reference.quantities.items():
            if quantity.startswith(("known events", "unknown items", "representation")):
                continue
            total = max(1, sum(distribution.counts))
            for label, count in zip(distribution.labels, distribution.counts, strict=True):
                yield (task, quantity, label), count / total
