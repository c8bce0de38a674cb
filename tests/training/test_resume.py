"""Promise 7, in one process: a training stopped anywhere and resumed is the training that never stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pairwise import FULL
from peterrec.artifacts.tensors import fingerprint
from peterrec.config import OptimConfig
from peterrec.data.corpus import Corpus
from peterrec.model import UserModel
from peterrec.training.adapt import adapt
from peterrec.training.pretrain import pretrain
from training.small import HOOKS, StopAt, Stopped, adapt_config, plain, pretrain_config

STEEP = OptimConfig(lr=0.3, schedule="constant")  # so steep that it gets worse and stops early
# Four steps an epoch. `short` has a single step an epoch, so that only epochs have resume points.
PRETRAIN: dict[str, dict[str, Any]] = {
    "full": {},
    "sampled": {
        "loss": "sampled",
        "negatives": 9,
        "masking": {"mask_fraction": 0.3},
        "optim": {"schedule": "constant"},
    },
    "touched rows": {"loss": "sampled", "negatives": 9, "table_updates": "rows", "contrastive": {"weight": 0.2}},
    "stops early": {"epochs": 9, "patience": 1, "optim": STEEP},
    "masked items": {"backbone": {"kind": "noncausal", "channels": 8, "dilations": (1, 2)}},
    "dropout and views": {"dropout": 0.3, "contrastive": {"weight": 0.5}, "monitor": "ndcg@10"},
    "views alone": {
        "backbone": {"kind": "noncausal", "channels": 8, "dilations": (1, 2)},
        "prediction_weight": 0,
        "contrastive": {"weight": 1.0, "readout": "token"},
    },
    "probed": {"probe": {"tasks": ["cluster"], "every_n_epochs": 2}, "monitor": "probe", "seed": 4},
    "short": {"batch_size": 500, "backbone": {"channels": 8, "dilations": (1,), "tie_weights": False}},
}
ADAPT: dict[str, tuple[str, dict[str, Any]]] = {
    "patch, ranking": ("shop", {"optim": {"lr": 0.01, "weight_decay": 0.5}}),
    "patch, classification": (
        "cluster",
        {"epochs": 9, "patience": 1, "seed": 1, "optim": {"lr": 0.01, "schedule": "constant"}},
    ),
    "no better than the start": ("cluster", {"epochs": 9, "patience": 2, "optim": STEEP}),
    "probed head": ("shop", {"head_init": "linear-probe", "readout": "both", "optim": {"lr": 0.01}}),
    "head, ranking": ("shop", {"strategy": "head"}),
    "last block, hard": (
        "shop",
        {
            "strategy": "last1",
            "ranking_loss": "bpr",
            "negatives": {"sampling": "hard", "count": 1, "candidates": 4},
        },
    ),
    "prefixes, ranking": ("shop", {"prefix_fraction": 0.7, "event_dropout": 0.3}),
    "random trunk, weights": ("cluster", {"strategy": "patch-random", "class_weights": "balanced"}),
}


@pytest.fixture(scope="session")
def runs(
    corpus: Corpus, backbone: Path, with_callbacks: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Any]:
    """`runs(case, checkpoint_every, stop, resume)`: what a training makes of tensors and curve, without the seconds."""
    folder = tmp_path_factory.mktemp("resume")

    def run(case: str, checkpoint_every: int = 100, stop: StopAt | None = None, *, resume: bool = False) -> Any:
        with_callbacks(*([] if stop is None else [stop]))
        out = folder / ("backbone" if case in PRETRAIN else "bundle")
        if not resume:
            shutil.rmtree(out.with_name(f"{out.name}.training"), ignore_errors=True)
        try:
            if case in PRETRAIN:
                model = pretrain(
                    corpus,
                    out,
                    pretrain_config(checkpoint_every=checkpoint_every, **PRETRAIN[case]),
                    resume=resume,
                    overwrite=True,
                )
                return model.fingerprint, plain(model.pretrained.training.pop("curve")), model.pretrained.training
            task, changes = ADAPT[case]
            config = adapt_config(checkpoint_every=checkpoint_every, **changes)
            bundle = adapt(backbone, corpus, task, out, config, resume=resume, overwrite=True)
            return fingerprint(bundle.tensors()), plain(bundle.metrics.pop("curve")), bundle.metrics
        finally:
            with_callbacks()

    return run


@pytest.fixture(scope="session")
def uninterrupted(runs: Callable[..., Any]) -> Callable[[str], Any]:
    """The training that is never stopped."""
    return cache(runs)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("case", [*PRETRAIN, *ADAPT])
@given(hook=st.sampled_from(HOOKS), n=st.integers(1, 12), checkpoint_every=st.integers(1, 5))
@example(hook="batch end", n=1, checkpoint_every=1)  # nothing is saved yet
@example(hook="batch end", n=4, checkpoint_every=1)  # in the last step of an epoch
@example(hook="validation start", n=1, checkpoint_every=3)
@example(hook="validation end", n=2, checkpoint_every=3)  # a new best epoch has its weights, but no resume point
@example(hook="batch start", n=5, checkpoint_every=100)  # right after the point of an epoch
@example(hook="batch end", n=10, checkpoint_every=1)  # in the last epoch
@example(hook="end", n=1, checkpoint_every=2)  # everything is trained, nothing is written
@settings(max_examples=6 if FULL else 1)
def test_a_training_that_was_stopped_goes_on_as_if_it_never_was(
    runs: Callable[..., Any], uninterrupted: Callable[[str], Any], case: str, hook: str, n: int, checkpoint_every: int
) -> None:
    try:
        runs(case, checkpoint_every, StopAt(hook, n))
    except Stopped:
        pass
    else:
        return  # it was over before
    assert runs(case, checkpoint_every, resume=True) == uninterrupted(case)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    "case",
    [
        "sampled",
        "stops early",
        "masked items",
        "probed",
        "patch, ranking",
        "no better than the start",
        "probed head",
        "last block, hard",
        "prefixes, ranking",
        "random trunk, weights",
    ],
)
def test_a_training_that_was_stopped_many_times(
    runs: Callable[..., Any], uninterrupted: Callable[[str], Any], case: str
) -> None:
    stops = [
        ("batch end", 2),
        ("batch start", 2),
        ("validation end", 1),
        ("batch end", 3),
        ("epoch end", 1),
        ("end", 1),
    ]
    for number, (hook, n) in enumerate(stops):
        with pytest.raises(Stopped):
            runs(case, 1, StopAt(hook, n), resume=number > 0)
    assert runs(case, 1, resume=True) == uninterrupted(case)


def test_the_cases_are_what_they_are_for(uninterrupted: Callable[[str], Any]) -> None:
    for case in ("stops early", "patch, classification"):
        _, curve, facts = uninterrupted(case)
        assert len(curve) < 9
        assert facts["best_epoch"] < len(curve) - 1
    for case in ("patch, ranking", "patch, classification", "head, ranking", "last block, hard", "probed head"):
        assert uninterrupted(case)[2]["best_epoch"] >= 0, "what is compared was trained"
    _, curve, facts = uninterrupted("no better than the start")
    assert (facts["best_epoch"], len(curve)) == (-1, 2)
    assert len({str(uninterrupted(case)[0]) for case in PRETRAIN}) == len(PRETRAIN)
    assert len(uninterrupted("full")[1]) == 3


def test_resuming_changes_neither_the_order_of_batches_nor_the_learning_rate(
    corpus: Corpus, watched: Callable[..., None], tmp_path: Path
) -> None:
    """The test above, seen from within: the very same batches at the very same rates."""

    class Log(StopAt):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            log.append((trainer.current_epoch, index, rate, batch["inputs"].tolist(), batch["negatives"].tolist()))
            super().on_train_batch_start()

    log: list[Any] = []
    config = pretrain_config(checkpoint_every=1, **PRETRAIN["sampled"])
    watched(Log("end", 2))
    pretrain(corpus, tmp_path / "whole", config)
    expected, log = log, []
    watched(Log("batch start", 7))
    with pytest.raises(Stopped):
        pretrain(corpus, tmp_path / "out", config)
    assert log.pop() == expected[6]  # it was looked at, but not trained on
    watched(Log("end", 2))
    pretrain(corpus, tmp_path / "out", config, resume=True)
    assert log == expected
    assert len({str(entry[3:]) for entry in log}) == len(log)


def test_resume_where_nothing_is_simply_starts(corpus: Corpus, backbone: Path, tmp_path: Path) -> None:
    fresh = pretrain(corpus, tmp_path / "a", pretrain_config())
    assert pretrain(corpus, tmp_path / "b", pretrain_config(), resume=True).fingerprint == fresh.fingerprint
    bundle = adapt(backbone, corpus, "shop", tmp_path / "c", adapt_config(epochs=1), resume=True)
    assert bundle.name == "shop"


def test_a_run_may_be_moved_and_resumed(
    corpus: Corpus,
    watched: Callable[..., None],
    runs: Callable[..., Any],
    uninterrupted: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    watched(StopAt("batch start", 6))
    config = pretrain_config(checkpoint_every=1)
    with pytest.raises(Stopped):
        pretrain(corpus, tmp_path / "here", config)
    watched()
    (tmp_path / "there").mkdir()
    (tmp_path / "here.training").rename(tmp_path / "there" / "moved.training")
    model = pretrain(corpus, tmp_path / "there" / "moved", config, resume=True)
    assert model.fingerprint == uninterrupted("full")[0]


def test_a_passed_model_is_as_good_as_a_folder(
    corpus: Corpus, model: UserModel, uninterrupted: Callable[[str], Any], tmp_path: Path
) -> None:
    bundle = adapt(model, corpus, "shop", tmp_path / "a", adapt_config(strategy="head"))
    assert fingerprint(bundle.tensors()) == uninterrupted("head, ranking")[0]
