"""Counted quantities of users and of a bundle's answers about them: for the reference, and beside it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from peterrec.data.decision import chosen_classes
from peterrec.data.reference import Distribution, Reference, Values
from peterrec.data.sequences import UNK, Sequences
from peterrec.model import UserModel

DIRECTIONS = 3  # of representations: what most of the train users' differences lie in
MAX_LABELS = 10  # of a multilabel task: the most frequent ones
LEAST_USERS = 50  # of a reference: a share of fewer is known to 7 % and worse
MOST_USERS = 10_000  # valid users, and train users for the directions, that are counted: more say nothing more

Numbers = npt.NDArray[np.float64]


def observe(
    model: UserModel,
    bundle: str,
    sequences: Sequences,
    directions: Float[np.ndarray, "D R"],
    centre: Float[np.ndarray, " R"],
    *,
    unknown_shares: Float[np.ndarray, " N"] | None = None,
    batch_size: int = 256,
) -> dict[str, Values]:
    """Return what is counted of users, by its name.

    `known events` of all users, and (where it is known) the share of `unknown items` in their events; of those with
    known events the answers (class and probability, probabilities of labels, prediction, best item and its score) and
    the representations (`representation norm`, and their places on the directions).

    Args:
        model: that is asked.
        bundle: loaded on it.
        sequences: of N users.
        directions: that representations are projected on.
        centre: of the representations.
        unknown_shares: of the events of each user.
        batch_size: users at once.
    """
    values: dict[str, Values] = {"known events": sequences.item_counts.astype(np.float64)}
    if unknown_shares is not None:
        values["unknown items"] = np.asarray(unknown_shares, dtype=np.float64)
    sequences = sequences.take(np.flatnonzero(sequences.item_counts > 0))
    if not len(sequences):
        return values
    values |= _answers(model, bundle, sequences, batch_size)
    vectors = model.representations(sequences, bundle, batch_size=batch_size).astype(np.float64)
    values["representation norm"] = np.linalg.norm(vectors, axis=1)
    projected = (vectors - centre) @ directions.T if len(directions) else np.empty((len(vectors), 0))
    for place, column in enumerate(projected.T, start=1):
        values[f"representation {place}"] = column
    return values


def _answers(model: UserModel, bundle: str, sequences: Sequences, batch_size: int) -> dict[str, Values]:
    loaded = model.bundle(bundle)
    if loaded.kind == "classification":
        shares = model.probabilities(sequences, bundle, batch_size=batch_size).astype(np.float64)
        chosen = chosen_classes(shares, loaded.decision)
        classes = [loaded.class_names[place] for place in chosen]
        if shares.shape[1] == 2:
            return {"class": classes, f"p({loaded.class_names[1]})": shares[:, 1]}
        return {"class": classes, "highest probability": shares.max(axis=1)}
    if loaded.kind == "multilabel":
        shares = model.label_probabilities(sequences, bundle, batch_size=batch_size).astype(np.float64)
        return {f"p({name})": shares[:, place] for place, name in enumerate(loaded.class_names[:MAX_LABELS])}
    if loaded.numbers is not None:
        numbers = model.numbers(sequences, bundle, batch_size=batch_size)
        return {"prediction": numbers[:, loaded.numbers.prediction]}
    top, targets = model.top_k(sequences, 1, bundle, batch_size=batch_size), model.targets(bundle)
    items = targets.decode(top.positions[:, 0] + targets.first)
    return {"best item": list(map(str, items)), "best score": top.scores[:, 0].astype(np.float64)}


def make_reference(model: UserModel, bundle: str, train: Sequences, valid: Sequences) -> Reference | None:
    """Return what the valid users of a task were like; None where too few of them have events.

    Args:
        model: the backbone.
        bundle: of the task, loaded on it.
        train: of the train users, whose representations give the directions: those of the valid users would fit them.
        valid: of the valid users.
    """
    if int((valid.item_counts > 0).sum()) < LEAST_USERS:
        return None
    train = _evenly_spread(train.take(np.flatnonzero(train.item_counts > 0)))
    vectors = model.representations(train, bundle).astype(np.float64)
    centre = vectors.mean(axis=0)
    directions = np.linalg.svd(vectors - centre, full_matrices=False)[2][:DIRECTIONS]
    return reference_of(model, bundle, _evenly_spread(valid), directions, centre)


def reference_of(
    model: UserModel,
    bundle: str,
    sequences: Sequences,
    directions: Float[np.ndarray, "D R"],
    centre: Float[np.ndarray, " R"],
    unknown_shares: Numbers | None = None,
) -> Reference:
    """Return what users were like: those of the sequences, in bins of their own.

    Args:
        model: the backbone.
        bundle: loaded on it.
        sequences: of the users.
        directions: that representations are projected on.
        centre: of the representations.
        unknown_shares: of the events of each user; None: as sequences tell it, where unknown items are kept in them.
    """
    if unknown_shares is None and bool((sequences.items == UNK).any()):
        unknown_shares = unknown_shares_of(sequences)
    values = observe(model, bundle, sequences, directions, centre, unknown_shares=unknown_shares)
    quantities = {name: Distribution.from_values(column) for name, column in values.items()}
    return Reference(len(sequences), quantities, directions, centre)


def unknown_shares_of(sequences: Sequences) -> Numbers:
    """Return the share of [UNK] in the events of each user; 0 of a user without events."""
    unknown: Int[np.ndarray, " N"] = np.bincount(
        sequences.repeat(), weights=np.asarray(sequences.items) == UNK, minlength=len(sequences)
    )
    return np.asarray(unknown / np.maximum(sequences.lengths, 1), dtype=np.float64)


def _evenly_spread(sequences: Sequences) -> Sequences:
    """Return at most so many users, evenly spread."""
    if len(sequences) <= MOST_USERS:
        return sequences
    return sequences.take(np.linspace(0, len(sequences) - 1, MOST_USERS).astype(np.int64))
