"""The sections of `gpu.py` that run peterrec: what is timed is what `ours_side.py` times on a CPU."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ours_side
import torch
import work
from gpu_sections import Bench, Row
from lightning.pytorch import Callback, LightningModule, Trainer
from worker import Sizes, histories

import peterrec
from peterrec.nn.precision import arithmetic
from peterrec.nn.readout import represent
from peterrec.training.callbacks import BestEpoch

TINY: dict[str, Any] = {"channels": 16, "dilations": (1, 2), "events": 8, "items": 50, "negatives": 16, "top": 3}
FEW_ITEMS, MANY_ITEMS = 20_000, 1_000_000
COMPILING = 30.0  # seconds that must be left to begin it
LARGEST = 2**22  # users of a batch: more is not tried, whatever the memory
SLOWEST = 1.5  # seconds of a call, after which no larger batch is tried
CALLED = 10  # times, about, that something slow is called to be measured
CONVERGED = 200  # epochs: more than it takes
PATIENCE = 4
RESERVE = 10.0  # seconds before the end of a section in which a training is stopped, validated and written


def sizes_of(bench: Bench, **sizes: Any) -> Sizes:
    """Return sizes; tiny ones have those of `TINY` in place of theirs."""
    return Sizes(**(sizes | TINY if bench.settings.tiny else sizes))


def form(precision: str, *, compiled: bool = False) -> str:
    """Return the name of a form of a network."""
    return f"{precision}, compiled" if compiled else precision


def users(bench: Bench) -> None:
    """Measure representations: in two batches, in ever larger ones until memory ends, and compiled."""
    tiny = bench.settings.tiny
    shapes = [(16, 8)] if tiny else [(64, 50), (256, 50), (64, 200), (256, 200)]
    for channels, events in shapes:
        for precision in ("fp32", "bf16"):
            for batch in (4, 8) if tiny else (256, 4096):
                _users(bench, sizes_of(bench, channels=channels, events=events, batch=batch, precision=precision))
    for channels, events in shapes if tiny else (shapes[0], shapes[-1]):
        batch, seconds = 16 if tiny else 2**15, 0.0
        while seconds < SLOWEST and batch <= (32 if tiny else LARGEST):
            start = time.monotonic()
            if not _users(bench, sizes_of(bench, channels=channels, events=events, batch=batch, precision="bf16")):
                break
            seconds = (time.monotonic() - start) / CALLED
            batch *= 2
    for channels, events in shapes if bench.settings.compile else []:
        for precision in ("bf16", "fp32"):
            sizes = sizes_of(bench, channels=channels, events=events, batch=4 if tiny else 4096, precision=precision)
            _users(bench, replace(sizes, compile=True), least=COMPILING)


def _users(bench: Bench, sizes: Sizes, least: float = 5.0) -> bool:
    row = {"d": sizes.channels, "events": sizes.events, "batch": sizes.batch}
    row["form"] = form(sizes.precision, compiled=sizes.compile)
    return bench.attempt(row, lambda: _representations(bench, sizes), least)


def _representations(bench: Bench, sizes: Sizes) -> Row:
    device = torch.device(bench.settings.device)
    start = time.perf_counter()
    model = ours_side.user_model(sizes, str(device))
    sequences = ours_side.sequences_of(histories(sizes))
    called = bench.seconds(lambda: model.representations(sequences, batch_size=sizes.batch))
    tokens = torch.from_numpy(histories(sizes)).to(device)
    backbone = model.network.backbone
    if sizes.compile:
        backbone = backbone.compiled(sizes.batch, range(sizes.events, sizes.events + 3))  # as `representations` does

    @torch.inference_mode()
    def on_device() -> None:
        with arithmetic(model.inference.precision, device):
            represent(backbone, tokens, readout="token")

    seconds = bench.seconds(on_device)
    numbers: Row = {"users/s": sizes.batch / called, "users/s on the device": sizes.batch / seconds}
    if sizes.compile:
        numbers["note"] = f"{time.perf_counter() - start:.0f} s with compiling"
    return numbers | {"flops": work.represent(sizes).receptive_field / seconds, "arithmetic": sizes.precision}


def training(bench: Bench) -> None:
    """Measure steps of pre-training: few items; a million of them by rows and as a whole; then compiled."""
    tiny = bench.settings.tiny
    batches, widths = ((4,), (16,)) if tiny else ((256, 4096), (64, 256))
    shapes = [(channels, batch) for channels in widths for batch in batches]
    for channels, batch in shapes:
        for precision in ("fp32", "bf16"):
            _training(bench, channels=channels, batch=batch, precision=precision, items=FEW_ITEMS)
    for channels in widths:
        for tables in ("rows", "dense"):
            large = {"items": MANY_ITEMS, "table_updates": tables}
            _training(bench, channels=channels, batch=batches[-1], precision="bf16", **large)
    for channels in widths if bench.settings.compile else ():
        for precision in ("bf16", "fp32"):
            large_batch = {"channels": channels, "batch": batches[-1], "precision": precision}
            _training(bench, **large_batch, items=FEW_ITEMS, compile=True, least=COMPILING)


def _training(bench: Bench, *, least: float = 5.0, **settings: Any) -> None:
    sizes = sizes_of(bench, loss="sampled", **({"table_updates": "dense"} | settings))
    row = {
        "d": sizes.channels, "items": sizes.items, "tables": sizes.table_updates, "batch": sizes.batch,
        "form": form(_mixed(sizes), compiled=sizes.compile),
    }  # fmt: skip

    def measure() -> Row:
        steps = 1 / bench.seconds(ours_side.pretrain(sizes, bench.settings.device))
        return {
            "steps/s": steps, "events/s": steps * sizes.batch * sizes.events,
            "flops": work.pretrain(sizes).window * steps, "arithmetic": _trained_in(sizes),
        }  # fmt: skip

    bench.attempt(row, measure, least)


def _mixed(sizes: Sizes) -> str:
    return "bf16-mixed" if sizes.precision == "bf16" else sizes.precision


def _trained_in(sizes: Sizes) -> str:
    """Return the arithmetic of convolutions in training: cuDNN may use TF32 for fp32, torch says."""
    return "bf16" if sizes.precision == "bf16" else "tf32" if torch.backends.cudnn.allow_tf32 else "fp32"


def ranking(bench: Bench) -> None:
    """Measure the best ten of few items and of a million."""
    tiny = bench.settings.tiny
    for items in (FEW_ITEMS, MANY_ITEMS):
        for channels in (16,) if tiny else (64, 256):
            for precision, batch in (("fp32", 256), ("fp32", 4096), ("bf16", 4096)):
                sizes = sizes_of(
                    bench, channels=channels, items=items, batch=4 if tiny else batch, precision=precision
                )  # fmt: skip
                row = {"d": channels, "items": sizes.items, "form": precision, "batch": sizes.batch}
                bench.attempt(row, lambda sizes=sizes: _ranking(bench, sizes), least=4.0)


def _ranking(bench: Bench, sizes: Sizes) -> Row:
    seconds = bench.seconds(ours_side.rank(sizes, bench.settings.device))
    # Items are scored in fp32 whatever the network is run in, and with many items that is most of the work.
    return {"users/s": sizes.batch / seconds, "flops": work.rank(sizes).receptive_field / seconds, "arithmetic": "fp32"}


def adapting(bench: Bench) -> None:
    """Measure a step that trains a patch beside one that trains all weights."""
    tiny = bench.settings.tiny
    for channels in (16,) if tiny else (64, 256):
        for batch in (4,) if tiny else (256, 4096):
            for precision in ("fp32", "bf16"):
                sizes = sizes_of(bench, channels=channels, batch=batch, precision=precision)
                row = {"d": sizes.channels, "form": _mixed(sizes), "batch": sizes.batch}
                bench.attempt(row, lambda sizes=sizes: _adapting(bench, sizes), least=4.0)


def _adapting(bench: Bench, sizes: Sizes) -> Row:
    jobs = {name: ours_side.adapt(replace(sizes, strategy=name), bench.settings.device) for name in ("patch", "all")}
    seconds = {name: min(bench.seconds(job) for _ in range(2)) for name, job in jobs.items()}
    return {
        "patch, steps/s": 1 / seconds["patch"], "all, steps/s": 1 / seconds["all"],
        "time of a patch / of all": seconds["patch"] / seconds["all"],
    }  # fmt: skip


class TimeLimit(Callback):
    """Stop a training at a moment, as if it had run out of patience: its best epoch is then kept.

    Args:
        end: in `time.monotonic`.
    """

    def __init__(self, end: float) -> None:
        self.end = end
        self.stopped = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() < self.end or self.stopped:
            return
        self.stopped = trainer.should_stop = True
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, BestEpoch):
                callback.patience = 0  # else it goes on, as long as epochs become better


def movielens(bench: Bench) -> None:
    """Pre-train on MovieLens-1M until held-out users are not predicted better."""
    row: Row = {"d": TINY["channels"] if bench.settings.tiny else 256, "form": "bf16-mixed"}
    if bench.settings.data is None:
        bench.say(row | {"note": "left out: no --data (`peterrec fetch ml-1m` gets it)"})
        return
    events = Path(bench.settings.data) / "events.parquet"
    if not events.is_file():
        bench.say(row | {"note": "left out: no events.parquet in the folder of --data"})
        return
    bench.attempt(row, lambda: _movielens(bench, events, row["d"]), least=5.0)


def _movielens(bench: Bench, events: Path, channels: int) -> Row:
    accelerator = "gpu" if bench.on_gpu else "cpu"
    limit = TimeLimit(bench.end - min(RESERVE, bench.remaining_seconds / 3))
    with tempfile.TemporaryDirectory() as folder:
        tree = {"events": {"paths": [str(events)], "ids": "text"}}
        corpus = peterrec.prepare(peterrec.PrepareConfig.model_validate(tree), Path(folder) / "corpus")
        start = time.perf_counter()
        model = peterrec.pretrain(
            corpus, Path(folder) / "backbone", callbacks=[limit], backbone={"channels": channels},
            epochs=2 if bench.settings.tiny else CONVERGED, patience=PATIENCE,
            optim={"lr": 1e-3, "schedule": "constant"}, checkpoint_every=1_000_000,
            runner={"accelerator": accelerator, "precision": "bf16-mixed", "progress": False},
        )  # fmt: skip
        seconds = time.perf_counter() - start
    training_facts = model.pretrained.training
    epochs, metrics = len(training_facts["curve"]), training_facts["metrics"]
    ended = "the seconds of the section" if limit.stopped else "patience" if epochs < CONVERGED else "epochs"
    return {
        "seconds": seconds, "epochs": epochs, "best epoch": training_facts["best_epoch"] + 1,
        "valid loss": metrics["valid_loss"], "HR@10": metrics["hr@10"], "MRR@10": metrics["mrr@10"],
        "stopped by": ended,
    }  # fmt: skip


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "users": users, "training": training, "ranking": ranking, "adapting": adapting, "ml-1m": movielens,
}  # fmt: skip
