"""Where heads start: at numbers that are read by their size, and at a probe of the network before it is trained."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from peterrec.config import AdaptConfig
from peterrec.data.batching import inference_batches
from peterrec.data.corpus import TaskPart
from peterrec.errors import TrainingError
from peterrec.nn.readout import TrainedReadout, readout_named, represent
from peterrec.training.distributed import share_work
from peterrec.training.initial_bundle import InitialBundle
from peterrec.training.strategies import Trainable, starts_pretrained
from peterrec.training.task_kinds import Judges, TaskObjective

STARTING_USERS = 2048  # enough for means and deviations
STARTING_BATCH = 64


@torch.no_grad()
def start_head(
    parts: Trainable,
    config: AdaptConfig,
    train: TaskPart,
    valid: TaskPart | None,
    objective: TaskObjective,
    initial: InitialBundle | None = None,
) -> bool:
    """Let a head begin where some of the train users, read by the network before it is trained, say.

    The numbers that a head reads are scaled by their size among these users, where the readout asks for it. (Of a
    trained readout by the size that they start with: what it learns then grows or shrinks with it.) A head starts at a
    linear probe, where `head_init` says so and what it reads says something: not where the backbone starts at random.

    Args:
        parts: the network, on its device.
        config: says what is read, and where the head starts.
        train: users to learn from.
        valid: users that choose the probe's penalty, beside train users that it is not fitted on; None: only these.
        objective: of the task.
        initial: bundle whose head it begins with, but for outputs that this lacks.

    Returns:
        Whether it starts at a probe, or at a head that is there.

    Raises:
        TrainingError: what is read is not finite.
    """
    readout, head = readout_named(config.readout), parts.head
    probed = _may_start_at_probe(config) and (initial is None or bool((initial.places(objective.task) < 0).any()))
    starts_at_probe = False
    if readout.standardised or probed:
        starts_at_probe = _read_and_probe(parts, config, train, valid, objective, probed=probed)
    if initial is None:
        return starts_at_probe
    initial.load_head(head, objective)
    return _may_start_at_probe(config)


def _read_and_probe(
    parts: Trainable,
    config: AdaptConfig,
    train: TaskPart,
    valid: TaskPart | None,
    objective: TaskObjective,
    *,
    probed: bool,
) -> bool:
    """Standardise what a head reads, if the readout asks for it, and let it start at a probe if that is wanted."""
    readout, head = readout_named(config.readout), parts.head
    max_users = objective.starting_users if probed else STARTING_USERS
    users = train.take(np.linspace(0, len(train) - 1, min(len(train), max_users)).astype(np.int64))
    vectors = read_users(parts, config, users)
    if readout.standardised:
        head.standardise(vectors)
    if not probed:
        return False
    judges = None if valid is None else Judges(valid, partial(read_users, parts, config, valid))
    return objective.start_at_probe(head, vectors, users, judges)


def _may_start_at_probe(config: AdaptConfig) -> bool:
    """Return whether a probe of what is read would say anything."""
    readout = readout_named(config.readout)
    is_read = readout.standardised or not isinstance(readout, TrainedReadout)
    return is_read and config.head_init == "linear-probe" and starts_pretrained(config)


def read_users(parts: Trainable, config: AdaptConfig, users: TaskPart) -> Tensor:
    """Return the (N, R) representations of users, by the network as it is.

    Raises:
        TrainingError: they are not finite.
    """
    read = partial(represent, parts.backbone, patch=parts.patch, readout=config.readout, module=parts.readout_module)
    device = parts.head.weight.device
    batches = inference_batches(users.sequences, STARTING_BATCH, config.max_length)
    vectors_by_batch = list(share_work(batches, lambda batch: read(torch.from_numpy(batch[1]).to(device)).cpu()))
    order = torch.from_numpy(np.concatenate([rows for (rows, _), _ in vectors_by_batch])).argsort()
    vectors = torch.cat([read_vectors for _, read_vectors in vectors_by_batch]).float()[order].to(device)
    if not bool(vectors.isfinite().all()):
        raise TrainingError("states of the backbone are not finite", remedy="pre-train again")
    return vectors
