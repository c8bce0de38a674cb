"""Made-up events: their shape, that they repeat, and that there is something in them to learn."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest

from peterrec.data.synthetic import FIRST_SOURCE_TIME, planted, synthetic
from peterrec.errors import DataError


def test_the_tables_have_the_promised_columns_and_times() -> None:
    data = synthetic(users=50, items=40, targets=9, seed=3)
    assert [(field.name, str(field.type)) for field in data.events.schema] == [
        ("user_id", "string"),
        ("item_id", "string"),
        ("timestamp", "int64"),
        ("domain", "string"),
    ]
    assert data.users["user_id"].to_pylist() == [f"u{n:06d}" for n in range(1, 51)]
    assert set(data.users["cluster"].to_pylist()) == {"c0", "c1", "c2", "c3"}
    frame = data.events.to_pylist()
    for user in data.users["user_id"].to_pylist():
        user_rows = [row for row in frame if row["user_id"] == user]
        source = [row["timestamp"] for row in user_rows if row["domain"] == "source"]
        target = [row["timestamp"] for row in user_rows if row["domain"] == "target"]
        assert len(source) >= 2
        assert 1 <= len(target) <= 4
        assert source == sorted(set(source))
        assert target == sorted(set(target))
        assert source[-1] < target[0]
        assert FIRST_SOURCE_TIME < source[0] < FIRST_SOURCE_TIME + 86_400  # everybody starts on the first day
    for domain, letter, count in (("source", "s", 40), ("target", "t", 9)):
        ids = {row["item_id"] for row in frame if row["domain"] == domain}
        assert ids <= {f"{letter}{n:04d}" for n in range(1, count + 1)}


def test_the_seed_decides_everything() -> None:
    first, repeated, other_seed = synthetic(users=30, seed=1), synthetic(users=30, seed=1), synthetic(users=30, seed=2)
    assert first.events.equals(repeated.events)
    assert first.users.equals(repeated.users)
    assert not first.events.equals(other_seed.events)


def test_items_targets_and_next_items_follow_from_the_cluster() -> None:
    clusters = 4
    data = synthetic(users=400, clusters=clusters)
    label = {u: int(c[1:]) for u, c in zip(*(data.users[n].to_pylist() for n in data.users.column_names), strict=True)}
    taste = np.array([label[user] for user in data.events["user_id"].to_pylist()])
    number = np.array([int(item[1:]) - 1 for item in data.events["item_id"].to_pylist()])
    source = np.array(data.events["domain"].to_pylist()) == "source"
    for rows in (source, ~source):
        in_cluster = np.mean(number[rows] % clusters == taste[rows])
        assert 0.8 < in_cluster < 0.95  # 10 % astray (a quarter of it in the cluster by chance), 5 % of labels wrong
    users = np.array(data.events["user_id"].to_pylist())[source]
    steps = (number[source][1:] - number[source][:-1])[users[1:] == users[:-1]]
    assert np.mean(steps % 120 == clusters) > 0.5  # the item after it, in the same cluster


@pytest.mark.parametrize(
    "wrong", [{"users": 0}, {"mean_events": 0}, {"mean_events": 1001}, {"clusters": 0}, {"items": 3}, {"targets": 3}]
)
def test_numbers_that_make_no_data(wrong: dict[str, int]) -> None:
    with pytest.raises(DataError, match="synthetic data needs"):
        synthetic(**wrong)


def test_planted_data_are_the_same_users_with_few_labels() -> None:
    numbers = {"users": 1000, "items": 50, "targets": 10, "mean_events": 5, "seed": 4}
    all_labelled, few = synthetic(**numbers), planted(**numbers, labelled_fraction=0.3)
    assert len(few.users) == 300
    label = dict(zip(*(all_labelled.users[name].to_pylist() for name in ("user_id", "cluster")), strict=True))
    named = few.users["user_id"].to_pylist()
    assert few.users["cluster"].to_pylist() == [label[user] for user in named]
    source = pc.equal(all_labelled.events["domain"], "source")
    assert few.events.filter(pc.equal(few.events["domain"], "source")).equals(all_labelled.events.filter(source))
    ours = pc.and_(
        pc.invert(source), pc.is_in(all_labelled.events["user_id"], value_set=few.users["user_id"].combine_chunks())
    )
    assert few.events.filter(pc.equal(few.events["domain"], "target")).equals(all_labelled.events.filter(ours))
    assert few.users.equals(planted(**numbers, labelled_fraction=0.3).users)
    assert planted(**numbers).users.num_rows == 1000
    assert sorted(named) != all_labelled.users["user_id"].to_pylist()[:300], "not the first ones"


def test_planted_noise_is_independent_of_the_cluster() -> None:
    users = planted(users=8000, seed=2).users
    noise = np.array(users["noise"].to_pylist()) == "yes"
    cluster = np.array(users["cluster"].to_pylist())
    shares = [noise[cluster == name].mean() for name in ("c0", "c1", "c2", "c3")]
    assert np.allclose(shares, 0.5, atol=4 * 0.5 / np.sqrt(2000))


@pytest.mark.parametrize("labelled", [0.0, 1.5])
def test_a_share_of_labels_that_cannot_be(labelled: float) -> None:
    with pytest.raises(DataError, match="cannot be labelled"):
        planted(labelled_fraction=labelled)
