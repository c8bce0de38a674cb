"""Settings of `audit`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from peterrec.config.base import Config
from peterrec.config.training import ReadoutName


class AuditConfig(Config):
    """Settings of `audit`: what is read, by which probes, and how sure that is."""

    readout: ReadoutName = Field(default="both", description="of the plain backbone, whose vectors are probed")
    folds: Annotated[int, Field(ge=2, le=20)] = Field(
        default=5, description="of the users: each is guessed by probes that have not seen them"
    )
    nonlinear: bool = Field(default=True, description="whether a neural network probes, too: slower, and finds more")
    k: PositiveInt = Field(default=20, description="items recommended to a user, which probes are to guess by")
    max_items: PositiveInt = Field(
        default=500, description="recommended items that are told apart, at most: those that most users are shown"
    )
    min_class_users: Annotated[int, Field(ge=2)] = Field(
        default=20, description="of a class of the attribute; users of a smaller one are left out, and counted"
    )
    bootstrap: PositiveInt = Field(default=1000, description="resamples of the users")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.95, description="of the intervals")
    batch_size: PositiveInt = Field(default=256, description="users read at once")
    seed: int = Field(default=0, description="of folds, probes and resamples")
