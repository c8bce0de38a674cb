"""Settings of model patches: every combination is one point of these, and impossible ones say why."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator

from peterrec.config.base import Config

# Strict, so that 1.0 is no number of channels: whoever writes it means all of them.
Width = Annotated[int, Field(gt=0, strict=True)] | Annotated[float, Field(gt=0, lt=1)]

# What a kind is if nothing is said. A setting that is None here does not exist for the kind.
DEFAULTS: dict[str, dict[str, Any]] = {
    "bottleneck": {"insertion": "serial", "position": "pre_norm", "bottleneck": 0.125, "activation": "relu"},
    "lora": {"insertion": "parallel", "position": "pre_norm", "bottleneck": 4, "activation": None},
    "scale-shift": {"insertion": "serial", "position": "pre_act", "bottleneck": None, "activation": None},
}
REASONS = {
    ("lora", "insertion"): "LoRA is a low-rank convolution beside the convolution: insertion can only be parallel",
    ("lora", "position"): "LoRA adds to the convolution's output: position can only be pre_norm",
    ("lora", "activation"): "LoRA is linear: it has no activation",
    ("scale-shift", "insertion"): "scale-shift changes what passes it: insertion can only be serial",
    ("scale-shift", "position"): "scale-shift acts on the normalised activations: position can only be pre_act",
    ("scale-shift", "bottleneck"): "scale-shift has one gain and one shift per channel: it has no bottleneck",
    ("scale-shift", "activation"): "scale-shift is linear: it has no activation",
}


class PatchConfig(Config):
    """A model patch (paper, section 3.3): its kind, where it goes and how wide it is."""

    kind: Literal["bottleneck", "lora", "scale-shift"] = Field(
        default="bottleneck",
        description="bottleneck (the paper's): two 1x1 convolutions; lora: a low-rank addition to the convolution; "
        "scale-shift: a gain and a shift for each normalised channel",
    )
    insertion: Literal["serial", "parallel"] = Field(
        default="serial",
        description="serial: what passes the site passes the patch; parallel: the patch reads the site's input and its "
        "output is added. lora: parallel; scale-shift: serial",
    )
    position: Literal["pre_norm", "pre_act", "post_act"] = Field(
        default="pre_norm",
        description="before LayerNorm, between it and the activation, or (parallel only) after the activation. "
        "lora: pre_norm; scale-shift: pre_act",
    )
    per_block: Literal[1, 2] = Field(default=2, description="at both sites of a block, or at the second only")
    blocks: PositiveInt | None = Field(
        default=None, description="only in the last so many blocks; what is below is the same for all tasks"
    )
    bottleneck: Width | None = Field(
        default=0.125,
        description="channels between the two convolutions, or their share of the backbone's channels; of lora the "
        "rank, 4 if not given; scale-shift has none",
    )
    activation: Literal["relu", "gelu", "gelu-tanh"] | None = Field(
        default="relu", description="between the two convolutions; only of kind bottleneck"
    )
    inner_skip: bool = Field(
        default=False,
        description="parallel bottlenecks add the site's input too, as in the authors' code. A serial one always has "
        "its residual",
    )
    start: Literal["identity", "random"] = Field(
        default="identity",
        description="the second convolution starts at zero, so that a fresh patch changes nothing (but for the inner "
        "skip); or at small random numbers",
    )
    train_norms: bool = Field(
        default=False,
        description="the task gets its own second LayerNorm in each patched block, as in the authors' code",
    )
    item_rank: PositiveInt | None = Field(
        default=None,
        description="the task adds to every item's embedding a combination of so many vectors of its own: so many "
        "numbers for each item of the catalogue; not given: none",
    )
    train_task_token: bool = Field(default=False, description="the task gets its own embedding of [TCL]")

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and is off: what was made before is then still made with the same settings."""
        tree: dict[str, Any] = dump(self)
        if tree.get("item_rank") is None:
            tree.pop("item_rank", None)
        return tree

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_kind(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and isinstance(tree.get("kind"), str) and tree["kind"] in DEFAULTS:
            return {**DEFAULTS[tree["kind"]], **tree}
        return tree

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name, only in DEFAULTS[self.kind].items():
            if (self.kind, name) == ("lora", "bottleneck"):
                continue
            if (self.kind, name) in REASONS and getattr(self, name) != only:
                raise ValueError(REASONS[self.kind, name])
        if self.kind != "scale-shift" and self.bottleneck is None:
            raise ValueError(f"a patch of kind {self.kind} needs a bottleneck: a number or a share of the channels")
        if self.kind == "bottleneck" and self.activation is None:
            raise ValueError("a bottleneck without an activation would be linear: choose relu, gelu or gelu-tanh")
        if self.insertion == "serial" and self.position == "post_act":
            raise ValueError(
                "a serial patch after the activation would stand before the next convolution or the block's sum, where "
                "the paper has none: use pre_norm or pre_act, or insertion parallel"
            )
        if self.inner_skip and (self.kind, self.insertion) != ("bottleneck", "parallel"):
            raise ValueError(
                "inner_skip is of parallel bottlenecks: a serial one always has its residual, others have none"
            )
        return self
