"""Which epoch is kept, when training stops, and what happens when it diverges."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback

from peterrec.cli.main import execute
from peterrec.data.batching import inference_batches
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import FIRST_ITEM
from peterrec.data.splits import uniform
from peterrec.errors import TrainingError
from peterrec.evaluation.validation import mean_reciprocal_rank
from peterrec.model import UserModel
from peterrec.training.adapt import adapt
from peterrec.training.callbacks import BestEpoch, Curve
from peterrec.training.pretrain import pretrain
from training.small import StopAt, adapt_config, pretrain_config

STEEP = {"lr": 0.3, "schedule": "constant"}


class Weights(Callback):
    """What the trained module is after each epoch."""

    def __init__(self) -> None:
        self.snapshots: list[dict[str, torch.Tensor]] = []

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        if not trainer.sanity_checking:
            self.snapshots.append({name: tensor.clone() for name, tensor in module.trained.state_dict().items()})


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_the_best_weights_are_kept_not_the_last(corpus: Corpus, watched: Callable[..., None], tmp_path: Path) -> None:
    watched(weights := Weights())
    model = pretrain(corpus, tmp_path / "out", pretrain_config(epochs=9, patience=2, optim=STEEP))
    training = model.pretrained.training
    losses = [row["valid_loss"] for row in training["curve"]]
    best = training["best_epoch"]
    assert losses[best] == min(losses)
    assert best < len(losses) - 1
    assert equal(weights.snapshots[best], model.network.state_dict())
    assert not equal(weights.snapshots[-1], model.network.state_dict())
    names = ("valid_loss", "hr@10", "mrr@10", "ndcg@10")
    assert training["metrics"] == {name: training["curve"][best][name] for name in names}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("task", "monitor", "better"), [("cluster", "log_loss", min), ("shop", "mrr", max)])
def test_the_best_epoch_of_a_task(
    backbone: Path, corpus: Corpus, watched: Callable[..., None], tmp_path: Path, task: str, monitor: str, better: Any
) -> None:
    watched(weights := Weights())
    bundle = adapt(backbone, corpus, task, tmp_path / "out", adapt_config(epochs=9, patience=9, optim=STEEP))
    values = [row[monitor] for row in bundle.metrics["curve"]]
    best = bundle.metrics["best_epoch"]
    assert bundle.metrics["monitor"] == monitor
    assert values[best] == better(values) == bundle.metrics["valid"][monitor]
    assert values[best] != values[-1]
    # Of the learners, there is one.
    assert equal(weights.snapshots[best], {f"0.{name}": tensor for name, tensor in bundle.tensors().items()})


@given(
    start=st.none() | st.integers(-3, 3),
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=12),
    mode=st.sampled_from(["min", "max"]),
    patience=st.integers(1, 4),
    resumed=st.booleans(),
)
def test_patience_by_counting(start: int | None, values: list[int], mode: str, patience: int, resumed: bool) -> None:
    """Against a plain count; and with a new curve and callback after every epoch, as if resumed each time."""
    curve, saved = Curve("m", mode), []

    class Trainer:
        should_stop = False

    class Noted(BestEpoch):
        def _keep(self) -> None:
            saved.append(int(self.curve.rows[-1]["epoch"]) if self.curve.rows else -1)

    waited, best, expected = 0, start, []
    if start is not None:
        curve.start = {"epoch": -1, "m": float(start)}
        Noted(Path(), torch.nn.Linear(1, 1), curve, patience).on_validation_end(Trainer, None)
        expected.append(-1)
    for epoch, value in enumerate(values):
        curve.rows.append({"epoch": epoch, "m": float(value)})
        Noted(Path(), torch.nn.Linear(1, 1), curve, patience).on_validation_end(Trainer, None)
        if best is None or (value < best if mode == "min" else value > best):
            waited, best = 0, value
            expected.append(epoch)
        else:
            waited += 1
        assert Trainer.should_stop == (waited >= patience)
        if resumed:
            state, curve = curve.state_dict(), Curve("m", mode)
            curve.load_state_dict(state)
        if Trainer.should_stop:
            break
    assert saved == expected
    assert curve.best["epoch"] == expected[-1]


def test_epochs_are_the_most_and_one_is_enough(corpus: Corpus, tmp_path: Path) -> None:
    model = pretrain(corpus, tmp_path / "out", pretrain_config(epochs=1, patience=1))
    assert [row["epoch"] for row in model.pretrained.training["curve"]] == [0]


# ---------------------------------------------------------------- what the numbers are


@pytest.mark.parametrize("output_relu", [False, True])
def test_the_metrics_of_pretraining_are_those_of_the_held_out_users(
    corpus: Corpus, tmp_path: Path, output_relu: bool
) -> None:
    shape = {"channels": 8, "dilations": (1, 2), "output_relu": output_relu}
    config = pretrain_config(epochs=1, max_length=5, backbone=shape)
    model = pretrain(corpus, tmp_path / "out", config)
    draw = uniform(corpus.user_hashes, "pretrain-0")
    losses, reciprocal = [], []
    weight, bias = model.network.output_table()
    for row in range(len(corpus.sequences)):
        items = torch.from_numpy(corpus.sequences[row][-6:].astype("int64"))
        if draw[row] >= 0.3 or len(items) < 2:
            continue
        hidden = model.network.backbone(items[None, :-1])[0]
        scores = (hidden.clamp(min=0) if output_relu else hidden) @ weight.T + bias
        probabilities = scores.log_softmax(1)
        positives = items[1:] - FIRST_ITEM
        losses += [-float(line[p]) for line, p in zip(probabilities, positives, strict=True)]
        rank = 1 + int((scores[-1] > scores[-1, positives[-1]]).sum())
        reciprocal.append(1 / rank if rank <= 10 else 0.0)
    metrics = model.pretrained.training["metrics"]
    assert metrics["valid_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert metrics["mrr@10"] == pytest.approx(sum(reciprocal) / len(reciprocal), rel=1e-5)
    assert metrics["hr@10"] == pytest.approx(sum(r > 0 for r in reciprocal) / len(reciprocal), rel=1e-5)


def test_positions_scored_in_pieces_give_the_same_metrics(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = pretrain(corpus, tmp_path / "a", pretrain_config(epochs=1)).pretrained.training["metrics"]
    monkeypatch.setattr("peterrec.training.pretrain_module.VALID_SCORES", 24 * 7)  # seven positions of 24 items
    actual = pretrain(corpus, tmp_path / "b", pretrain_config(epochs=1)).pretrained.training["metrics"]
    assert actual == pytest.approx(expected, rel=1e-6)


def test_the_metrics_of_tasks_are_those_of_the_saved_bundle(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    for task in ("cluster", "shop"):
        bundle = adapt(model, corpus, task, tmp_path / task, adapt_config(epochs=2, optim={"lr": 0.05}))
        model.add_bundle(bundle)
        valid = corpus.task(task).part("valid")
        if valid.labels is not None:
            probabilities = torch.from_numpy(model.probabilities(valid.sequences, task))
            labels = torch.from_numpy(valid.labels)
            assert bundle.metrics["valid"] == pytest.approx(
                {
                    "log_loss": float(-probabilities.log()[range(len(labels)), labels].mean()),
                    "accuracy": float((probabilities.argmax(1) == labels).double().mean()),
                },
                rel=1e-5,
            )
        else:
            assert valid.targets is not None
            mrr = mean_reciprocal_rank(model.score_batches(valid.sequences, task), valid.targets)
            assert bundle.metrics["valid"]["mrr"] == pytest.approx(mrr, rel=1e-6)


def test_users_are_validated_in_batches_of_any_size(
    model: UserModel, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in ("cluster", "shop"):
        expected = adapt(model, corpus, task, tmp_path / f"{task}-a", adapt_config(epochs=1)).metrics["valid"]
        with monkeypatch.context() as patched:
            patched.setattr("peterrec.training.task_source.VALID_BATCH", 3)
            assert len(list(inference_batches(corpus.task(task).part("valid").sequences, 3, 5))) > 1
            actual = adapt(model, corpus, task, tmp_path / f"{task}-b", adapt_config(epochs=1)).metrics["valid"]
        assert actual == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------- divergence


class Poisons(Callback):
    """Puts NaN into a weight at a step, or into the loss of it."""

    def __init__(self, step: int, hook: str) -> None:
        self.step = step
        setattr(self, hook, self.poison)

    def poison(self, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            next(iter(module.trained.parameters())).data[-1] = math.nan


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("hook", "quantity"), [("on_train_batch_start", "the training loss"), ("on_validation_start", "")]
)
@pytest.mark.parametrize("verb", ["pretrain", "cluster", "shop"])
def test_a_training_that_diverges_says_so(
    corpus: Corpus, backbone: Path, watched: Callable[..., None], tmp_path: Path, verb: str, hook: str, quantity: str
) -> None:
    """In the middle of an epoch, and by its very last step: then the losses are fine and only the weights are not."""
    watched(Poisons(5, hook) if hook == "on_train_batch_start" else Poisons(8 if verb == "pretrain" else 10, hook))
    run = {
        "pretrain": lambda: pretrain(corpus, tmp_path / "out", pretrain_config()),
        "cluster": lambda: adapt(backbone, corpus, "cluster", tmp_path / "out", adapt_config()),
        "shop": lambda: adapt(backbone, corpus, "shop", tmp_path / "out", adapt_config()),
    }[verb]
    with pytest.raises(TrainingError, match=rf"training diverged: {quantity}.* of epoch 2 is not finite") as caught:
        run()
    assert "lower optim.lr" in caught.value.remedy
    assert caught.value.exit_code == 1
    assert not (tmp_path / "out").exists()


def test_a_training_that_diverged_is_not_saved(corpus: Corpus, watched: Callable[..., None], tmp_path: Path) -> None:
    watched(Poisons(5, "on_train_batch_start"), callback := StopAt("never", 1))
    with pytest.raises(TrainingError):
        pretrain(corpus, tmp_path / "out", pretrain_config(checkpoint_every=1))
    assert callback.calls.count("batch end") == 6  # and it was noticed at the next resume point
    checkpoint = torch.load(tmp_path / "out.training" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 5
    assert all(bool(tensor.isfinite().all()) for tensor in checkpoint["state_dict"].values())


def test_a_learning_rate_that_is_absurd_ends_with_status_1(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["backbone.channels=8", "backbone.dilations=[1]", "optim.lr=1e30", "optim.clip_norm=null"]
    options = [part for setting in settings for part in ("-s", setting)]
    assert execute(["pretrain", str(corpus.path), "-o", str(tmp_path / "out"), *options, "-q"]) == 1
    output = capsys.readouterr().err
    assert "error: training diverged" in output
    assert "What to do: lower optim.lr" in output
    assert "Traceback" not in output
