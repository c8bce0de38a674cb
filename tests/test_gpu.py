"""The same code on a GPU: skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from oracles.softmax_losses import full_softmax_loss
from peterrec.config import RunnerConfig
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import FIRST_ITEM, Sequences
from peterrec.model import UserModel
from peterrec.nn.chunked_losses import chunked_full_softmax_loss
from peterrec.serving.engine import Engine
from peterrec.serving.requests import Question
from peterrec.serving.store.base import Event
from peterrec.serving.store.sqlite import SqliteStore
from peterrec.serving.users import Users
from peterrec.training.adapt import adapt
from peterrec.training.pretrain import pretrain
from training.small import adapt_config, prepare_synthetic, pretrain_config
from training.test_event_features import corpus_of as corpus_with_features

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine"),
]
USERS = Sequences.from_rows([[FIRST_ITEM + (i * j) % 12 for j in range(1, 1 + i % 8)] for i in range(40)])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare_synthetic(tmp_path_factory.mktemp("gpu"), users=130, items=24, targets=8, mean_events=8, seed=3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_answers_are_those_of_the_cpu(precision: str) -> None:
    on_gpu, on_cpu = (UserModel(tiny_pretrained(), device, precision=precision) for device in ("cuda", "cpu"))
    for model in (on_gpu, on_cpu):
        model.add_bundle(tiny_bundle(model.pretrained, name="shop", targets=tiny_catalogue(5, first=0)))
    for bundle in (None, "shop"):
        actual, expected = (model.representations(USERS, bundle) for model in (on_gpu, on_cpu))
        cosine = (actual * expected).sum(1) / np.linalg.norm(actual, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosine.min() > (0.9999 if precision == "fp32" else 0.999)
        excluded = Sequences.from_rows([[0, 1]] * len(USERS))
        assert not np.isin(on_gpu.top_k(USERS, 3, bundle, excluded=excluded).positions, [0, 1]).any()


def test_losses_in_chunks_are_the_plain_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 8, generator=generator).cuda().requires_grad_() for n in (700, 90))
    bias, positives = (
        torch.randn(90, generator=generator).cuda(),
        torch.randint(0, 90, (700,), generator=generator).cuda(),
    )
    losses = [loss(hidden, positives, weight, bias) for loss in (chunked_full_softmax_loss, full_softmax_loss)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
    for chunked, plain in zip(*(torch.autograd.grad(loss, [hidden, weight]) for loss in losses), strict=True):
        torch.testing.assert_close(chunked, plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("updates", ["dense", "rows"])
def test_the_whole_job_runs(corpus: Corpus, tmp_path: Path, precision: str, updates: str) -> None:
    runner = RunnerConfig(accelerator="gpu", precision=precision, progress=False)
    config = pretrain_config(loss="sampled", negatives=20, table_updates=updates, runner=runner)
    model = pretrain(corpus, tmp_path / "backbone", config)
    for strategy in ("patch", "head", "all"):
        bundle = adapt(model, corpus, "cluster", tmp_path / strategy, adapt_config(strategy=strategy, runner=runner))
        model.add_bundle(bundle, strategy)
    assert model.device.type == "cuda"


def test_what_else_is_learned_runs(tmp_path: Path) -> None:
    """Features of events, content of items, a bundle that is gone on from, and attention over patches."""
    items = pa.table({"item_id": [f"i{n:02}" for n in range(12)], "price": [float(n % 5) for n in range(12)]})
    corpus = corpus_with_features(tmp_path, "corpus", features=["step", "time:gap"])
    runner = RunnerConfig(accelerator="gpu", progress=False)
    model = pretrain(corpus, tmp_path / "backbone", pretrain_config(epochs=1, dropout=0.1, runner=runner), items=items)
    model = pretrain(
        corpus, tmp_path / "later", pretrain_config(epochs=1, runner=runner), items=items, initial=model
    )  # fmt: skip
    config = adapt_config(epochs=1, runner=runner)
    initial = adapt(model, corpus, "group", tmp_path / "first", config)
    adapt(model, corpus, "group", tmp_path / "second", config, initial=initial)
    paths = [str(tmp_path / name) for name in ("first", "second")]
    fused = adapt(model, corpus, "group", tmp_path / "fused", config.model_copy(update={"fuse": tuple(paths)}))
    answers = []
    for device in ("cuda", "cpu"):
        loaded = UserModel.from_pretrained(tmp_path / "later", device=device)
        for name in ("first", "second", "fused"):
            loaded.load_bundle(tmp_path / name, name)
        answers += [loaded.probabilities(corpus.sequences, name) for name in loaded.bundles]
    assert fused.name == "group"
    for on_gpu, on_cpu in zip(answers[:3], answers[3:], strict=True):
        np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-4)


def test_the_engine_and_its_states_say_what_they_say_on_the_cpu(tmp_path: Path) -> None:
    answers = []
    for device in ("cuda", "cpu"):
        pretrained = tiny_pretrained()
        engine = Engine(UserModel(pretrained, device))
        for seed in range(3):
            engine.add(tiny_bundle(pretrained, name=f"age-{seed}", seed=seed, max_length=30))
        engine.add(tiny_bundle(pretrained, name="shop", targets=tiny_catalogue(5, first=0), max_length=30))
        users = Users(engine, SqliteStore(tmp_path / f"{device}.sqlite", 100))
        for i in range(12):
            users.append([Event("anna", f"e{i}", f"item-{i}", float(i))])
            answers.append(users.run([users.prepare("anna", Question(k=2))])[0])
        users.store.close()
    for on_gpu, on_cpu in zip(answers[:12], answers[12:], strict=True):
        assert on_gpu.tasks["shop"].items == on_cpu.tasks["shop"].items
        for seed in range(3):
            actual, expected = (answer.tasks[f"age-{seed}"].probabilities for answer in (on_gpu, on_cpu))
            assert actual == pytest.approx(expected, abs=1e-4)
