"""States of causal backbones, event by event: one more token costs one position of each layer.

Source: van den Oord et al., "WaveNet", 2016, and Le Paine et al., "Fast WaveNet generation algorithm", 2016: a dilated
convolution of k taps needs nothing of the past but its last (k - 1) * dilation inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from peterrec.errors import ConfigError
from peterrec.nn.backbone import Backbone
from peterrec.nn.block import Block, ConvSublayer
from peterrec.nn.insertion import ConvInput
from peterrec.nn.patch import TaskPatch
from peterrec.nn.receptive_field import ConvGeometry
from peterrec.nn.tokens import PAD, TCL, end_of, items_of

ONE_POSITION = ConvGeometry(dilation=1, stride=1, pad=(0, 0), outputs=1)  # from the taps, one beside the other


@dataclass(frozen=True)
class States:
    """States of many rows; rows that consumed nothing are zero, as padding is.

    Attributes:
        pool: (N, P, C) of each row the last inputs of every convolution: a ring for each, one behind the other.
        token_counts: (N,) tokens that each row has consumed; in a ring of so many places token t is at t modulo these.
    """

    pool: Float[Tensor, "N P C"]
    token_counts: Int[Tensor, " N"]

    @torch.inference_mode()
    def clear(self, rows: Int[Tensor, " B"]) -> None:
        """Reset some rows; nothing is left of what they consumed."""
        self.pool.index_fill_(0, rows, 0.0)
        self.token_counts.index_fill_(0, rows, 0)


@dataclass(frozen=True)
class NextInput:
    """Input of a sublayer at one more token (`LayerInput`); the taps are put together only where they are read.

    Attributes:
        past: (B, k - 1, C) inputs that the earlier taps of the convolution see, oldest first.
        current: (B, 1, C) the new input.
    """

    past: Tensor
    current: Tensor

    def through(self, layer: nn.Module) -> Float[Tensor, "B 1 D"]:
        """Return the output of the sublayer's convolution, or of one with its taps and dilation."""
        return ConvInput(torch.cat([self.past, self.current], dim=1), ONE_POSITION).through(layer)

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all that differs from row to row, rows first."""
        return self.past, self.current

    def with_tensors(self, *tensors: Tensor) -> Self:
        """Return the same with other rows."""
        return type(self)(*tensors)


class Stream:
    """A causal dilated backbone that computes with states what `Backbone` computes with whole histories.

    Nothing is rounded off or forgotten: a state says all that the convolutions will ever need of what came before. It
    depends on the patch, so each patch needs a state of its own. [PAD] is no event: it must not be pushed.

    Weights are arranged anew here, so later changes of the backbone must not happen: it is frozen while it is served.

    Args:
        backbone: causal, of convolutions.

    Attributes:
        positions: P of a state: inputs that are kept, of all convolutions together; the receptive field less one.
        bytes_per_state: 4 * P * C, and 8 for the number of tokens.

    Raises:
        ConfigError: another backbone, which has no such state.
    """

    def __init__(self, backbone: Backbone) -> None:
        config = backbone.config
        if config.architecture != "dilated" or config.kind != "causal":
            raise ConfigError(
                f"a {config.kind} {config.architecture} backbone has no state to keep up to date event by event",
                remedy="compute windows of events instead, or serve a causal dilated backbone",
            )
        self.backbone = backbone
        self._sublayers = _sublayers_of(backbone)
        reaches = [sublayer.conv.reach[0] for sublayer in self._sublayers]
        self._starts = [0, *accumulate(reaches)]  # of each ring, and the end of the last one
        self.positions = self._starts[-1]
        self.bytes_per_state = 4 * self.positions * config.channels + 8
        self._arrange()

    @torch.inference_mode()
    def _arrange(self) -> None:
        device = self.backbone.embedding.weight.device
        sublayers, channels = self._sublayers, self.backbone.config.channels
        kernels = torch.stack(
            [sublayer.conv.weight.permute(2, 1, 0) for sublayer in sublayers]
        )  # (S, k, C, C), in before out
        self._taps = kernels.shape[1]
        self._past_weights = kernels[:, :-1].reshape(len(sublayers), -1, channels).contiguous()  # (S, (k-1)C, C)
        self._last_weights = [kernel.contiguous() for kernel in kernels[:, -1]]
        self._biases = torch.stack([_bias_of(sublayer) for sublayer in sublayers]).unsqueeze(1)  # (S, 1, C)
        self._norms = [(sublayer.norm.weight, sublayer.norm.bias, sublayer.norm.eps) for sublayer in sublayers]
        lengths = torch.tensor([sublayer.conv.reach[0] for sublayer in sublayers], device=device)
        starts = torch.tensor(self._starts[:-1], device=device)
        dilations = torch.tensor([sublayer.conv.dilation for sublayer in sublayers], device=device)
        back = torch.arange(self._taps - 1, 0, -1, device=device)  # the oldest tap first
        self._back = dilations.view(-1, 1, 1) * back  # (S, 1, k-1)
        self._lengths, self._offsets = lengths.view(-1, 1, 1), starts.view(-1, 1, 1)
        # Of every place of a state.
        self._length_at = lengths.repeat_interleave(lengths)  # (P,)
        self._start_at = starts.repeat_interleave(lengths)

    def new(self, capacity: int, device: torch.device | str = "cpu") -> States:
        """Return states of so many rows that consumed nothing: `capacity * bytes_per_state` bytes."""
        pool = torch.zeros(capacity, self.positions, self.backbone.config.channels, device=device)
        return States(pool, torch.zeros(capacity, dtype=torch.int64, device=device))

    @torch.inference_mode()
    def push(
        self, states: States, rows: Int[Tensor, " B"], tokens: Int[Tensor, " B"], patch: TaskPatch | None = None
    ) -> Float[Tensor, "B C"]:
        """Consume a token in each row, and return the hidden state at it.

        Args:
            states: are changed.
            rows: which rows, each once.
            tokens: of each row, not [PAD].
            patch: as in `Backbone.forward`; the one that these rows were always pushed with.
        """
        token_counts = states.token_counts.index_select(0, rows)
        places = self._places(states, rows, token_counts)
        hidden, inputs = self._next(states, places, tokens, patch)
        # The oldest tap is where the new input goes: nothing later will see it.
        channels = states.pool.shape[2]
        states.pool.view(-1, channels).index_copy_(0, places[:, :, 0].reshape(-1), inputs.view(-1, channels))
        states.token_counts.index_copy_(0, rows, token_counts + 1)
        return hidden

    @torch.inference_mode()
    def peek(
        self, states: States, rows: Int[Tensor, " B"], token: int = TCL, patch: TaskPatch | None = None
    ) -> Float[Tensor, "B C"]:
        """Return the hidden state that each row would have at a token that came next; states stay as they are.

        Args:
            states: of the rows.
            rows: which rows, in any number.
            token: that of all rows.
            patch: as in `push`.
        """
        places = self._places(states, rows, states.token_counts.index_select(0, rows))
        tokens = torch.full_like(rows, token)
        return self._next(states, places, tokens, patch)[0]

    def _places(self, states: States, rows: Int[Tensor, " B"], token_counts: Int[Tensor, " B"]) -> Int[Tensor, "S B J"]:
        """Return where the earlier taps of each sublayer are, in the pool as one list; the oldest first."""
        ring = (token_counts.view(1, -1, 1) - self._back).remainder_(self._lengths).add_(self._offsets)
        return ring.add_((rows * states.pool.shape[1]).view(1, -1, 1))

    def _next(
        self, states: States, places: Int[Tensor, "S B J"], tokens: Int[Tensor, " B"], patch: TaskPatch | None
    ) -> tuple[Float[Tensor, "B C"], Float[Tensor, "S B C"]]:
        """Return the hidden state at the next token, and the new input of each sublayer.

        What earlier taps see was known before: it is read, and multiplied, for all sublayers at once. The rest is
        written where it will be read, for with few rows it is the calls that cost, and with many the copies.
        """
        sublayers, rows, _ = places.shape
        channels = states.pool.shape[2]
        past = (
            states.pool.view(-1, channels).index_select(0, places.reshape(-1)).view(sublayers, rows, -1)
        )  # (S, B, (k-1)C)
        sums = torch.baddbmm(self._biases, past, self._past_weights).unbind(0)
        all_inputs = past.new_empty(sublayers, rows, channels)
        inputs = all_inputs.unbind(0)
        items = tokens if self.backbone.event_features is None else items_of(tokens)
        x = torch.index_select(self.backbone.embedding.weight, 0, items, out=inputs[0])
        if self.backbone.event_features is not None:
            x += self.backbone.event_features(tokens)
        if patch is not None:
            x = inputs[0].copy_(patch.embed(x.unsqueeze(1), items.unsqueeze(1)).squeeze(1))
        for sublayer in range(0, sublayers, 2):
            h = self._next_of_sublayer(sublayer, x, past, sums[sublayer], patch, inputs[sublayer + 1])
            h = self._next_of_sublayer(sublayer + 1, h, past, sums[sublayer + 1], patch, None)
            x = x + h if sublayer + 2 == sublayers else torch.add(x, h, out=inputs[sublayer + 2])
        return x, all_inputs

    def _next_of_sublayer(
        self,
        sublayer: int,
        x: Float[Tensor, "B C"],
        past: Float[Tensor, "S B D"],
        total: Float[Tensor, "B C"],
        patch: TaskPatch | None,
        out: Float[Tensor, "B C"] | None,
    ) -> Float[Tensor, "B C"]:
        """Return what a sublayer makes of its new input, in `out` if that is given; `total` is used up."""
        h = total.addmm_(x, self._last_weights[sublayer])
        hooks = None if patch is None else patch.layer_at(sublayer)
        if hooks is None:
            h = torch.layer_norm(h, (h.shape[1],), *self._norms[sublayer])
            return h.relu_() if out is None else torch.clamp_min(h, 0.0, out=out)
        layer_input = NextInput(past[sublayer].view(len(x), -1, x.shape[1]), x.unsqueeze(1))
        h = hooks.normalise(self._sublayers[sublayer].norm, hooks.pre_norm(layer_input, h.unsqueeze(1)))
        h = hooks.post_act(layer_input, torch.relu(hooks.pre_act(layer_input, h))).squeeze(1)
        return h if out is None else out.copy_(h)

    @torch.inference_mode()
    def fill(
        self,
        states: States,
        rows: Int[Tensor, " B"],
        tokens: Int[Tensor, "B T"],
        patch: TaskPatch | None = None,
        token_counts: Int[Tensor, " B"] | None = None,
    ) -> None:
        """Give rows the state after whole histories, in one pass; what they had consumed before is forgotten.

        Args:
            states: are changed.
            rows: which rows, each once.
            tokens: histories, with [PAD] behind those that are shorter. Only the last P of each matter.
            patch: as in `push`.
            token_counts: tokens that each row has consumed, if earlier ones are left out; all are given otherwise.
        """
        ends = end_of(tokens)
        token_counts = ends if token_counts is None else token_counts
        width = min(self.positions, tokens.shape[1])
        pool = states.pool
        content = pool.new_zeros(len(rows), self.positions, pool.shape[2])
        if width:
            # Aligned at their ends, the last inputs of all rows are in the same columns.
            index = ends.unsqueeze(1) + torch.arange(-width, 0, device=tokens.device)
            self._inputs(torch.where(index >= 0, tokens.gather(1, index.clamp(min=0)), PAD), patch, content)
        place = torch.arange(self.positions, device=tokens.device) - self._start_at  # within a ring, oldest first
        ring = (token_counts.unsqueeze(1) + place).remainder_(self._length_at).add_(self._start_at)  # (B, P)
        ring = ring + (rows * self.positions).unsqueeze(1)
        pool.view(-1, pool.shape[2]).index_copy_(0, ring.reshape(-1), content.view(-1, pool.shape[2]))
        states.token_counts.index_copy_(0, rows, token_counts)

    def _inputs(self, tokens: Int[Tensor, "B T"], patch: TaskPatch | None, content: Float[Tensor, "B P C"]) -> None:
        """Write the last inputs of each sublayer, oldest first, one behind the other. [PAD] stands before tokens."""
        real = (tokens != PAD).unsqueeze(2)
        keep = None if bool(real.all()) else real
        x = self.backbone.embed(tokens, patch)
        for first in range(0, len(self._sublayers), 2):
            h = x
            for sublayer in (first, first + 1):
                start, end = self._starts[sublayer], self._starts[sublayer + 1]
                count = min(end - start, h.shape[1])
                mask = keep if keep is None else keep[:, -h.shape[1] :]
                last = h[:, -count:]
                content[:, end - count : end] = last if mask is None else last * mask[:, -count:]
                if end == self.positions:
                    return  # nothing more is kept
                adapter = None if patch is None else patch.layer_at(sublayer)
                h = self._sublayers[sublayer](h, mask, adapter, self._step(sublayer, h.shape[1]))
            x = x[:, -h.shape[1] :] + h

    def _step(self, sublayer: int, inputs: int) -> ConvGeometry:
        """Return the geometry to those of the last positions that the sublayers above a sublayer need."""
        conv = self._sublayers[sublayer].conv
        outputs = min(inputs, self.positions - self._starts[sublayer + 1])
        return ConvGeometry(conv.dilation, 1, (outputs + conv.reach[0] - inputs, 0), outputs)


def _sublayers_of(backbone: Backbone) -> list[ConvSublayer]:
    sublayers: list[ConvSublayer] = []
    for block in backbone.blocks:
        assert isinstance(block, Block)
        sublayers += [block.first, block.second]
    return sublayers


def _bias_of(sublayer: ConvSublayer) -> Tensor:
    bias = sublayer.conv.bias
    return sublayer.norm.bias.new_zeros(sublayer.norm.bias.shape) if bias is None else bias
