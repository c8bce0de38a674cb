"""User-to-user cosine and EASE: equal to readable forms, better than popularity, skipped where they are too large."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pyarrow as pa
import pytest

from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import UNK, Sequences
from peterrec.evaluation.baselines import baseline_names, ease, fit_baseline, neighbours
from peterrec.evaluation.baselines.bag import bag
from peterrec.evaluation.baselines.ease import ease as ease_across
from peterrec.evaluation.baselines.neighbours import user_to_user
from peterrec.evaluation.baselines.ranking import RankingBaseline
from peterrec.evaluation.validation import mean_reciprocal_rank

Make = Callable[..., TaskPart]
ITEMS, TARGETS = 40, 30


def part_of(sequences: list[list[int]], targets: list[list[int]]) -> TaskPart:
    ids = pa.array([str(i) for i in range(len(targets))])
    return TaskPart(ids, Sequences.from_rows(sequences), targets=Sequences.from_rows(targets))


def scores_of(baseline: RankingBaseline | str, sequences: Sequences, batch: int = 7) -> np.ndarray:
    assert isinstance(baseline, RankingBaseline), baseline
    return np.concatenate(list(baseline.score_batches(sequences, batch)))


def only(monkeypatch: pytest.MonkeyPatch, *setting: object) -> None:
    for name, value in zip(("WEIGHTS", "NEIGHBOURS", "SHRINKAGES"), setting, strict=True):
        monkeypatch.setattr(neighbours, name, (value,))


def cosine_oracle(
    train: TaskPart, sequences: Sequences, weights: str, nearest: int | None, shrinkage: float
) -> np.ndarray:
    """User by user, item by item."""
    user_items = [set(train.sequences[u].tolist()) for u in range(len(train))]
    users = len(user_items)
    having = {item: sum(item in owned for owned in user_items) for owned in user_items for item in owned}
    weight = dict.fromkeys(having, 1.0)
    if weights == "idf":
        weight = {item: np.log((1 + users) / (1 + count)) + 1 for item, count in having.items()}
        longer = sum(count * weight[item] ** 2 for item, count in having.items()) / sum(having.values())
        weight = {item: value / np.sqrt(longer) for item, value in weight.items()}
    length = [np.sqrt(sum(weight[item] ** 2 for item in owned)) for owned in user_items]
    scores = np.zeros((len(sequences), TARGETS))
    for row in range(len(sequences)):
        query_items = {item for item in sequences[row].tolist() if item in weight}
        norm = np.sqrt(sum(weight[item] ** 2 for item in query_items))
        cosines = np.zeros(users)
        for v, train_user in enumerate(user_items):
            if query_items & train_user:
                cosines[v] = sum(weight[item] ** 2 for item in query_items & train_user) / (
                    norm * length[v] + shrinkage
                )
        last = sorted(cosines, reverse=True)[nearest - 1] if nearest is not None else 0.0
        for v in range(users):
            if cosines[v] >= last * (1 - 1e-9):
                scores[row, np.unique(train.targets[v])] += cosines[v]
    return scores


@pytest.mark.parametrize("setting", list(product(("plain", "idf"), (None, 5), (0.0, 3.0))))
def test_user_to_user_is_the_readable_form(
    setting: tuple[str, int | None, float], make_rank_part: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, *setting)
    train, test = make_rank_part(60, 0), make_rank_part(25, 1)
    fitted = user_to_user(train, make_rank_part(0, 2), TARGETS)
    assert scores_of(fitted, test.sequences) == pytest.approx(cosine_oracle(train, test.sequences, *setting), abs=1e-6)
    assert fitted.settings["neighbours"] == (setting[1] or "all")


def test_targets_that_no_neighbour_has_follow_by_popularity(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "plain", None, 0.0)
    train = part_of([[4], [5], [6], []], [[0], [1, 2], [2], [2, 3]])
    scores = scores_of(user_to_user(train, train, 5), Sequences.from_rows([[4, 4], [], [99], [UNK]]))
    assert np.argsort(-scores[0], kind="stable").tolist() == [0, 2, 1, 3, 4]
    assert all(np.argsort(-row, kind="stable").tolist() == [2, 0, 1, 3, 4] for row in scores[1:])


def test_blocks_and_batches_change_nothing(make_rank_part: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    train, valid, test = (make_rank_part(users, seed) for seed, users in enumerate((120, 40, 30)))
    all_at_once = scores_of(user_to_user(train, valid, TARGETS), test.sequences, 30)
    monkeypatch.setattr(neighbours, "_BLOCK", 120 * 4)
    assert scores_of(user_to_user(train, valid, TARGETS), test.sequences, 30) == pytest.approx(all_at_once)
    assert scores_of(user_to_user(train, valid, TARGETS), test.sequences, 3) == pytest.approx(all_at_once)


def ease_oracle(
    train: TaskPart, sequences: Sequences, penalty: float, source_items: np.ndarray | None = None
) -> np.ndarray:
    """The closed form with all items in one dense matrix."""
    columns = np.arange(ITEMS) if source_items is None else source_items
    source = bag(train.sequences, ITEMS, binary=True).toarray()[:, columns]
    items = np.hstack([source, bag(train.targets, TARGETS, first=0, binary=True).toarray()])
    inverse = np.linalg.inv(items.T @ items + penalty * np.eye(items.shape[1]))
    weights = np.eye(items.shape[1]) - inverse / np.diag(inverse)
    assert np.abs(np.diag(weights)).max() < 1e-9
    new = bag(sequences, ITEMS, binary=True).toarray()[:, columns]
    nothing_of_targets = np.zeros((len(sequences), TARGETS))
    scores = (np.hstack([new, nothing_of_targets]) @ weights)[:, len(columns) :]
    popular = bag(train.targets, TARGETS, first=0, binary=True).toarray().sum(axis=0)
    user_items = new[:, source.any(axis=0)].any(axis=1, keepdims=True)
    return np.where(user_items, scores, popular)


@pytest.mark.parametrize("users", [15, 400])
def test_ease_is_its_closed_form(users: int, make_rank_part: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """15 users: solved on the users' side; 400: on the items' side."""
    monkeypatch.setattr(ease, "PENALTIES", (7.0,))
    train, test = make_rank_part(users, 0), make_rank_part(30, 1)
    fitted = ease_across(train, train, TARGETS)
    assert scores_of(fitted, test.sequences) == pytest.approx(ease_oracle(train, test.sequences, 7.0), abs=2e-4)
    assert fitted.settings["source items"] == "all"


def test_ease_keeps_the_items_of_the_most_users_where_there_are_too_many(
    make_rank_part: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ease, "MAX_SIDE", TARGETS + 10)
    monkeypatch.setattr(ease, "PENALTIES", (7.0,))
    train, test = make_rank_part(400, 0), make_rank_part(30, 1)
    fitted = ease_across(train, train, TARGETS)
    users = bag(train.sequences, ITEMS, binary=True).toarray().sum(axis=0)
    columns = np.sort(np.argsort(-users, kind="stable")[:10])
    assert scores_of(fitted, test.sequences) == pytest.approx(
        ease_oracle(train, test.sequences, 7.0, columns), abs=2e-4
    )
    assert fitted.settings["source items"] == "10 of 40, those of the most train users"


def test_too_large_is_skipped_with_a_reason(make_rank_part: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    train, valid = make_rank_part(100, 0), make_rank_part(20, 1)
    monkeypatch.setattr(ease, "MAX_SIDE", TARGETS)
    monkeypatch.setattr(neighbours, "MAX_USERS", 99)
    assert "EASE across domains was skipped: 30 targets and 100 users" in str(ease_across(train, valid, TARGETS))
    assert "user-to-user cosine was skipped" in str(user_to_user(train, valid, TARGETS))
    monkeypatch.undo()
    monkeypatch.setattr(ease, "MAX_WEIGHTS", 10)
    assert "too large" in str(ease_across(train, valid, TARGETS))


def test_settings_are_chosen_on_the_valid_users(make_rank_part: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two settings that differ on the valid users, the better one is taken, whichever comes first."""
    train, valid = make_rank_part(300, 0), make_rank_part(100, 1)
    for make, module, name in ((user_to_user, neighbours, "SHRINKAGES"), (ease_across, ease, "PENALTIES")):
        values = {}
        for setting in (0.1, 1e5):
            monkeypatch.setattr(module, name, (setting,))
            values[setting] = mean_reciprocal_rank(
                make(train, valid, TARGETS).score_batches(valid.sequences, 50), valid.targets
            )
        assert values[0.1] != values[1e5]
        for grid in ((0.1, 1e5), (1e5, 0.1)):
            monkeypatch.setattr(module, name, grid)
            chosen = make(train, valid, TARGETS)
            fitted = mean_reciprocal_rank(chosen.score_batches(valid.sequences, 50), valid.targets)
            assert fitted >= max(values.values())


@pytest.mark.parametrize("name", ["user-to-user cosine", "EASE across domains"])
def test_they_beat_popularity_and_take_anybody(name: str, make_rank_part: Make) -> None:
    train, valid, test = (make_rank_part(600 if seed == 0 else 200, seed) for seed in range(3))
    fitted = fit_baseline(name, train, valid, n_targets=TARGETS)
    popular = fit_baseline("popularity", train, valid, n_targets=TARGETS)
    values = [
        mean_reciprocal_rank(baseline.score_batches(test.sequences, 64), test.targets) for baseline in (popular, fitted)
    ]
    assert values[1] > values[0] + 0.05
    assert fitted.name == name
    assert name in baseline_names("ranking")
    nobody = Sequences.from_rows([[], [UNK], [10_000]])
    expected = np.argsort(-scores_of(popular, nobody), axis=1, kind="stable")
    assert np.array_equal(np.argsort(-scores_of(fitted, nobody), axis=1, kind="stable"), expected)
    assert list(fitted.score_batches(Sequences.from_rows([]), 4)) == []
    without = fit_baseline(name, train, make_rank_part(0, 1), n_targets=TARGETS)
    assert isinstance(without, RankingBaseline), "no valid users: the middle of the grid"
