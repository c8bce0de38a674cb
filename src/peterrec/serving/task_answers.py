"""Answers of tasks from representations: classes, labels, numbers, the best items, or what is known of all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from peterrec.data.decision import chosen_classes, chosen_labels, class_sets
from peterrec.errors import AnswerError
from peterrec.serving.batch_plan import History, Prepared
from peterrec.serving.bundle_groups import RegistrySnapshot
from peterrec.serving.loaded_bundle import LoadedBundle
from peterrec.serving.requests import (
    Answer,
    ClassAnswer,
    ItemsAnswer,
    LabelsAnswer,
    NumberAnswer,
    Question,
    TaskAnswer,
)

NO_NUMBERS = "answers with NaN or infinity"
TRAIN_AGAIN = "train it again, with a lower learning rate or in full precision"


def answer_from(prepared: Sequence[Prepared], vectors: Sequence[Sequence[Tensor]]) -> list[Answer]:
    """Return the answers to N prepared questions.

    Args:
        prepared: the questions, with their histories.
        vectors: of each question the representation that each of its tasks' heads reads.

    Raises:
        AnswerError: a bundle answers with NaN or infinity.
    """
    answers: list[dict[str, TaskAnswer]] = [{} for _ in prepared]
    classes: dict[RegistrySnapshot, list[tuple[int, LoadedBundle, Tensor]]] = {}
    items: dict[tuple[int, int, bool], list[tuple[int, LoadedBundle, Tensor]]] = {}
    by_task: dict[int, list[tuple[int, LoadedBundle, Tensor]]] = {}
    for i, (query, query_vectors) in enumerate(zip(prepared, vectors, strict=True)):
        history = query.history
        assert history is not None
        for task, vector in zip(query.tasks, query_vectors, strict=True):
            if task.answers_without_events and history.read_by(task.reader).known_items == 0:
                answers[i][task.name] = _answer_without_events(task, query)
            elif task.bundle.kind in ("regression", "multilabel"):
                by_task.setdefault(id(task), []).append((i, task, vector))
            elif task.index is None:
                classes.setdefault(query.snapshot, []).append((i, task, vector))
            else:
                key = (id(task), query.question.k, _excludes_seen(task, query.question))
                items.setdefault(key, []).append((i, task, vector))
    for snapshot, rows in classes.items():
        shares = snapshot.class_heads.probabilities([vector for *_, vector in rows], [task for _, task, _ in rows])
        for (i, task, _), values in zip(rows, shares, strict=True):
            answers[i][task.name] = _class_answer(task, values)
    _answer_by_task(answers, by_task.values())
    for (_, k, exclude), rows in items.items():
        _rank(prepared, answers, rows, k, exclude=exclude)
    return [_assemble(query, query_answers) for query, query_answers in zip(prepared, answers, strict=True)]


def _answer_by_task(
    answers: list[dict[str, TaskAnswer]], rows_by_task: Iterable[list[tuple[int, LoadedBundle, Tensor]]]
) -> None:
    for rows in rows_by_task:
        vectors = torch.stack([vector for *_, vector in rows])
        in_labels = rows[0][1].bundle.kind == "multilabel"
        predicted = predict_labels(rows[0][1], vectors) if in_labels else predict_numbers(rows[0][1], vectors)
        for (i, task, _), values in zip(rows, predicted, strict=True):
            answers[i][task.name] = _labels_answer(task, values) if in_labels else _number_answer(task, values)


def _rank(
    prepared: Sequence[Prepared],
    answers: list[dict[str, TaskAnswer]],
    rows: list[tuple[int, LoadedBundle, Tensor]],
    k: int,
    *,
    exclude: bool,
) -> None:
    task = rows[0][1]
    targets = task.bundle.targets
    assert targets is not None
    assert task.index is not None
    histories = [prepared[i].history if exclude else None for i, *_ in rows]
    excluded = [[] if history is None else seen_targets(task, history) for history in histories]
    best = task.index.search(torch.stack([vector for *_, vector in rows]), k, excluded)
    for (i, *_), (places, scores) in zip(rows, best, strict=True):
        check_numbers(task.name, scores)
        names = targets.decode(np.asarray(places, dtype=np.int64))
        answers[i][task.name] = ItemsAnswer(task.version, names, scores)


def check_numbers(task: str, values: Iterable[float]) -> None:
    """Refuse probabilities or scores that are no numbers.

    Raises:
        AnswerError: one of them is NaN or infinite.
    """
    if not all(map(math.isfinite, values)):
        raise AnswerError(f"the bundle {task!r} {NO_NUMBERS}", remedy=TRAIN_AGAIN)


def predict_numbers(task: LoadedBundle, vectors: Tensor) -> list[list[float]]:
    """Return the K numbers that a regression bundle says of each of N representations, in their own unit."""
    assert task.bundle.numbers is not None
    predicted: list[list[float]] = task.bundle.numbers.numbers(task.bundle.head(vectors).float().cpu().numpy()).tolist()
    return predicted


def predict_labels(task: LoadedBundle, vectors: Tensor) -> list[list[float]]:
    """Return the probability of each of K labels that a multilabel bundle says of each of N representations."""
    predicted: list[list[float]] = task.bundle.probabilities(task.bundle.head(vectors).float()).cpu().tolist()
    return predicted


def _labels_answer(task: LoadedBundle, values: list[float]) -> LabelsAnswer:
    check_numbers(task.name, values)
    names = task.bundle.class_names
    chosen = chosen_labels(np.array([values]), task.bundle.decision)[0]
    labels = [name for name, answered in zip(names, chosen, strict=True) if answered]
    return LabelsAnswer(task.version, labels, dict(zip(names, values, strict=True)))


def _number_answer(task: LoadedBundle, values: Sequence[float]) -> NumberAnswer:
    numbers = task.bundle.numbers
    assert numbers is not None
    check_numbers(task.name, values)
    quantiles = dict(zip(numbers.names[1:], values, strict=True)) if numbers.quantiles else {}
    return NumberAnswer(task.version, values[numbers.prediction], quantiles)


def _class_answer(task: LoadedBundle, values: list[float]) -> ClassAnswer:
    names = task.bundle.class_names
    check_numbers(task.name, values)
    probabilities, decision = np.array([values]), task.bundle.decision
    label, by_name = names[chosen_classes(probabilities, decision)[0]], dict(zip(names, values, strict=True))
    sets = decision is not None and decision.conformal is not None
    members = class_sets(probabilities, decision)[0] if decision is not None and sets else []
    return ClassAnswer(task.version, label, by_name, [name for name, held in zip(names, members, strict=False) if held])


def _answer_without_events(task: LoadedBundle, prepared: Prepared) -> TaskAnswer:
    """Answer a user without known events: with shares, popularity or the mean of numbers of the train users."""
    bundle, question = task.bundle, prepared.question
    if bundle.numbers is not None:
        return _number_answer(task, bundle.numbers.constant)
    if bundle.targets is None or bundle.popularity is None:
        in_labels = bundle.kind == "multilabel"
        return _labels_answer(task, task.class_priors) if in_labels else _class_answer(task, task.class_priors)
    assert prepared.history is not None
    seen_positions = seen_targets(task, prepared.history) if _excludes_seen(task, question) else []
    positions, scores = bundle.popularity.best(question.k, seen_positions)
    return ItemsAnswer(task.version, bundle.targets.decode(np.asarray(positions, dtype=np.int64)), scores)


def _assemble(query: Prepared, answers: Mapping[str, TaskAnswer]) -> Answer:
    history = query.history
    assert history is not None
    readings = [history.read_by(task.reader) for task in query.tasks]
    known_events = min((reading.known_items for reading in readings), default=len(history.items) - history.unknown)
    assumed = tuple(dict.fromkeys(line for reading in readings for line in reading.assumptions))
    tasks = {task.name: answers[task.name] for task in query.tasks}
    return Answer(tasks, len(history.items), history.unknown, known_events, assumed)


def seen_targets(task: LoadedBundle, history: History) -> list[int]:
    """Return the positions of targets that a user has, by the events that the task reads: as the offline verbs do."""
    assert task.bundle.targets is not None
    items = [item for item, read in zip(history.items, task.reader.chosen(history.events), strict=True) if read]
    return [place for place in task.bundle.targets.find(items) if place >= 0]


def _excludes_seen(task: LoadedBundle, question: Question) -> bool:
    return task.bundle.exclude_seen if question.exclude_seen is None else question.exclude_seen
