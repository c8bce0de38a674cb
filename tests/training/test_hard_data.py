"""Corpora at the edge of what can be learned from: correct work, or one clear error and nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peterrec.config import BackboneConfig
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import UNK
from peterrec.data.splits import uniform
from peterrec.errors import DataError, FingerprintError, TaskError
from peterrec.model import UserModel
from peterrec.training.adapt import adapt
from peterrec.training.pretrain import pretrain
from training.small import adapt_config, corpus_of, prepare_synthetic, pretrain_config

ONE_BLOCK = BackboneConfig(channels=8, dilations=(1,))


def cycles(users: int, items: int, length: int = 6) -> list[list[int]]:
    return [[4 + (user + step) % items for step in range(length)] for user in range(users)]


def held_out(corpus: Corpus) -> np.ndarray:
    return uniform(corpus.user_hashes, "pretrain-0") < 0.3


def pretrained(corpus: Corpus, out: Path, **settings: Any) -> UserModel:
    return pretrain(corpus, out, pretrain_config(**({"backbone": ONE_BLOCK, "epochs": 1} | settings)))


# ---------------------------------------------------------------- pre-training


def test_too_few_users(tmp_path: Path) -> None:
    for name, histories in {"one": [[4, 5, 6]], "none long enough": [[4], [5]] * 20}.items():
        corpus = corpus_of(tmp_path / name, histories, 3)
        with pytest.raises(DataError, match="both are needed\n  What to do: prepare again with more users"):
            pretrained(corpus, tmp_path / "out")
    assert not (tmp_path / "out.training").exists()


def test_users_with_a_single_event_are_passed_over(tmp_path: Path) -> None:
    histories = [history if user % 2 else history[:1] for user, history in enumerate(cycles(60, 5))]
    corpus = corpus_of(tmp_path / "corpus", histories, 5)
    training = pretrained(corpus, tmp_path / "out").pretrained.training
    long = np.arange(60) % 2 == 1
    assert training["users"] == (long & ~held_out(corpus)).sum()


def test_one_user_to_train_on(tmp_path: Path) -> None:
    histories: list[list[int]] = cycles(40, 5)
    corpus = corpus_of(tmp_path / "probe", histories, 5)
    first = int(np.flatnonzero(~held_out(corpus))[0])
    shortened = [h if user == first or held_out(corpus)[user] else h[:1] for user, h in enumerate(histories)]
    training = pretrained(corpus_of(tmp_path / "corpus", shortened, 5), tmp_path / "out", epochs=2).pretrained.training
    assert (training["users"], len(training["curve"])) == (1, 2)


@pytest.mark.slow
def test_two_items(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", cycles(40, 2), 2)
    for loss in ("full", "sampled"):
        model = pretrained(corpus, tmp_path / loss, loss=loss, negatives=7, epochs=20, optim={"lr": 0.05})
        assert model.pretrained.training["metrics"]["valid_loss"] < 0.3  # the other one always comes next


def test_one_item(tmp_path: Path) -> None:
    model = pretrained(corpus_of(tmp_path / "corpus", cycles(40, 1), 1), tmp_path / "out")
    assert model.pretrained.training["metrics"]["hr@10"] == 1.0


def test_a_batch_bigger_than_the_data(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", cycles(40, 5), 5)
    assert len(pretrained(corpus, tmp_path / "out", batch_size=10_000, epochs=2).pretrained.training["curve"]) == 2


def test_very_long_histories_are_read_in_windows(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", cycles(30, 7, length=350), 7)
    training = pretrained(corpus, tmp_path / "out", max_length=20, epochs=3, optim={"lr": 0.05}).pretrained.training
    assert training["windows"] == training["users"] * 18  # 349 targets, 20 a window
    assert training["metrics"]["valid_loss"] < 0.2  # a cycle is easy


@pytest.mark.slow
def test_unknown_items_are_nothing_to_predict(tmp_path: Path) -> None:
    """Users of whom nothing else is known are passed over; windows without anything to predict do no harm."""
    histories = [[4, *[UNK] * 40, *history, *[UNK] * 9] for history in cycles(60, 5)]
    histories += [[4, *[UNK] * 5]] * 20 + [[UNK, UNK]] * 20
    corpus = corpus_of(tmp_path / "corpus", histories, 5, rare_items="unk")
    model = pretrained(corpus, tmp_path / "out", max_length=16, batch_size=1, epochs=2)
    assert model.pretrained.unknown == "unk"
    training = model.pretrained.training
    assert training["users"] == (~held_out(corpus)[:60]).sum()
    assert all(np.isfinite(row["valid_loss"]) for row in training["curve"])
    with pytest.raises(DataError, match="0 users to train on and 0 held out"):
        pretrained(corpus_of(tmp_path / "all", [[4, UNK]] * 50, 5, rare_items="unk"), tmp_path / "other")


def test_held_out_users_whose_last_events_are_all_unknown_are_not_scored(tmp_path: Path) -> None:
    """With eleven events read, the first of them is no answer: what comes tenth from the end is the first that is."""
    answers, none = ([[4, 5, *[UNK] * after]] * 40 for after in (9, 10))
    pretrained(corpus_of(tmp_path / "some", answers, 5, rare_items="unk"), tmp_path / "out", max_length=10)
    with pytest.raises(DataError, match="and 0 held out"):
        pretrained(corpus_of(tmp_path / "none", none, 5, rare_items="unk"), tmp_path / "other", max_length=10)


def test_at_most_so_many_held_out_users_are_scored_whatever_their_place(tmp_path: Path, logged: list[str]) -> None:
    corpus = corpus_of(tmp_path / "corpus", cycles(60, 5), 5)
    pretrain(corpus, tmp_path / "out", pretrain_config(epochs=1, max_valid_users=4))
    users = int((~held_out(corpus)).sum())
    assert logged[0] == f"pre-training on {users} users, 4 held out, 5 items, full softmax"
    assert logged[1].startswith("warning: 4 held-out users are too few to choose an epoch by")
    assert logged[1].endswith("raise max_valid_users")


@pytest.mark.parametrize(
    ("settings", "loss"),
    [
        ({"full_softmax_limit": 5}, "full softmax"),
        ({"full_softmax_limit": 4, "negatives": 6}, "sampled softmax with 6 shared negatives"),
        ({"loss": "full", "full_softmax_limit": 4}, "full softmax"),
        ({"loss": "sampled", "negatives": 3}, "sampled softmax with 3 shared negatives"),
    ],
)
def test_the_loss_goes_by_the_size_of_the_catalogue(tmp_path: Path, settings: dict[str, Any], loss: str) -> None:
    model = pretrained(corpus_of(tmp_path / "corpus", cycles(40, 5), 5), tmp_path / "out", **settings)
    assert model.pretrained.training["loss"] == loss


# ---------------------------------------------------------------- adapting


def job(folder: Path, **changes: Any) -> Corpus:
    """A corpus with one task, whose users have no history at all unless `changes` gives them one."""
    parts = {part: [[], [], [], []] for part in ("train", "valid", "test")}
    arguments: dict[str, Any] = {"parts": parts, "labels": {part: [0, 1, 1, 1] for part in parts}} | changes
    return corpus_of(folder, cycles(40, 5), 5, **arguments)


@pytest.fixture
def model(tmp_path: Path) -> UserModel:
    return pretrained(corpus_of(tmp_path / "source", cycles(40, 5), 5), tmp_path / "backbone")


@pytest.mark.slow
def test_another_catalogue(model: UserModel, tmp_path: Path) -> None:
    other_corpus = prepare_synthetic(tmp_path / "other", users=60, items=9, targets=8, seed=1)
    with pytest.raises(FingerprintError) as caught:
        adapt(model, other_corpus, "cluster", tmp_path / "out", adapt_config())
    assert other_corpus.catalogue.fingerprint[:12] in str(caught.value)
    assert model.catalogue.fingerprint[:12] in str(caught.value)
    assert "--catalogue" in caught.value.remedy
    assert not list(tmp_path.glob("out*"))


def test_an_unknown_task(model: UserModel, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"has no task 'jib' \(did you mean 'job'\? it has: job\)"):
        adapt(model, job(tmp_path / "corpus"), "jib", tmp_path / "out", adapt_config())
    with pytest.raises(TaskError, match=r"it has: none"):
        adapt(model, corpus_of(tmp_path / "bare", cycles(40, 5), 5), "job", tmp_path / "out", adapt_config())
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("part", ["train", "valid"])
def test_a_task_without_users_in_a_part(model: UserModel, tmp_path: Path, part: str) -> None:
    parts = {"train": [[4]], "valid": [[5]], "test": [[6]]} | {part: []}
    corpus = job(tmp_path / "corpus", parts=parts, labels={name: [1] * len(rows) for name, rows in parts.items()})
    with pytest.raises(TaskError, match="both are needed\n  What to do: label more users"):
        adapt(model, corpus, "job", tmp_path / "out", adapt_config())
    assert not list(tmp_path.glob("out*"))


def test_a_user_who_has_every_target(model: UserModel, tmp_path: Path) -> None:
    targets = {"train": [[0], [1], [2], [4, 2, 0, 1, 3]], "valid": [[0]] * 4, "test": [[0]] * 4}
    corpus = job(tmp_path / "corpus", labels=None, targets=targets)
    with pytest.raises(TaskError, match="every target item, so no negative is left"):
        adapt(model, corpus, "job", tmp_path / "out", adapt_config())
    assert not list(tmp_path.glob("out*"))


def test_a_validation_user_may_have_every_target(model: UserModel, tmp_path: Path) -> None:
    targets = {"train": [[0], [1], [0], [0, 1, 2, 3]], "valid": [[0], [0], [0], [0, 1, 2, 3, 4]], "test": [[0]] * 4}
    bundle = adapt(model, job(tmp_path / "c", labels=None, targets=targets), "job", tmp_path / "out", adapt_config())
    assert 0 < bundle.metrics["valid"]["mrr"] <= 1


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("strategy", ["patch", "head"])
def test_users_without_any_history(model: UserModel, tmp_path: Path, strategy: str) -> None:
    """Nothing is known of them but that they are users of the task: the shares of the classes are the answer."""
    config = adapt_config(strategy=strategy, epochs=40, patience=40, optim={"lr": 0.05})
    model.add_bundle(adapt(model, job(tmp_path / "corpus"), "job", tmp_path / "out", config))
    np.testing.assert_allclose(model.predict([[], []], bundle="job").probabilities, [[0.25, 0.75]] * 2, atol=0.02)


def test_one_user_in_each_part_and_a_batch_bigger_than_that(model: UserModel, tmp_path: Path) -> None:
    parts = {part: [[4, 5]] for part in ("train", "valid", "test")}
    corpus = job(tmp_path / "corpus", parts=parts, labels={part: [1] for part in parts})
    bundle = adapt(model, corpus, "job", tmp_path / "out", adapt_config(batch_size=1000))
    assert bundle.metrics["valid"]["accuracy"] == 1.0


def test_only_the_last_events_are_read(model: UserModel, tmp_path: Path) -> None:
    """Histories that end alike are alike, to an adaptation that reads two events and to its bundle."""
    ends = [[4, 5], [5, 4], [4, 5], [5, 4]]
    results = []
    for name, before in {"short": [], "long": [6, 7, 8] * 200}.items():
        parts = {part: [[*before, *end] for end in ends] for part in ("train", "valid", "test")}
        corpus = job(tmp_path / name, parts=parts, labels={part: [0, 1, 0, 1] for part in parts})
        bundle = adapt(model, corpus, "job", tmp_path / f"{name}-bundle", adapt_config(max_length=2))
        results.append([row["train_loss"] for row in bundle.metrics["curve"]])
        assert bundle.max_length == 2
    assert results[0] == results[1]


def test_more_negatives_than_targets(model: UserModel, tmp_path: Path) -> None:
    targets = {part: [[0], [1], [2], [3, 2, 0, 1]] for part in ("train", "valid", "test")}
    corpus = job(tmp_path / "corpus", labels=None, targets=targets)
    bundle = adapt(model, corpus, "job", tmp_path / "out", adapt_config(negatives={"count": 50}))
    assert bundle.head_params == 5 * 9
