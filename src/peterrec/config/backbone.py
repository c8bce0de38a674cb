"""Settings of the backbone: two architectures, each with settings of its own."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator

from peterrec.config.base import Config, Positive

# What only one architecture has. A setting that is None here does not exist for it, and is not written either.
SHAPES: dict[str, dict[str, Any]] = {
    "dilated": {
        "kernel_size": 3, "dilations": (1, 4, 1, 4), "layers": None, "heads": None, "positions": None
    },
    "transformer": {"kernel_size": None, "dilations": None, "layers": 2, "heads": 2, "positions": 512},
}  # fmt: skip


class BackboneConfig(Config):
    """Settings of the backbone: dilated residual blocks (paper, section 3.2), or a transformer to compare with."""

    architecture: Literal["dilated", "transformer"] = Field(
        default="dilated", description="dilated: the paper's convolutions; transformer: attention, as in SASRec"
    )
    kind: Literal["causal", "noncausal"] = Field(
        default="causal", description="causal: a position sees itself and earlier ones; noncausal: both sides"
    )
    task_tokens: Literal["both-ends", "last-end"] = Field(
        default="both-ends",
        description="of a noncausal one: [TCL] stands before the first and after the last event (the paper's), or "
        "after the last only, as it does if causal",
    )
    channels: PositiveInt = Field(default=64, description="width of embeddings and hidden states")
    kernel_size: Annotated[int, Field(ge=2)] | None = Field(
        default=3, description="taps of a convolution; odd if noncausal; a transformer has none"
    )
    dilations: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = Field(
        default=(1, 4, 1, 4),
        description="one per block; its second convolution has twice that; a transformer has none",
    )
    layers: PositiveInt | None = Field(default=None, description="blocks of a transformer, 2 if not given")
    heads: PositiveInt | None = Field(
        default=None, description="of a transformer's attention, 2 if not given; channels are a multiple of it"
    )
    positions: PositiveInt | None = Field(
        default=None,
        description="distances from the last token that a transformer tells apart, 512 if not given; tokens beyond all "
        "count as the oldest",
    )
    norm_eps: Positive = Field(default=1e-5, description="of LayerNorm, inside the root")
    tie_weights: bool = Field(
        default=False, description="score items with the input embedding table, not with one of their own"
    )
    output_relu: bool = Field(
        default=False,
        description="ReLU on the hidden states before pre-training scores items with them, as in the authors' full "
        "softmax",
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_architecture(cls, tree: Any) -> Any:
        architecture = tree.get("architecture") if isinstance(tree, dict) else None
        return {**SHAPES[architecture], **tree} if isinstance(architecture, str) and architecture in SHAPES else tree

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        for name, default in SHAPES[self.architecture].items():
            if default is None and getattr(self, name) is not None:
                raise ValueError(f"a {self.architecture} backbone has no {name}: leave it out")
            if default is not None and getattr(self, name) is None:
                raise ValueError(f"a {self.architecture} backbone needs {name}, such as {default}")
        if self.kind == "noncausal" and self.kernel_size is not None and self.kernel_size % 2 == 0:
            raise ValueError("a noncausal backbone sees as far to each side: kernel_size must be odd")
        if self.kind == "causal" and self.task_tokens == "last-end":
            raise ValueError("a causal backbone has [TCL] at the last end only: leave task_tokens out")
        if self.heads is not None and self.channels % self.heads:
            raise ValueError(f"heads share the channels evenly: {self.channels} is no multiple of {self.heads}")
        return self

    @model_serializer(mode="wrap")
    def _without_absent_settings(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what the architecture does not have, and defaults of what came later: written as before it came."""
        absent = {name for name, default in SHAPES[self.architecture].items() if default is None}
        absent |= {"architecture"} if self.architecture == "dilated" else set()
        absent |= {"task_tokens"} if self.task_tokens == "both-ends" else set()
        tree: dict[str, Any] = handler(self)
        return {name: value for name, value in tree.items() if name not in absent}

    @property
    def encloses_histories(self) -> bool:
        """Whether [TCL] stands at both ends of a history, not at the last only."""
        return self.kind == "noncausal" and self.task_tokens == "both-ends"

    @property
    def depth(self) -> int:
        """Number of residual blocks, whatever they are made of."""
        return len(self.dilations or ()) or self.layers or 0
