"""`OUT.training`: when a run may go on, when it is refused, and what is left when writing fails."""

from __future__ import annotations

import errno
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Callback

from builders import file_size_limit
from peterrec.artifacts.backbone_io import load_backbone
from peterrec.config import RunnerConfig
from peterrec.data.corpus import Corpus
from peterrec.errors import ArtifactError, ConfigError, FingerprintError, StorageError
from peterrec.training.adapt import adapt
from peterrec.training.pretrain import pretrain
from peterrec.training.work_folder import AtomicCheckpoints, WorkFolder
from training.small import QUIET, StopAt, Stopped, adapt_config, prepare_synthetic, pretrain_config

POINT = "out.training/last.ckpt"


@pytest.fixture
def unfinished(corpus: Corpus, watched: Callable[..., None], tmp_path: Path) -> Path:
    """Where the backbone of a run would be that stopped in its second epoch."""
    stop(corpus, watched, tmp_path, StopAt("batch start", 7))
    return tmp_path / "out"


def stop(corpus: Corpus, watched: Callable[..., None], folder: Path, at: StopAt) -> None:
    watched(at)
    with pytest.raises(Stopped):
        pretrain(corpus, folder / "out", pretrain_config(checkpoint_every=1))
    watched()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_finished_run_leaves_the_artifact_alone(corpus: Corpus, tmp_path: Path) -> None:
    model = pretrain(corpus, tmp_path / "out", pretrain_config(checkpoint_every=1))
    assert names(tmp_path) == ["out"]
    adapt(model, corpus, "cluster", tmp_path / "deep" / "er" / "bundle", adapt_config(checkpoint_every=1))
    assert names(tmp_path / "deep" / "er") == ["bundle"]


def test_resume_points_may_lie_elsewhere_behind_a_link_and_then_leave_nothing_either(tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "out.training").symlink_to("large", target_is_directory=True)
    work = WorkFolder(tmp_path / "out", pretrain_config(), {"corpus": "one"}, resume=False, overwrite=True)
    assert (tmp_path / "out.training" / "inputs.json").is_file()
    work.remove()
    assert names(tmp_path) == []


def test_what_a_run_that_stopped_leaves(unfinished: Path) -> None:
    assert names(unfinished.parent) == ["out.training"]
    assert names(unfinished.with_name("out.training")) == [
        "best-0.safetensors", "config.yaml", "inputs.json", "last.ckpt",
    ]  # fmt: skip


def test_weights_that_were_better_before_are_not_heaped_up(
    corpus: Corpus, watched: Callable[..., None], tmp_path: Path
) -> None:
    stop(corpus, watched, tmp_path, StopAt("batch start", 11))
    best = [name for name in names(tmp_path / "out.training") if name.startswith("best")]
    assert best == ["best-1.safetensors"]


def test_a_second_run_is_refused_and_says_what_to_do(corpus: Corpus, unfinished: Path) -> None:
    before = content(unfinished.parent)
    with pytest.raises(ArtifactError, match=r"holds an unfinished run\n.*--resume, or start over with --overwrite"):
        pretrain(corpus, unfinished, pretrain_config(checkpoint_every=1))
    assert content(unfinished.parent) == before


def test_overwrite_starts_over(corpus: Corpus, unfinished: Path, tmp_path: Path) -> None:
    fresh = pretrain(corpus, tmp_path / "fresh", pretrain_config(seed=1))
    second_result = pretrain(corpus, unfinished, pretrain_config(seed=1), overwrite=True)
    assert second_result.fingerprint == fresh.fingerprint
    assert names(tmp_path) == ["fresh", "out"]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"epochs": 4}, {"optim": {"lr": 0.1}}, {"masking": {"mask_fraction": 0.1}}]
)
def test_other_settings_are_refused(corpus: Corpus, unfinished: Path, change: dict[str, Any], tmp_path: Path) -> None:
    config = pretrain_config(**({"checkpoint_every": 1} | change))
    before = content(tmp_path)
    with pytest.raises(ConfigError, match=r"another configuration\n.*--overwrite"):
        pretrain(corpus, unfinished, config, resume=True)
    assert content(tmp_path) == before
    assert pretrain(corpus, unfinished, config, resume=True, overwrite=True).fingerprint  # starts over


def test_the_runner_may_differ(corpus: Corpus, unfinished: Path) -> None:
    runner = RunnerConfig(accelerator="auto", progress=False, logger="csv")
    pretrain(corpus, unfinished, pretrain_config(checkpoint_every=1, runner=runner), resume=True)


@pytest.mark.slow
def test_another_corpus_with_the_same_settings_is_refused(corpus: Corpus, unfinished: Path, tmp_path: Path) -> None:
    """As many users, as many batches: nothing but the fingerprint tells them apart."""
    other_corpus = prepare_synthetic(tmp_path / "other", users=130, items=24, targets=8, mean_events=8, seed=4)
    config = pretrain_config(checkpoint_every=1)
    with pytest.raises(FingerprintError, match=r"the unfinished run had another corpus\n.*--overwrite"):
        pretrain(other_corpus, unfinished, config, resume=True)
    fresh = pretrain(other_corpus, tmp_path / "fresh", config)
    assert pretrain(other_corpus, unfinished, config, resume=True, overwrite=True).fingerprint == fresh.fingerprint


@pytest.mark.slow
def test_another_task_or_backbone_is_refused(
    corpus: Corpus, backbone: Path, watched: Callable[..., None], tmp_path: Path
) -> None:
    watched(StopAt("batch start", 7))
    config = adapt_config(checkpoint_every=1)
    with pytest.raises(Stopped):
        adapt(backbone, corpus, "shop", tmp_path / "out", config)
    watched()
    with pytest.raises(FingerprintError, match="had another task\n"):
        adapt(backbone, corpus, "cluster", tmp_path / "out", config, resume=True)
    other_backbone = pretrain(corpus, tmp_path / "other", pretrain_config(seed=5, epochs=1))
    with pytest.raises(FingerprintError, match="had another backbone\n"):
        adapt(other_backbone, corpus, "shop", tmp_path / "out", config, resume=True)
    adapt(backbone, corpus, "shop", tmp_path / "out", config, resume=True)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("damage", ["cut short", "one bit", "empty", "no zip"])
def test_a_damaged_resume_point(corpus: Corpus, unfinished: Path, tmp_path: Path, damage: str) -> None:
    good = bytearray((tmp_path / POINT).read_bytes())
    if damage == "one bit":
        good[len(good) // 2] ^= 1
    bad = {"cut short": good[: len(good) // 2], "one bit": good, "empty": b"", "no zip": b"x" * 99}[damage]
    (tmp_path / POINT).write_bytes(bad)
    config = pretrain_config(checkpoint_every=1)
    with pytest.raises(ArtifactError, match=r"last.ckpt: is damaged\n.*start over with --overwrite"):
        pretrain(corpus, unfinished, config, resume=True)
    fresh = pretrain(corpus, tmp_path / "fresh", config)
    assert pretrain(corpus, unfinished, config, resume=True, overwrite=True).fingerprint == fresh.fingerprint


def test_best_weights_that_are_gone(corpus: Corpus, unfinished: Path, tmp_path: Path) -> None:
    (tmp_path / "out.training" / "best-0.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"best-0.safetensors: is missing\n.*start over with --overwrite"):
        pretrain(corpus, unfinished, pretrain_config(checkpoint_every=1), resume=True)


def test_the_weights_of_a_start_that_are_gone(
    backbone: Path, corpus: Corpus, watched: Callable[..., None], tmp_path: Path
) -> None:
    watched(StopAt("batch start", 3))
    config = adapt_config(checkpoint_every=1)
    with pytest.raises(Stopped):
        adapt(backbone, corpus, "shop", tmp_path / "out", config)
    watched()
    (tmp_path / "out.training" / "best--1.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"best--1.safetensors: is missing\n.*start over with --overwrite"):
        adapt(backbone, corpus, "shop", tmp_path / "out", config, resume=True)


def test_settings_that_are_gone_count_as_others(corpus: Corpus, unfinished: Path, tmp_path: Path) -> None:
    (tmp_path / "out.training" / "config.yaml").unlink()
    with pytest.raises(ConfigError, match="another configuration"):
        pretrain(corpus, unfinished, pretrain_config(checkpoint_every=1), resume=True)


@pytest.mark.slow
def test_where_nothing_was_saved_yet_any_settings_will_do(
    corpus: Corpus, watched: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "out.training").mkdir()
    (tmp_path / "out.training" / "config.yaml").write_text("seed: 9\n")
    pretrain(corpus, tmp_path / "out", pretrain_config(epochs=1), resume=True)


def test_what_exists_is_not_replaced(corpus: Corpus, backbone: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for resume in (False, True):
        with pytest.raises(ArtifactError, match="already exists"):
            pretrain(corpus, tmp_path / "out", pretrain_config(), resume=resume)
        with pytest.raises(ArtifactError, match="already exists"):
            adapt(backbone, corpus, "shop", tmp_path / "out", adapt_config(), resume=resume)
    assert names(tmp_path) == ["out"]


def test_the_current_folder_is_no_place(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match="already exists"):
        pretrain(corpus, ".", pretrain_config())
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    pretrain(corpus, ".", pretrain_config(epochs=1), overwrite=True)  # unless it is meant to be replaced
    assert names(tmp_path) == ["sub"]
    assert (tmp_path / "sub" / "model.safetensors").exists()


def test_a_fault_before_anything_is_saved_leaves_nothing(
    corpus: Corpus, watched: Callable[..., None], tmp_path: Path
) -> None:
    stop(corpus, watched, tmp_path, StopAt("batch start", 1))
    assert names(tmp_path) == []


# ---------------------------------------------------------------- a full disk


def refuse(corpus: Corpus, out: Path) -> str:
    with pytest.raises(StorageError, match="the disk is full") as caught:
        pretrain(corpus, out, pretrain_config(checkpoint_every=1))
    return str(caught.value.path)


def test_no_room_for_the_first_resume_point(corpus: Corpus, tmp_path: Path) -> None:
    with file_size_limit(9_000):
        assert refuse(corpus, tmp_path / "out") == str(tmp_path / POINT)
    assert names(tmp_path) == []


@pytest.mark.parametrize("share", [1e9, 0.2])
def test_points_that_take_long_are_written_less_often(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, share: float
) -> None:
    begun: list[float] = []

    def save(self: AtomicCheckpoints, *arguments: Any, **options: Any) -> None:
        begun.append(time.monotonic())
        time.sleep(0.05)
        save_at_once(self, *arguments, **options)

    save_at_once = AtomicCheckpoints.save_checkpoint
    monkeypatch.setattr(AtomicCheckpoints, "save_checkpoint", save)
    runner = QUIET.model_copy(update={"checkpoint_share": share})
    pretrain(corpus, tmp_path / "out", pretrain_config(checkpoint_every=1, batch_size=4, epochs=1, runner=runner))
    within_the_epoch, steps = begun[:-1], 24
    if share > 1:
        assert len(begun) == steps
    else:
        assert 1 <= len(within_the_epoch) < steps - 1
        assert (np.diff(within_the_epoch) > 0.05 / share).all()


class Fills(Callback):
    """The disk is full from the second epoch on, or from the end of training."""

    def __init__(self, hook: str) -> None:
        self.limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        setattr(self, hook, self.fill)

    def fill(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch > 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, self.limit[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limit)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_validation_end", "on_train_end"])
def test_what_was_saved_before_the_disk_was_full_goes_on(
    corpus: Corpus, watched: Callable[..., None], tmp_path: Path, hook: str
) -> None:
    uninterrupted = pretrain(corpus, tmp_path / "whole", pretrain_config())
    fills = Fills(hook)
    watched(fills)
    try:
        refuse(corpus, tmp_path / "out")
    finally:
        fills.free()
    watched()
    assert names(tmp_path) == ["out.training", "whole"]  # no artifact, nor half of one
    assert not [name for name in names(tmp_path / "out.training") if name.endswith("tmp")]
    pretrain(corpus, tmp_path / "out", pretrain_config(checkpoint_every=1), resume=True)
    assert load_backbone(tmp_path / "out").fingerprint == uninterrupted.fingerprint


def test_no_room_for_the_bundle(corpus: Corpus, backbone: Path, watched: Callable[..., None], tmp_path: Path) -> None:
    fills = Fills("on_train_end")
    watched(fills)
    try:
        with pytest.raises(StorageError, match="the disk is full"):
            adapt(backbone, corpus, "shop", tmp_path / "out", adapt_config())
    finally:
        fills.free()
    assert names(tmp_path) == ["out.training"]


def test_no_room_for_what_others_write_while_training(
    corpus: Corpus, watched: Callable[..., None], tmp_path: Path
) -> None:
    class Logger(Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    watched(Logger())
    assert refuse(corpus, tmp_path / "out") == str(tmp_path / "out.training")


def test_a_place_that_may_not_be_written(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        pretrain(corpus, tmp_path / "file" / "out", pretrain_config())


def test_several_processes_do_not_write_over_each_other(
    corpus: Corpus, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapt(backbone, corpus, "cluster", tmp_path / "out", adapt_config(epochs=1))
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="2 processes were started to work together"):
        pretrain(corpus, tmp_path / "other", pretrain_config())
    with pytest.raises(ConfigError, match="without torchrun"):
        adapt(backbone, corpus, "cluster", tmp_path / "out", adapt_config(), overwrite=True)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert names(tmp_path) == ["out"]
    monkeypatch.setenv("WORLD_SIZE", "1")
    pretrain(corpus, tmp_path / "other", pretrain_config(epochs=1))
