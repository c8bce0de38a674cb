"""Special tokens: where [TCL] goes in a row, and reading hidden states at positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

PAD, TCL, MASK, UNK = 0, 1, 2, 3
SPECIAL = 4
ITEM_BITS = 32  # of a token; above them stands the code of an event's features, where a backbone reads some


def items_of(tokens: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """Return the item, or special token, of each token, without the features of the event."""
    items: Tensor = tokens & (2**ITEM_BITS - 1)
    return items


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


def places_beside(events: Bool[Tensor, "B T"], *, at_both_ends: bool) -> Int[Tensor, "B n"]:
    """Return the places of [TCL] in rows where it was put in: next to the outermost events, or 0 (and 1).

    Args:
        events: True at events, neither padding nor [TCL].
        at_both_ends: whether it stands at both ends, or after the last event only.
    """
    last = end_of(events.int())
    if not at_both_ends:
        return last.unsqueeze(1)
    first = (events.int().argmax(dim=1) - 1).clamp(min=0)
    return torch.stack([first, last.clamp(min=1)], dim=1)


def read_at(hidden: Float[Tensor, "B T C"], positions: Int[Tensor, "B n"]) -> Float[Tensor, "B C"]:
    """Return the sum of each row's hidden states at its positions."""
    rows = torch.arange(hidden.shape[0], device=hidden.device)
    return hidden[rows.unsqueeze(1), positions].sum(dim=1)


def tokens_before(
    tokens: Int[Tensor, "B T"], positions: Int[Tensor, " B"], spacing: int, count: int
) -> Int[Tensor, "B count"]:
    """Return the tokens at one position of each row and at evenly spaced ones before it; [PAD] before the first."""
    index = positions.unsqueeze(1) - spacing * torch.arange(count - 1, -1, -1, device=tokens.device)
    return torch.where(index >= 0, tokens.gather(1, index.clamp(min=0)), PAD)
