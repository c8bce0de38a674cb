"""Shares of the labelled users: whose, how many, nested, and seen by everything that reads a task."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from builders import write_corpus
from peterrec.data.corpus import Corpus
from peterrec.data.subset import chosen_rows, with_share
from peterrec.errors import ConfigError, TaskError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.open(write_corpus(tmp_path_factory.mktemp("subset") / "corpus", users=40))


def test_only_train_users_are_taken_away(corpus: Corpus) -> None:
    view = with_share(corpus, 0.25, seed=3)
    for name in corpus.task_names:
        full, subset = corpus.task(name), view.task(name)
        assert len(subset.part("train")) == 10
        assert (subset.kind, subset.class_names) == (full.kind, full.class_names)
        for part in ("valid", "test"):
            assert subset.part(part).user_ids.equals(full.part(part).user_ids)
    assert view.sequences.items.tolist() == corpus.sequences.items.tolist()
    assert view.catalogue.fingerprint == corpus.catalogue.fingerprint


def test_what_is_left_of_a_user_is_what_was_there(corpus: Corpus) -> None:
    for name in corpus.task_names:
        full, subset = corpus.task(name).part("train"), with_share(corpus, 0.3, seed=1).task(name).part("train")
        ids = full.user_ids.to_pylist()
        rows = [ids.index(user) for user in subset.user_ids.to_pylist()]
        assert rows == sorted(rows)
        assert [subset.sequences[i].tolist() for i in range(len(subset))] == [full.sequences[i].tolist() for i in rows]
        if full.labels is not None and subset.labels is not None:
            assert subset.labels.tolist() == full.labels[rows].tolist()
        if full.targets is not None and subset.targets is not None:
            assert [subset.targets[i].tolist() for i in range(len(subset))] == [full.targets[i].tolist() for i in rows]


def test_smaller_shares_lie_inside_larger_ones_and_seeds_differ() -> None:
    ids = pa.array([f"user-{i}" for i in range(200)])
    chosen = [set(chosen_rows(ids, share, seed=0).tolist()) for share in (0.01, 0.05, 0.1, 0.3, 1.0)]
    assert [len(rows) for rows in chosen] == [2, 10, 20, 60, 200]
    for small, large in itertools.pairwise(chosen):
        assert small < large
    assert set(chosen_rows(ids, 0.3, seed=1).tolist()) != chosen[3]
    order = np.random.default_rng(0).permutation(200)  # the order of the file has no part in it
    shuffled = ids.take(pa.array(order))
    names = {shuffled[row].as_py() for row in chosen_rows(shuffled, 0.1, seed=0).tolist()}
    assert names == {ids[row].as_py() for row in chosen[2]}
    assert len(chosen_rows(ids, 1e-9, seed=0)) == 1


def test_counts_of_targets_are_those_of_the_users_who_are_left(corpus: Corpus) -> None:
    task = with_share(corpus, 0.1, seed=0).task("shop")
    train = task.part("train")
    assert train.targets is not None
    assert task.targets is not None
    expected = [sum(target in row for row in map(train.targets.__getitem__, range(len(train)))) for target in range(5)]
    assert task.targets.counts.tolist() == expected
    assert task.targets.fingerprint == corpus.task("shop").targets.fingerprint  # type: ignore[union-attr]


def test_all_is_the_corpus_itself_and_less_is_another(corpus: Corpus) -> None:
    assert with_share(corpus, 1.0, seed=0) is corpus
    prints = {with_share(corpus, share, seed).manifest["fingerprint"] for share in (0.5, 0.6) for seed in (0, 1)}
    assert len(prints | {corpus.manifest["fingerprint"]}) == 5


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01])
def test_no_share(corpus: Corpus, share: float) -> None:
    with pytest.raises(ConfigError, match="cannot be taken"):
        with_share(corpus, share, seed=0)


def test_one_user_is_too_few(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="1 % of the train users of task 'age' are 1, which is too few"):
        with_share(corpus, 0.01, seed=0).task("age")
