"""Item embeddings that start at what goes together, and embeddings that stay as they start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from peterrec.config import BackboneConfig, PretrainConfig
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import Sequences
from peterrec.errors import ConfigError
from peterrec.evaluation.baselines import tfidf_factors
from peterrec.evaluation.baselines.bag import bag
from peterrec.model import UserModel
from peterrec.training.co_occurrence import DEVIATION, item_factors
from peterrec.training.pretrain import _hold_out, pretrain
from training.small import pretrain_config

# Two tastes without a common item, and item 10 (the seventh), which nobody has.
TASTES = Sequences.from_rows([[4, 5, 6], [4, 6, 5, 5], [5, 4], [6, 4], [7, 8, 9], [8, 9], [9, 7, 8], [7, 9]])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_items_of_the_same_users_are_alike_and_others_are_not() -> None:
    factors = item_factors(TASTES, np.arange(8), 7, 2, seed=0)
    assert factors.shape == (7, 2)
    assert factors.dtype == np.float32
    assert cosine(factors[0], factors[1]) > 0.95
    assert cosine(factors[3], factors[5]) > 0.95
    assert abs(cosine(factors[0], factors[3])) < 0.2
    assert np.abs(factors[6]).max() < DEVIATION / 10, "an item of nobody"


def test_an_item_that_everybody_has_is_shorter_by_its_inverse_document_frequency() -> None:
    histories = [[4, 5 + (user % 2)] for user in range(40)]  # item 4 of all; 5 or 6 of half
    factors = item_factors(Sequences.from_rows(histories), np.arange(40), 3, 2, seed=0)
    counts = np.array([40, 20, 20])
    idf = np.log(41 / (counts + 1)) + 1
    rows = np.zeros((40, 3))
    rows[:, 0] = idf[0]
    rows[np.arange(40), 1 + np.arange(40) % 2] = idf[1]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    right = np.linalg.svd(rows, full_matrices=False)[2][:2].T * idf[:, None] ** 2
    expected = np.linalg.norm(right, axis=1) * DEVIATION / right.std()
    np.testing.assert_allclose(np.linalg.norm(factors, axis=1), expected, atol=0.02)


@pytest.mark.parametrize("channels", [1, 3, 12])
def test_channels_that_the_data_cannot_fill_are_filled_with_little_noise(channels: int) -> None:
    factors = item_factors(TASTES, np.arange(8), 7, channels, seed=0)
    assert factors.shape == (7, channels)
    assert np.isfinite(factors).all()
    assert not (factors == 0).any()
    assert (item_factors(Sequences.from_rows([[4]]), np.arange(1), 1, channels, seed=0) != 0).all()


def test_only_the_given_users_and_so_many_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    all_users = item_factors(TASTES, np.arange(8), 7, 2, seed=0)
    single_taste = item_factors(TASTES, np.arange(4), 7, 2, seed=0)
    assert np.abs(single_taste[3:]).max() < DEVIATION / 10
    monkeypatch.setattr(tfidf_factors, "MAX_USERS", 4)
    fewer = item_factors(TASTES, np.arange(8), 7, 2, seed=0)
    assert not np.allclose(np.abs(fewer), np.abs(all_users))
    assert cosine(fewer[3], fewer[5]) > 0.9, "evenly spread ones: of both tastes"


@pytest.mark.parametrize(("rows", "channels", "seed"), [(130, 8, 0), (40, 16, 7), (8, 24, 1)])
def test_embeddings_are_the_same_bytes_as_ever(corpus: Corpus, rows: int, channels: int, seed: int) -> None:
    """As before the factorisation moved: a backbone that is trained again from the same seed is the same."""
    counts = bag(corpus.sequences.take(np.arange(rows)), 24)
    weigh = TfidfTransformer().fit(counts)
    expected = np.random.default_rng(seed).normal(scale=0.01 * DEVIATION, size=(24, channels))
    factors = min(channels, 23, rows - 1)
    components = TruncatedSVD(factors, n_iter=5, random_state=seed).fit(weigh.transform(counts)).components_.T
    components = components * weigh.idf_[:, None] ** 2
    expected[:, :factors] += components * (DEVIATION / max(float(components.std()), 1e-12))
    actual = item_factors(corpus.sequences, np.arange(rows), 24, channels, seed)
    assert actual.tobytes() == expected.astype(np.float32).tobytes()


def settings(**overrides: object) -> PretrainConfig:
    backbone = BackboneConfig(channels=8, dilations=(1, 2), tie_weights=False)
    return pretrain_config(backbone=backbone, item_init="co-occurrence", epochs=2, **overrides)


def table(model: UserModel) -> np.ndarray:
    return model.network.backbone.embedding.weight.detach().numpy()[4:]


def test_embeddings_start_there_and_stay_if_they_are_not_trained(corpus: Corpus, tmp_path: Path) -> None:
    frozen = settings(train_item_embeddings=False)
    model = pretrain(corpus, tmp_path / "frozen", frozen)
    rows, _ = _hold_out(corpus, frozen)
    expected = item_factors(corpus.sequences, rows, len(corpus.catalogue), 8, frozen.seed)
    np.testing.assert_array_equal(table(model), expected)
    assert model.network.head is not None
    second_result = UserModel.from_pretrained(tmp_path / "frozen")
    assert torch.equal(second_result.network.backbone.embedding.weight, model.network.backbone.embedding.weight)
    trained = pretrain(corpus, tmp_path / "trained", settings(train_item_embeddings=True))
    assert not np.allclose(table(trained), expected)
    near, far = np.abs(table(trained) - expected).mean(), np.abs(table(trained)).mean()
    assert near < far, "it began there"


@pytest.mark.parametrize("limit", [1, 1000])
def test_a_frozen_table_of_sampled_softmax_stays_too(corpus: Corpus, tmp_path: Path, limit: int) -> None:
    config = settings(train_item_embeddings=False, loss="sampled", negatives=8, dense_table_limit=limit)
    assert config.by_rows(24) == (limit == 1)
    model = pretrain(corpus, tmp_path / "out", config)
    rows, _ = _hold_out(corpus, config)
    np.testing.assert_array_equal(table(model), item_factors(corpus.sequences, rows, 24, 8, config.seed))


def test_a_table_that_scores_items_is_trained() -> None:
    with pytest.raises(ConfigError, match="tie_weights false"):
        PretrainConfig(train_item_embeddings=False, backbone=BackboneConfig(tie_weights=True))


@pytest.mark.parametrize(
    ("init", "tied", "trained"),
    [("random", False, True), ("random", True, True), ("co-occurrence", True, True), ("co-occurrence", False, False)],
)
def test_factors_stay_as_they_are_unless_they_score_items(init: str, tied: bool, trained: bool) -> None:
    config = PretrainConfig(item_init=init, backbone=BackboneConfig(tie_weights=tied))
    assert config.trains_item_embeddings is trained
