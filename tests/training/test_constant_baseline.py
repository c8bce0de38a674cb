"""Too little to judge by is told: few valid users, one class, a model that is no better than the same for everybody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peterrec.artifacts.inspection import inspect
from peterrec.cli.main import execute
from peterrec.config import AdaptConfig, TaskKind, load_config
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.sequences import FIRST_ITEM, Sequences
from peterrec.errors import TaskError
from peterrec.model import UserModel
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.constant_baseline import settings_to_try, useless
from peterrec.training.pretrain import pretrain
from peterrec.training.selection import select_by
from peterrec.training.task_kinds import TaskObjective, mean_metrics, task_objective
from training.small import adapt_config, corpus_of, pretrain_config

RUINED = {
    "lr": 3.0,
    "schedule": "constant",
    "warmup_fraction": 0.0,
    "clip_norm": None,
}  # overshoots from the first step on


def users(count: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [(FIRST_ITEM + rng.integers(0, 6, 5)).tolist() for _ in range(count)]


def job(folder: Path, train: Sequence[int], valid: Sequence[int]) -> Corpus:
    """Task `job` with these labels, which nothing in the histories tells."""
    labels = {"train": train, "valid": valid, "test": valid}
    parts = {part: users(len(part_labels), seed) for seed, (part, part_labels) in enumerate(labels.items())}
    return corpus_of(folder, users(40, 9), 6, labels=labels, parts=parts)


@pytest.fixture
def noise(tmp_path: Path) -> Corpus:
    rng = np.random.default_rng(0)
    return job(tmp_path / "corpus", (rng.random(120) < 0.3).astype(int).tolist(), [0, 1, 0, 0] * 5)


@pytest.fixture
def trunk(noise: Corpus, tmp_path: Path) -> UserModel:
    return pretrain(noise, tmp_path / "backbone", pretrain_config(epochs=1))


def part_of(labels: Sequence[int], folder: Path, part: Any = "train") -> tuple[Task, Any]:
    task = job(folder, labels, labels).task("job")
    return task, task.part(part)


# ---------------------------------------------------------------- what chooses


@pytest.mark.parametrize(
    ("train", "valid", "settings", "folds", "message"),
    [
        (640, 37, {}, 5, "37 valid users are too few to choose an epoch by (a share of them has a standard error of "
         "8 %): choosing by 5-fold cross-validation within the 640 train users"),
        (640, 99, {"folds": 3}, 3, "choosing by 3-fold cross-validation within the 640 train users"),
        (640, 100, {}, 0, ""),
        (640, 100, {"selection": "cross-validation"}, 5, "choosing the epoch by 5-fold cross-validation within"),
        (640, 37, {"selection": "valid"}, 0, ""),
        (9, 5, {}, 0, ""),  # less than two users for each fold
        (30, 30, {}, 0, ""),  # nothing to be gained
    ],
)  # fmt: skip
def test_what_chooses_the_epoch(
    tmp_path: Path, train: int, valid: int, settings: dict[str, Any], folds: int, message: str
) -> None:
    task, train_part = part_of([i % 2 for i in range(train)], tmp_path / "a")
    _, valid_part = part_of([i % 2 for i in range(valid)], tmp_path / "b")
    selection = select_by(AdaptConfig(**settings), task, train_part, valid_part)
    assert selection.folds == folds
    assert message in selection.line
    assert bool(selection.line) == bool(folds)
    assert len(selection.warnings) == (1 if valid < 100 and not folds else 0)


def test_few_that_choose_all_the_same_are_told(tmp_path: Path) -> None:
    task, part = part_of([0, 1] * 20, tmp_path)
    message = "'job': 40 valid users are too few to choose an epoch by (a share of them has a standard error of 8 %), "
    actual = select_by(AdaptConfig(selection="valid"), task, part, part)
    assert actual.warnings == (f"{message}but they chose it: set selection to auto, or raise split.valid",)
    actual = select_by(AdaptConfig(), task, part, part)
    assert actual.warnings == (f"{message}but they chose it: label more users, or raise split.valid",)


def test_one_class_among_many_valid_users(tmp_path: Path) -> None:
    task, train = part_of([0, 1] * 150, tmp_path / "a")
    _, valid = part_of([1] * 120, tmp_path / "b")
    warning = "'job': the valid users have one class only ('yes'): their metrics say little"
    actual = select_by(AdaptConfig(), task, train, valid)
    assert (actual.folds, actual.warnings) == (5, (warning,))
    assert actual.line.startswith("the valid users have one class only ('yes'): choosing by 5-fold")
    assert select_by(AdaptConfig(selection="valid"), task, train, valid).warnings == (warning,)
    assert select_by(AdaptConfig(), task, valid, valid).folds == 0  # there is one class in all


def test_folds_that_are_asked_for_need_users(tmp_path: Path) -> None:
    task, part = part_of([0, 1] * 4, tmp_path)
    with pytest.raises(TaskError, match="has 8 train users, but 5 folds need 10") as caught:
        select_by(AdaptConfig(selection="cross-validation"), task, part, part)
    assert "set folds lower, or selection to valid" in caught.value.remedy
    assert select_by(AdaptConfig(selection="cross-validation", folds=4), task, part, part).folds == 4


# ---------------------------------------------------------------- the same for everybody


def test_the_constant_answer_by_hand(tmp_path: Path) -> None:
    task, train = part_of([0, 0, 0, 1], tmp_path / "a")
    _, valid = part_of([1, 1, 0], tmp_path / "b")
    metrics = mean_metrics(
        task_objective(AdaptConfig(), task, train).constant_sums(valid)
    )  # shares 4/6 and 2/6: each class once more
    assert metrics["log_loss"] == pytest.approx(-(2 * np.log(1 / 3) + np.log(2 / 3)) / 3)
    assert metrics["accuracy"] == pytest.approx(1 / 3)
    config = AdaptConfig(class_weights={"no": 1.0, "yes": 4.0})  # shares 4/12 and 8/12
    weighted = mean_metrics(task_objective(config, task, train).constant_sums(valid))
    assert weighted["log_loss"] == pytest.approx(-(2 * 4 * np.log(2 / 3) + np.log(1 / 3)) / 9)
    assert weighted["accuracy"] == pytest.approx(1 / 3)  # still the largest class


def test_the_constant_answer_of_a_ranking(tmp_path: Path) -> None:
    targets = {"train": [[0], [1]], "valid": [[0], [2, 3]], "test": [[0], [1]]}
    parts = {part: users(2, seed) for seed, part in enumerate(targets)}
    task = corpus_of(tmp_path / "c", users(9, 3), 6, targets=targets, parts=parts).task("job")
    metrics = mean_metrics(task_objective(AdaptConfig(), task, task.part("train")).constant_sums(task.part("valid")))
    # 5 targets by falling counts; the user's other positive is left out of the ranking.
    assert metrics == {"mrr": pytest.approx((1 + 1 / 3 + 1 / 3) / 3)}


def objective(kind: TaskKind, **settings: Any) -> TaskObjective:
    return task_objective(AdaptConfig(**settings), Task("job", kind, Path()), TaskPart((), Sequences.from_rows([])))


METRICS = {"log_loss": 1.0, "accuracy": 0.5}


@pytest.mark.parametrize(
    ("model_metrics", "constant", "settings", "message"),
    [
        (METRICS, {"log_loss": 1.1, "accuracy": 0.5}, {}, None),
        (METRICS, {"log_loss": 0.95, "accuracy": 0.2}, {}, "no better than answering the class shares (log_loss 1.000 "
         "against 0.950)"),
        (METRICS, {"log_loss": 1.0, "accuracy": 0.2}, {}, "no better than answering the class shares"),
        (METRICS, {"log_loss": 1.1, "accuracy": 0.54}, {}, None),  # within a standard error, 0.05
        (METRICS, {"log_loss": 1.1, "accuracy": 0.56}, {}, "worse than answering the largest class (accuracy 0.500 "
         "against 0.560)"),
        (METRICS, {"log_loss": 1.1, "accuracy": 0.9}, {"class_weights": "balanced"}, None),
        ({"mrr": 0.2}, {"mrr": 0.1}, {}, None),
        ({"mrr": 0.1}, {"mrr": 0.2}, {}, "no better than ranking by popularity (mrr 0.100 against 0.200)"),
    ],
)  # fmt: skip
def test_a_model_that_is_no_better(
    model_metrics: dict[str, float], constant: dict[str, float], settings: dict[str, Any], message: str | None
) -> None:
    metrics = {"valid": model_metrics, "constant": constant, "best_epoch": 3}
    kind: TaskKind = "ranking" if "mrr" in model_metrics else "classification"
    warnings = useless(objective(kind, readout="token", **settings), "job", metrics, 100)
    if message is None:
        assert warnings == ()
    else:
        assert f"'job' is {message}" in warnings[0]
        assert " for 100 valid users: try the settings readout=pooled, " in warnings[0]


def test_held_out_users_are_better_evidence_than_valid_users() -> None:
    bad, good = {"log_loss": 2.0, "accuracy": 0.1}, {"log_loss": 1.0, "accuracy": 0.5}
    cross_validation = {"folds": 5, "users": 640, "metrics": good, "constant": bad}
    metrics = {"valid": bad, "constant": good, "best_epoch": 3, "cross_validation": cross_validation}
    classes = objective("classification")
    assert useless(classes, "job", metrics, 37) == ()
    (warning,) = useless(
        classes, "job", metrics | {"cross_validation": cross_validation | {"metrics": bad, "constant": good}}, 37
    )
    assert "for 640 held-out train users" in warning


@pytest.mark.parametrize("best_epoch", [-1, 0, 3, 19])
@pytest.mark.parametrize(
    "settings",
    [{}, {"strategy": "head"}, {"readout": "pooled", "event_dropout": 0.5}, {"strategy": "joint"},
     {"readout": "both", "event_dropout": 0.1, "strategy": "head", "optim": {"weight_decay": 1.0}}],
)  # fmt: skip
def test_the_settings_to_try_are_there_and_are_others(settings: dict[str, Any], best_epoch: int) -> None:
    config = AdaptConfig(**settings)
    overrides = settings_to_try(config, best_epoch)
    assert any(override.startswith("optim.lr=") for override in overrides) == (best_epoch < 1)
    assert len(overrides) <= 3
    for override in overrides:
        assert load_config(AdaptConfig, None, [override], **settings) != config


# ---------------------------------------------------------------- told, everywhere


@pytest.mark.usefixtures("last_epoch_kept")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"selection": "valid"}, "'job' is no better than answering the class shares (log_loss "),
        ({"selection": "auto", "folds": 2}, "for 120 held-out train users: try the settings "),
    ],
)
def test_a_useless_model_is_told_last_and_kept_in_mind(
    noise: Corpus, trunk: UserModel, tmp_path: Path, settings: dict[str, Any], message: str, logged: list[str]
) -> None:
    config = adapt_config(optim=RUINED, epochs=1, **settings)
    bundle = adapt(trunk, noise, "job", tmp_path / "out", config)
    warning = bundle.metrics["warnings"][-1]
    assert message in warning
    assert logged[-1] == f"warning: {warning}"
    assert bundle.metrics["constant"]["accuracy"] == 0.75
    assert inspect(tmp_path / "out")["metrics"]["warnings"] == bundle.metrics["warnings"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"**Warning:** {warning}." in card
    assert f"| accuracy | {bundle.metrics['valid']['accuracy']:.4f} | 0.7500 |" in card
    assert ("2-fold cross-validation within the 120 train users" in card) == (settings["selection"] == "auto")


@pytest.mark.usefixtures("last_epoch_kept")
def test_the_command_line_says_it_below_all_else(
    noise: Corpus, trunk: UserModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    settings = [
        "optim.lr=3.0",
        "optim.warmup_fraction=0.0",
        "optim.clip_norm=null",
        "epochs=1",
        "folds=2",
        "runner.accelerator=cpu",
    ]
    arguments = ["adapt", str(tmp_path / "backbone"), str(noise.path), "job", "-o", out]
    arguments += [text for setting in settings for text in ("--set", setting)]
    capsys.readouterr()
    assert execute(arguments) == 0
    output = capsys.readouterr().err.splitlines()
    assert output[-3:-1] == [f"wrote {out}", f"next: peterrec evaluate {tmp_path / 'backbone'} {noise.path} {out}"]
    assert output[-1].startswith("warning: 'job' is no better than answering the class shares")
    assert sum("warning: " in line for line in output) == 1
    assert execute([*arguments, "--overwrite", "-q"]) == 0
    assert capsys.readouterr().err.splitlines() == [output[-1]]


@pytest.mark.slow
def test_a_good_model_is_not_warned_of(
    trained: UserModel, structured: Corpus, tmp_path: Path, logged: list[str]
) -> None:
    config = adapt_config(readout="pooled", strategy="head", optim={"lr": 0.05}, selection="auto", folds=2)
    bundle = adapt(trained, structured, "cluster", tmp_path / "out", config)
    assert bundle.metrics["warnings"] == []
    assert logged[-1].startswith("best epoch ")


def test_a_joint_training_is_chosen_by_valid_users_and_says_so(
    noise: Corpus, trunk: UserModel, tmp_path: Path, logged: list[str]
) -> None:
    config = adapt_config(strategy="joint", epochs=1, selection="cross-validation")
    bundle = adapt_jointly(trunk, noise, ["job"], tmp_path / "out", config)["job"]
    assert logged[0] == "selection cross-validation is not used: the valid users of all tasks choose the epoch together"
    assert bundle.metrics["warnings"][0].startswith("'job': 20 valid users are too few to choose an epoch by")
    assert logged[-len(bundle.metrics["warnings"]) :] == [f"warning: {text}" for text in bundle.metrics["warnings"]]
    assert bundle.metrics["constant"]["accuracy"] == 0.75


def test_few_held_out_users_of_pre_training(noise: Corpus, tmp_path: Path, logged: list[str]) -> None:
    model = pretrain(noise, tmp_path / "other", pretrain_config(epochs=1))
    (warning,) = model.pretrained.training["warnings"]
    assert warning.endswith(", but they chose it: raise valid_fraction")
    assert logged[-1] == f"warning: {warning}"
    assert warning in (tmp_path / "other" / "README.md").read_text()


@pytest.mark.slow
def test_enough_held_out_users_of_pre_training(structured: Corpus, tmp_path: Path) -> None:
    model = pretrain(structured, tmp_path / "out", pretrain_config(epochs=1, valid_fraction=0.3))
    assert model.pretrained.training["warnings"] == []
