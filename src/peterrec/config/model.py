"""Settings of the networks and of their training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from peterrec.config.base import Config, Positive, Share


class BackboneConfig(Config):
    """The stack of dilated residual blocks (paper, section 3.2)."""

    kind: Literal["causal"] = Field(default="causal", description="causal: a position sees itself and earlier ones")
    channels: PositiveInt = Field(default=64, description="width of embeddings and hidden states")
    kernel_size: Annotated[int, Field(ge=2)] = Field(default=3, description="taps of a convolution")
    dilations: tuple[PositiveInt, ...] = Field(
        default=(1, 4, 1, 4, 1, 4, 1, 4),
        min_length=1,
        description="one per block; its second convolution has twice that",
    )
    norm_eps: Positive = Field(default=1e-5, description="of LayerNorm, inside the root")
    tie_weights: bool = Field(default=True, description="score next items with the input embedding table")


class PatchConfig(Config):
    """A bottleneck patch (paper, section 3.3): where it goes and how wide it is."""

    kind: Literal["bottleneck"] = Field(default="bottleneck", description="two 1x1 convolutions and a residual")
    insertion: Literal["serial"] = Field(default="serial", description="what passes the site passes the patch")
    position: Literal["pre_norm", "pre_act"] = Field(
        default="pre_norm", description="before LayerNorm, or between it and the activation"
    )
    per_block: Literal[1, 2] = Field(default=2, description="at both sites of a block, or at the second only")
    bottleneck: PositiveInt | Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.125, description="channels of the bottleneck, or their share of the backbone's channels"
    )
    activation: Literal["relu", "gelu"] = Field(default="relu", description="between the two convolutions")


class OptimConfig(Config):
    """AdamW: linear warm-up, then cosine or constant learning rate."""

    lr: Positive = Field(default=1e-3, description="largest learning rate")
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.0, description="decoupled; not of biases and norms")
    warmup: Share = Field(default=0.05, description="share of all steps")
    schedule: Literal["cosine", "constant"] = Field(default="cosine", description="after the warm-up")
    clip_norm: Positive | None = Field(default=1.0, description="largest norm of the gradient")


class RunnerConfig(Config):
    """How the machine is used; passed on to Lightning. Not part of what decides whether a run can be resumed."""

    accelerator: str = Field(default="auto", description="auto, cpu, gpu, ...")
    devices: int | str = Field(default=1, description="how many, or auto")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(default="32-true", description="of the arithmetic")
    logger: Literal["none", "csv", "tensorboard"] = Field(default="none", description="beside the output")
    progress: bool = Field(default=True, description="show a progress bar, or a line per epoch without a terminal")


class PretrainConfig(Config):
    """Self-supervised pre-training: predict the next item at every position (paper, section 3.2)."""

    backbone: BackboneConfig = Field(default=BackboneConfig(), description="the network")
    loss: Literal["auto", "full", "sampled"] = Field(
        default="auto", description="auto: sampled softmax above `full_softmax_limit` items"
    )
    full_softmax_limit: PositiveInt = Field(default=5_000, description="items")
    negatives: PositiveInt = Field(default=2048, description="of the sampled softmax, shared by a batch")
    masked_share: Share = Field(default=0.0, description="of input items replaced by [MASK] in training")
    max_length: Annotated[int, Field(ge=2)] = Field(default=100, description="longest window fed to the network")
    batch_size: PositiveInt = Field(default=128, description="windows")
    epochs: PositiveInt = Field(default=10, description="at most")
    patience: PositiveInt = Field(default=3, description="epochs without a better validation loss before stopping")
    valid_share: Annotated[float, Field(gt=0, lt=0.5)] = Field(default=0.03, description="users held out")
    valid_users: PositiveInt = Field(default=1_000, description="held-out users that are scored, at most")
    checkpoint_every: PositiveInt = Field(default=200, description="steps between resume points")
    seed: int = Field(default=0, description="of every draw")
    optim: OptimConfig = Field(default=OptimConfig(lr=2e-3), description="optimiser")
    runner: RunnerConfig = Field(default=RunnerConfig(), description="machine")


class AdaptConfig(Config):
    """Transfer to one task (paper, section 3.3): what is trained and how."""

    strategy: Literal["patch", "head"] = Field(default="patch", description="what is trained; the head always is")
    patch: PatchConfig = Field(default=PatchConfig(), description="of strategy `patch`")
    negatives: PositiveInt = Field(default=4, description="sampled for each positive of the BPR loss")
    max_length: PositiveInt = Field(default=100, description="most recent events fed to the network")
    batch_size: PositiveInt = Field(default=128, description="users")
    epochs: PositiveInt = Field(default=20, description="at most")
    patience: PositiveInt = Field(default=4, description="epochs without a better validation metric before stopping")
    checkpoint_every: PositiveInt = Field(default=200, description="steps between resume points")
    seed: int = Field(default=0, description="of every draw")
    optim: OptimConfig = Field(default=OptimConfig(lr=2e-3, weight_decay=0.01), description="optimiser")
    runner: RunnerConfig = Field(default=RunnerConfig(), description="machine")
