"""Running networks over many users: precision, compiling, and the best items against a plain sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.artifacts.popularity import Popularity
from peterrec.data.sequences import FIRST_ITEM, Sequences
from peterrec.errors import ConfigError
from peterrec.inference import ItemScorer
from peterrec.model import UserModel

USERS = Sequences.from_rows([[FIRST_ITEM + (i * j) % 12 for j in range(1, 1 + i % 8)] for i in range(40)])


def test_bf16_is_near_fp32_and_not_the_same() -> None:
    plain, fast = (UserModel(tiny_pretrained(), "cpu", precision=p) for p in ("fp32", "bf16"))
    exact, rounded = plain.representations(USERS), fast.representations(USERS)
    assert rounded.dtype == np.float32
    assert not np.array_equal(exact, rounded)
    cosine = (exact * rounded).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rounded, axis=1)
    assert cosine.min() > 0.999


def test_items_are_scored_in_fp32_whatever_the_networks_precision() -> None:
    """With bf16 scores many items would tie: there are 12 of them and 12 different scores for every user."""
    model = UserModel(tiny_pretrained(), "cpu", precision="bf16")
    for scores in model.score_batches(USERS):
        assert scores.dtype == np.float32
        assert all(len(set(row)) == 12 for row in scores.tolist())
        assert (scores != torch.from_numpy(scores).bfloat16().float().numpy()).mean() > 0.9


@pytest.mark.parametrize("precision", ["bf8", "fp64", ""])
def test_another_precision_is_refused(precision: str) -> None:
    with pytest.raises(ConfigError, match=f"no such precision: '{precision}'"):
        UserModel(tiny_pretrained(), "cpu", precision=precision)  # type: ignore[arg-type]


def test_a_compiled_model_compiles_batches_of_the_longest_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def spy(*arguments):
        shapes.append(tuple(arguments[1].shape[:2]))
        return run_blocks(*arguments)

    from peterrec.nn.execution import run_blocks

    monkeypatch.setattr("peterrec.nn.backbone.compiled_run", spy)
    pretrained = tiny_pretrained(max_length=8)
    plain, compiled = UserModel(pretrained, "cpu"), UserModel(pretrained, "cpu", compile=True)
    long = Sequences.from_rows([[FIRST_ITEM + i % 12] * 9 for i in range(11)])
    for model in (plain, compiled):
        model.add_bundle(tiny_bundle(pretrained, name="age", max_length=8))
    for bundle in (None, "age"):
        expected = plain.representations(long, bundle, batch_size=4)
        assert shapes == []
        assert np.array_equal(compiled.representations(long, bundle, batch_size=4), expected)
        assert len(shapes) == 2, "two full batches of three"
        assert all(rows == 4 for rows, _ in shapes)
        shapes.clear()
    assert np.array_equal(
        np.concatenate(list(compiled.score_batches(long, batch_size=4))),
        np.concatenate(list(plain.score_batches(long, batch_size=4))),
    )
    assert len(shapes) == 2


@given(st.integers(1, 7), st.integers(1, 20), st.integers(1, 5), st.integers(0, 99), st.booleans())
def test_the_best_items_are_those_of_a_sort(users, k, batch_size, seed, exclude):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(users, 3)).astype(np.float32)
    weight, bias = rng.normal(size=(12, 3)).astype(np.float32), rng.normal(size=12).astype(np.float32)
    excluded = (
        Sequences.from_rows([rng.integers(-2, 12, size=rng.integers(0, 9)) for _ in range(users)]) if exclude else None
    )
    known_events = np.ones(users, np.int64)
    popularity = Popularity(np.ones(12))
    scorer = ItemScorer(vectors, torch.from_numpy(weight), torch.from_numpy(bias), popularity, known_events)
    top = scorer.top_k(k, excluded, batch_size)
    assert top.positions.shape == top.scores.shape == (users, min(k, 12))
    for user in range(users):
        scores = vectors[user].astype(np.float64) @ weight.T + bias
        left_out = {int(i) for i in excluded[user] if i >= 0} if excluded is not None else set()
        allowed = sorted(set(range(12)) - left_out, key=lambda i: -scores[i])[:k]
        finite = np.isfinite(top.scores[user])
        assert top.positions[user][finite].tolist() == allowed
        np.testing.assert_allclose(top.scores[user][finite], scores[allowed], rtol=1e-5, atol=1e-6)
        assert (top.scores[user][~finite] == -np.inf).all()


def test_top_k_ranks_targets_of_a_bundle_or_the_catalogue() -> None:
    pretrained = tiny_pretrained()
    model = UserModel(pretrained, "cpu")
    model.add_bundle(tiny_bundle(pretrained, name="shop", targets=tiny_catalogue(5, first=0)))
    for bundle, items in ((None, 12), ("shop", 5)):
        scores = np.concatenate(list(model.score_batches(USERS, bundle)))
        top = model.top_k(USERS, 3, bundle)
        assert scores.shape[1] == items
        assert np.array_equal(top.positions, np.argsort(-scores, axis=1)[:, :3])
    model.add_bundle(tiny_bundle(pretrained, name="age"))
    with pytest.raises(ConfigError, match="use predict"):
        model.top_k(USERS, 3, "age")
