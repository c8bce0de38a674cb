"""Settings of `evaluate` and of a whole run."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PositiveInt

from peterrec.config.base import Config
from peterrec.config.data import PrepareConfig
from peterrec.config.pretraining import PretrainConfig
from peterrec.config.training import AdaptConfig, Strategy


class EvaluateConfig(Config):
    """Settings of `evaluate`: cut-off, sampled negatives, intervals and baselines."""

    k: PositiveInt = Field(default=5, description="cut-off of HR, MRR and NDCG")
    sampled_negatives: PositiveInt = Field(default=99, description="the paper's protocol, section 4.2")
    bootstrap: PositiveInt = Field(default=1000, description="resamples of the test users")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.95, description="of the intervals")
    baselines: bool = Field(default=True, description="fit and show them too")
    batch_size: PositiveInt = Field(default=256, description="users scored at once")
    seed: int = Field(default=0, description="of negatives and resamples")


class RunConfig(Config):
    """Settings of a whole run: fetch (optional), prepare, pretrain, adapt, evaluate and report."""

    title: str = Field(default="peterrec", description="of the report")
    fetch: str | None = Field(default=None, description="a public data set to fetch into `data` first")
    data: str = Field(default="runs/data", description="folder that data sets are fetched into, each under its name")
    prepare: PrepareConfig = Field(description="events and tasks")
    items: str | None = Field(
        default=None, description="Parquet or CSV with `item_id` and columns that describe items, for `pretrain`"
    )
    pretrain: PretrainConfig = Field(default=PretrainConfig(), description="of the backbone")
    adapt: AdaptConfig = Field(default=AdaptConfig(), description="of every task and strategy")
    strategies: tuple[Strategy, ...] = Field(
        default=("patch", "head"), min_length=1, description="each is adapted to every task"
    )
    task_overrides: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="by task: settings of `adapt` that differ for it; not for strategy `joint`"
    )
    evaluate: EvaluateConfig = Field(default=EvaluateConfig(), description="of every task")
