"""Settings of `migrate`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from peterrec.config.base import Config
from peterrec.config.runner import RunnerConfig


class MigrateConfig(Config):
    """Settings of `migrate`: what bundles are compared with, and how sure that is."""

    refit: bool = Field(default=True, description="train each bundle further on the new backbone, from where it was")
    anew: bool = Field(default=False, description="also train each from nothing, which takes longest")
    k: PositiveInt = Field(default=5, description="cut-off of MRR, of ranking tasks")
    bootstrap: PositiveInt = Field(default=1000, description="resamples of the valid users")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.95, description="of the intervals")
    batch_size: PositiveInt = Field(default=256, description="users scored at once")
    seed: int = Field(default=0, description="of resamples; trainings have the seeds of their bundles")
    runner: RunnerConfig = Field(default=RunnerConfig(), description="machine, in place of that of each bundle")
