"""Strategy `joint`: one backbone and all heads are trained together, and every task gets a bundle of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file

from peterrec.artifacts.bundle_io import Bundle
from peterrec.artifacts.inspection import inspect
from peterrec.artifacts.tensors import fingerprint
from peterrec.data.corpus import Corpus
from peterrec.errors import ArtifactError, ConfigError
from peterrec.evaluation.bundles import evaluate
from peterrec.evaluation.validation import mean_reciprocal_rank
from peterrec.model import UserModel
from peterrec.training.adapt import adapt_jointly
from peterrec.training.adaptation_run import AdaptationRun
from peterrec.training.joint import JointModule
from peterrec.training.learners import StepSource
from peterrec.training.task_source import TaskSource
from training.small import HOOKS, StopAt, Stopped, adapt_config, plain

TASKS = ["cluster", "shop"]
HISTORIES = [["s0001", "s0002", "s0009"], ["s0005"], []]


def joint(model: UserModel | Path, corpus: Corpus, out: Path, tasks: Any = TASKS, **settings: Any) -> dict[str, Bundle]:
    changes = {"strategy": "joint", "epochs": 2, "optim": {"lr": 0.02}} | settings
    options = {name: changes.pop(name) for name in ("resume", "overwrite") if name in changes}
    return adapt_jointly(model, corpus, tasks, out, adapt_config(**changes), **options)


def saved_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def joint_run(
    backbone: Path, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Bundle]]:
    """The folder of a joint training of both tasks, and its bundles in memory."""
    out = tmp_path_factory.mktemp("joint") / "out"
    return out, joint(backbone, corpus, out)


# ---------------------------------------------------------------- what comes out


def test_bundles_load_on_the_pretrained_backbone_and_answer_as_in_memory(
    model: UserModel, joint_run: tuple[Path, dict[str, Bundle]]
) -> None:
    out, bundles = joint_run
    assert list(bundles) == TASKS
    for task in TASKS:
        assert model.load_bundle(out / task) == task
        model.add_bundle(bundles[task], f"{task}, in memory")
    plain = model.represent(HISTORIES)
    first, second = (model.represent(HISTORIES, task) for task in TASKS)
    assert np.array_equal(first, second), "one backbone for both"
    assert not np.allclose(first, plain, atol=1e-3)
    classes, memory = (model.predict(HISTORIES, name).probabilities for name in ("cluster", "cluster, in memory"))
    assert np.array_equal(classes, memory)
    assert classes.shape == (3, 4)
    assert model.recommend(HISTORIES, "shop", 8) == model.recommend(HISTORIES, "shop, in memory", 8)


def test_a_joint_folder_is_no_bundle_and_says_what_is_in_it(
    joint_run: tuple[Path, dict[str, Bundle]], model: UserModel, corpus: Corpus
) -> None:
    with pytest.raises(ArtifactError, match=r"several tasks \(cluster, shop\)") as caught:
        model.load_bundle(joint_run[0])
    assert "folder of one task" in caught.value.remedy
    with pytest.raises(ConfigError, match="bundles of 2 tasks"):
        evaluate(model, corpus, {"one": joint_run[0] / "cluster", "other": joint_run[0] / "shop"})
    assert not [name for name in model.bundles if name.startswith("evaluate")]


def test_both_bundles_hold_the_same_backbone_and_heads_of_their_own(
    model: UserModel, joint_run: tuple[Path, dict[str, Bundle]]
) -> None:
    cluster, shop = (saved_tensors(joint_run[0] / task) for task in TASKS)
    trunk = {f"backbone.{name}": tensor for name, tensor in model.network.backbone.state_dict().items()}
    for tensors, outputs in ((cluster, 4), (shop, 8)):
        assert tensors.keys() == {*trunk, "head.weight", "head.bias"}
        assert tensors["head.weight"].shape == (outputs, 8)
        assert not any(torch.equal(tensors[name], tensor) for name, tensor in trunk.items())
    assert all(torch.equal(cluster[name], shop[name]) for name in trunk)


def test_the_pretrained_backbone_never_changes(
    model: UserModel, backbone: Path, corpus: Corpus, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    on_disk = (backbone / "model.safetensors").read_bytes()
    bundles = joint(model, corpus, tmp_path / "out", epochs=1)
    assert equal(dict(model.network.state_dict()), before)
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert {bundle.backbone_fingerprint for bundle in bundles.values()} == {model.pretrained.fingerprint}
    assert (backbone / "model.safetensors").read_bytes() == on_disk


def test_the_line_counts_the_backbone_once_and_all_heads(
    backbone: Path, corpus: Corpus, tmp_path: Path, logged: list[str]
) -> None:
    bundles = joint(backbone, corpus, tmp_path / "out", epochs=1)
    heads, trunk = {"cluster": 4 * 9, "shop": 8 * 9}, {"embedding": 28 * 8, "blocks": 800, "norms": 64}
    total = sum(trunk.values()) + 108
    assert (
        f"trainable params: {total:,} || all params: {total:,} || "
        "trainable%: 100.0000 (embedding 224, blocks 800, norms 64, head 108)"
    ) in logged
    for task, head in heads.items():
        assert bundles[task].trained == trunk | {"head": head}
        assert bundles[task].all_params == sum(trunk.values()) + head


def test_inspect_tells_what_a_joint_training_is(joint_run: tuple[Path, dict[str, Bundle]], model: UserModel) -> None:
    description = inspect(joint_run[0])
    assert (description["kind"], description["tasks"], description["backbone_fingerprint"]) == (
        "joint",
        TASKS,
        model.fingerprint,
    )
    assert description["bytes"] == sum(file.stat().st_size for file in joint_run[0].rglob("*") if file.is_file())
    bundle = inspect(joint_run[0] / "shop")
    assert (bundle["kind"], bundle["strategy"], bundle["kind_of_task"]) == ("bundle", "joint", "ranking")
    assert bundle["unshared"] == {"embedding": True, "blocks": 2}


# ---------------------------------------------------------------- what it is trained and judged by


def test_an_epoch_has_every_labelled_user_of_every_task_once(
    backbone: Path, corpus: Corpus, watched: Callable[..., None], tmp_path: Path
) -> None:
    class Log(Callback):
        """The users of a step, by their tokens; `cluster` is task 0 and `shop` task 1."""

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            for task, task_batch in batch.items():
                epoch_users[trainer.current_epoch] += [
                    (int(task), [t for t in r if t]) for r in task_batch["tokens"].tolist()
                ]
            task_counts.append(len(batch))

    epoch_users: dict[int, list[Any]] = {0: [], 1: []}
    task_counts: list[int] = []
    watched(Log())
    joint(backbone, corpus, tmp_path / "out")
    parts = [corpus.task(task).part("train").sequences for task in TASKS]
    expected = [(task, part[row].tolist()) for task, part in enumerate(parts) for row in range(len(part))]
    assert len(expected) > 150
    for epoch in (0, 1):
        assert sorted(epoch_users[epoch]) == sorted(expected)
    assert epoch_users[0] != epoch_users[1], "in another order"
    assert task_counts.count(2) > 0.8 * len(task_counts), "batches are mixed"


def test_rows_are_those_of_the_tasks_one_after_another(corpus: Corpus) -> None:
    parts = [corpus.task(task).part(part) for task, part in zip(TASKS, ("train", "valid"), strict=True)]
    config = adapt_config(strategy="joint", max_length=9)
    learners: Any = [
        SimpleNamespace(source=TaskSource(corpus.task(task), part, config))
        for task, part in zip(TASKS, parts, strict=True)
    ]
    source, first = StepSource.over_tasks(learners), len(parts[0])
    rows = np.array([first + 2, 0, first - 1, first])
    pairs = ((1, 2), (0, 0), (0, first - 1), (1, 0))
    assert source.lengths[rows].tolist() == [min(9, len(parts[t].sequences[r])) for t, r in pairs]
    batch = source.batch(rows, np.random.default_rng(0))
    actual = {
        task: [[t for t in row if t] for row in task_batch["tokens"].tolist()] for task, task_batch in batch.items()
    }
    expected = {"0": [(0, 0), (0, first - 1)], "1": [(1, 2), (1, 0)]}
    assert actual == {
        task: [parts[t].sequences[r][-9:].tolist() for t, r in task_rows] for task, task_rows in expected.items()
    }


def test_the_loss_of_a_step_is_the_mean_over_users_of_whatever_task(
    model: UserModel, corpus: Corpus, tmp_path: Path
) -> None:
    class Says(torch.nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, head: Any, vectors: torch.Tensor, batch: Any) -> torch.Tensor:
            return torch.tensor(self.value)

    config = adapt_config(strategy="joint")
    learners: Any = AdaptationRun(model, corpus, TASKS, tmp_path, config).learners
    module = JointModule(learners, config)
    module.losses = torch.nn.ModuleList(Says(value) for value in (2.0, 10.0))
    three_users, one_user = ({"tokens": torch.full((users, 4), 5)} for users in (3, 1))
    assert module.training_step({"0": three_users, "1": one_user}, 0).item() == (3 * 2 + 10) / 4
    assert module.training_step({"1": three_users}, 0).item() == 10


def test_relative_is_the_mean_of_how_much_better_each_task_is_than_without_looking(
    model: UserModel, corpus: Corpus, joint_run: tuple[Path, dict[str, Bundle]]
) -> None:
    """By hand: class shares, popularity; the log-loss by its start, the start of the MRR by it."""
    cluster, shop = corpus.task("cluster"), corpus.task("shop")
    train, valid = cluster.part("train").labels, cluster.part("valid").labels
    assert train is not None
    assert valid is not None
    shares = (np.bincount(train) + 1) / (len(train) + 4)
    blind_loss = float(-np.log(shares)[valid].mean())
    part = shop.part("valid")
    assert shop.targets is not None
    assert part.targets is not None
    popular = np.log((shop.targets.counts + 1.0) / (shop.targets.counts + 1.0).sum()).astype(np.float32)
    blind_mrr = mean_reciprocal_rank([np.tile(popular, (len(part), 1))], part.targets)
    bundles = joint_run[1]
    for rows in zip(*(bundles[task].metrics["curve"] for task in TASKS), strict=True):
        expected = (rows[0]["log_loss"] / blind_loss + blind_mrr / rows[1]["mrr"]) / 2
        assert rows[0]["relative"] == rows[1]["relative"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_it_learns_both_tasks(backbone: Path, corpus: Corpus, tmp_path: Path) -> None:
    bundles = joint(backbone, corpus, tmp_path / "out", epochs=12, patience=12, optim={"lr": 0.02})
    rows = {task: bundle.metrics["curve"] for task, bundle in bundles.items()}
    best = bundles["cluster"].metrics["best_epoch"]
    relative = [row["relative"] for row in rows["cluster"]]
    assert relative[best] == min(relative) < 0.8
    assert bundles["shop"].metrics["best_epoch"] == best
    for task, metric in (("cluster", "log_loss"), ("shop", "mrr")):
        metrics = bundles[task].metrics
        assert metrics["monitor"] == metric
        assert metrics["valid"][metric] == rows[task][best][metric]
    assert rows["cluster"][best]["log_loss"] < 1.2 < np.log(4)


def test_the_metrics_are_those_of_the_saved_bundles(
    model: UserModel, corpus: Corpus, joint_run: tuple[Path, dict[str, Bundle]]
) -> None:
    for task in TASKS:
        model.load_bundle(joint_run[0] / task)
    cluster, shop = (corpus.task(task).part("valid") for task in TASKS)
    probabilities = model.probabilities(cluster.sequences, "cluster")
    assert cluster.labels is not None
    log_loss = -np.log(probabilities[np.arange(len(cluster)), cluster.labels]).mean()
    assert model.bundle("cluster").metrics["valid"]["log_loss"] == pytest.approx(log_loss, rel=1e-5)
    assert shop.targets is not None
    mrr = mean_reciprocal_rank(model.score_batches(shop.sequences, "shop"), shop.targets)
    assert model.bundle("shop").metrics["valid"]["mrr"] == pytest.approx(mrr, rel=1e-6)


def test_the_start_may_be_random_and_all_heads_leave_theirs(
    backbone: Path, corpus: Corpus, joint_run: tuple[Path, dict[str, Bundle]], tmp_path: Path
) -> None:
    """So slow that nothing moves: what is written is what it started from."""
    still = {"optim": {"lr": 1e-12, "weight_decay": 0, "schedule": "constant"}, "epochs": 1}
    trunk = UserModel.from_pretrained(backbone, "cpu").network.backbone.state_dict()
    actual = {}
    for start in ("pretrained", "random"):
        joint(backbone, corpus, tmp_path / start, joint_init=start, **still)
        actual[start] = saved_tensors(tmp_path / start / "cluster")
    for name, tensor in trunk.items():
        if "norm" not in name and "bias" not in name:
            torch.testing.assert_close(actual["pretrained"][f"backbone.{name}"], tensor, atol=1e-6, rtol=0)
            assert not torch.allclose(actual["random"][f"backbone.{name}"], tensor, atol=1e-3)
    for task in TASKS:
        start, end = saved_tensors(tmp_path / "pretrained" / task), saved_tensors(joint_run[0] / task)
        assert not torch.allclose(start["head.weight"], end["head.weight"], atol=1e-3)
        assert not torch.allclose(start["head.bias"], end["head.bias"], atol=1e-3)


# ---------------------------------------------------------------- seeds, and runs that stop


def result(bundles: dict[str, Bundle]) -> Any:
    return [(name, fingerprint(b.tensors()), plain(b.metrics["curve"])) for name, b in bundles.items()]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_result(
    backbone: Path, corpus: Corpus, joint_run: tuple[Path, dict[str, Bundle]], tmp_path: Path
) -> None:
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - what a user may do
    assert result(joint(backbone, corpus, tmp_path / "a")) == result(joint_run[1])
    assert result(joint(backbone, corpus, tmp_path / "b", seed=1)) != result(joint_run[1])


@pytest.mark.slow
@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("start", ["pretrained", "random"])
def test_a_joint_training_that_was_stopped_goes_on_as_if_it_never_was(
    backbone: Path, corpus: Corpus, watched: Callable[..., None], tmp_path: Path, start: str
) -> None:
    uninterrupted = result(joint(backbone, corpus, tmp_path / "whole", joint_init=start))
    for hook in HOOKS:
        out = tmp_path / hook.replace(" ", "-")
        watched(StopAt(hook, 1 if hook == "end" else 2))
        with pytest.raises(Stopped):
            joint(backbone, corpus, out, joint_init=start, checkpoint_every=3)
        assert not out.exists()
        watched()
        assert result(joint(backbone, corpus, out, joint_init=start, checkpoint_every=3, resume=True)) == uninterrupted
        assert not out.with_name(out.name + ".training").exists()
