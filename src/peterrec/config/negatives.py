"""Settings of negatives of ranking tasks."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from peterrec.config.base import Config


class NegativesConfig(Config):
    """Settings of negatives: items that a user does not have, drawn for each positive of a ranking task."""

    count: PositiveInt = Field(default=50, description="for each positive")
    sampling: Literal["uniform", "popularity", "hard"] = Field(
        default="uniform",
        description="all alike; by the train users who have the item; or the highest-scoring of some drawn uniformly",
    )
    power: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.75, description="of the number of users, where sampling is by popularity"
    )
    candidates: PositiveInt = Field(default=200, description="drawn for each positive, where sampling is hard")

    @model_validator(mode="after")
    def _check_candidates(self) -> Self:
        if self.sampling == "hard" and self.candidates <= self.count:
            raise ValueError("hard negatives are the best of more: candidates must be above count")
        return self
