"""Events drawn by a seeded generator, with a structure that can be learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from peterrec.errors import DataError

FIRST_SOURCE_TIME = 1_000_000_000
FIRST_TARGET_TIME = 1_100_000_000
LABEL_NOISE = 0.05
OFF_TASTE = 0.1  # share of events outside the user's cluster
DRIFT = 0.7  # share of events that step on to the next item of the cluster

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SyntheticData:
    """Tables that `synthetic` and `planted` return.

    Attributes:
        events: columns `user_id`, `item_id` (text), `timestamp` (int64, seconds), `domain` (`source` or `target`).
        users: columns `user_id`, `cluster` (text `c0`, `c1`, ...; about 5 % are wrong on purpose); of `planted` also
            `noise` (text `no` or `yes`).
    """

    events: pa.Table
    users: pa.Table


def synthetic(
    users: int = 600,
    items: int = 120,
    targets: int = 30,
    mean_events: int = 20,
    clusters: int = 4,
    seed: int = 0,
) -> SyntheticData:
    """Make users with a taste, whose next items can be predicted and whose targets follow from their taste.

    Args:
        users: how many users; each has a cluster, source events and 1 to 4 target events that come later.
        items: source items, dealt to the clusters in turn.
        targets: target items, dealt to the clusters in turn.
        mean_events: mean number of source events of a user (Poisson, at least 2), up to 1000.
        clusters: how many tastes there are.
        seed: the same seed gives the same tables.

    Raises:
        DataError: a number is out of range, or there are fewer items or targets than clusters.
    """
    # More events than that would run past the time of the first targets.
    if min(users, mean_events, clusters) < 1 or min(items, targets) < clusters or mean_events > 1000:
        raise DataError(
            "synthetic data needs a user, a cluster, 1 to 1000 events and an item and a target for every cluster",
            remedy="change the numbers of users, events, items, targets or clusters",
        )
    rng = np.random.default_rng(seed)
    taste = rng.integers(clusters, size=users)
    lengths = np.maximum(2, rng.poisson(mean_events, size=users))
    source_items = np.concatenate(
        [_walk(rng, int(t), int(n), items, clusters) for t, n in zip(taste, lengths, strict=True)]
    )
    visits = rng.integers(1, 5, size=users)
    owners = np.repeat(taste, visits)
    target_items = _draw(rng, owners, targets, clusters)
    names = np.array([f"u{number:06d}" for number in range(1, users + 1)])
    events = pa.table(
        {
            "user_id": np.concatenate([names.repeat(lengths), names.repeat(visits)]).tolist(),
            "item_id": [f"s{i + 1:04d}" for i in source_items] + [f"t{i + 1:04d}" for i in target_items],
            "timestamp": np.concatenate(
                [_times(rng, lengths, FIRST_SOURCE_TIME), _times(rng, visits, FIRST_TARGET_TIME)]
            ),
            "domain": ["source"] * len(source_items) + ["target"] * len(target_items),
        }
    )
    noisy = rng.random(users) < LABEL_NOISE
    label = np.where(noisy, rng.integers(clusters, size=users), taste)
    return SyntheticData(events, pa.table({"user_id": names.tolist(), "cluster": [f"c{c}" for c in label]}))


def planted(
    users: int = 600,
    items: int = 120,
    targets: int = 30,
    mean_events: int = 20,
    clusters: int = 4,
    labelled_fraction: float = 1.0,
    seed: int = 0,
) -> SyntheticData:
    """Make the same users with few labels, so that the answers to questions about transfer are known.

    Which items go together shows in the sequences of all users, but labels and targets are those of few: where there
    are many items, few labelled users cannot tell the cluster of each. So what has seen all sequences knows the
    `cluster` and the targets of a user better than what has not; and nobody can know `noise`, which is independent of
    everything.

    Args:
        users, items, targets, mean_events, clusters, seed: as for `synthetic`.
        labelled_fraction: fraction of the users, above 0, who are in the table of users and have target events.

    Raises:
        DataError: a number is out of range, or there are fewer items or targets than clusters.
    """
    if not 0.0 < labelled_fraction <= 1.0:
        raise DataError(
            f"{labelled_fraction} of the users cannot be labelled", remedy="give a share above 0, at most 1"
        )
    data = synthetic(users, items, targets, mean_events, clusters, seed)
    rng = np.random.default_rng([seed, 1])  # draws that do not shift those of `synthetic`
    is_labelled = np.zeros(users, dtype=bool)
    is_labelled[rng.permutation(users)[: max(1, round(labelled_fraction * users))]] = True
    names = data.users["user_id"].filter(pa.array(is_labelled))
    noise = np.where(rng.random(users) < 0.5, "yes", "no")
    table = data.users.append_column("noise", pa.array(noise.tolist())).filter(pa.array(is_labelled))
    source = pc.equal(data.events["domain"], "source")
    is_kept = pc.or_(source, pc.is_in(data.events["user_id"], value_set=names.combine_chunks()))
    return SyntheticData(data.events.filter(is_kept), table)


def _members(cluster: Ints | int, total: int, clusters: int) -> Ints:
    """Return how many of `total` items, dealt in turn, each cluster has: items c, c + clusters, c + 2 clusters..."""
    return np.asarray((total - 1 - np.asarray(cluster)) // clusters + 1, dtype=np.int64)


def _draw(rng: np.random.Generator, cluster: Ints, total: int, clusters: int) -> Ints:
    in_cluster = rng.integers(_members(cluster, total, clusters)) * clusters + cluster
    off_taste = rng.random(len(cluster)) < OFF_TASTE
    return np.where(off_taste, rng.integers(total, size=len(cluster)), in_cluster)


def _walk(rng: np.random.Generator, cluster: int, length: int, items: int, clusters: int) -> Ints:
    """Walk through the items of a cluster: mostly to the next one, at times to another, at times to any item."""
    size = int(_members(cluster, items, clusters))
    steps = np.where(rng.random(length) < DRIFT, 1, rng.integers(size, size=length))
    places = (rng.integers(size) + np.cumsum(steps)) % size
    off_taste = rng.random(length) < OFF_TASTE
    return np.where(off_taste, rng.integers(items, size=length), places * clusters + cluster)


def _times(rng: np.random.Generator, lengths: Ints, first: int) -> Ints:
    """Return strictly increasing times in seconds within each user; (sum of lengths,) int64."""
    gaps = rng.integers(60, 86_400, size=int(lengths.sum()))
    total = np.cumsum(gaps)
    ends = np.cumsum(lengths)
    before = np.concatenate([[0], total[ends[:-1] - 1]])
    return np.asarray(first + total - np.repeat(before, lengths), dtype=np.int64)
