"""Settings of the running process: to compute faster, to compute at all after a fork, to be one and not several."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peterrec.errors import ConfigError

LONG_SPINS, SHORT_SPINS = "20000", "1000"  # about a millisecond, and a twentieth of it
LOOK = 0.05  # seconds that the cores are watched; Linux counts in hundredths
MOST_BUSY = 0.4  # of one core, by others, where waiting awake pays
KEPT_BYTES = 1 << 30
# Of glibc's mallopt: memory given back to the system when so much of it is free at the end, and blocks that are mapped
# (and unmapped, when freed) on their own from this size.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3


def tune_process(*, alone: bool | None = None) -> bool:
    """Make this process compute faster on a CPU; call it before torch is first imported.

    - Threads of OpenMP that wait for each other do so for a millisecond, awake, where nothing else runs: the steps of a
      small network are a third faster than where each has to be woken. Beside others they give their core away soon:
      with a busy neighbour on one core (a browser, another job) networks are otherwise many times slower.
      `GOMP_SPINCOUNT` is left as it is where it is set.
    - Freed memory is kept for the next step instead of being given back to the system, which would have to clear and
      map it anew for every large tensor. The process then holds the most memory that it ever needed, up to 1 GiB more
      than without.

    Args:
        alone: whether the cores will be its own; None: whether they are now.

    Returns:
        Whether memory is kept: it is with glibc, as most of Linux has it; elsewhere nothing is done.
    """
    alone = cores_are_free() if alone is None else alone
    os.environ.setdefault("GOMP_SPINCOUNT", LONG_SPINS if alone else SHORT_SPINS)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(mallopt(MMAP_THRESHOLD, KEPT_BYTES) and mallopt(TRIM_THRESHOLD, KEPT_BYTES))


def cores_are_free() -> bool:
    """Return whether others leave the cores alone right now, as Linux counts; False where nobody says."""
    try:
        before = _core_time()
        time.sleep(LOOK)
        busy, total = (now - then for now, then in zip(_core_time(), before, strict=True))
    except (OSError, ValueError):
        return False
    return busy <= MOST_BUSY * total / (os.cpu_count() or 1)


def _core_time() -> tuple[int, int]:
    """Return how long all cores were busy, and how long they were there, in hundredths of seconds."""
    first_line = Path("/proc/stat").read_text().splitlines()[0]  # user, nice, system, idle, iowait, irq, softirq, steal
    times = [int(ticks) for ticks in first_line.split()[1:9]]
    return sum(times) - sum(times[3:5]), sum(times)


class _Fork:
    """Forks that this process has seen.

    Attributes:
        child: whether it was forked after `survive_forks`.
        cuda_at_fork: whether CUDA was in use in the parent when it was last forked.
        lost_cuda: whether CUDA was in use when this process was forked.
    """

    child = False
    cuda_at_fork = False
    lost_cuda = False


def require_one_process() -> None:
    """Refuse to write where a launcher such as torchrun started several processes of the same command.

    Raises:
        ConfigError: it did, and each of them would write alone, to the same place.
    """
    processes = os.environ.get("WORLD_SIZE", "1")  # torchrun's, and what launchers like it set
    several = processes.isdecimal() and int(processes) > 1
    if several and (not is_first_rank() or ("RANK" in os.environ and not _Rank.at_work)):
        raise ConfigError(
            f"{processes} processes were started to work together, but each would work alone, on the same files",
            remedy="start the command by itself, without torchrun; only pretrain and adapt are for several processes, "
            "and they ask for torchrun, not for launchers like it",
        )


class _Rank:
    """Of several processes that train together.

    Attributes:
        at_work: whether this process is one of them: what they write is one's alone.
        is_alone: whether it does what several processes cannot share.
    """

    at_work = False
    is_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """Let nothing within the block start further processes to train with; also as a decorator."""
    before, _Rank.is_alone = _Rank.is_alone, True
    try:
        yield
    finally:
        _Rank.is_alone = before


def require_shareable(processes: int) -> None:
    """Refuse to train with further processes within `alone`.

    Raises:
        ConfigError: this is within.
    """
    if _Rank.is_alone:
        raise ConfigError(
            f"the settings ask for {processes} devices to train on together, but a whole run or a grid uses one",
            remedy="set runner.devices to 1, or call prepare, pretrain and adapt by themselves",
        )


def work_as_rank() -> None:
    """Say that this process knows of the others that a launcher started, and leaves the writing to the first."""
    _Rank.at_work = True


def is_first_rank() -> bool:
    """Return whether a launcher started this process as the first of its kind, or none started it."""
    rank = os.environ.get("RANK")
    ranks = (os.environ.get("NODE_RANK", "0"), os.environ.get("LOCAL_RANK", "0")) if rank is None else (rank,)
    return all(number == "0" for number in ranks)


def survive_forks() -> None:
    """Let processes that are forked from this one compute: each with one thread.

    Threads do not live on in a forked process, but the pools of OpenMP believe so: a computation on several threads
    would wait for them for ever. With one thread no pool is asked. To be called once, by what imports torch.
    """
    if hasattr(os, "register_at_fork"):  # there is no fork on Windows
        os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


def forked() -> bool:
    """Return whether this process was forked from one that could compute."""
    return _Fork.child


def check_device_after_fork(device: Any) -> None:
    """Refuse a device that a forked process cannot use.

    Args:
        device: of torch.

    Raises:
        ConfigError: it is a GPU, and was in use before the fork.
    """
    if _Fork.lost_cuda and device.type == "cuda":
        raise ConfigError(
            "a process that was forked after CUDA was in use cannot compute on the GPU",
            remedy="start it by spawn (multiprocessing.get_context('spawn')), or use the GPU after the fork only",
        )


def _before_fork() -> None:
    torch = sys.modules.get("torch")
    _Fork.cuda_at_fork = torch is not None and torch.cuda.is_initialized()


def _after_fork() -> None:
    _Fork.child = True
    _Fork.lost_cuda = _Fork.lost_cuda or _Fork.cuda_at_fork
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
