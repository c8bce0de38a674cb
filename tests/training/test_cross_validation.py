"""The epoch is chosen by held-out train users: each fold as if it were alone, then all users up to that epoch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from peterrec.artifacts.tensors import fingerprint
from peterrec.config import AdaptConfig
from peterrec.data.batching import EpochStream
from peterrec.data.corpus import Corpus
from peterrec.errors import ArtifactError, ConfigError, TrainingError
from peterrec.model import UserModel
from peterrec.nn.readout import represent
from peterrec.training.adapt import adapt
from peterrec.training.adaptation_run import AdaptationRun
from peterrec.training.cross_validation import Fold, fold_source, make_folds
from peterrec.training.head_start import start_head
from peterrec.training.optim import make_optimizer, make_schedule
from peterrec.training.strategies import build
from peterrec.training.work_folder import WorkFolder
from training.small import StopAt, Stopped, adapt_config, plain

STEEP = {"lr": 0.3, "schedule": "constant"}
FOLDS: dict[str, Any] = {"selection": "cross-validation", "folds": 3, "epochs": 2}
POOLED: dict[str, Any] = {**FOLDS, "strategy": "all", "readout": "pooled", "optim": {"lr": 0.1, "clip_norm": 0.5}}


def folds_of(model: UserModel, corpus: Corpus, task: str, config: AdaptConfig) -> list[Fold]:
    run = AdaptationRun(model, corpus, [task], Path("nowhere"), config.model_copy(update={"cache": "off"}))
    return make_folds(run, config.folds)


class Weights(Callback):
    """What is trained, after each epoch of each training."""

    def __init__(self) -> None:
        self.after: list[dict[str, torch.Tensor]] = []

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        if not trainer.sanity_checking:
            self.after.append({name: tensor.clone() for name, tensor in module.trained.state_dict().items()})


# ---------------------------------------------------------------- folds


@pytest.mark.parametrize("task", ["cluster", "shop"])
def test_every_train_user_is_held_out_once(model: UserModel, corpus: Corpus, task: str) -> None:
    users = corpus.task(task).part("train")
    folds = folds_of(model, corpus, task, adapt_config(**FOLDS))
    assert sorted(np.concatenate([fold.held_out for fold in folds])) == list(range(len(users)))
    for fold in folds:
        assert sorted([*fold.rows, *fold.held_out]) == list(range(len(users)))
        if users.labels is not None:
            held_counts, all_counts = np.bincount(users.labels[fold.held_out]), np.bincount(users.labels)
            assert (np.abs(held_counts - all_counts / 3) < 1).all()


def test_every_fold_starts_where_the_last_training_does(model: UserModel, corpus: Corpus) -> None:
    config = adapt_config(**FOLDS)
    spec = corpus.task("cluster")
    users = spec.part("train")
    expected = build(config, model.network.backbone, spec, users).modules().state_dict()
    for fold in folds_of(model, corpus, "cluster", config):
        actual = fold.learner.parts.modules().state_dict()
        shares = np.bincount(users.labels[fold.rows], minlength=len(spec.class_names)) + 1  # of its own users alone
        assert torch.allclose(actual.pop("head.bias"), torch.tensor(shares / shares.sum()).log().float())
        assert all(torch.equal(value, expected[name]) for name, value in actual.items())


@pytest.mark.parametrize("task", ["cluster", "shop"])
def test_no_fold_ever_sees_a_user_it_holds_out(model: UserModel, corpus: Corpus, task: str) -> None:
    """The batch of a fold is what its own source makes of the users of the step that it does not hold out."""
    config = adapt_config(**FOLDS, event_dropout=0.3)
    users = corpus.task(task).part("train")
    folds = folds_of(model, corpus, task, config)
    batched_rows: list[list[int]] = [[] for _ in folds]
    for number, fold in enumerate(folds):
        assert fold.learner.source.part.user_ids.to_pylist() == users.user_ids.take(fold.rows).to_pylist()
        fold.learner.source.batch = lambda rows, rng, number=number: batched_rows[number].extend(rows) or {}  # type: ignore[method-assign]
    source = fold_source(folds, users.sequences.lengths)
    for _ in EpochStream(source, 7, seed=0):
        pass
    for fold, rows in zip(folds, batched_rows, strict=True):
        assert sorted(rows) == list(range(len(fold.rows)))


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("cluster", POOLED),
        ("shop", {**POOLED, "strategy": "patch"}),
        ("cluster", {**POOLED, "head_init": "linear-probe"}),  # a probe of each fold's own users, which learns slowly
    ],
)
def test_each_fold_learns_what_it_would_alone(
    backbone: Path, model: UserModel, corpus: Corpus, watched: Callable[..., None], tmp_path: Path, task: str,
    settings: dict[str, Any],
) -> None:  # fmt: skip
    config = adapt_config(**settings)
    watched(weights := Weights())
    adapt(backbone, corpus, task, tmp_path / "out", config)
    users = corpus.task(task).part("train")
    lengths = np.minimum(users.sequences.lengths, config.max_length)
    folds = folds_of(model, corpus, task, config)
    for number, fold in enumerate(folds):
        stream = EpochStream(fold_source(folds, lengths), config.batch_size, config.seed)
        _alone(fold, [batch.get(str(number)) for _ in range(config.epochs) for batch in stream], config)
        prefix = f"{number}."
        actual = {n.removeprefix(prefix): v for n, v in weights.after[1].items() if n.startswith(prefix)}
        expected = fold.learner.parts.modules().state_dict()
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.allclose(actual[name], value, atol=1e-4), name


def _alone(fold: Fold, batches: list[dict[str, torch.Tensor] | None], config: AdaptConfig) -> None:
    trained = fold.learner.parts.modules()
    slower = list(fold.learner.parts.head.parameters()) if config.head_init == "linear-probe" else []
    optimizer = make_optimizer(trained.parameters(), config.optim, slower, config.probed_head_rate)
    schedule = make_schedule(optimizer, config.optim, len(batches))
    for batch in batches:
        if batch is None:  # a small step, all of whose users the fold holds out
            schedule.step()
            continue
        vectors = represent(fold.learner.parts.backbone, batch["tokens"], fold.learner.parts.patch, config.readout)
        optimizer.zero_grad()
        fold.learner.objective(fold.learner.parts.head, vectors, batch).backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), config.optim.clip_norm)
        optimizer.step()
        schedule.step()


# ---------------------------------------------------------------- the epoch


@pytest.mark.slow
@pytest.mark.parametrize(("task", "better", "lr"), [("cluster", min, 0.03), ("shop", max, 0.3)])
def test_all_users_are_trained_on_up_to_the_best_epoch_for_those_held_out(
    backbone: Path, corpus: Corpus, watched: Callable[..., None], tmp_path: Path, task: str, better: Any, lr: float
) -> None:
    settings = {"epochs": 7, "patience": 2, "optim": {**STEEP, "lr": lr}, "folds": 2}
    watched(weights := Weights())
    adapt(backbone, corpus, task, tmp_path / "valid", adapt_config(**settings | {"patience": 7}))
    watched()
    bundle = adapt(backbone, corpus, task, tmp_path / "out", adapt_config(**settings, selection="cross-validation"))
    cross_validation = bundle.metrics["cross_validation"]
    values = [row[bundle.metrics["monitor"]] for row in cross_validation["curve"]]
    best = bundle.metrics["best_epoch"]
    assert cross_validation["best_epoch"] == best == values.index(better(values))
    assert best < len(values) - 1, "the case is to have a best epoch before the last"
    assert len(values) == min(7, best + 3)  # patience
    assert [row["epoch"] for row in bundle.metrics["curve"]] == list(range(best + 1))
    assert cross_validation["metrics"] == {
        name: cross_validation["curve"][best][name] for name in bundle.metrics["valid"]
    }
    is_equal = {name: torch.equal(value, weights.after[best][f"0.{name}"]) for name, value in bundle.tensors().items()}
    # As if it had been known from the start: the same schedule, the same batches.
    assert all(is_equal.values()), is_equal


def test_held_out_users_are_judged_by_the_network_that_did_not_learn_from_them(
    backbone: Path, model: UserModel, corpus: Corpus, watched: Callable[..., None], tmp_path: Path
) -> None:
    config = adapt_config(**FOLDS, strategy="head")
    watched(weights := Weights())
    bundle = adapt(backbone, corpus, "cluster", tmp_path / "out", config)
    users = corpus.task("cluster").part("train")
    losses, hits, constant = [], [], []
    for number, fold in enumerate(folds_of(model, corpus, "cluster", config)):
        prefix = f"{number}.head."
        head = {n.removeprefix(prefix): v for n, v in weights.after[1].items() if n.startswith(prefix)}
        shares = np.bincount(users.labels[fold.rows], minlength=4) + 1
        for row in fold.held_out:
            tokens = torch.from_numpy(users.sequences[row].astype(np.int64))[None]
            scores = head["weight"] @ represent(model.network.backbone, tokens, None, "token")[0] + head["bias"]
            label = int(users.labels[row])
            losses.append(-float(scores.log_softmax(0)[label].detach()))
            hits.append(int(scores.argmax()) == label)
            constant.append(-np.log(shares[label] / shares.sum()))
    cross_validation = bundle.metrics["cross_validation"]
    assert cross_validation["users"] == len(losses) == len(users)
    assert cross_validation["folds"] == 3
    assert cross_validation["curve"][1]["log_loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert cross_validation["curve"][1]["accuracy"] == pytest.approx(np.mean(hits))
    assert cross_validation["constant"]["log_loss"] == pytest.approx(np.mean(constant), abs=1e-6)


CASES: dict[str, dict[str, Any]] = {
    "patch": {"patch": {"bottleneck": 2, "item_rank": 2}, "readout": "pooled"},
    "head": {"strategy": "head", "class_weights": "balanced"},
    "last-sublayer": {"strategy": "last-sublayer"},
    "last1": {"strategy": "last1"},
    "last2": {"strategy": "last2", "readout": "both"},
    "all": {"strategy": "all", "event_dropout": 0.2},
    "scratch": {"strategy": "scratch", "ranking_loss": "bpr"},
    "patch-random": {"strategy": "patch-random", "negatives": {"sampling": "popularity", "count": 3}},
}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("task", ["cluster", "shop"])
def test_any_strategy(backbone: Path, corpus: Corpus, tmp_path: Path, task: str, case: str) -> None:
    """The same with and without states that are kept, and nothing is left but the bundle."""
    actual = []
    for cache in ("auto", "off"):
        config = adapt_config(**FOLDS | {"epochs": 1, "folds": 2, "cache": cache} | CASES[case])
        bundle = adapt(backbone, corpus, task, tmp_path / "out", config, overwrite=True)
        actual.append(bundle.metrics["cross_validation"]["metrics"])
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert actual[0] == pytest.approx(actual[1], abs=1e-5)


@pytest.mark.slow
def test_states_on_disk_are_the_same_to_the_bit(backbone: Path, corpus: Corpus, tmp_path: Path) -> None:
    bundles = [
        adapt(backbone, corpus, "shop", tmp_path / cache, adapt_config(**FOLDS, strategy="last1", cache=cache))
        for cache in ("memory", "disk")
    ]
    assert fingerprint(bundles[0].tensors()) == fingerprint(bundles[1].tensors())
    assert plain(bundles[0].metrics["cross_validation"]["curve"]) == plain(
        bundles[1].metrics["cross_validation"]["curve"]
    )


# ---------------------------------------------------------------- killed, and gone on with (promise 7)

RESUMED: dict[str, tuple[str, dict[str, Any]]] = {
    "stops early": ("cluster", {"patience": 1, "optim": STEEP, "strategy": "head", "readout": "pooled"}),
    "kept states, hard negatives": (
        "shop",
        {
            "epochs": 2,
            "strategy": "last1",
            "ranking_loss": "bpr",
            "negatives": {"sampling": "hard", "count": 1, "candidates": 4},
        },
    ),
}


START_CHOSEN = ("cluster", {"patience": 1, "optim": STEEP, "strategy": "head"})


@pytest.fixture
def runs(backbone: Path, corpus: Corpus, watched: Callable[..., None], tmp_path: Path) -> Callable[..., Any]:
    """`runs(case, stop, resume)`: what a training makes of tensors and metrics, without the seconds."""

    def run(case: str, stop: StopAt | None = None, *, checkpoint_every: int = 1, resume: bool = False) -> Any:
        watched(*([] if stop is None else [stop]))
        task, settings = RESUMED.get(case, START_CHOSEN)
        config = adapt_config(selection="cross-validation", folds=2, checkpoint_every=checkpoint_every, **settings)
        bundle = adapt(backbone, corpus, task, tmp_path / "out", config, resume=resume, overwrite=True)
        metrics = bundle.metrics | {"curve": plain(bundle.metrics["curve"])}
        metrics["cross_validation"] = {
            **metrics["cross_validation"], "curve": plain(metrics["cross_validation"]["curve"])
        }  # fmt: skip
        return fingerprint(bundle.tensors()), metrics

    return run


@pytest.mark.slow
@pytest.mark.parametrize("case", RESUMED)
def test_killed_many_times_in_the_folds_and_after(runs: Callable[..., Any], case: str, tmp_path: Path) -> None:
    uninterrupted = runs(case)
    shutil.rmtree(tmp_path / "out")
    stops = [
        ("batch end", 2),
        ("batch start", 2),
        ("validation end", 1),
        ("epoch end", 1),
        ("end", 1),  # of the folds: nothing of the last training is there
        ("batch start", 3),  # of the last training
        ("end", 1),
    ]
    for number, (hook, n) in enumerate(stops):
        with pytest.raises(Stopped):
            runs(case, StopAt(hook, n), resume=number > 0)
        in_folds = (tmp_path / "out.training" / "folds").exists()
        assert in_folds == (number < 5)
        assert (tmp_path / "out.training" / "folds-result.json").exists() != in_folds
    assert runs(case, resume=True) == uninterrupted


def test_killed_where_the_start_is_chosen(runs: Callable[..., Any], tmp_path: Path) -> None:
    tensors, metrics = runs("start chosen", stop := StopAt("never", 1))
    assert (metrics["best_epoch"], metrics["curve"]) == (-1, [])
    assert metrics["valid"] == metrics["start"]
    assert stop.calls.count("epoch start") == len(metrics["cross_validation"]["curve"]), "then nothing is trained"
    shutil.rmtree(tmp_path / "out")
    # The last is the evaluation of the start that is kept.
    stops = [("batch end", 2), ("validation end", 1), ("end", 1), ("validation start", 1)]
    for number, (hook, n) in enumerate(stops):
        with pytest.raises(Stopped):
            runs("start chosen", StopAt(hook, n), resume=number > 0)
        assert (tmp_path / "out.training" / "folds-result.json").exists() == (number == 3)
    assert runs("start chosen", resume=True) == (tensors, metrics)


@pytest.mark.slow
@pytest.mark.parametrize("case", RESUMED)
@pytest.mark.parametrize("hook", ["batch end", "validation end", "epoch end", "end"])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("checkpoint_every", [1, 3])
def test_killed_anywhere(runs: Callable[..., Any], case: str, hook: str, n: int, checkpoint_every: int) -> None:
    uninterrupted = runs(case, checkpoint_every=checkpoint_every)
    try:
        runs(case, StopAt(hook, n), checkpoint_every=checkpoint_every)
    except Stopped:
        assert runs(case, checkpoint_every=checkpoint_every, resume=True) == uninterrupted


@pytest.fixture
def in_folds(runs: Callable[..., Any], watched: Callable[..., None], tmp_path: Path) -> Path:
    """Where the bundle of a run would be that was killed in its folds."""
    with pytest.raises(Stopped):
        runs("stops early", StopAt("batch start", 3))
    watched()
    return tmp_path / "out"


def test_other_settings_do_not_go_on_with_folds(backbone: Path, corpus: Corpus, in_folds: Path) -> None:
    with pytest.raises(ConfigError, match="had another configuration"):
        adapt(backbone, corpus, "cluster", in_folds, adapt_config(seed=1), resume=True)
    with pytest.raises(ArtifactError, match="holds an unfinished run"):
        adapt(backbone, corpus, "cluster", in_folds, adapt_config(seed=1))


@pytest.mark.slow
def test_a_damaged_result_of_the_folds_is_refused_or_replaced(runs: Callable[..., Any], tmp_path: Path) -> None:
    uninterrupted = runs("stops early")
    with pytest.raises(Stopped):
        runs("stops early", StopAt("end", 2))
    result = tmp_path / "out.training" / "folds-result.json"
    result.write_text(result.read_text()[:-9])
    assert runs("stops early", resume=True) == uninterrupted  # overwrites, as `run` does


def test_a_damaged_result_without_overwrite(corpus: Corpus, backbone: Path, in_folds: Path) -> None:
    shutil.rmtree(in_folds, ignore_errors=True)
    result = in_folds.with_name("out.training") / "folds-result.json"
    result.write_text("{")
    task, settings = RESUMED["stops early"]
    config = adapt_config(selection="cross-validation", folds=2, checkpoint_every=1, **settings)
    with pytest.raises(ArtifactError, match="is damaged") as caught:
        adapt(backbone, corpus, task, in_folds, config, resume=True)
    assert caught.value.path == result


def test_a_stage_is_done_once(tmp_path: Path) -> None:
    config = adapt_config()
    work = WorkFolder(tmp_path / "out", config, {}, resume=False, overwrite=False)
    staged_paths: list[Path] = []

    def do(part: WorkFolder) -> dict[str, Any]:
        staged_paths.append(part.path)
        (part.path / "rest").write_text("")
        return {"best_epoch": 1, "share": 0.1 + 0.2}

    assert work.stage("folds", do) == {"best_epoch": 1, "share": 0.1 + 0.2}
    (tmp_path / "out.training" / "folds").mkdir()  # killed before it was removed
    second_result = WorkFolder(tmp_path / "out", config, {}, resume=True, overwrite=False)
    assert second_result.stage("folds", do) == json.loads((tmp_path / "out.training" / "folds-result.json").read_text())
    assert staged_paths == [tmp_path / "out.training" / "folds"]
    assert not staged_paths[0].exists()


def test_folds_that_diverge_leave_nothing(backbone: Path, corpus: Corpus, tmp_path: Path) -> None:
    config = adapt_config(
        **FOLDS | {"optim": {"lr": 1e30, "clip_norm": None, "warmup_fraction": 0.0}}, checkpoint_every=100
    )
    with pytest.raises(TrainingError, match="diverged"):
        adapt(backbone, corpus, "cluster", tmp_path / "out", config)
    assert list(tmp_path.iterdir()) == []


def test_where_heads_start_is_decided_by_the_fold_alone(model: UserModel, corpus: Corpus) -> None:
    config = adapt_config(**POOLED)
    fold = folds_of(model, corpus, "cluster", config)[0]
    alone = build(config, model.network.backbone, corpus.task("cluster"), fold.learner.source.part)
    start_head(alone, config, fold.learner.source.part, None, fold.learner.objective)
    assert torch.equal(fold.learner.parts.head.shift, alone.head.shift)
    assert torch.equal(fold.learner.parts.head.weight, alone.head.weight)
