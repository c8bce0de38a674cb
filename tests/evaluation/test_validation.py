"""What training looks at while it goes on."""

from __future__ import annotations

import numpy as np
import pytest

from peterrec.data.sequences import Sequences
from peterrec.evaluation.validation import last_item_metrics, last_item_ranks, mean_reciprocal_rank


def test_mean_reciprocal_rank_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.5, 0.3]])
    # user 0, target 0: place 1; target 2 (0 left out): place 2. user 1, target 0: place 4.
    value = mean_reciprocal_rank(iter([scores[:1], scores[1:]]), Sequences.from_rows([[0, 2], [0]]))
    assert value == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)


def test_constant_scores_get_the_mean_reciprocal_place() -> None:
    value = mean_reciprocal_rank(iter([np.zeros((1, 4))]), Sequences.from_rows([[3]]))
    assert value == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_last_item_ranks_and_metrics() -> None:
    scores = np.array([[0.3, 0.2, 0.1], [0.3, 0.2, 0.1], [1.0, 1.0, 1.0]])
    ranks = last_item_ranks(scores, np.array([0, 2, 1]))
    assert ranks.tolist() == [1, 3, 2]
    values = last_item_metrics(ranks, 2)
    assert values == pytest.approx({"hr@2": 2 / 3, "mrr@2": 1.5 / 3, "ndcg@2": (1 + 1 / np.log2(3)) / 3})
