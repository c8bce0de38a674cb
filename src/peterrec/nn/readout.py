"""Readouts: the hidden states of a backbone that represent a user. A new one is one class and `register_readout`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from peterrec import config
from peterrec.arguments import did_you_mean
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

    def take(self, rows: Int[Tensor, " N"]) -> FullPass:
        """Return the states of some rows, in any number and order."""
        return FullPass(self.embedded[rows], self.hidden[rows], self.events[rows], self.task_positions[rows])


ReadStates = Callable[[FullPass], Tensor]
"""From the states of B rows to their representations, (B, R): the module of a trained readout, or `RowModules`."""


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


class TrainedReadout(Readout):
    """Readout with a module of each task's own, whose weights are trained and saved with the task's head.

    It reads all events, and is not standardised unless it says so: a number that starts the same for everybody would
    then never be heard by the head, nor its weights by the loss.
    """

    standardised = False

    @abstractmethod
    def build(self, channels: int, generator: torch.Generator | None) -> nn.Module:
        """Return a fresh module for a task: called with the `FullPass` of B rows, it returns (B, R).

        Args:
            channels: of the backbone.
            generator: draws the initial weights; None where they are to be replaced by saved ones.
        """

    def combine(self, states: FullPass) -> Float[Tensor, "B R"]:
        """Refuse to read without a module.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "a trained readout reads by a module of the task's own", remedy="hand in the one of the bundle, or `build`"
        )


class TokenReadout(Readout):
    """The hidden state at [TCL] (paper, section 3.3); where it stands at both ends, the sum."""

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


class AttentionPooling(nn.Module):
    """Means of the events' embeddings and hidden states, weighted by a softmax of products with learned queries.

    Source: Yang et al., NAACL 2016 (one query); Lin et al., ICLR 2017 (several). Keys are the hidden states after
    LayerNorm. Queries start at zero, so that a fresh one is the plain mean. Who did nothing gets zeros.

    Args:
        queries: Q.
        channels: C.
    """

    def __init__(self, queries: int, channels: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(queries, channels))

    def forward(self, states: FullPass) -> Float[Tensor, "B 2QC"]:
        """Return the mean embedding of each query, one after the other, then the mean hidden states."""
        weights = self.weights(states)
        means = [torch.einsum("bqt,btc->bqc", weights, x) for x in (states.embedded, states.hidden)]
        return torch.cat([mean.flatten(1) for mean in means], dim=1)

    def weights(self, states: FullPass) -> Float[Tensor, "B Q T"]:
        """Return the weight of each position for each query: their sum is 1, or 0 where there is no event."""
        channels = states.hidden.shape[2]
        keys = F.layer_norm(states.hidden, (channels,)) / math.sqrt(channels)
        scores = torch.einsum("btc,qc->bqt", keys, self.queries)
        events = states.events.unsqueeze(1)
        return scores.masked_fill(~events, torch.finfo(scores.dtype).min).softmax(dim=2) * events


class AttentionReadout(TrainedReadout):
    """Attention over the events with queries of the task's own (`AttentionPooling`).

    Args:
        queries: Q.
    """

    description = config.READOUTS["attention"]
    standardised = True  # a mean of states differs from user to user from the start

    def __init__(self, queries: int = 4) -> None:
        self.queries = queries

    def width(self, channels: int) -> int:
        """Return the channels of embeddings and hidden states together, once for each query."""
        return 2 * self.queries * channels

    def build(self, channels: int, generator: torch.Generator | None) -> AttentionPooling:
        """Return fresh queries; nothing is drawn."""
        return AttentionPooling(self.queries, channels)


_READOUTS: dict[str, Readout] = {}


def register_readout(name: str, readout: Readout) -> None:
    """Add a value to the setting `readout`.

    Args:
        name: its value.
        readout: reads the states.

    Raises:
        ConfigError: it is trained and `token_only`, although less is then computed than its module reads.
    """
    if isinstance(readout, TrainedReadout) and readout.token_only:
        raise ConfigError(f"the readout {name!r} is trained and token_only", remedy="leave token_only false")
    _READOUTS[name] = readout
    config.READOUTS[name] = readout.description


def readout_named(name: ReadoutName) -> Readout:
    """Return the readout that a setting names.

    Raises:
        ConfigError: none has this name.
    """
    if name not in _READOUTS:
        raise ConfigError(
            f"{name!r} is no readout{did_you_mean(name, _READOUTS)}",
            remedy=f"choose one of {', '.join(_READOUTS)}, or import the module of yours",
        )
    return _READOUTS[name]


def build_readout_module(
    name: ReadoutName, channels: int, generator: torch.Generator | None = None
) -> nn.Module | None:
    """Return a fresh module for a task, None where the readout has none; arguments as of `TrainedReadout.build`.

    Raises:
        ConfigError: no readout has this name.
    """
    readout = readout_named(name)
    return readout.build(channels, generator) if isinstance(readout, TrainedReadout) else None


register_readout("token", TokenReadout())
register_readout("pooled", PooledReadout())
register_readout("both", BothReadouts())
register_readout("attention", AttentionReadout())


def represent(
    backbone: Backbone,
    tokens: Int[Tensor, "B T"],
    patch: TaskPatch | None = None,
    readout: ReadoutName = "token",
    module: ReadStates | None = None,
) -> Float[Tensor, "B R"]:
    """Return each user's representation: what a head reads, `Readout.width` numbers.

    A causal backbone gets [TCL] after the last event; a noncausal one at both ends (paper, section 3.3), or as its
    `task_tokens` say.

    Args:
        backbone: the network.
        tokens: events of B users.
        patch: of the task, or of each row.
        readout: what of the states is read.
        module: of the task, or `RowModules`, where the readout is trained.

    Raises:
        ConfigError: the readout is trained, and there is no module.
    """
    if readout_named(readout).token_only and backbone.config.kind == "causal":
        longer, position = append_token(tokens, TCL)
        return backbone.forward_last(longer, position, patch)
    return read_states(full_pass(backbone, tokens, patch), readout, module)


def full_pass(backbone: Backbone, tokens: Int[Tensor, "B T"], patch: TaskPatch | None = None) -> FullPass:
    """Return all states of users, with [TCL] put in; arguments as of `represent`."""
    if backbone.config.encloses_histories:
        longer, positions = enclose_in_task_tokens(tokens)
    else:
        longer, position = append_token(tokens, TCL)
        positions = position.unsqueeze(1)
    embedded = backbone.embed(longer, patch)
    hidden = backbone.forward_embedded(embedded, longer, patch)
    return FullPass(embedded, hidden, (longer != PAD) & (longer != TCL), positions)


def read_states(states: FullPass, readout: ReadoutName, module: ReadStates | None) -> Float[Tensor, "B R"]:
    """Return the representation of each row; arguments and errors as of `represent`."""
    return readout_named(readout).combine(states) if module is None else module(states)


class RowModules:
    """A module for each row of a batch: rows of one module are read together.

    Args:
        modules: of each of B rows.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.rows_of_module: dict[nn.Module, list[int]] = {}
        for row, module in enumerate(modules):
            self.rows_of_module.setdefault(module, []).append(row)

    def __call__(self, states: FullPass) -> Float[Tensor, "B R"]:
        """Return the representation of each row."""
        device = states.hidden.device
        rows = [torch.tensor(rows, device=device) for rows in self.rows_of_module.values()]
        vectors = [module(states.take(rows[i])) for i, module in enumerate(self.rows_of_module)]
        return torch.cat(vectors)[torch.cat(rows).argsort()]


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
