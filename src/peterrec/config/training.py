"""Settings of the optimiser, and of `adapt`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, SerializeAsAny, field_validator, model_validator

from peterrec.arguments import did_you_mean
from peterrec.config.base import Config, Fraction, LaterSettingsConfig, Positive
from peterrec.config.calibration import CalibrationConfig
from peterrec.config.negatives import NegativesConfig
from peterrec.config.patch import PatchConfig, Width
from peterrec.config.runner import RunnerConfig

READOUTS = {
    "token": "the hidden state at [TCL] (the paper's)",
    "pooled": "embeddings and hidden states summed over the events, by the root of their number",
    "both": "one after the other",
    "attention": "means of embeddings and hidden states over the events, weighted by four trained queries",
}
"""Names of readouts and what they read; `peterrec.nn.readout.register_readout` adds one."""


def _registered_readout(name: str) -> str:
    if name not in READOUTS:
        raise ValueError(f"{name!r} is no readout{did_you_mean(name, READOUTS)}: choose one of {', '.join(READOUTS)}")
    return name


ReadoutName = Annotated[str, AfterValidator(_registered_readout)]
Strategy = Literal["scratch", "head", "last-sublayer", "last1", "last2", "all", "patch", "patch-random", "joint"]


class OptimConfig(Config):
    """Settings of AdamW, with linear warm-up, then a cosine or constant learning rate."""

    lr: Positive = Field(default=1e-3, description="largest learning rate")
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.0, description="decoupled; not of biases and norms")
    warmup_fraction: Fraction = Field(default=0.05, description="fraction of all steps")
    schedule: Literal["cosine", "constant"] = Field(default="cosine", description="after the warm-up")
    clip_norm: Positive | None = Field(default=1.0, description="largest norm of the gradient")


class AdaptConfig(LaterSettingsConfig):
    """Settings of the transfer to a task (paper, section 3.3): strategy, patch, loss and training."""

    later_settings: ClassVar[frozenset[str]] = frozenset({"calibration", "erase"})

    strategy: Strategy = Field(default="patch", description="what is trained; the head always is")
    patch: SerializeAsAny[PatchConfig] = Field(
        default=PatchConfig(), description="of strategies `patch` and `patch-random`"
    )
    joint_init: Literal["pretrained", "random"] = Field(
        default="pretrained", description="weights that strategy `joint` starts from"
    )
    readout: ReadoutName = Field(
        default="both",
        description="what the head reads: " + "; ".join(f"{name}: {meaning}" for name, meaning in READOUTS.items()),
    )
    head_init: Literal["linear-probe", "random"] = Field(
        default="linear-probe",
        description="weights that a head starts from: linear-probe: a regression on what it reads of the pre-trained "
        "backbone (of classes logistic, of at most 2,048 train users; of items ridge, of at most 100,000), its penalty "
        "chosen by users it is not fitted on; random, as heads over backbones that start at random, and of trained "
        "readouts that are not standardised, always are",
    )
    probed_head_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="learning rate of a head that starts at a linear probe, as a share of `optim.lr`"
    )
    class_weights: Literal["balanced"] | dict[str, Positive] | None = Field(
        default=None,
        description="of the classes in the cross-entropy: balanced (users / classes / users of the class), or by name",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="fraction of each label spread over all classes"
    )
    ranking_loss: Literal["bpr", "bce", "sampled-softmax"] = Field(
        default="sampled-softmax",
        description="of ranking tasks: pairs (the paper's); each item alone; or the positive among its negatives",
    )
    negatives: NegativesConfig = Field(default=NegativesConfig(), description="of ranking tasks")
    regression_loss: Literal["squared", "huber", "absolute"] = Field(
        default="squared",
        description="of regression tasks, of standardised numbers; squared predicts the mean, absolute the median, "
        "huber something between them that single large numbers move little",
    )
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(),
        description="of regression tasks: predict these instead, by the pinball loss, such as [0.1, 0.5, 0.9]; the "
        "median, 0.5, is the prediction and must be among them",
    )
    target_transform: Literal["none", "log1p"] = Field(
        default="none",
        description="of regression tasks: log1p: learn log(1 + number), of numbers above -1 such as spend, and predict "
        "in their own unit; with the squared error that is then about the median, not the mean",
    )
    fuse: tuple[str, ...] = Field(
        default=(),
        description="bundles of other tasks, by strategy `patch` on the same backbone, as folders: their patches are "
        "copied and stay as they are, and attention over them is trained in place of a patch (AdapterFusion)",
    )
    fusion_width: Width = Field(default=0.125, description="channels of queries and keys of `fuse`, or their share")
    erase: str | None = Field(
        default=None,
        description="a classification task of the corpus: after training, what tells its classes to linear models is "
        "taken out of what the head reads (LEACE, by train users of that task); needs `peterrec[audit]`",
    )
    max_length: PositiveInt = Field(default=100, description="most recent events fed to the network")
    event_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="fraction of a user's events left out, anew in every epoch: a user is not to be known by one item; "
        "at least one stays",
    )
    prefix_fraction: Fraction = Field(
        default=0.0,
        description="fraction of the train users whose history is cut to its first n events, anew in every epoch, n "
        "drawn log-uniformly from 1 to its length: the patch then knows users of whom little is known yet, too",
    )
    cache: Literal["auto", "memory", "disk", "off"] = Field(
        default="auto",
        description="where the states below all that the task changes are kept, computed once for each user; "
        "auto: in memory up to 1 GiB, on disk up to 64 GiB, else off; off: they are computed anew in each epoch",
    )
    batch_size: PositiveInt = Field(default=128, description="users")
    epochs: PositiveInt = Field(default=20, description="at most")
    patience: PositiveInt = Field(default=4, description="epochs without a better validation metric before stopping")
    selection: Literal["auto", "valid", "cross-validation"] = Field(
        default="auto",
        description="what chooses the epoch: valid: the valid users; cross-validation: held-out train users, by "
        "`folds`, after which all train users are trained on up to that epoch; auto: cross-validation where there are "
        "fewer than 100 valid users, or they have one class only; strategy joint always takes the valid users",
    )
    folds: Annotated[int, Field(ge=2, le=10)] = Field(default=5, description="of the cross-validation")
    calibration: CalibrationConfig = Field(
        default=CalibrationConfig(), description="what the valid users decide after training: docs/calibration.md"
    )
    checkpoint_every: PositiveInt = Field(default=200, description="steps between resume points, at least")
    seed: int = Field(default=0, description="of every draw")
    optim: OptimConfig = Field(default=OptimConfig(lr=2e-3, weight_decay=0.01), description="optimiser")
    runner: RunnerConfig = Field(default=RunnerConfig(), description="machine")

    @field_validator("cache", mode="before")
    @classmethod
    def _read_off_as_text(cls, cache: Any) -> Any:
        return "off" if cache is False else cache  # YAML reads off as a truth value

    @field_validator("class_weights", mode="before")
    @classmethod
    def _read_names_as_text(cls, weights: Any) -> Any:
        if not isinstance(weights, dict):
            return weights
        if any(isinstance(name, bool) for name in weights):
            raise ValueError("YAML reads yes, no, on and off as truth values: quote the names of such classes")
        return {str(name) if isinstance(name, int | float) else name: weight for name, weight in weights.items()}

    @model_validator(mode="after")
    def _check_quantiles(self) -> Self:
        if not self.quantiles:
            return self
        if list(self.quantiles) != sorted(set(self.quantiles)) or 0.5 not in self.quantiles:
            raise ValueError("quantiles must rise, and 0.5, the prediction, must be among them")
        if self.regression_loss != "squared":
            raise ValueError("quantiles are learned by the pinball loss: leave out regression_loss, or quantiles")
        return self

    @model_validator(mode="after")
    def _check_fusion(self) -> Self:
        if self.fuse and self.strategy != "patch":
            raise ValueError("fuse is of strategy patch: attention over frozen patches in place of a patch")
        if self.fuse and self.patch != PatchConfig():
            raise ValueError("fuse takes the patches of bundles as they are: leave out the settings of patch")
        if self.patch.kind == "fusion":
            raise ValueError("a patch of kind fusion is made of bundles: name them under fuse")
        return self

    @model_validator(mode="after")
    def _check_sampled_softmax(self) -> Self:
        if self.ranking_loss == "sampled-softmax" and self.negatives.sampling == "hard":
            raise ValueError(
                "a sampled softmax corrects for how probable each negative was, which is not known of hard ones: "
                "use ranking_loss bpr or bce, or other negatives"
            )
        return self
