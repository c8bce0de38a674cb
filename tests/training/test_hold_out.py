"""Who is trained on and who is held out, against loops over lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peterrec.data.corpus import Corpus
from peterrec.data.sequences import UNK, Sequences
from peterrec.data.splits import uniform
from peterrec.errors import DataError
from peterrec.training.pretrain import _hold_out
from training.small import corpus_of, pretrain_config

LONGEST = 5


def histories(unknown: float, seed: int = 0) -> list[list[int]]:
    """Of 0 to 12 events, some of them [UNK]; every item is there at least once."""
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(4, 10, rng.integers(0, 13)) for _ in range(400)]
    return [np.where(rng.random(len(row)) < unknown, UNK, row).tolist() for row in drawn]


def answers(history: list[int], longest: int | None = None) -> bool:
    """Say whether an item comes after another event among the last ones."""
    read = history if longest is None else history[-longest:]
    return any(item != UNK for item in read[1:])


@pytest.mark.parametrize("unknown", [0.0, 0.5, 0.9])
def test_users_with_something_to_predict_are_trained_on_or_held_out(tmp_path: Path, unknown: float) -> None:
    rows = histories(unknown)
    corpus = corpus_of(tmp_path / "corpus", rows, 6, rare_items="unk")
    config = pretrain_config(max_length=LONGEST, valid_fraction=0.4)
    held_out = uniform(corpus.user_hashes, "pretrain-0") < 0.4
    train, valid = _hold_out(corpus, config)
    assert train.tolist() == [i for i, row in enumerate(rows) if not held_out[i] and answers(row)]
    # One more event than the network reads: the last one is only an answer.
    assert valid.tolist() == [i for i, row in enumerate(rows) if held_out[i] and answers(row, LONGEST + 1)]
    if unknown:
        assert len(train) < sum(len(row) >= 2 and not held for row, held in zip(rows, held_out, strict=True))


def test_no_item_is_read_where_none_is_unknown(tmp_path: Path) -> None:
    rows = histories(0.0)
    corpus = corpus_of(tmp_path / "corpus", rows, 6)
    expected = _hold_out(corpus, pretrain_config())

    class Untouched:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"items were read: {name}")

    blind = Corpus.open(corpus.path)
    blind.__dict__["sequences"] = Sequences(Untouched(), corpus.sequences.offsets)  # type: ignore[arg-type]
    actual = _hold_out(blind, pretrain_config())
    assert [part.tolist() for part in actual] == [part.tolist() for part in expected]
    assert sorted(np.concatenate(expected)) == [i for i, row in enumerate(rows) if len(row) >= 2]


def test_the_held_out_that_are_scored_are_those_with_the_lowest_draws(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", histories(0.0), 6)
    config = pretrain_config(max_valid_users=7)
    draw = uniform(corpus.user_hashes, "pretrain-0")
    possible = np.flatnonzero((corpus.sequences.lengths >= 2) & (draw < config.valid_fraction))
    assert len(possible) > 50
    assert _hold_out(corpus, config)[1].tolist() == sorted(possible[np.argsort(draw[possible])][:7].tolist())


@pytest.mark.parametrize("row", [[4], [UNK, UNK], [4, UNK]])
def test_users_without_anything_to_predict_are_not_enough(tmp_path: Path, row: list[int]) -> None:
    corpus = corpus_of(tmp_path / "corpus", [row] * 50, 6, rare_items="unk")
    with pytest.raises(DataError, match="0 users to train on and 0 held out"):
        _hold_out(corpus, pretrain_config())
