"""Explanations: the loss of an answer's value without each event (leave one out)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from peterrec.data.catalogue import ItemId
from peterrec.data.decision import chosen_classes
from peterrec.data.number_outputs import NumberOutputs
from peterrec.errors import RequestError
from peterrec.serving.batch_plan import Prepared
from peterrec.serving.engine import Engine
from peterrec.serving.loaded_bundle import LoadedBundle
from peterrec.serving.requests import Explanation
from peterrec.serving.task_answers import check_numbers, predict_labels, predict_numbers


@torch.inference_mode()
def explain(engine: Engine, prepared: Prepared, task: str) -> Explanation:
    """Leave each event out and answer again, all in one batch (leave one out).

    Args:
        engine: answers.
        prepared: a question with a history.
        task: name of one of its tasks.

    Returns:
        The class that is answered or the most probable label, the best item by the question's `exclude_seen`, or the
        prediction of a number, and what each event adds to its probability, its score or the number. An event that
        nothing is read of (an unknown item, or one before the window) adds 0.

    Raises:
        UnknownTaskError: the task is not loaded.
        RequestError: the question is not about it.
    """
    loaded = prepared.snapshot.get(task)
    if loaded not in prepared.tasks:
        raise RequestError(f"the question is not about {task!r}", remedy="name the task in the question")
    assert prepared.history is not None
    original = replace(prepared, tasks=(loaded,))
    # What comes before the first target event stays what is read when that event is left out.
    history, read = prepared.history, loaded.reader.chosen(prepared.history.events)
    places = np.arange(len(read))
    ablated = [replace(original, history=history.take(read & (places != place))) for place in places]
    variants = [original, *ablated]
    vectors = engine.represent(variants)
    # As they are answered: without known events, by what is known of everybody.
    unknown = [
        variant.history is not None and variant.history.read_by(loaded.reader).known_items == 0 for variant in variants
    ]
    without_events = torch.tensor(unknown) & loaded.answers_without_events
    if loaded.bundle.numbers is not None:
        name: ItemId = loaded.bundle.numbers.names[0]
        answer_values = _predictions(loaded, loaded.bundle.numbers, vectors, without_events)
    elif loaded.index is None:
        name, answer_values = _class_values(prepared, loaded, vectors, without_events)
    else:
        answer = engine.answer([replace(original, question=replace(original.question, k=1))])[0].tasks[task]
        assert answer.kind == "ranking"
        targets = loaded.bundle.targets
        assert targets is not None
        if not answer.items:
            raise RequestError(f"{task!r} has nothing left to recommend", remedy="ask with exclude_seen false")
        name = answer.items[0]
        position, popularity = targets.find([name])[0], loaded.bundle.popularity
        assert popularity is not None
        answer_values = loaded.index.score(vectors, position).cpu()
        answer_values[without_events] = popularity.scores[position]
    scores = answer_values.double()
    check_numbers(task, scores.tolist())
    return Explanation(task, loaded.version, name, float(scores[0]), (scores[0] - scores[1:]).tolist())


def _predictions(loaded: LoadedBundle, numbers: NumberOutputs, vectors: Tensor, without_events: Tensor) -> Tensor:
    """Return the prediction of each variant, (N,) float64, of those without known events that of everybody."""
    values = torch.tensor(predict_numbers(loaded, vectors), dtype=torch.float64)[:, numbers.prediction]
    values[without_events] = numbers.constant[numbers.prediction]
    return values


def _class_values(
    prepared: Prepared, loaded: LoadedBundle, vectors: Tensor, without_events: Tensor
) -> tuple[str, Tensor]:
    """Return the class or label that is explained, and its probability of each variant; (N,)."""
    if loaded.bundle.kind == "multilabel":
        values = torch.tensor(predict_labels(loaded, torch.stack(list(vectors))))
    else:
        values = torch.tensor(prepared.snapshot.class_heads.probabilities(list(vectors), [loaded] * len(vectors)))
    if without_events.any():
        values[without_events] = torch.tensor(loaded.class_priors)
    best = int(values[0].argmax())
    if loaded.bundle.kind == "classification":
        best = int(chosen_classes(values[:1].numpy(), loaded.bundle.decision)[0])
    return loaded.bundle.class_names[best], values[:, best]
