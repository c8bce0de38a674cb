"""Settings of `grow`: how embeddings of new items are found."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from peterrec.config.backbone import BackboneConfig
from peterrec.config.base import Config
from peterrec.config.pretraining import ContrastiveConfig, PretrainConfig
from peterrec.config.runner import RunnerConfig
from peterrec.config.training import OptimConfig


class GrowConfig(Config):
    """Settings of adding items to a backbone: their embeddings are computed, then trained while all else is frozen."""

    epochs: NonNegativeInt = Field(
        default=3,
        description="at most; 0: embeddings are only predicted from the users of the items, not trained",
    )
    patience: PositiveInt = Field(default=1, description="epochs without a lower loss of held-out users, then it stops")
    batch_size: PositiveInt | None = Field(default=None, description="windows; if not given, as for `pretrain`")
    loss: Literal["auto", "full", "sampled"] = Field(default="auto", description="as for `pretrain`")
    table_updates: Literal["auto", "dense", "rows"] = Field(default="auto", description="as for `pretrain`")
    negatives: PositiveInt = Field(default=2048, description="of the sampled softmax, shared by a batch")
    valid_fraction: Annotated[float, Field(gt=0, lt=0.5)] = Field(default=0.03, description="users held out")
    max_valid_users: PositiveInt = Field(default=1_000, description="held-out users that are scored, at most")
    checkpoint_every: PositiveInt = Field(default=200, description="steps between resume points, at least")
    seed: int = Field(default=0, description="of every draw")
    optim: OptimConfig = Field(default=OptimConfig(lr=2e-3), description="optimiser")
    runner: RunnerConfig = Field(default=RunnerConfig(), description="machine")

    def pretraining(self, backbone: BackboneConfig, max_length: int) -> PretrainConfig:
        """Return the settings of a pre-training that goes on with these, to predict items alone.

        Args:
            backbone: of the network.
            max_length: events that it was trained to read.

        Returns:
            Those of `pretrain`. Weights do not decay: those that are frozen would.
        """
        return PretrainConfig(
            backbone=backbone,
            max_length=max_length,
            contrastive=ContrastiveConfig(weight=0),
            dropout=0.0,
            train_item_embeddings=True,
            epochs=max(1, self.epochs),
            optim=self.optim.model_copy(update={"weight_decay": 0.0}),
            **{name: getattr(self, name) for name in SHARED},
        )


SHARED = (
    "patience", "batch_size", "loss", "table_updates", "negatives", "valid_fraction", "max_valid_users",
    "checkpoint_every", "seed", "runner",
)  # fmt: skip
