"""Baselines beat chance on data they can learn, see no test labels, and take users without a history."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from scipy.linalg import solve
from sklearn.metrics import accuracy_score

from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import FIRST_ITEM, UNK, Sequences
from peterrec.errors import TaskError
from peterrec.evaluation.baselines import classification, fit_baselines, ranking, ridge
from peterrec.evaluation.baselines.bag import bag, batches
from peterrec.evaluation.baselines.classification import bag_of_items, history_length, majority
from peterrec.evaluation.baselines.ranking import RankingBaseline, item_to_item, popularity
from peterrec.evaluation.baselines.ridge import ridge as ridge_across
from peterrec.evaluation.metrics import log_loss
from peterrec.evaluation.validation import mean_reciprocal_rank

Make = Callable[..., TaskPart]


def class_of(sequences: list[list[int]], labels: list[int]) -> TaskPart:
    return TaskPart(
        pa.array([str(i) for i in range(len(labels))]), Sequences.from_rows(sequences), labels=np.array(labels)
    )


def rank_of(sequences: list[list[int]], targets: list[list[int]]) -> TaskPart:
    ids = pa.array([str(i) for i in range(len(targets))])
    return TaskPart(ids, Sequences.from_rows(sequences), targets=Sequences.from_rows(targets))


def scores_of(baseline: RankingBaseline | str, sequences: Sequences, batch: int = 7) -> np.ndarray:
    assert isinstance(baseline, RankingBaseline)
    return np.concatenate(list(baseline.score_batches(sequences, batch)))


EMPTY = Sequences.from_rows([[]])


def test_bag_counts_items_and_leaves_out_tokens_and_unknown_items() -> None:
    matrix = bag(Sequences.from_rows([[4, 6, 4, UNK], [], [900, 5]]), 3)
    assert matrix.toarray().tolist() == [[2, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert bag(Sequences.from_rows([[4, 4]]), 3, binary=True).toarray().tolist() == [[1, 0, 0]]
    assert [len(batch) for batch in batches(Sequences.from_rows([[1]] * 5), 2)] == [2, 2, 1]


def test_majority_gives_the_class_priors() -> None:
    baseline = majority(class_of([[4], [5], [], [4]], [1, 1, 0, 1]), class_of([], []), 3)
    assert baseline.probabilities(Sequences.from_rows([[], [4]])).tolist() == [[0.25, 0.75, 0.0]] * 2


def test_class_baselines_beat_the_majority(make_class_part: Make) -> None:
    train, valid, test = (make_class_part(900 if seed == 0 else 300, seed) for seed in range(3))
    fitted = fit_baselines(train, valid, classes=3)
    assert [baseline.name for baseline in fitted.baselines] == [
        "majority",
        "history length",
        "tf-idf + logistic regression",
        "64 factors + logistic regression",
        "256 factors + logistic regression",
    ]
    probabilities = [baseline.probabilities(test.sequences) for baseline in fitted.baselines]
    for rows in probabilities:
        assert rows.shape == (300, 3)
        assert rows.sum(axis=1) == pytest.approx(1.0)
    hits = [accuracy_score(test.labels, rows.argmax(axis=1)) for rows in probabilities]
    assert hits[1] > hits[0] + 0.1
    assert hits[2] > hits[0] + 0.15
    losses = [log_loss(rows, test.labels) for rows in probabilities]
    assert losses[2] < losses[0]


def test_regularisation_is_chosen_on_the_valid_users(make_class_part: Make) -> None:
    """Valid users whose labels are noise ask for the strongest regularisation."""
    train, valid = make_class_part(300, 0), make_class_part(300, 1)
    clear = bag_of_items(train, valid, 3)
    noise = TaskPart(valid.user_ids, valid.sequences, labels=np.random.default_rng(0).permutation(valid.labels))
    assert clear.settings["C"] > bag_of_items(train, noise, 3).settings["C"]
    assert clear.settings["converged"] is True


def test_the_chosen_fit_answers_not_the_one_tried_after_it(
    make_class_part: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, valid = make_class_part(300, 0), make_class_part(300, 1)
    chosen = bag_of_items(train, valid, 3)
    assert chosen.settings["C"] < classification.GRID[-1], "else nothing was tried after it"
    monkeypatch.setattr(classification, "GRID", (chosen.settings["C"],))
    alone = bag_of_items(train, valid, 3)
    # lbfgs stops within a tolerance, so where it started from shows in the third digit
    assert chosen.probabilities(valid.sequences) == pytest.approx(alone.probabilities(valid.sequences), abs=0.02)


def test_no_valid_users_means_a_fixed_choice(make_class_part: Make, make_rank_part: Make) -> None:
    nobody = class_of([], [])
    assert bag_of_items(make_class_part(100, 0), nobody, 3).settings["C"] == 1.0
    none = rank_of([], [])
    assert isinstance(item_to_item(make_rank_part(100, 0), none, 30), RankingBaseline)
    assert isinstance(ridge_across(make_rank_part(100, 0), none, 30), RankingBaseline)


def test_a_fit_that_does_not_converge_says_so_and_warns_nobody(
    make_class_part: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peterrec.evaluation.baselines.classification.MAX_STEPS", 1)
    assert bag_of_items(make_class_part(200, 0), make_class_part(100, 1), 3).settings["converged"] is False


def test_classes_and_items_unseen_in_train_are_no_trouble() -> None:
    train = class_of([[4, 4], [5], [4], [5, 5]], [0, 2, 0, 2])
    test = Sequences.from_rows([[], [999], [4], [UNK]])
    for baseline in fit_baselines(train, class_of([[4], [5]], [0, 1]), classes=4).baselines:
        probabilities = baseline.probabilities(test)
        assert probabilities.shape == (4, 4)
        np.testing.assert_allclose(probabilities[:, [1, 3]], 1 / 8)  # as if each class had been seen once more
        assert probabilities.sum(axis=1) == pytest.approx(1.0)
        assert baseline.probabilities(Sequences.from_rows([])).shape == (0, 4)


def test_history_length_sees_events_and_distinct_items() -> None:
    rows = [[4] * 8, [4, 5, 6, 7, 8, 9, 10, 11]] * 20
    baseline = history_length(class_of(rows, [0, 1] * 20), class_of([], []), 2)
    probabilities = baseline.probabilities(Sequences.from_rows([[20] * 8, list(range(20, 28))]))
    assert probabilities.argmax(axis=1).tolist() == [0, 1]


def test_one_class_in_train_leaves_the_majority_and_a_note() -> None:
    fitted = fit_baselines(class_of([[4], [5]], [1, 1]), class_of([], []), classes=2)
    assert [baseline.name for baseline in fitted.baselines] == ["majority"]
    assert "one class" in fitted.notes[0]


def test_nobody_to_fit_on_is_refused() -> None:
    with pytest.raises(TaskError, match="no train users"):
        fit_baselines(class_of([], []), class_of([], []), classes=2)


def test_popularity_by_hand() -> None:
    baseline = popularity(rank_of([[4], [], [5]], [[0, 2], [2], [2, 2]]), rank_of([], []), 4)
    assert scores_of(baseline, EMPTY).tolist() == [[1, 0, 3, 0]]


def test_cosine_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "SHRINKAGES", (0.0,))
    train = rank_of([[4, 4], [4, 5], [5]], [[0], [0, 1], [1]])
    baseline = item_to_item(train, train, 2)
    # users of item 4: {0, 1}, of item 5: {1, 2}; of target 0: {0, 1}, of target 1: {1, 2}.
    # cosine(4, 0) = 2 / 2, cosine(4, 1) = 1 / 2, cosine(5, 0) = 1 / 2, cosine(5, 1) = 2 / 2
    scores = scores_of(baseline, Sequences.from_rows([[4, 4], [5], [4, 5], [], [77]]))
    assert scores[:3] == pytest.approx(np.array([[1.0, 0.5], [0.5, 1.0], [1.5, 1.5]]))
    assert scores[3:].tolist() == [[2.0, 2.0]] * 2, "without known items: popularity"


def test_shrinkage_is_chosen_on_the_valid_users() -> None:
    """Target 1 has the better cosine by luck of one user; the valid users follow the many."""
    train = rank_of([[4]] * 30 + [[4, 5]] + [[6]] * 10, [[0]] * 20 + [[2]] * 10 + [[1]] + [[0]] * 10)
    lucky = rank_of([[5]] * 5, [[1]] * 5)
    plain = rank_of([[4, 5]] * 5, [[0]] * 5)
    assert item_to_item(train, lucky, 3).settings["shrinkage"] == 0.0
    assert item_to_item(train, plain, 3).settings["shrinkage"] > 0.0


@pytest.mark.parametrize("grid", [(10.0, 100.0), (100.0, 10.0)])
@pytest.mark.parametrize("users", [12, 60])
def test_ridge_solves_its_equations_with_few_and_with_many_users(
    users: int, grid: tuple[float, ...], make_rank_part: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 users: solved on the users' side; 60: on the items' side. Both must be the textbook solution.

    Whatever was tried before: with both orders of the grid the penalty chosen comes second once.
    """
    monkeypatch.setattr(ridge, "PENALTIES", grid)
    train, test = make_rank_part(users, 0), make_rank_part(20, 1)
    source, new = (bag(part.sequences, 40, binary=True).toarray() for part in (train, test))
    target = bag(train.targets, 30, first=0, binary=True).toarray()
    fitted = ridge_across(train, train, 30)
    scores = scores_of(fitted, test.sequences)
    assert fitted.settings["lambda"] == 10.0, "chosen on the users it was fitted on: the weakest penalty"
    weights = solve(source.T @ source + 10.0 * np.eye(40), source.T @ (target - target.mean(axis=0)))
    # items beyond the train users' have no weight in either form
    assert scores == pytest.approx(new @ weights + target.mean(axis=0), abs=1e-4)


def test_ranking_baselines_beat_popularity(make_rank_part: Make) -> None:
    train, valid, test = (make_rank_part(600 if seed == 0 else 200, seed) for seed in range(3))
    fitted = fit_baselines(train, valid, n_targets=30)
    assert [baseline.name for baseline in fitted.baselines] == [
        "popularity",
        "item-to-item cosine",
        "ridge across domains",
    ]
    values = [
        mean_reciprocal_rank(baseline.score_batches(test.sequences, 64), test.targets) for baseline in fitted.baselines
    ]
    chance = (1 / np.arange(1, 31)).sum() / 30
    assert values[0] > chance + 0.1
    assert min(values[1:]) > values[0] + 0.05


def test_empty_histories_get_popularity_order(make_rank_part: Make) -> None:
    train = make_rank_part(300, 0)
    fitted = fit_baselines(train, make_rank_part(50, 1), n_targets=30)
    order = [np.argsort(scores_of(baseline, EMPTY)[0], kind="stable").tolist() for baseline in fitted.baselines]
    assert order[0] == order[1] == order[2]


def test_what_is_too_large_is_skipped_with_a_note(make_rank_part: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "MAX_SIDE", 10)
    monkeypatch.setattr(ranking, "MAX_CO_OCCURRENCES", 10)
    messages: list[str] = []
    fitted = fit_baselines(make_rank_part(100, 0), make_rank_part(50, 1), n_targets=30, say=messages.append)
    assert [baseline.name for baseline in fitted.baselines] == ["popularity"]
    assert [note.split(" was skipped")[0] for note in fitted.notes] == ["item-to-item cosine", "ridge across domains"]
    assert messages[-1] == "fitting baseline: ridge across domains"


@pytest.mark.slow
def test_the_same_parts_give_the_same_baselines(make_class_part: Make) -> None:
    test = make_class_part(50, 2).sequences
    first, second = (
        bag_of_items(make_class_part(200, 0), make_class_part(100, 1), 3).probabilities(test) for _ in "ab"
    )
    assert np.array_equal(first, second)


def test_batches_do_not_change_scores(make_rank_part: Make) -> None:
    test = make_rank_part(50, 2).sequences
    for baseline in fit_baselines(make_rank_part(300, 0), make_rank_part(50, 1), n_targets=30).baselines:
        assert scores_of(baseline, test, 3) == pytest.approx(scores_of(baseline, test, 50), abs=1e-5)


def test_first_item_is_column_zero() -> None:
    assert bag(Sequences.from_rows([[FIRST_ITEM]]), 1).toarray().tolist() == [[1.0]]


def test_the_bag_of_items_keeps_the_length_of_histories_where_it_tells_something() -> None:
    rng = np.random.default_rng(0)

    def part(users: int, by_length: bool) -> TaskPart:
        labels = rng.integers(0, 2, users)
        lengths = np.where(labels == 1, 12, 3) if by_length else rng.integers(1, 40, users)
        items = 10 * labels if not by_length else np.zeros(users, dtype=np.int64)
        rows = [FIRST_ITEM + start + rng.integers(0, 14, n) for start, n in zip(items, lengths, strict=True)]
        return TaskPart(pa.array([str(n) for n in range(users)]), Sequences.from_rows(rows), labels=labels)

    for by_length, rows in ((True, "keep their length"), (False, "normalised")):
        fitted = bag_of_items(part(300, by_length), part(200, by_length), 2)
        assert fitted.settings["rows"] == rows
        test = part(300, by_length)
        assert (fitted.probabilities(test.sequences).argmax(1) == test.labels).mean() > 0.9
