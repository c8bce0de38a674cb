"""Readouts: what of a backbone's hidden states represents a user."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from peterrec.config import Readout
from peterrec.nn.backbone import Backbone
from peterrec.nn.patch import TaskPatch
from peterrec.nn.tokens import MASK, PAD, TCL, append_token, enclose_in_task_tokens, end_of, read_at


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
