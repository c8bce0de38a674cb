"""Where heads start: at numbers that are read by their size, and at a probe of the network before it is trained."""

from __future__ import annotations

import logging
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from peterrec.config import AdaptConfig
from peterrec.data.batching import inference_batches
from peterrec.data.corpus import TaskPart
from peterrec.data.hashing import id_hash
from peterrec.data.sequences import IntArray
from peterrec.errors import TrainingError
from peterrec.nn.heads import ClassificationHead, ItemHead
from peterrec.nn.readout import TrainedReadout, readout_named, represent
from peterrec.training.distributed import share_work
from peterrec.training.linear_probe import LinearProbe
from peterrec.training.ridge_probe import RidgeProbe
from peterrec.training.strategies import Trainable, starts_pretrained

logger = logging.getLogger(__name__)

STARTING_USERS = 2048  # enough for means, deviations and a probe of classes to start from
STARTING_USERS_OF_ITEMS = 100_000  # of whom a probe learns who has which of many items
STARTING_BATCH = 64

MAX_RIDGE_WEIGHTS = 50_000_000
"""Weights of a head of items above which it starts at random: a ridge probe holds about eight times as many doubles."""


@torch.no_grad()
def start_head(
    parts: Trainable, config: AdaptConfig, train: TaskPart, valid: TaskPart | None, class_weights: Tensor | None
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
        class_weights: (K,) in the loss, or None.

    Returns:
        Whether it starts at a probe.

    Raises:
        TrainingError: what is read is not finite.
    """
    readout, head = readout_named(config.readout), parts.head
    probed = _may_start_at_probe(config)
    if not readout.standardised and not probed:
        return False
    max_users = STARTING_USERS if isinstance(head, ClassificationHead) or not probed else STARTING_USERS_OF_ITEMS
    users = train.take(np.linspace(0, len(train) - 1, min(len(train), max_users)).astype(np.int64))
    vectors = _read(parts, config, users)
    if readout.standardised:
        head.standardise(vectors)
    if not probed:
        return False
    if isinstance(head, ItemHead):
        return start_at_ridge_probe(head, vectors, users)
    judges = None if valid is None else (_read(parts, config, valid), valid)
    return start_at_linear_probe(head, vectors, users, judges, class_weights)


def _may_start_at_probe(config: AdaptConfig) -> bool:
    """Return whether a probe of what is read would say anything."""
    readout = readout_named(config.readout)
    is_read = readout.standardised or not isinstance(readout, TrainedReadout)
    return is_read and config.head_init == "linear-probe" and starts_pretrained(config)


def _read(parts: Trainable, config: AdaptConfig, users: TaskPart) -> Tensor:
    """Return the (N, R) representations of users.

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
        raise TrainingError(
            "states of the backbone are not finite before anything is trained", remedy="pre-train again"
        )
    return vectors


def start_at_linear_probe(
    head: ClassificationHead,
    vectors: Tensor,
    users: TaskPart,
    valid: tuple[Tensor, TaskPart] | None,
    class_weights: Tensor | None,
) -> bool:
    """Let a head begin at a logistic regression of users whose penalty is chosen by held-out users (LP-FT).

    What is trained below it then begins to move for a reason, not after a random head, which would distort pre-trained
    features first (Kumar et al., ICLR 2022); and few labels are not all that a head knows of its size.

    Args:
        head: of K classes.
        vectors: (N, R) representations.
        users: N labelled users.
        valid: representations of other labelled users, and these users.
        class_weights: (K,) in the loss, or None.

    Returns:
        Whether it does: not where the users have one class.
    """

    def labelled(part: TaskPart) -> tuple[IntArray, Float[np.ndarray, " users"] | None]:
        labels = np.asarray(part.labels, dtype=np.int64)
        weights = None if class_weights is None else class_weights.cpu().double().numpy()[labels]
        return labels, None if weights is None else weights / weights.mean()

    labels, weights = labelled(users)
    if len(np.unique(labels)) < 2:
        return False
    judges = None if valid is None else (head.read(valid[0]).cpu().numpy(), *labelled(valid[1]))
    hashes = id_hash(users.user_ids.to_pylist())
    probe = LinearProbe.fit_by_cross_validation(
        head.read(vectors).cpu().numpy(), labels, len(head.bias), hashes, weights, judges
    )
    head.start_at(torch.from_numpy(probe.weight), torch.from_numpy(probe.bias))
    return True


def start_at_ridge_probe(head: ItemHead, vectors: Tensor, users: TaskPart) -> bool:
    """Let a head of items begin at a ridge regression of users, in logits; penalty and scale are cross-validated.

    Args:
        head: of the targets.
        vectors: (N, R) representations.
        users: N users with targets.

    Returns:
        Whether it does: not where its weights are too many, which is logged.
    """
    assert users.targets is not None
    if head.weight.numel() > MAX_RIDGE_WEIGHTS:
        logger.info(
            f"the head of {len(head.bias):,} items starts at random: it is too large for a ridge regression in memory"
        )
        return False
    if len(users) < 2:
        return False
    probe = RidgeProbe.fit_by_cross_validation(
        head.read(vectors).cpu().numpy(), users.targets, len(head.bias), id_hash(users.user_ids.to_pylist())
    )
    head.start_at(torch.from_numpy(probe.weight), torch.from_numpy(probe.bias))
    return True
