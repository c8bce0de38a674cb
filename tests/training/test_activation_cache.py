"""What a task does not change is computed once for each user, and training on that is training as ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from builders import file_size_limit
from log_lines import log_lines
from peterrec.artifacts.tensors import fingerprint
from peterrec.config import AdaptConfig, BackboneConfig
from peterrec.data.batching import last_events
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import Sequences
from peterrec.errors import StorageError
from peterrec.model import UserModel
from peterrec.nn.backbone import Backbone, UnsharedModules
from peterrec.nn.readout import represent
from peterrec.nn.trunk import Trunk
from peterrec.training import activation_cache as trunk
from peterrec.training.activation_cache import TrunkCache, changed_blocks
from peterrec.training.adapt import adapt
from peterrec.training.pretrain import pretrain
from peterrec.training.strategies import build
from training.small import StopAt, Stopped, adapt_config, corpus_of, plain, pretrain_config

BLOCKS = BackboneConfig(channels=8, dilations=(1, 2, 1))
HISTORIES = [[4 + (user + step) % 9 for step in range(user % 12)] for user in range(70)]  # of 0 to 11 events


def patch(**settings: Any) -> dict[str, Any]:
    width = "rank" if settings.get("kind") == "lora" else "bottleneck"
    return {"patch": {width: 2} | settings}


SHARED: dict[str, tuple[int, dict[str, Any]]] = {
    "head": (0, {"strategy": "head"}),
    "last-sublayer": (1, {"strategy": "last-sublayer"}),
    "last1": (1, {"strategy": "last1"}),
    "last2": (2, {"strategy": "last2"}),
    "patch, last block": (1, patch(blocks=1)),
    "patch, last two": (2, patch(blocks=2, init="random")),
    "second sites": (2, patch(blocks=2, per_block=1, init="random")),
    "parallel": (2, patch(blocks=2, insertion="parallel", position="post_act")),
    "lora": (2, patch(blocks=2, kind="lora", init="random")),
    "scale-shift": (1, {"patch": {"blocks": 1, "kind": "scale-shift"}}),
    "own norms": (2, patch(blocks=2, train_norms=True)),
    "random trunk": (1, {"strategy": "patch-random"} | patch(blocks=1)),
}
NOT_SHARED: dict[str, dict[str, Any]] = {
    "patch": patch(),
    "every block by number": patch(blocks=3),
    "own [TCL]": patch(blocks=1, train_task_token=True),
    "all": {"strategy": "all"},
    "scratch": {"strategy": "scratch"},
    "random trunk": {"strategy": "patch-random"},
}


@pytest.fixture(scope="module")
def deep(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> UserModel:
    return pretrain(corpus, tmp_path_factory.mktemp("deep") / "backbone", pretrain_config(epochs=1, backbone=BLOCKS))


@pytest.fixture(scope="module")
def noncausal(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> UserModel:
    settings = BLOCKS.model_copy(update={"kind": "noncausal"})
    return pretrain(corpus, tmp_path_factory.mktemp("both") / "backbone", pretrain_config(epochs=1, backbone=settings))


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    parts = {"train": HISTORIES, "valid": [*HISTORIES[::3], [4, 7, 9] * 7], "test": HISTORIES[:2]}
    labels = {part: [len(row) % 2 for row in rows] for part, rows in parts.items()}
    targets = {part: [[user % 5] for user in range(len(rows))] for part, rows in parts.items()}
    folder = tmp_path_factory.mktemp("short")
    return {
        "classification": corpus_of(folder / "c", HISTORIES, 9, labels=labels, parts=parts),
        "ranking": corpus_of(folder / "r", HISTORIES, 9, targets=targets, parts=parts),
    }


@pytest.fixture(scope="module")
def reads_short(short: dict[str, Corpus], tmp_path_factory: pytest.TempPathFactory) -> UserModel:
    out = tmp_path_factory.mktemp("reads") / "backbone"
    return pretrain(short["ranking"], out, pretrain_config(epochs=1, backbone=BLOCKS))


def labelled(corpus: Corpus, task: str) -> int:
    return sum(len(corpus.task(task).part(part)) for part in ("train", "valid"))


class Run:
    def __init__(self, model: UserModel, corpus: Corpus, task: str, out: Path, **settings: Any) -> None:
        config = AdaptConfig.model_validate(adapt_config().model_dump() | settings)
        with log_lines() as lines:
            bundle = adapt(model, corpus, task, out, config, overwrite=True)
        self.tensors, self.curve = bundle.tensors(), plain(bundle.metrics["curve"])
        self.line = next((line for line in lines if "computed once" in line), None)

    def is_nearly(self, expected: Run) -> None:
        assert self.tensors.keys() == expected.tensors.keys()
        for name, tensor in self.tensors.items():
            torch.testing.assert_close(tensor, expected.tensors[name], rtol=0, atol=1e-5)
        assert len(self.curve) == len(expected.curve)
        for first, second in zip(self.curve, expected.curve, strict=True):
            assert first == pytest.approx(second, abs=1e-5)


@pytest.mark.usefixtures("last_epoch_kept")
@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("task", ["cluster", "shop"])
@pytest.mark.parametrize("case", SHARED)
def test_training_on_what_was_kept_is_training_as_ever(
    deep: UserModel, corpus: Corpus, tmp_path: Path, case: str, task: str
) -> None:
    changed, settings = SHARED[case]
    cached = Run(deep, corpus, task, tmp_path / "out", **settings)
    uncached = Run(deep, corpus, task, tmp_path / "out", cache="off", **settings)
    cached.is_nearly(uncached)
    assert uncached.line is None
    below = {0: "trunk is", 1: "trunk below the last block is", 2: "trunk below the last 2 blocks is"}[changed]
    assert f"{below} computed once for {labelled(corpus, task)} users (" in str(cached.line)


@pytest.mark.usefixtures("last_epoch_kept")
@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("task", ["classification", "ranking"])
@pytest.mark.parametrize("case", ["head", "last2", "patch, last block", "lora"])
@pytest.mark.parametrize("length", [3, 100])
def test_users_with_few_events_or_none(
    reads_short: UserModel, short: dict[str, Corpus], tmp_path: Path, case: str, task: str, length: int
) -> None:
    settings = SHARED[case][1] | {"max_length": length}
    cached = Run(reads_short, short[task], "job", tmp_path / "out", **settings)
    assert cached.line is not None
    cached.is_nearly(Run(reads_short, short[task], "job", tmp_path / "out", cache="off", **settings))


@pytest.mark.usefixtures("last_epoch_kept")
def test_of_a_noncausal_backbone_only_the_representation_is_kept(
    noncausal: UserModel, corpus: Corpus, tmp_path: Path
) -> None:
    cached = Run(noncausal, corpus, "shop", tmp_path / "out", strategy="head")
    assert cached.line is not None
    cached.is_nearly(Run(noncausal, corpus, "shop", tmp_path / "out", strategy="head", cache="off"))
    assert Run(noncausal, corpus, "shop", tmp_path / "out", epochs=1, strategy="last1").line is None


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("changed", range(8))
def test_above_what_was_kept_comes_the_representation(changed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk, "USERS_AT_ONCE", 8)  # so that some are all short
    backbone = Backbone(BackboneConfig(channels=4, dilations=(1, 4) * 4), 9)
    rng = np.random.default_rng(changed)
    sequences = Sequences.from_rows([rng.integers(4, 13, length) for length in [*range(41), 300, 57, 50, 49]])
    cache = TrunkCache(Trunk(backbone, changed, 50), sequences, sequences, "memory")
    cache.fill(torch.device("cpu"), Path())
    for rows in (rng.permutation(45), np.array([0]), np.array([42, 41, 43]), np.array([2, 1])):
        batch = cache.train(rows)
        assert ("keep" in batch) == (changed > 0 and bool((sequences.lengths_of(rows) < 49).any()))
        expected = represent(backbone, torch.from_numpy(last_events(sequences, rows, 50)))
        actual = cache.trunk.represent(batch["states"], batch.get("keep"), None)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("case", NOT_SHARED)
def test_nothing_is_kept_where_the_task_changes_all(deep: UserModel, corpus: Corpus, tmp_path: Path, case: str) -> None:
    settings = NOT_SHARED[case] | {"epochs": 1}
    runs = [Run(deep, corpus, "cluster", tmp_path / "out", cache=cache, **settings) for cache in ("memory", "off")]
    assert [run.line for run in runs] == [None, None]
    assert fingerprint(runs[0].tensors) == fingerprint(runs[1].tensors)


def test_the_changed_blocks_are_counted_by_what_is_trained(deep: UserModel, corpus: Corpus) -> None:
    spec = corpus.task("cluster")

    def count(settings: dict[str, Any]) -> int | None:
        config = AdaptConfig.model_validate(adapt_config().model_dump() | settings)
        return changed_blocks(build(config, deep.network.backbone, spec, spec.part("train")))

    assert [count(settings) for _, settings in SHARED.values()] == [changed for changed, _ in SHARED.values()]
    assert [count(settings) for settings in NOT_SHARED.values()] == [None] * len(NOT_SHARED)
    parts = build(adapt_config(strategy="last1"), deep.network.backbone, spec, spec.part("train"))
    assert changed_blocks(replace(parts, unshared=UnsharedModules(embedding=True, blocks=1))) is None


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("case", ["head", "last-sublayer", "last1", "patch, last block"])
@pytest.mark.parametrize("cache", ["memory", "off"])
def test_the_trunk_runs_once_for_each_user(
    deep: UserModel, corpus: Corpus, tmp_path: Path, case: str, cache: str
) -> None:
    rows: list[int] = []
    backbone = deep.network.backbone
    watched = [backbone.embedding, backbone.blocks[0].first.norm]
    hooks = [module.register_forward_hook(lambda *arguments: rows.append(len(arguments[2]))) for module in watched]
    try:
        Run(deep, corpus, "cluster", tmp_path / "out", epochs=3, cache=cache, **SHARED[case][1])
    finally:
        for hook in hooks:
            hook.remove()
    start = len(corpus.task("cluster").part("valid"))
    passes = labelled(corpus, "cluster") * (3 if cache == "off" else 1) + (start if cache == "off" else 0)
    assert sum(rows) == len(watched) * passes


def test_the_pretrained_backbone_is_what_it_was(deep: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    before = deep.pretrained.fingerprint
    deep.network.backbone.blocks[0].train()
    modes = [module.training for module in deep.network.modules()]
    for case in ("head", "last1", "random trunk"):
        Run(deep, corpus, "cluster", tmp_path / "out", **SHARED[case][1])
    assert deep.pretrained.fingerprint == before
    assert [module.training for module in deep.network.modules()] == modes
    deep.network.eval()


def test_it_is_computed_in_the_precision_of_the_training(deep: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    dtypes: set[torch.dtype] = set()
    hook = deep.network.backbone.blocks[0].first.conv.register_forward_hook(
        lambda *arguments: dtypes.add(arguments[2].dtype)
    )
    for precision, dtype in (("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)):
        runner = {"accelerator": "cpu", "progress": False, "precision": precision}
        Run(deep, corpus, "cluster", tmp_path / "out", epochs=1, strategy="head", runner=runner)
        assert dtypes == {dtype}
        dtypes.clear()
    hook.remove()


class Look(Callback):
    def __init__(self) -> None:
        self.mapped: list[bool] = []
        self.files: list[str] = []

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        states = module.cache.train._states
        self.mapped.append(isinstance(states.base, np.memmap))
        self.files = [path.name for path in Path(trainer.default_root_dir).iterdir()]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("case", ["head", "last2", "parallel"])
def test_on_disk_it_is_the_same_to_the_bit_and_nothing_stays(
    deep: UserModel, corpus: Corpus, watched: Callable[..., None], tmp_path: Path, case: str
) -> None:
    actual = {}
    for cache in ("memory", "disk"):
        look = Look()
        watched(look)
        actual[cache] = Run(deep, corpus, "shop", tmp_path / "out", cache=cache, **SHARED[case][1])
        assert look.mapped == [cache == "disk"] * 3
        assert not [name for name in look.files if not name.endswith((".yaml", ".json", ".ckpt", ".safetensors"))]
    assert fingerprint(actual["disk"].tensors) == fingerprint(actual["memory"].tensors)
    assert actual["disk"].curve == actual["memory"].curve
    assert str(actual["disk"].line).endswith("MB, on disk)")
    assert str(actual["memory"].line).endswith("MB, in memory)")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_large_is_kept_on_disk(
    deep: UserModel, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def line(cache: str = "auto") -> str:
        return str(Run(deep, corpus, "cluster", tmp_path / "out", epochs=1, strategy="head", cache=cache).line)

    size = labelled(corpus, "cluster") * 8 * 4
    for limit, place in ((size, "in memory"), (size - 1, "on disk")):
        monkeypatch.setattr(trunk, "IN_MEMORY", limit)
        assert line().endswith(f", {place})")
    monkeypatch.setattr(trunk, "ON_DISK", size - 1)
    assert (line(), line("disk")[-9:]) == ("None", " on disk)")


def test_a_full_disk_is_said_and_leaves_nothing(
    deep: UserModel, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fill = TrunkCache.fill

    def on_a_small_disk(*arguments: Any) -> None:
        with file_size_limit(1_000):
            fill(*arguments)

    monkeypatch.setattr(TrunkCache, "fill", on_a_small_disk)
    with pytest.raises(StorageError, match="disk is full"):
        Run(deep, corpus, "cluster", tmp_path / "out", strategy="last1", cache="disk")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("case", "cache"), [("head", "memory"), ("last1", "disk"), ("random trunk", "auto")])
def test_a_run_that_was_stopped_goes_on_as_if_it_never_was(
    deep: UserModel, corpus: Corpus, watched: Callable[..., None], tmp_path: Path, case: str, cache: str
) -> None:
    def run(name: str, *, resume: bool) -> Any:
        tree = adapt_config(checkpoint_every=1).model_dump() | SHARED[case][1] | {"cache": cache}
        bundle = adapt(deep, corpus, "shop", tmp_path / name, AdaptConfig.model_validate(tree), resume=resume)
        return fingerprint(bundle.tensors()), plain(bundle.metrics["curve"])

    uninterrupted = run("whole", resume=False)
    for number, (hook, n) in enumerate([("batch end", 2), ("validation start", 1), ("batch start", 3), ("end", 1)]):
        watched(StopAt(hook, n))
        with pytest.raises(Stopped):
            run("stopped", resume=number > 0)
        if number == 0:
            names = {path.name for path in (tmp_path / "stopped.training").iterdir()}
            assert names == {"best--1.safetensors", "config.yaml", "inputs.json", "last.ckpt"}, "nothing of the cache"
    watched()
    assert run("stopped", resume=True) == uninterrupted
