"""Settings of the rivals; what ours have too has the same default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from peterrec.config import Config, NegativesConfig, OptimConfig
from peterrec.config.loading import build_config
from peterrec.errors import ConfigError


class RivalConfig(Config):
    """What all rivals are told."""

    batch_size: PositiveInt = Field(default=128, description="users")
    epochs: PositiveInt = Field(default=20, description="at most")
    patience: PositiveInt = Field(default=4, description="epochs without a better validation metric before stopping")
    optim: OptimConfig = Field(default=OptimConfig(lr=2e-3, weight_decay=0.01), description="optimiser")
    device: str = Field(default="auto", description="auto: the GPU, if there is one")


class DupnConfig(RivalConfig):
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


class ConetConfig(RivalConfig):
    """CoNet: a network for each domain, whose hidden layers exchange what they found.

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


SETTINGS: Mapping[str, type[RivalConfig]] = {"dupn": DupnConfig, "conet": ConetConfig}


def check_rival(name: str, settings: Mapping[str, Any]) -> None:
    """Check the settings of a rival without training it.

    Raises:
        ConfigError: no such rival, an unknown key or a value of the wrong type; the message names it.
    """
    rival_config(name, settings)


def rival_config(name: str, settings: Mapping[str, Any]) -> RivalConfig:
    """Return the settings of a rival with all defaults; errors as those of `check_rival`."""
    if name not in SETTINGS:
        raise ConfigError(f"there is no rival {name!r}", remedy=f"those there are: {', '.join(SETTINGS)}")
    kind = SETTINGS[name]
    try:
        return build_config(kind, dict(settings))
    except ConfigError as error:
        keys = ", ".join(kind.model_fields)
        raise ConfigError(f"rival {name!r}: {error.what}", remedy=f"its settings are {keys}") from error
