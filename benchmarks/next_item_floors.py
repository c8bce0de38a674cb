"""The worker of the floors of `next_item.py`: popularity, and EASE in its closed form (Steck, WWW 2019)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from next_item_job import TOP, Job, Ranking, Training

BATCH = 256
Scores = Callable[[sp.csr_array], npt.NDArray[np.float64]]


def main() -> None:
    job = Job.read()
    events = list(job.events("train"))
    items = sorted({item for _, item, _, _ in events})
    column = {item: place for place, item in enumerate(items)}
    users: dict[str, list[str]] = {}
    for user, item, _, _ in events:
        users.setdefault(user, []).append(item)
    counts = np.bincount([column[item] for _, item, _, _ in events], minlength=len(items))
    training = Training(job.budget)
    bags, notes = bag(list(users.values()), column), ""
    scores: Scores = lambda histories: np.tile(counts.astype(float), (histories.shape[0], 1))  # noqa: E731
    parameters = len(items)
    if job.model == "ease":
        chosen = np.sort(np.argsort(-counts, kind="stable")[: job.settings["max_items"]])
        weights = ease(bags[:, chosen], job.settings["penalty"])
        least = (counts - counts.max() - 1.0) * 1e-9 - 1e3  # those left out come last, by popularity
        parameters = weights.size
        notes = "" if len(chosen) == len(items) else f"{len(chosen):,} of {len(items):,} items"

        def scores(histories: sp.csr_array) -> npt.NDArray[np.float64]:
            dense = np.tile(least, (histories.shape[0], 1))
            dense[:, chosen] = histories[:, chosen] @ weights
            return dense

    training.finish(1)
    training.stopped_by = "solved"
    histories = bag(job.histories, column)
    names = np.array(items, dtype=object)
    job.write(
        training, parameters=parameters, notes=notes,
        all_items=top(scores, histories, names), unseen_items=top(scores, histories, names, exclude=True),
    )  # fmt: skip


def bag(histories: list[list[str]], column: dict[str, int]) -> sp.csr_array:
    """Return which items each history has; (rows, items) of 0 and 1."""
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    places = np.array([column.get(item, -1) for history in histories for item in history], dtype=np.int64)
    in_catalogue = places >= 0
    shape = (len(histories), len(column))
    bags = sp.csr_array(
        (np.ones(in_catalogue.sum(), np.float32), (rows[in_catalogue], places[in_catalogue])), shape=shape
    )
    bags.data[:] = 1.0  # after what stood twice was added up
    return bags


def ease(bags: sp.csr_array, penalty: float) -> npt.NDArray[np.float32]:
    """Return the weights between items; (items, items), zero on the diagonal."""
    gram = np.asarray((bags.T @ bags).todense(), dtype=np.float32)
    gram[np.diag_indices_from(gram)] += penalty
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


def top(scores: Scores, histories: sp.csr_array, names: npt.NDArray[np.object_], *, exclude: bool = False) -> Ranking:
    """Return the best items of each history, best first."""
    best: list[list[str]] = []
    for start in range(0, histories.shape[0], BATCH):
        batch = histories[start : start + BATCH]
        values = scores(batch)
        if exclude:
            values[batch.nonzero()] = -np.inf
        for row in values:
            order = np.argsort(-row, kind="stable")[:TOP]
            best.append(names[order[row[order] > -np.inf]].tolist())
    return best


if __name__ == "__main__":
    main()
