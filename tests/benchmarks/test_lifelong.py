"""The mechanisms of Conure and TERACON, as benchmarks/lifelong.py compares patches with them."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import tiny_pretrained, write_corpus
from peterrec.config import AdaptConfig, OptimConfig
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SETTINGS = AdaptConfig(epochs=2, batch_size=16, max_length=5, optim=OptimConfig(lr=0.02))
TOKENS = torch.tensor([[4, 5, 6, 7], [8, 9, 0, 0], [10, 4, 11, 0]])


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Two classification tasks, `age` and `trade`."""
    tasks = [{"name": name, "kind": "classification"} for name in ("age", "trade")]
    folder = write_corpus(tmp_path / "corpus", users=40, tasks=tasks)
    shutil.copytree(folder / "tasks" / "age", folder / "tasks" / "trade")
    description = folder / "tasks" / "trade" / "task.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | {"name": "trade"}))
    return Corpus.open(folder)


def new_conure(corpus: Corpus, **options: Any) -> Any:
    return importlib.import_module("conure").Conure(tiny_pretrained(), corpus, SETTINGS, **options)


def new_teracon(corpus: Corpus, settings: AdaptConfig = SETTINGS, **options: Any) -> Any:
    backbone = tiny_pretrained().network.backbone
    return importlib.import_module("teracon").Teracon(backbone, corpus, settings, **options)


def test_the_smallest_weights_are_freed_and_the_others_stay() -> None:
    trained = torch.tensor([[4.0, -1.0], [2.0, -3.0]])
    owned = importlib.import_module("conure").OwnedWeights(trained)
    owned.prune(0.5, trained)
    owned.freeze(trained)
    pretrained = torch.tensor([[4.0, 0.0], [0.0, -3.0]])
    assert torch.equal(owned(trained), pretrained)
    assert owned.claim(1, trained) == 2
    trained += torch.tensor([[9.0, 0.5], [0.25, 9.0]])  # where it may and where it may not
    assert torch.equal(owned(trained), torch.tensor([[4.0, 0.5], [0.25, -3.0]]))
    owned.prune(0.5, trained)
    assert owned.freeze(trained) == 1
    assert torch.equal(owned(trained), torch.tensor([[4.0, 0.5], [0.0, -3.0]])), "the pruned is not read"
    owned.claim(2, trained)
    trained += 7.0
    owned.reader = 1
    assert torch.equal(owned(trained), torch.tensor([[4.0, 0.5], [0.0, -3.0]])), "nor what a later task makes of it"
    owned.reader = 0
    assert torch.equal(owned(trained), pretrained)


@pytest.mark.usefixtures("last_epoch_kept")
def test_no_answer_changes_when_conure_learns_another_task(corpus: Corpus) -> None:
    method = new_conure(corpus)
    free = sum(trained.numel() for _, trained in method.matrices) / 2
    trained, stored = method.learn("age")
    head = stored - 2 * free / 32
    assert trained == free + head
    first = method.answers("age")
    trained, _ = method.learn("trade")
    assert trained == free / 2 + head
    assert not np.array_equal(method.answers("trade"), first)
    assert np.array_equal(method.answers("age"), first)
    assert all(bool((weights.frozen[weights.owner == 2] != 0).any()) for weights, _ in method.matrices)
    assert first.sum(axis=1) == pytest.approx(np.ones(40))


def test_conure_leaves_the_backbone_as_it_is(corpus: Corpus) -> None:
    pretrained = tiny_pretrained()
    before = pretrained.fingerprint
    importlib.import_module("conure").Conure(pretrained, corpus, SETTINGS).learn("age")
    assert pretrained.fingerprint == before


def test_nothing_is_retained_of_a_student_that_is_its_teacher(corpus: Corpus) -> None:
    method = new_teracon(corpus)
    method.learn("age")
    teacher = importlib.import_module("lifelong_task").frozen_copy(method.network)
    method.asked_share = lambda task, earlier: 1.0
    method.network.requires_grad_(False)
    assert float(method.retention_loss(teacher, TOKENS, 1)) == 0.0
    next(iter(method.network.backbone.blocks.parameters())).add_(0.1)
    difference = method.network.scores(TOKENS, 0, "both") - teacher.scores(TOKENS, 0, "both")
    loss = float(method.retention_loss(teacher, TOKENS, 1))
    assert loss == pytest.approx(float(difference.square().mean()))
    assert loss > 0
    method.asked_share = lambda task, earlier: 0.0
    assert float(method.retention_loss(teacher, TOKENS, 1)) == 0.0, "nobody is asked"


@pytest.mark.slow
@pytest.mark.usefixtures("last_epoch_kept")
def test_the_old_is_retained_the_better_the_more_it_counts(corpus: Corpus) -> None:
    changes = []
    settings = SETTINGS.model_copy(update={"epochs": 6, "optim": OptimConfig(lr=0.005)})
    for retention in (0.0, 10.0):
        method = new_teracon(corpus, settings, retention=retention)
        method.learn("age")
        first = method.answers("age")
        method.learn("trade")
        changes.append(np.abs(method.answers("age") - first).mean())
    assert changes[0] > 1.5 * changes[1] > 0


def test_masks_begin_near_one_and_know_of_later_tasks() -> None:
    teracon = importlib.import_module("teracon")
    generator = torch.Generator().manual_seed(0)
    masks = teracon.RelationMasks(4, 8, generator)
    masks.add_task(generator)
    alone = masks(0).detach()
    assert alone.shape == (4, 8)
    assert 0.9 < float(alone.min()) < float(alone.max()) < 1.0
    masks.add_task(generator)
    assert torch.equal(masks(0), alone), "values start at zero"
    torch.nn.init.eye_(masks.value.weight)
    together = masks(0)
    with torch.no_grad():
        masks.tasks[1].mul_(-1.0)
    assert not torch.allclose(masks(0), together)


def test_tasks_that_are_alike_need_fewer_reminders(corpus: Corpus) -> None:
    method, generator = new_teracon(corpus), torch.Generator().manual_seed(0)
    masks = method.network.masks
    for _ in range(3):
        masks.add_task(generator)
    start = importlib.import_module("teracon").START
    with torch.no_grad():
        masks.tasks[1].copy_(masks.tasks[0])
        masks.tasks[2].copy_(2 * start - masks.tasks[0])  # the other way from where they start
    assert [method.asked_share(task, 0) for task in (1, 2)] == pytest.approx([0.2689, 0.7311], abs=1e-4)


def test_a_mask_of_ones_is_no_mask(corpus: Corpus) -> None:
    method = new_teracon(corpus)
    masks, backbone = method.network.masks, method.network.backbone
    masks.add_task(method.generator)
    with torch.no_grad():
        masks.tasks[0].fill_(50.0)
        assert torch.equal(backbone(TOKENS, masks.patch_of(0)), backbone(TOKENS))
        masks.tasks[0].fill_(-50.0)
        assert torch.allclose(backbone(TOKENS, masks.patch_of(0)), backbone.embedding(TOKENS)), "blocks add nothing"


def test_a_method_that_says_it_forgets_nothing_is_checked(corpus: Corpus) -> None:
    class Forgetful:
        forgets = False
        learned = 0

        def learn(self, task: str) -> tuple[float, float]:
            self.learned += 1
            return 10.0, 5.0

        def answers(self, task: str) -> Any:
            return np.full((40, 3), 0.1 * self.learned)

    lifelong = importlib.import_module("lifelong")
    with pytest.raises(AssertionError, match="answers of age changed when trade was learned"):
        lifelong.learn_in_order(Forgetful(), corpus, ["age", "trade"], 100)
    method = Forgetful()
    method.forgets = True
    results = lifelong.learn_in_order(method, corpus, ["age", "trade"], 100)
    assert results.losses["age"] == pytest.approx([-np.log(0.1), -np.log(0.2)])
    assert lifelong.table(results, ["age", "trade"])[2] == "| age | 2.3026 | 1.6094 | -0.6931 | 10.00% | 5.00% |"


def test_a_trained_readout_is_refused(corpus: Corpus) -> None:
    task = importlib.import_module("lifelong_task")
    backbone = tiny_pretrained().network.backbone
    with pytest.raises(ConfigError, match="set readout to both"):
        task.TaskTraining(corpus, "age", SETTINGS.model_copy(update={"readout": "attention"}), backbone)
