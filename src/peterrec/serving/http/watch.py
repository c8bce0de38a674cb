"""Counts of what bundles see and say, by the bins of their references, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from peterrec.data.reference import Reference
from peterrec.serving.bundle_groups import RegistrySnapshot
from peterrec.serving.requests import Answer, ClassAnswer, ItemsAnswer, LabelsAnswer, NumberAnswer, TaskAnswer

NOT_ANSWERED = ("known events", "unknown items", "representation")  # quantities that are no answer
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
        self._bins: dict[str, _TaskBins] = {}

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
        for task, task_answer in answer.tasks.items():
            if (reference := references.get(task)) is not None:
                self._bins_of(task, reference).count(task_answer)

    def _bins_of(self, task: str, reference: Reference) -> _TaskBins:
        bins = self._bins.get(task)
        if bins is None or bins.reference is not reference:  # the first answer, or another version of the bundle
            bins = self._bins[task] = _TaskBins(task, reference, self._answered)
        return bins


class _TaskBins:
    """Counters of the answers of a bundle, looked up once: a question may be about a thousand tasks."""

    def __init__(self, task: str, reference: Reference, answered: Counter) -> None:
        self.reference = reference
        self._quantities = [
            (name, distribution, [answered.labels(task, name, label) for label in distribution.labels])
            for name, distribution in reference.quantities.items()
            if not name.startswith(NOT_ANSWERED)
        ]

    def count(self, answer: TaskAnswer) -> None:
        """Count an answer in the bins of all quantities that it has."""
        for name, distribution, counters in self._quantities:
            if (value := value_of(answer, name)) is not None:
                counters[distribution.place(value)].inc()


def references_of(snapshot: RegistrySnapshot) -> dict[str, Reference]:
    """Return what the valid users of the bundles that answer were like, by task; of those that have a reference."""
    loaded = snapshot.loaded.items()
    return {name: version.bundle.reference for name, version in loaded if version.bundle.reference is not None}


def value_of(answer: TaskAnswer, quantity: str) -> float | str | None:
    """Return what a reference calls so (`evaluation.observed`); None where an answer has no such thing."""
    match answer:
        case ClassAnswer() if quantity == "class":
            return answer.label
        case ClassAnswer() if quantity == "highest probability":
            return max(answer.probabilities.values())
        case ClassAnswer() | LabelsAnswer():
            return answer.probabilities.get(quantity[2:-1])  # p(NAME)
        case NumberAnswer() if quantity == "prediction":
            return answer.prediction
        case ItemsAnswer() if answer.items and quantity == "best item":
            return str(answer.items[0])
        case ItemsAnswer() if answer.items and quantity == "best score":
            return answer.scores[0]
    return None


def expected_shares(references: dict[str, Reference]) -> Iterable[tuple[Sequence[str], float]]:
    """Yield task, quantity and bin, and the share of the valid users in it, of what is counted of answers."""
    for task, reference in references.items():
        for quantity, distribution in reference.quantities.items():
            if quantity.startswith(NOT_ANSWERED):
                continue
            total = max(1, sum(distribution.counts))
            for label, count in zip(distribution.labels, distribution.counts, strict=True):
                yield (task, quantity, label), count / total
