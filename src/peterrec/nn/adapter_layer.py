"""The layer that a patch puts at one sublayer of the backbone, and the registry of its kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from peterrec.config import PatchConfig, register_patch_settings
from peterrec.errors import ConfigError
from peterrec.nn.batched_patches import BatchedLayers, RowsByPatch, Stack, select_rows
from peterrec.nn.insertion import AdapterHooks, LayerInput, SublayerShape


class TaskLayerNorm(nn.Module):
    """A task's own LayerNorm, kept as its difference from the frozen one: zeros leave the network as it was."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, norm: nn.LayerNorm, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Normalise with the sum of the frozen parameters and its own."""
        return F.layer_norm(h, norm.normalized_shape, norm.weight + self.weight, norm.bias + self.bias, norm.eps)


class AdapterLayer(nn.Module):
    """A patch's layer at one sublayer. A kind overrides the hook of its place; the others change nothing.

    A new kind of patch is one subclass with its `settings`, given to `register_patch_kind`: nothing else knows kinds.
    `layer_input` is the sublayer's input; `h` is what comes to the place of the hook.

    Attributes:
        settings: of the kind, with its name as the default of `kind`.
    """

    settings: ClassVar[type[PatchConfig]]

    def __init__(self) -> None:
        super().__init__()
        self.norm: TaskLayerNorm | None = None

    @classmethod
    def build(cls, config: PatchConfig, shape: SublayerShape, generator: torch.Generator | None) -> AdapterLayer:
        """Return a fresh layer for a sublayer.

        Args:
            config: of the kind's `settings`.
            shape: of the sublayer.
            generator: draws the initial weights.

        Raises:
            ConfigError: the settings do not fit the sublayer.
        """
        raise NotImplementedError

    def frozen_modules(self) -> Iterable[nn.Module]:
        """Return what of it is never trained."""
        return ()

    @property
    def zeros_are_identity(self) -> bool:
        """True if the layer changes nothing where all its weights are zero: then it may share a batch with no patch."""
        return True

    def pre_norm(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between convolution and LayerNorm."""
        return h

    def normalise(self, norm: nn.LayerNorm, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Apply the sublayer's LayerNorm, or the task's own version of it."""
        out: Tensor = norm(h) if self.norm is None else self.norm(norm, h)
        return out

    def pre_act(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between LayerNorm and the nonlinearity."""
        return h

    def post_act(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act after the nonlinearity."""
        return h

    def stack(self, weights: Stack) -> Stack:
        """Return the weights of K such layers, stacked by name, in the form that `batched` computes with."""
        return weights

    def batched(
        self, stack: Stack, which: Tensor | None, rows_by_patch: Callable[[], RowsByPatch | None]
    ) -> AdapterHooks:
        """Return what acts on a batch whose rows have the weights of different layers: slow, but right for any kind.

        Args:
            stack: of `stack`.
            which: (B,) which of the K layers is each row's; None: in order.
            rows_by_patch: returns the rows by their patches, or None where some have far more than others.
        """
        unchanged = {
            hook
            for hook in ("pre_norm", "normalise", "pre_act", "post_act")
            if getattr(type(self), hook) is getattr(AdapterLayer, hook) and (hook != "normalise" or self.norm is None)
        }
        return BatchedLayers(self, {name: select_rows(tensor, which) for name, tensor in stack.items()}, unchanged)


PATCH_KINDS: dict[str, type[AdapterLayer]] = {}
"""Layers of each kind of patch by its name."""


COMPOSED_KINDS: dict[str, type[AdapterLayer]] = {}
"""Layers that are made of those of other patches, by the kind of their settings."""


def register_patch_kind(layer: type[AdapterLayer]) -> None:
    """Add a value to `patch.kind`, the default of `kind` in the settings of the layer."""
    PATCH_KINDS[layer.settings.model_fields["kind"].default] = layer
    register_patch_settings(layer.settings)


def build_adapter_layer(
    config: PatchConfig, shape: SublayerShape, generator: torch.Generator | None = None
) -> AdapterLayer:
    """Return a fresh layer of the kind of some settings; arguments and errors as of `AdapterLayer.build`."""
    layers = PATCH_KINDS | COMPOSED_KINDS
    if config.kind not in layers:
        raise ConfigError(
            f"{config.kind!r} is a kind of patch without a layer",
            remedy="give its class to register_patch_kind, not its settings alone",
        )
    return layers[config.kind].build(config, shape, generator)
