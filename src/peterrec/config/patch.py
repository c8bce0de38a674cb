"""Settings of model patches: those of all kinds, and one class for each kind, with the reasons for what it refuses."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PositiveInt,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from peterrec.arguments import describe, did_you_mean
from peterrec.config.base import Config

# Strict, so that 1.0 is no number of channels: whoever writes it means all of them.
Width = Annotated[int, Field(gt=0, strict=True)] | Annotated[float, Field(gt=0, lt=1)]

PATCH_SETTINGS: dict[str, type[PatchConfig]] = {}
"""Settings of each kind of patch by its name; `register_patch_settings` adds one."""


COMPOSED_SETTINGS: dict[str, type[PatchConfig]] = {}
"""Settings of patches that are made of other bundles' patches: nobody names these kinds, they come with the bundles."""


def _settings_named(kind: Any) -> type[PatchConfig] | None:
    return (PATCH_SETTINGS | COMPOSED_SETTINGS).get(kind) if isinstance(kind, str) else None


class PatchConfig(Config):
    """Settings of a model patch (paper, section 3.3): its kind, its place and what else it may train.

    `PatchConfig(kind=...)` makes the settings of that kind, which has more of its own.
    """

    unsupported: ClassVar[dict[str, str]] = {}
    """Why a setting that other kinds have, or a value of it, is not possible here."""
    shape_fields: ClassVar[frozenset[str]] = frozenset()
    """Settings that say nothing but the shapes of the weights."""

    kind: str = Field(
        default="bottleneck", description="of the small network: see [kinds of patches](#kinds-of-patches)"
    )
    insertion: Literal["serial", "parallel"] = Field(
        default="serial",
        description="serial: what passes the sublayer passes the patch; parallel: the patch reads the sublayer's input "
        "and its output is added",
    )
    position: Literal["pre_norm", "pre_act", "post_act"] = Field(
        default="pre_norm",
        description="before LayerNorm, between it and the activation, or (parallel only) after the activation",
    )
    per_block: Literal[1, 2] = Field(default=2, description="at both sublayers of a block, or at the second only")
    blocks: PositiveInt | None = Field(
        default=None, description="only in the last so many blocks; what is below is the same for all tasks"
    )
    init: Literal["identity", "random"] = Field(
        default="identity",
        description="identity: the last map starts at zero, so that a fresh patch changes nothing (but for the inner "
        "skip); random: at small random numbers",
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

    def __new__(cls, **settings: Any) -> Self:
        """Make an instance of the kind's class; what pydantic makes itself goes through `_settings_of_the_kind`."""
        kind = settings.get("kind", "bottleneck")
        model = _settings_named(kind) if cls is PatchConfig else None
        return cast("Self", object.__new__(model or cls))

    @model_validator(mode="wrap")
    @classmethod
    def _settings_of_the_kind(cls, settings: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(settings, dict):
            return handler(settings)
        if cls is PatchConfig:
            kind = settings.get("kind", "bottleneck")
            model = _settings_named(kind)
            if model is None:
                shown = f"{kind!r}{did_you_mean(kind, PATCH_SETTINGS)}" if isinstance(kind, str) else describe(kind)
                raise ValueError(f"{shown} is no kind of patch: choose one of {', '.join(PATCH_SETTINGS)}")
            return cast("Self", model.model_validate(settings))
        return handler(cls._without_unsupported(settings))

    @classmethod
    def _without_unsupported(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Refuse what this kind does not have; what is off anyway (`activation: null`) is left out instead."""
        for name, reason in cls.unsupported.items():
            field = cls.model_fields.get(name)
            off = (None, False) if field is None else (field.default,)
            if name in settings and settings[name] not in off:
                raise ValueError(reason)
        return {
            name: value for name, value in settings.items() if name not in cls.unsupported or name in cls.model_fields
        }

    @model_serializer(mode="wrap")
    def _omit_unset_item_rank(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `item_rank` where it is None: files written before this setting existed then compare equal."""
        tree: dict[str, Any] = dump(self)
        if tree.get("item_rank") is None:
            tree.pop("item_rank", None)
        return tree


def register_patch_settings(settings: type[PatchConfig]) -> None:
    """Add a value to `patch.kind`, the default of the `kind` of these settings."""
    PATCH_SETTINGS[settings.model_fields["kind"].default] = settings


THIS_KIND, ONLY_PLACE = "of patch: this one", "the only one of this kind"
NO_INNER_SKIP = "inner_skip is of parallel bottlenecks: a serial one always has its residual, others have none"


class BottleneckConfig(PatchConfig):
    """Settings of the paper's patch: two 1x1 convolutions with an activation between them (section 3.3)."""

    shape_fields = frozenset({"bottleneck"})

    kind: Literal["bottleneck"] = Field(default="bottleneck", description=THIS_KIND)
    bottleneck: Width = Field(
        default=0.125, description="channels between the two convolutions, or their share of the backbone's channels"
    )
    activation: Literal["relu", "gelu", "gelu-tanh"] = Field(default="relu", description="between the two convolutions")
    inner_skip: bool = Field(
        default=False,
        description="parallel ones add the sublayer's input too, as in the authors' code. A serial one always has "
        "its residual",
    )

    @model_validator(mode="before")
    @classmethod
    def _reject_null(cls, settings: Any) -> Any:
        if not isinstance(settings, dict):
            return settings
        if settings.get("bottleneck", 1) is None:
            raise ValueError("a patch of kind bottleneck needs a bottleneck: a number or a share of the channels")
        if settings.get("activation", "relu") is None:
            raise ValueError("a bottleneck without an activation would be linear: choose relu, gelu or gelu-tanh")
        return settings

    @model_validator(mode="after")
    def _check_placement(self) -> Self:
        if self.insertion == "serial" and self.position == "post_act":
            raise ValueError(
                "a serial patch after the activation would stand before the next convolution or the block's sum, where "
                "the paper has none: use pre_norm or pre_act, or insertion parallel"
            )
        if self.inner_skip and self.insertion != "parallel":
            raise ValueError(NO_INNER_SKIP)
        return self


class LoraConfig(PatchConfig):
    """Settings of LoRA (Hu et al., ICLR 2022): a low-rank convolution beside the convolution; alpha / rank is 1."""

    unsupported: ClassVar = {
        "insertion": "LoRA is a low-rank convolution beside the convolution: insertion can only be parallel",
        "position": "LoRA adds to the convolution's output: position can only be pre_norm",
        "bottleneck": "LoRA has no bottleneck: its width is the setting rank",
        "activation": "LoRA is linear: it has no activation",
        "inner_skip": NO_INNER_SKIP,
    }
    shape_fields = frozenset({"rank"})

    kind: Literal["lora"] = Field(default="lora", description=THIS_KIND)
    insertion: Literal["parallel"] = Field(default="parallel", description=ONLY_PLACE)
    position: Literal["pre_norm"] = Field(default="pre_norm", description=ONLY_PLACE)
    rank: Width = Field(default=4, description="of the added convolution, or its share of the backbone's channels")


class ScaleShiftConfig(PatchConfig):
    """Settings of SSF (Lian et al., NeurIPS 2022): a gain and a shift for each normalised channel."""

    unsupported: ClassVar = {
        "insertion": "scale-shift changes what passes it: insertion can only be serial",
        "position": "scale-shift acts on the normalised activations: position can only be pre_act",
        "bottleneck": "scale-shift has one gain and one shift per channel: it has no bottleneck",
        "activation": "scale-shift is linear: it has no activation",
        "inner_skip": NO_INNER_SKIP,
    }

    kind: Literal["scale-shift"] = Field(default="scale-shift", description=THIS_KIND)
    insertion: Literal["serial"] = Field(default="serial", description=ONLY_PLACE)
    position: Literal["pre_act"] = Field(default="pre_act", description=ONLY_PLACE)


class FusionConfig(PatchConfig):
    """Settings of attention over frozen patches of other tasks (AdapterFusion: Pfeiffer et al., EACL 2021)."""

    unsupported: ClassVar = {
        "bottleneck": "attention over patches has no bottleneck: its width is the setting fusion_width",
        "activation": "attention over patches has no activation of its own",
        "inner_skip": NO_INNER_SKIP,
    }

    kind: Literal["fusion"] = Field(default="fusion", description=THIS_KIND)
    members: tuple[SerializeAsAny[PatchConfig], ...] = Field(min_length=1, description="of the patches, in their order")
    width: Width = Field(default=0.125, description="channels of queries and keys, or their share of the backbone's")


COMPOSED_SETTINGS["fusion"] = FusionConfig
for _settings in (BottleneckConfig, LoraConfig, ScaleShiftConfig):
    register_patch_settings(_settings)
