"""Settings of neural baselines; those that the strategies have too have the same defaults."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from peterrec.config import Config, NegativesConfig, OptimConfig


class NoSettings(Config):
    """Settings of a baseline that has none."""


class NeuralBaselineConfig(Config):
    """Settings that all neural baselines have."""

    batch_size: PositiveInt = Field(default=128, description="users")
    epochs: PositiveInt = Field(default=20, description="at most")
    patience: PositiveInt = Field(default=4, description="epochs without a better validation metric before stopping")
    optim: OptimConfig = Field(default=OptimConfig(lr=2e-3, weight_decay=0.01), description="optimiser")
    device: str = Field(default="auto", description="auto: the GPU, if there is one")


class DupnConfig(NeuralBaselineConfig):
    """DUPN: a recurrent network over the events, pooled by attention, shared by all tasks."""

    cell: Literal["lstm", "gru"] = Field(default="lstm", description="of the recurrent network")
    channels: PositiveInt = Field(default=64, description="width of the item embedding")
    hidden: PositiveInt = Field(default=64, description="width of the recurrent states and of the user vector")
    attention: PositiveInt = Field(default=32, description="width of the hidden layer that weighs events")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.0, description="of embeddings and user vectors")
    max_length: PositiveInt = Field(default=100, description="most recent events fed to the network")
    negatives: NegativesConfig = Field(default=NegativesConfig(), description="of the sampled softmax of ranking tasks")

    @model_validator(mode="after")
    def _unbiased(self) -> Self:
        if self.negatives.sampling == "hard":
            raise ValueError("negatives of a sampled softmax are drawn uniformly or by popularity, not hard")
        return self


class ConetConfig(NeuralBaselineConfig):
    """CoNet: a network for each domain, whose hidden layers are mixed.

    It learns users by heart with what is good for the others, so smaller batches, slower steps and more weight decay.
    """

    batch_size: PositiveInt = Field(default=32, description="users")
    optim: OptimConfig = Field(default=OptimConfig(lr=5e-4, weight_decay=0.5), description="optimiser")
    channels: PositiveInt = Field(default=32, description="width of the embeddings of users and items")
    layers: tuple[PositiveInt, ...] = Field(
        default=(64, 32), min_length=1, description="widths of the hidden layers of each network"
    )
    negatives: PositiveInt = Field(default=4, description="drawn for each positive, uniformly, in both domains")
    source_weight: Annotated[float, Field(ge=0)] = Field(default=1.0, description="of the loss of the source domain")
    max_length: PositiveInt = Field(default=100, description="most recent source events of a user that are positives")
