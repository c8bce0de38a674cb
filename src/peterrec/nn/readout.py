"""Readouts: the hidden states of a backbone that represent a user. A new one is one class and `register_readout`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from peterrec import config
from peterrec.config import ReadoutName
from peterrec.errors import ConfigError
from peterrec.nn.backbone import Backbone
from peterrec.nn.patch import TaskPatch
from peterrec.nn.tokens import MASK, PAD, TCL, append_token, enclose_in_task_tokens, end_of, read_at


@dataclass(frozen=True)
class FullPass:
    """All states of a batch.

    Attributes:
        embedded: (B, T, C) embeddings, with what a patch adds to them.
        hidden: (B, T, C) states of the last block.
        events: (B, T) positions that hold an event, neither padding nor [TCL].
        task_positions: (B, n) positions of [TCL].
    """

    embedded: Float[Tensor, "B T C"]
    hidden: Float[Tensor, "B T C"]
    events: Bool[Tensor, "B T"]
    task_positions: Int[Tensor, "B n"]


class Readout(ABC):
    """Representation of users from hidden states.

    Attributes:
        description: for the documentation of the setting.
        token_only: whether it is the hidden state at [TCL] and nothing else: then a causal backbone computes no other
            position of the last block, and serving keeps states up to date event by event.
        standardised: whether heads are told the mean and the deviation of its numbers; no, where LayerNorm saw to it.
    """

    description: ClassVar[str]
    token_only: ClassVar[bool] = False
    standardised: ClassVar[bool] = True

    @abstractmethod
    def width(self, channels: int) -> int:
        """Return R, the numbers of a representation, for a backbone of so many channels."""

    @abstractmethod
    def combine(self, states: FullPass) -> Float[Tensor, "B R"]:
        """Return the representation of each row."""


class TokenReadout(Readout):
    """The hidden state at [TCL] (paper, section 3.3); of a noncausal backbone the sum of those at both ends."""

    description = config.READOUTS["token"]
    token_only = True
    standardised = False

    def width(self, channels: int) -> int:
        """Return the channels."""
        return channels

    def combine(self, states: FullPass) -> Float[Tensor, "B C"]:
        """Return the states at [TCL], added."""
        return read_at(states.hidden, states.task_positions)


class PooledReadout(Readout):
    """Sums over the events of their embeddings, and of their hidden states, each by the root of the number of events.

    A longer history says more, but later events add less. [TCL] sees as far as the receptive field reaches, a sum sees
    all events alike.
    """

    description = config.READOUTS["pooled"]

    def width(self, channels: int) -> int:
        """Return the channels of embeddings and hidden states together."""
        return 2 * channels

    def combine(self, states: FullPass) -> Float[Tensor, "B 2C"]:
        """Return the sum of embeddings, then that of hidden states."""
        return torch.cat([pool(states.embedded, states.events), pool(states.hidden, states.events)], dim=1)


class BothReadouts(Readout):
    """The state at [TCL], then the sums over the events."""

    description = config.READOUTS["both"]

    def width(self, channels: int) -> int:
        """Return the channels of both together."""
        return 3 * channels

    def combine(self, states: FullPass) -> Float[Tensor, "B 3C"]:
        """Return one after the other."""
        return torch.cat([TokenReadout().combine(states), PooledReadout().combine(states)], dim=1)


_READOUTS: dict[str, Readout] = {}


def register_readout(name: str, readout: Readout) -> None:
    """Add a value to the setting `readout`.

    Args:
        name: its value.
        readout: reads the states.
    """
    _READOUTS[name] = readout
    config.READOUTS[name] = readout.description


def readout_named(name: ReadoutName) -> Readout:
    """Return the readout that a setting names.

    Raises:
        ConfigError: none has this name.
    """
    if name not in _READOUTS:
        raise ConfigError(
            f"{name!r} is no readout", remedy=f"choose one of {', '.join(_READOUTS)}, or import the module of yours"
        )
    return _READOUTS[name]


register_readout("token", TokenReadout())
register_readout("pooled", PooledReadout())
register_readout("both", BothReadouts())


def represent(
    backbone: Backbone, tokens: Int[Tensor, "B T"], patch: TaskPatch | None = None, readout: ReadoutName = "token"
) -> Float[Tensor, "B R"]:
    """Return each user's representation: what a head reads, `Readout.width` numbers.

    A causal backbone gets [TCL] after the last event; a noncausal one at both ends (paper, section 3.3).
    """
    reader = readout_named(readout)
    if backbone.config.kind == "causal":
        longer, position = append_token(tokens, TCL)
        if reader.token_only:
            return backbone.forward_last(longer, position, patch)
        positions = position.unsqueeze(1)
    else:
        longer, positions = enclose_in_task_tokens(tokens)
    embedded = backbone.embed(longer, patch)
    hidden = backbone.forward_embedded(embedded, longer, patch)
    return reader.combine(FullPass(embedded, hidden, (longer != PAD) & (longer != TCL), positions))


def pool(x: Float[Tensor, "B T C"], events: Bool[Tensor, "B T"]) -> Float[Tensor, "B C"]:
    """Return the sum of each row's states at its events by the root of their number; zeros where there is none."""
    weight = events.to(x.dtype)
    return torch.einsum("btc,bt->bc", x, weight) / weight.sum(dim=1, keepdim=True).clamp(min=1).sqrt()


def represent_next(backbone: Backbone, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B C"]:
    """Return the hidden state that pre-training taught to tell the next item.

    Causal: the one at the last event, zeros where there is none, so that only the items' biases speak. Noncausal: the
    one at a [MASK] after the last event.
    """
    if backbone.config.kind == "causal":
        if tokens.shape[1] == 0:
            tokens = F.pad(tokens, (0, 1), value=PAD)
        end = end_of(tokens)
        return backbone.forward_last(tokens, (end - 1).clamp(min=0)) * (end > 0).unsqueeze(1)
    longer, position = append_token(tokens, MASK)
    return read_at(backbone(longer), position.unsqueeze(1))
