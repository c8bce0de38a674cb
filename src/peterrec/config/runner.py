"""Settings of the machine that trains."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from peterrec.config.base import Config


class RunnerConfig(Config):
    """Use of the machine, passed on to Lightning; a run may be resumed with other settings of these."""

    accelerator: str = Field(default="auto", description="auto, cpu, gpu, ...")
    devices: int | str = Field(
        default=1,
        description="how many of a machine train together, or auto; of accelerator cpu, processes. `torchrun` says it "
        "itself (docs/scale.md)",
    )
    num_nodes: PositiveInt = Field(default=1, description="machines, on each of which the command is started")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(default="32-true", description="of the arithmetic")
    compile: bool = Field(
        default=False,
        description="compile the network for full batches of the longest width (pre-training; adapting to one task): a "
        "minute at the start, then faster",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="keep only the inputs of blocks for the backward pass: much less memory, a third more time",
    )
    checkpoint_share: Annotated[float, Field(gt=0)] = Field(
        default=0.05,
        description="of the time of training that resume points within an epoch may take: of a large table they take "
        "long, and are then written less often than `checkpoint_every` says",
    )
    logger: Literal["none", "csv", "tensorboard"] = Field(default="none", description="beside the output")
    progress: bool = Field(default=True, description="show a progress bar, or a line per epoch without a terminal")

    @model_validator(mode="before")
    @classmethod
    def _refuse_strategy(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and "strategy" in settings:  # of Lightning's trainer
            raise ValueError(
                "strategy is no setting: several devices always train in one way, each its share of every batch; leave "
                "it out"
            )
        return settings

    @model_validator(mode="after")
    def _check_one_form(self) -> Self:
        if self.compile and self.gradient_checkpointing:
            raise ValueError("compile and gradient_checkpointing are two forms of the network: ask for one of them")
        return self
