"""Ranks: processes that train one network together, each on its share of every batch; of one process nothing is done.

Every rank builds the whole batch, with the same draws, and keeps its rows (`shard_rows`); its loss is divided by what
the whole batch counts, so that the gradients of all ranks add up to that of one process. They are added in one
all-reduce (`sum_gradients`), not by torch's wrapper: it cannot add up the gradients of large tables, which are rows, on
a CPU.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from peterrec.config import RunnerConfig
from peterrec.errors import ConfigError, PeterRecError, TrainingError
from peterrec.process import require_one_process, require_shareable, work_as_rank
from peterrec.training.quiet import quiet
from peterrec.training.ranks_watch import watch_children, watch_parent

T = TypeVar("T")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)

ALONE = (1, "1", "auto")  # what `runner.devices` may say where a launcher says how many there are


class _Group:
    """The ranks that this process is one of.

    Attributes:
        device: of this rank; None: this process is alone.
        stop_requested: whether it received SIGTERM.
    """

    device: torch.device | None = None
    stop_requested = False


# ---------------------------------------------------------------- joining


def join(runner: RunnerConfig) -> None:
    """Become one of the ranks that the settings ask for, or that `torchrun` started; do nothing if there is one.

    Lightning's launcher starts the command of this process again for each further device. To be called by a verb before
    it reads or writes anything that must be alike; the ranks then stay together until the process ends.

    Raises:
        ConfigError: the settings do not work on this machine, or contradict the launcher's.
        TrainingError: the other ranks did not come.
    """
    if _Group.device is not None:
        return
    by_torchrun = TorchElasticEnvironment.detect()
    if not by_torchrun:
        if "RANK" in os.environ:
            require_one_process()
        if runner.num_nodes == 1 and str(runner.devices) == "1":
            return
    try:
        with quiet():
            fabric = _fabric(runner, by_torchrun=by_torchrun)
            if fabric.world_size == 1:
                return
            require_shareable(fabric.world_size)
            fabric.launch()
    except (MisconfigurationException, ValueError, RuntimeError, ModuleNotFoundError) as error:
        raise ConfigError(
            f"the runner's settings do not work here ({error})",
            remedy="set runner.devices and runner.num_nodes to 1, or runner.accelerator to cpu; start several devices "
            "from a script or the command line, not from a notebook",
        ) from error
    _Group.device = fabric.device
    work_as_rank()


class _Watched(DDPStrategy):
    """Lightning's strategy, for its launcher and its process group; what watches the processes is our own."""

    def setup_environment(self) -> None:
        """Watch the processes that were started, or the one that started this one, and join them."""
        children: list[Any] = getattr(self.launcher, "procs", [])
        if children:
            watch_children(list(children))
            children.clear()  # Lightning's observer would kill this process without a word
        elif TorchElasticEnvironment.detect() or self.local_rank > 0:  # not started by the user's shell
            watch_parent()
        super().setup_environment()


def _fabric(runner: RunnerConfig, *, by_torchrun: bool) -> Fabric:
    if not by_torchrun:
        # Also in a job of Slurm, where Lightning would take over what is Slurm's.
        return Fabric(
            accelerator=runner.accelerator, devices=runner.devices, num_nodes=runner.num_nodes,
            strategy=_Watched(), plugins=[LightningEnvironment()],
        )  # fmt: skip
    devices = int(os.environ["LOCAL_WORLD_SIZE"])
    nodes = int(os.environ["WORLD_SIZE"]) // devices
    if runner.devices not in (*ALONE, devices, str(devices)) or runner.num_nodes not in (1, nodes):
        raise ValueError(
            f"torchrun started {devices} processes on {nodes} machines, runner.devices={runner.devices} and "
            f"runner.num_nodes={runner.num_nodes} ask for others"
        )
    return Fabric(
        accelerator=runner.accelerator, devices=devices, num_nodes=nodes,
        strategy=_Watched(), plugins=[TorchElasticEnvironment()],
    )  # fmt: skip


def world_size() -> int:
    """Return the number of ranks."""
    return 1 if _Group.device is None else dist.get_world_size()


def rank() -> int:
    """Return the number of this rank, from 0."""
    return 0 if _Group.device is None else dist.get_rank()


def is_rank_zero() -> bool:
    """Return whether this is rank 0, which alone writes and speaks."""
    return rank() == 0


def trainer_devices(runner: RunnerConfig) -> int | str | list[int]:
    """Return the device of this rank, as Lightning's `Trainer` wants it: it trains alone, as far as it knows."""
    if _Group.device is None:
        return runner.devices
    return 1 if _Group.device.index is None else [_Group.device.index]


# ---------------------------------------------------------------- talking


@contextmanager
def _exchange() -> Iterator[None]:
    """Say clearly that another rank ended, when this one waits for it in vain."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            f"another process of this training ended, so that rank {rank()} cannot go on",
            remedy="see what it said, if it was not killed; then continue with --resume",
        ) from error


def on_rank_zero(do: Callable[[], T]) -> T:
    """Do something on rank 0 only; all ranks return what it returns, or raise the error that it raises.

    Args:
        do: returns a plain value.

    Raises:
        PeterRecError: `do` did.
        TrainingError: rank 0 ended.
    """
    if world_size() == 1:
        return do()
    outcome: list[Any] = [None, None]
    if is_rank_zero():
        try:
            outcome = [do(), None]
        except PeterRecError as error:
            outcome = [None, error]
    with _exchange():
        dist.broadcast_object_list(outcome, 0)
    if outcome[1] is not None:
        raise cast(PeterRecError, outcome[1])
    return cast(T, outcome[0])


def gather(value: T) -> list[T]:
    """Return the values of all ranks, in their order."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    with _exchange():
        dist.all_gather_object(values, value)
    return values


@torch.no_grad()
def broadcast_weights(module: nn.Module) -> None:
    """Give all ranks the parameters and buffers of rank 0, whose shapes are alike: bits may differ between machines."""
    if world_size() == 1:
        return
    for tensor in (*module.parameters(), *module.buffers()):
        moved = tensor.detach().to(cast(torch.device, _Group.device)).contiguous()
        with _exchange():
            dist.broadcast(moved, 0)
        tensor.copy_(moved)


def share_work(items: Iterable[T], work: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """Yield items with what was made of each, in their order; each is worked on by one rank only.

    Args:
        items: the same on all ranks.
        work: makes a plain value or tensors on the CPU, the same on whatever rank.
    """
    if world_size() == 1:
        yield from ((item, work(item)) for item in items)
        return
    remaining = iter(items)
    while group := list(islice(remaining, world_size())):
        results = gather([work(item) for item in group[rank() : rank() + 1]])
        yield from ((item, result[0]) for item, result in zip(group, results, strict=False))


# ---------------------------------------------------------------- shares of a batch


def shard_rows(rows: Tensor) -> Tensor:
    """Return every world-size-th row from this rank's on: rows of a batch are of like length, so are these."""
    return rows[rank() :: world_size()]


def shard_size(rows: int) -> int:
    """Return how many of so many rows are this rank's."""
    return len(range(rank(), rows, world_size()))


def gather_rows(vectors: Float[Tensor, "n V R"], total: int) -> Float[Tensor, "N V R"]:
    """Return the rows of all ranks in the order of the batch; this rank's own have a gradient.

    A loss over all of them, computed by every rank, then has the whole gradient of what this rank computed.

    Args:
        vectors: made of `shard_rows`.
        total: rows of the batch.
    """
    if world_size() == 1:
        return vectors
    largest = math.ceil(total / world_size())
    padded = vectors.detach().new_zeros(largest, *vectors.shape[1:])
    padded[: len(vectors)] = vectors.detach()
    parts = [torch.empty_like(padded) for _ in range(world_size())]
    with _exchange():
        dist.all_gather(parts, padded)
    everyone = torch.stack(parts, dim=1).flatten(0, 1)[:total]
    places = torch.arange(total, device=vectors.device)[rank() :: world_size()]
    return everyone.index_copy(0, places, vectors)


class Batches(Protocol[T_co]):
    """Batches whose number is known."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T_co]: ...


class ShardedBatches(Generic[T]):
    """The batches that are this rank's, of batches that are the same on all; every rank has as many.

    Args:
        batches: of all.
    """

    def __init__(self, batches: Batches[T]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return math.ceil(len(self.batches) / world_size())

    def __iter__(self) -> Iterator[T]:
        yield from islice(self.batches, rank(), None, world_size())
        if shard_size(len(self.batches)) < len(self):
            yield from islice(self.batches, 1)  # nobody asks for what comes of it

    def in_order(self, results: Sequence[T]) -> list[T]:
        """Return what came of each batch on whatever rank, in the order of the batches."""
        parts = gather(list(results))
        return [parts[i % world_size()][i // world_size()] for i in range(len(self.batches))]


# ---------------------------------------------------------------- gradients


@torch.no_grad()
def sum_gradients(
    parameters: Iterable[nn.Parameter], tables: Sequence[nn.Parameter], loss: Tensor
) -> tuple[Tensor, bool]:
    """Give the parameters the sum of their gradients over all ranks.

    Args:
        parameters: of the network, the same on all ranks; those without a gradient anywhere stay without.
        tables: those of them whose gradient is sparse, where there is one.
        loss: this rank's share of it.

    Returns:
        The loss of all ranks, and whether one of them was told to stop.
    """
    by_rows = {id(table) for table in tables}
    dense = [p for p in parameters if p.requires_grad and id(p) not in by_rows]
    flags = loss.new_tensor([float(_Group.stop_requested), *(float(p.grad is not None) for p in dense)])
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in dense]
    bucket = torch.cat([loss.reshape(1), flags, *(gradient.flatten() for gradient in gradients)])
    with _exchange():
        dist.all_reduce(bucket)
    stopped, *counts = bucket[1 : 2 + len(dense)].tolist()
    sums = torch.split(bucket[2 + len(dense) :], [p.numel() for p in dense])
    for parameter, gradient, total, count in zip(dense, gradients, sums, counts, strict=True):
        if count:
            parameter.grad = gradient.copy_(total.view_as(gradient))
    for table in tables:
        if table.requires_grad:
            _sum_rows(table)
    return bucket[0].clone(), stopped > 0


def _sum_rows(table: nn.Parameter) -> None:
    """Give a table the sum of its sparse gradients, added in the order of the ranks.

    This is the seam where ranks would own rows (docs/scale.md): each would keep the rows that are its own.
    """
    if table.grad is None:
        rows, values = torch.empty(0, dtype=torch.int64, device=table.device), table.new_empty(0, table.shape[1])
    else:
        rows, values = table.grad._indices().squeeze(0), table.grad._values()
    rows_of_ranks, values_of_ranks = _gather_ragged(rows), _gather_ragged(values)
    touched = torch.unique(torch.cat(rows_of_ranks))
    if len(touched):
        total = table.new_zeros(len(touched), table.shape[1])
        for rank_rows, rank_values in zip(rows_of_ranks, values_of_ranks, strict=True):
            total.index_add_(0, torch.searchsorted(touched, rank_rows), rank_values)  # no row stands twice in a rank's
        table.grad = torch.sparse_coo_tensor(
            touched.unsqueeze(0), total, tuple(table.shape), is_coalesced=True, check_invariants=False
        )


def _gather_ragged(rows: Tensor) -> list[Tensor]:
    """Return the tensors of all ranks, which may have different numbers of rows."""
    lengths = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world_size())]
    with _exchange():
        dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
        counts = [int(length) for length in lengths]
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
    return [part[:count] for part, count in zip(parts, counts, strict=True)]


# ---------------------------------------------------------------- stopping


class StopTogether(Callback):
    """Ends all ranks after the same step when one of them receives SIGTERM; stands last among the callbacks.

    Lightning's own handler exchanges messages wherever a rank happens to be, and only rank 0 is heard.
    """

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Take the signal over; Lightning puts the handlers back that were there before it."""
        _Group.stop_requested = trainer.received_sigterm
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _note)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Stop after a step, unless it was the last of its epoch."""
        if pl_module.stop_requested and not trainer.is_last_batch:
            raise SIGTERMException

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Stop this rank within a validation, where no step tells the others: they find it gone."""
        if _Group.stop_requested and not pl_module.stop_requested:
            raise SIGTERMException

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Stop after an epoch."""
        if pl_module.stop_requested:
            raise SIGTERMException


def _note(number: int, frame: Any) -> None:
    _Group.stop_requested = True
