"""Settings of `tune`: what is searched, and for how long."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, PositiveInt, model_validator

from peterrec.config.base import Config, Positive


class RangeConfig(Config):
    """Settings of a range of numbers to search, such as `{low: 0.0001, high: 0.01, log: true}`."""

    low: int | float = Field(description="smallest value")
    high: int | float = Field(description="largest value")
    log: bool = Field(default=False, description="search the logarithm: for values of different sizes")
    step: Positive | None = Field(default=None, description="between values, counted from `low`; not with `log`")

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError("the logarithm needs a low above 0")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other: a list of values can have any distances")
        if self.step is not None:
            steps = (self.high - self.low) / self.step
            if abs(steps - round(steps)) > 1e-9 * max(1.0, steps):
                raise ValueError(f"no whole number of steps of {self.step} leads from {self.low} to {self.high}")
        return self


class TuneConfig(Config):
    """Settings of a search over the settings of `adapt` and `pretrain`.

    Settings are named with dots, or in groups. A list has the values to choose from, a mapping with `low` and `high` is
    a range ([RangeConfig](#rangeconfig)), and any single value is used in all trials.
    """

    adapt: dict[str, Any] = Field(
        default={}, description="of `AdaptConfig`, such as `patch.bottleneck: [4, 8, 16]`; only with a task"
    )
    pretrain: dict[str, Any] = Field(
        default={}, description="of `PretrainConfig`, such as `backbone.channels: [32, 64]`; only without a backbone"
    )
    trials: PositiveInt = Field(default=20, description="to be had in the end, pruned ones among them")
    time_limit: Positive | None = Field(
        default=None, description="seconds, after which no further trial starts; the one under way is finished"
    )
    pruning: bool = Field(
        default=True,
        description="stop a trial after an epoch in which its best metric so far is worse than the median of the "
        "trials before it at that epoch; not before 5 trials are finished",
    )
    seed: int = Field(default=0, description="of the search; that of a training is a setting of `adapt` or `pretrain`")
