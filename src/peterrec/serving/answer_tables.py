"""Answers about many users as tables: the columns that `predict`, `recommend` and `embed` write, on any engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from peterrec.answers import FloatArray
from peterrec.data.ids import UserHistories
from peterrec.data.sequences import IntArray
from peterrec.model import UserModel


def class_table(model: UserModel, bundle: str, users: UserHistories, **settings: Any) -> pa.Table:
    """Return the class of each user: user, label, probability, known_events, and `p(CLASS)` for each class; N rows.

    Args:
        model: that is asked.
        bundle: loaded on it, of a classification task.
        users: N users.
        settings: as of `UserModel.predict`.
    """
    answers = model.predict(users.items, bundle, **settings)
    columns: dict[str, Any] = {
        "user": pa.array(users.user_ids, pa.string()),
        "label": pa.array(answers.labels, pa.string()),
        "probability": answers.probabilities.max(axis=1),
        "known_events": answers.known_events,
    }
    columns |= {f"p({label})": answers.probabilities[:, i] for i, label in enumerate(answers.class_names)}
    return pa.table(columns)


def item_table(
    model: UserModel,
    bundle: str | None,
    users: UserHistories,
    *,
    k: int = 10,
    exclude_seen: bool | None = None,
    **settings: Any,
) -> pa.Table:
    """Return up to k rows a user, best first: user, rank (from 1 on), item, score, known_events.

    Args:
        model: that is asked.
        bundle: loaded on it, of a ranking task; None for next items.
        users: N users.
        k: items per user.
        exclude_seen: as of `UserModel.recommend`.
        settings: as of `UserModel.recommend`.
    """
    answers = model.recommend(users.items, bundle, k, exclude_seen=exclude_seen, **settings)
    counts = [len(items) for items in answers.items]
    rows = np.repeat(np.arange(len(counts)), counts)
    return pa.table(
        {
            "user": pa.array(users.user_ids, pa.string()).take(pa.array(rows)),
            "rank": pa.array([rank for count in counts for rank in range(1, count + 1)], pa.int64()),
            "item": pa.array([item for items in answers.items for item in items], model.targets(bundle).ids.type),
            "score": pa.array([score for scores in answers.scores for score in scores], pa.float32()),
            "known_events": pa.array(np.asarray(answers.known_events, dtype=np.int64)[rows]),
        }
    )


def vector_table(users: UserHistories, known_events: IntArray, vectors: FloatArray, *, split: bool = False) -> pa.Table:
    """Return the vector of each user: user, known_events, and `vector`, or `v0`, `v1`, ...; N rows.

    Args:
        users: N users.
        known_events: (N,) events of each that the model knows.
        vectors: (N, C).
        split: one column for each channel, not one of lists.
    """
    if split:
        columns: dict[str, Any] = {f"v{i}": vectors[:, i] for i in range(vectors.shape[1])}
    else:
        flat = pa.array(vectors.reshape(-1), pa.float32())
        columns = {"vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}
    return pa.table({"user": pa.array(users.user_ids, pa.string()), "known_events": known_events} | columns)
