"""Answers about many users as tables: the columns that `predict`, `recommend` and `embed` write, on any engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa

from peterrec.answers import AskedUsers, Embeddings, FloatArray
from peterrec.data.ids import UserHistories
from peterrec.data.sequences import IntArray
from peterrec.model import UserModel


def class_table(model: UserModel, bundle: str, users: UserHistories, **settings: Any) -> pa.Table:
    """Return the class of each user: user, label, probability, known_events, and `p(CLASS)` for each class; N rows.

    Or its number: user, prediction, known_events, and `q0.1`, ... for each quantile. Or its labels: user, labels,
    known_events, and `p(LABEL)` for each label.

    Args:
        model: that is asked.
        bundle: loaded on it, of a classification, a regression or a multilabel task.
        users: N users.
        settings: as of `UserModel.predict`.
    """
    answers = model.predict(users.items, bundle, features=users.features, **settings)
    return replace(answers, users=_answered_users(users)).to_arrow()


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
    answers = model.recommend(users.items, bundle, k, exclude_seen=exclude_seen, features=users.features, **settings)
    return replace(answers, users=_answered_users(users)).to_arrow()


def vector_table(users: UserHistories, known_events: IntArray, vectors: FloatArray, *, split: bool = False) -> pa.Table:
    """Return the vector of each user: user, known_events, and `vector`, or `v0`, `v1`, ...; N rows.

    Args:
        users: N users.
        known_events: (N,) events of each that the model knows.
        vectors: (N, C).
        split: one column for each channel, not one of lists.
    """
    return Embeddings(vectors, known_events, _answered_users(users)).to_arrow(split=split)


def _answered_users(users: UserHistories) -> AskedUsers:
    return AskedUsers(pa.array(users.user_ids, pa.string()))
