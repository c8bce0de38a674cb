"""Answers of `UserModel`, against the formulas in NumPy; promise 2 with external ids."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import CLASSES, tiny_bundle, tiny_catalogue, tiny_pretrained
from oracles import oracle_backbone
from peterrec.data.catalogue import Catalogue
from peterrec.data.sequences import FIRST_ITEM, PAD, TCL, UNK
from peterrec.errors import ConfigError, UnknownItemsError
from peterrec.model import UserModel

ITEMS = 12
# Targets: some are source items (in another order), some are not; with text ids where the source has integers.
TARGETS = {
    False: Catalogue(pa.array(["x", "item-7", "item-0", "y", "item-3"]), [5, 4, 3, 2, 1], first=0),
    True: Catalogue(pa.array(["x", "107", "100", "0103", "103"]), [5, 4, 3, 2, 1], first=0),
}


def make(integers: bool = False, **settings: object) -> UserModel:
    model = UserModel(tiny_pretrained(tiny_catalogue(ITEMS, integers=integers), **settings), "cpu")
    model.add_bundle(tiny_bundle(model.pretrained))
    model.add_bundle(tiny_bundle(model.pretrained, targets=TARGETS[integers]))
    model.add_bundle(tiny_bundle(model.pretrained, targets=TARGETS[integers], strategy="head", name="shop, head"))
    return model


MODELS = {False: make(), True: make(integers=True)}
BUNDLES = [None, "age", "shop", "shop, head"]
rows = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=9), min_size=1, max_size=6)


def external(model: UserModel, histories: list[list[int]]) -> list[list[str | int]]:
    ids = model.catalogue.ids.to_pylist()
    return [[ids[position] for position in row] for row in histories]


def vectors_by_hand(model: UserModel, indices: list[list[int]], bundle: str | None) -> np.ndarray:
    """The last events of each user and [TCL], through the loops of the oracle."""
    chosen = model.bundles[bundle] if bundle else None
    longest = chosen.max_length if chosen else model.pretrained.max_length
    patch = chosen.patch if chosen else None
    tokens = [np.array([*row[-longest:], TCL]) for row in indices]
    return np.array([oracle_backbone(model.network.backbone, row, patch)[-1] for row in tokens])


def next_by_hand(model: UserModel, indices: list[list[int]]) -> np.ndarray:
    """The vectors that pre-training scores next items with: the state at the last event; zeros where there is none."""
    longest = model.pretrained.max_length
    states = [oracle_backbone(model.network.backbone, np.array([PAD, *row[-longest:]]))[-1] for row in indices]
    return np.array([state if row else 0.0 * state for state, row in zip(states, indices, strict=True)])


def scores_by_hand(model: UserModel, indices: list[list[int]], bundle: str | None) -> np.ndarray:
    if bundle is None:
        weight, bias = (tensor.double().numpy() for tensor in model.network.output_table())
        return popular_by_hand(model, indices, bundle, next_by_hand(model, indices) @ weight.T + bias)
    head = model.bundles[bundle].head
    weight, bias = head.weight.double().numpy(), head.bias.double().numpy()
    return popular_by_hand(model, indices, bundle, vectors_by_hand(model, indices, bundle) @ weight.T + bias)


def popular_by_hand(model: UserModel, indices: list[list[int]], bundle: str | None, scores: np.ndarray) -> np.ndarray:
    """The log of each target's share, every count raised by one, instead of the scores of users without events."""
    if bundle is not None and model.bundle(bundle).targets is None:
        return scores
    counts = model.targets(bundle).counts + 1
    scores[[not row for row in indices]] = np.log(counts / counts.sum())
    return scores


# ---------------------------------------------------------------- against the formulas


@given(rows, st.sampled_from(BUNDLES), st.booleans())
def test_a_representation_is_the_state_at_the_task_token(histories, bundle, integers):
    model = MODELS[integers]
    vectors = model.represent(external(model, histories), bundle)
    indices = [[FIRST_ITEM + position for position in row] for row in histories]
    assert (vectors.shape, vectors.dtype) == ((len(histories), 8), np.float32)
    np.testing.assert_allclose(vectors, vectors_by_hand(model, indices, bundle), atol=1e-5)


@given(rows, st.booleans())
def test_predictions_are_probabilities_of_the_head(histories, integers):
    model = MODELS[integers]
    predictions = model.predict(external(model, histories), "age")
    logits = scores_by_hand(model, [[FIRST_ITEM + p for p in row] for row in histories], "age")
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected[[not row for row in histories]] = model.bundle("age").class_priors
    assert predictions.class_names == CLASSES
    assert predictions.probabilities.dtype == np.float32
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1, atol=1e-5)
    assert predictions.labels == [CLASSES[i] for i in expected.argmax(1)]


@given(rows, st.sampled_from([None, "shop", "shop, head"]), st.integers(1, 15), st.booleans(), st.booleans())
def test_recommendations_are_the_best_that_are_allowed(histories, bundle, k, exclude, integers):
    model = MODELS[integers]
    item_ids = external(model, histories)
    recommendations = model.recommend(item_ids, bundle, k, exclude_seen=exclude)
    ids = model.targets(bundle).ids.to_pylist()
    indices = [[FIRST_ITEM + p for p in row] for row in histories]
    for user, scores in enumerate(scores_by_hand(model, indices, bundle)):
        excluded = {str(item) for item in item_ids[user]} if exclude else set()
        best = sorted((i for i, item in enumerate(ids) if str(item) not in excluded), key=lambda i: -scores[i])[:k]
        assert recommendations.items[user] == [ids[i] for i in best]
        np.testing.assert_allclose(recommendations.scores[user], scores[best], atol=1e-4)
    assert len(recommendations.items) == len(recommendations.scores) == len(histories)


@given(rows, st.integers(1, 4), st.sampled_from(BUNDLES), st.randoms(use_true_random=False))
def test_batch_size_batch_mates_and_order_do_not_matter(histories, batch_size, bundle, random):
    model = MODELS[False]
    item_ids = external(model, histories)
    order = random.sample(range(len(item_ids)), len(item_ids))
    shuffled = [item_ids[i] for i in order]
    np.testing.assert_allclose(
        model.represent(shuffled, bundle, batch_size=batch_size), model.represent(item_ids, bundle)[order], atol=1e-5
    )
    if bundle == "age":
        first, second = model.predict(shuffled, bundle, batch_size=batch_size), model.predict(item_ids, bundle)
        np.testing.assert_allclose(first.probabilities, second.probabilities[order], atol=1e-5)
    else:
        in_batches, at_once = (
            model.recommend(shuffled, bundle, 3, batch_size=batch_size),
            model.recommend(item_ids, bundle, 3),
        )
        assert in_batches.items == [at_once.items[i] for i in order]
        for scores, i in zip(in_batches.scores, order, strict=True):
            np.testing.assert_allclose(scores, at_once.scores[i], atol=1e-5)


def test_only_the_most_recent_events_are_read():
    model = MODELS[False]
    long, short = [f"item-{i}" for i in range(11)], [f"item-{i}" for i in range(5, 11)]
    assert np.array_equal(model.represent([long]), model.represent([short]))
    assert np.array_equal(model.represent([long], "age"), model.represent([short[1:]], "age")), "a bundle reads five"
    recommended = model.recommend([long], None, 12).items[0]
    assert recommended == ["item-11"], "but all events are seen events"


def test_next_items_are_scored_as_pretraining_scored_them():
    """With a ReLU on the hidden state, if it had one; what tasks get is the state itself."""
    plain, rectified = make(), make(backbone={"output_relu": True})
    history = [["item-1", "item-5", "item-2"]]
    hidden = next_by_hand(rectified, [[5, 9, 6]])
    assert (hidden < 0).any()
    weight, bias = (tensor.double().numpy() for tensor in rectified.network.output_table())
    expected = np.maximum(hidden, 0) @ weight.T + bias
    (scores,) = rectified.score_batches(rectified.encode(history).sequences)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert np.array_equal(plain.represent(history), rectified.represent(history))


# ---------------------------------------------------------------- edges


def test_integers_answer_with_integers_and_take_digits():
    model = MODELS[True]
    assert np.array_equal(model.represent([["101", "105"]]), model.represent([[101, 105]]))
    assert all(type(item) is int for item in model.recommend([[101]]).items[0])
    assert all(type(item) is str for item in model.recommend([[101]], "shop").items[0])


def test_more_than_there_are_gives_all():
    model = MODELS[False]
    history = ["item-0", "item-3", "item-0"]
    assert sorted(model.recommend([history], "shop", 1000).items[0]) == ["item-7", "x", "y"]
    assert len(model.recommend([history], "shop", 1000, exclude_seen=False).items[0]) == 5
    assert len(model.recommend([history], None, 1000).items[0]) == ITEMS - 2
    everything = model.catalogue.ids.to_pylist()
    answers = model.recommend([everything, ["item-1"]], None, 3)
    assert [len(row) for row in answers.items] == [0, 3]
    assert [len(row) for row in answers.scores] == [0, 3]


@pytest.mark.parametrize("k", [0, -1])
def test_fewer_than_one_is_refused(k):
    with pytest.raises(ConfigError, match=f"k is {k}"):
        MODELS[False].recommend([["item-1"]], "shop", k)


def test_a_user_of_whom_nothing_is_known_gets_an_answer():
    model = MODELS[False]
    alone = model.represent([[]], "age")
    assert np.isfinite(alone).all()
    np.testing.assert_allclose(model.represent([["item-1"], []], "age")[1:], alone, atol=1e-6)
    assert len(model.recommend([[]], "shop", 2).items[0]) == 2


@pytest.mark.parametrize("bundle", [None, "shop"])
def test_no_users_give_no_answers(bundle):
    model = MODELS[False]
    assert model.represent([], bundle).shape == (0, 8)
    assert model.recommend([], bundle).items == []
    assert model.predict([], "age").probabilities.shape == (0, 3)
    assert model.predict([], "age").labels == []


def test_unknown_items_are_skipped_or_keep_their_place():
    model = MODELS[False]
    history, known_items = ["item-1", "x", "item-2", "z"], ["item-1", "item-2"]
    assert np.array_equal(model.represent([history], unknown="skip"), model.represent([known_items]))
    with_unk = model.represent([history], unknown="unk")
    np.testing.assert_allclose(with_unk, vectors_by_hand(model, [[5, UNK, 6, UNK]], None), atol=1e-5)
    assert not np.allclose(with_unk, model.represent([known_items]), atol=1e-3)
    assert model.encode([history, known_items]).unknown_counts.tolist() == [2, 0]
    with pytest.raises(UnknownItemsError, match="2 of 4 items"):
        model.recommend([history], unknown="error")
    for unknown in ("skip", "unk", None):
        with pytest.raises(UnknownItemsError, match="2 of 2 items"):
            model.predict([["x"], ["z"]], "age", unknown=unknown)


@pytest.mark.parametrize("unknown", ["skip", "unk"])
def test_by_default_unknown_items_are_treated_as_in_training(unknown):
    model, history = make(unknown=unknown), [["item-1", "x", "item-2"]]
    assert np.array_equal(model.represent(history), model.represent(history, unknown=unknown))
    other_setting = "unk" if unknown == "skip" else "skip"
    assert not np.allclose(model.represent(history), model.represent(history, unknown=other_setting), atol=1e-3)
    assert model.recommend(history, "shop", 9).items[0] != [], "an unknown item hides no target"


def test_a_target_that_the_source_does_not_know_is_seen_all_the_same():
    model = MODELS[False]
    assert "x" in model.recommend([["item-1"], ["x", "item-1"]], "shop", 5).items[0]
    assert "x" not in model.recommend([["item-1"], ["x", "item-1"]], "shop", 5).items[1]
    assert "x" in model.recommend([["x", "item-1"]], "shop", 5, exclude_seen=False).items[0]


def test_a_backbone_that_predicts_no_items_recommends_none_without_a_bundle() -> None:
    model = make()
    assert len(model.recommend([["item-1"]], k=2).items[0]) == 2
    model.pretrained.training["objective"] = "contrastive"
    with pytest.raises(ConfigError, match="predicts no items") as caught:
        model.recommend([["item-1"]], k=2)
    assert "prediction_weight" in caught.value.remedy
    assert len(model.recommend([["item-1"]], "shop", 2).items[0]) == 2
