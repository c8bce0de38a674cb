"""Special tokens: where [TCL] goes, where a user's representation is read, and where the next item is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from peterrec.config import Readout

if TYPE_CHECKING:
    from peterrec.nn.backbone import Backbone
    from peterrec.nn.patch import TaskPatch

PAD, TCL, MASK = 0, 1, 2
SPECIAL = 4


def end_of(tokens: Int[Tensor, "B T"]) -> Int[Tensor, " B"]:
    """Return the place after the last real token of each row; 0 where there is none."""
    columns = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    return F.pad((tokens != PAD) * columns, (1, 0)).amax(dim=1)  # padded, so that it is 0 where no token is


def append_token(tokens: Int[Tensor, "B T"], token: int) -> tuple[Int[Tensor, "B T+1"], Int[Tensor, " B"]]:
    """Put a token after the last real token of each row, and return the longer tokens and its places."""
    position = end_of(tokens)
    longer = F.pad(tokens, (0, 1), value=PAD)
    return longer.scatter(1, position.unsqueeze(1), token), position


def enclose_in_task_tokens(tokens: Int[Tensor, "B T"]) -> tuple[Int[Tensor, "B T+2"], Int[Tensor, "B 2"]]:
    """Put [TCL] just before the first and just after the last real token of each row (noncausal; section 3.3).

    Returns:
        The longer tokens, and both positions in each row; they are neighbours where no token is.
    """
    longer, last = append_token(F.pad(tokens, (1, 0), value=PAD), TCL)
    empty = ~(tokens != PAD).any(dim=1)
    last = torch.where(empty, 1, last)
    first = (F.pad(tokens, (1, 0), value=PAD) != PAD).int().argmax(dim=1) - 1  # the place before the first real one
    positions = torch.stack([first.clamp(min=0), last], dim=1)
    return longer.scatter(1, positions, TCL), positions


def read_at(hidden: Float[Tensor, "B T C"], positions: Int[Tensor, "B n"]) -> Float[Tensor, "B C"]:
    """Return the sum of each row's hidden states at its positions."""
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows.unsqueeze(1), positions].sum(dim=1)


def tokens_before(
    tokens: Int[Tensor, "B T"], positions: Int[Tensor, " B"], spacing: int, count: int
) -> Int[Tensor, "B count"]:
    """Return the tokens at one position of each row and at evenly spaced ones before it; [PAD] before the first."""
    index = positions.unsqueeze(1) - spacing * torch.arange(count - 1, -1, -1, device=tokens.device)
    return torch.where(index >= 0, tokens.gather(1, index.clamp(min=0)), PAD)


def represent(
    backbone: Backbone, tokens: Int[Tensor, "B T"], patch: TaskPatch | None = None, readout: Readout = "token"
) -> Float[Tensor, "B R"]:
    """Return each user's representation: what a head reads, `representation_width` numbers.

    `token` (paper, section 3.3) is the hidden state at [TCL]: a causal backbone gets [TCL] after the last event; a
    noncausal one at both ends, and both states are added. `pooled` is the sum over the events of their embeddings, and
    that of their hidden states, each by the root of the number of events: a longer history says more, but the later
    events add less. [TCL] sees as far as the receptive field reaches, a sum sees all events alike. `both` is one after
    the other.
    """
    causal = backbone.config.kind == "causal"
    if readout == "token" and causal:
        longer, position = append_token(tokens, TCL)
        return backbone.last(longer, position, patch)
    if causal:
        longer, position = append_token(tokens, TCL)
        positions = position.unsqueeze(1)
    else:
        longer, positions = enclose_in_task_tokens(tokens)
    embedded = backbone.embed(longer, patch)
    hidden = backbone.every(embedded, longer, patch)
    parts = [] if readout == "pooled" else [read_at(hidden, positions)]
    if readout != "token":
        events = (longer != PAD) & (longer != TCL)  # (B, T)
        parts += [pool(embedded, events), pool(hidden, events)]
    return torch.cat(parts, dim=1)


def representation_width(channels: int, readout: Readout) -> int:
    """Return how many numbers a representation has: R of `represent`."""
    return channels * {"token": 1, "pooled": 2, "both": 3}[readout]


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
        return backbone.last(tokens, (end - 1).clamp(min=0)) * (end > 0).unsqueeze(1)
    longer, position = append_token(tokens, MASK)
    return read_at(backbone(longer), position.unsqueeze(1))
