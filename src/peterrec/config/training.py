"""Settings of the networks and of their training."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, SerializeAsAny, field_validator, model_validator

from peterrec.arguments import did_you_mean
from peterrec.config.backbone import BackboneConfig
from peterrec.config.base import Config, Fraction, Positive
from peterrec.config.patch import PatchConfig
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


class MaskingConfig(Config):
    """Masking of input items in pre-training (paper, section 3.2; GRec, Yuan et al., WWW 2020)."""

    mask_fraction: Fraction | None = Field(
        default=None, description="of a sequence's items that are chosen; 0 if causal, 0.3 if noncausal, if not given"
    )
    max_masked: PositiveInt = Field(default=30, description="items chosen in a sequence, at most")
    mask_replace_fraction: Fraction = Field(
        default=0.8, description="fraction of the chosen that are replaced by [MASK]"
    )
    keep_fraction: Fraction = Field(default=0.1, description="fraction of the chosen that stay as they are")
    random_replace_fraction: Fraction = Field(
        default=0.1, description="fraction of the chosen that are replaced by a random item"
    )

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        if abs(self.mask_replace_fraction + self.keep_fraction + self.random_replace_fraction - 1.0) > 1e-9:
            raise ValueError("mask_replace_fraction + keep_fraction + random_replace_fraction must be 1")
        return self


class ContrastiveConfig(Config):
    """Contrastive pre-training (CoLES: Babaev et al., SIGMOD 2022): views of the same user are told from others'."""

    weight: Annotated[float, Field(ge=0)] = Field(
        default=0.3, description="of the contrastive loss in the sum; 0: there is none"
    )
    users: Annotated[int, Field(ge=2)] = Field(
        default=64, description="of a batch that are told from each other, at most: more cost more"
    )
    views: Annotated[int, Field(ge=2)] = Field(default=2, description="of each of these users")
    view: Literal["subset", "slice", "mixed"] = Field(
        default="mixed",
        description="subset: random events in their order; slice: consecutive events; mixed: either, drawn for each",
    )
    min_events: PositiveInt = Field(default=3, description="of a view, where the user has so many")
    max_events: PositiveInt = Field(default=40, description="of a view; lengths are drawn log-uniformly")
    temperature: Positive = Field(default=0.1, description="that cosines are divided by")
    readout: ReadoutName = Field(default="both", description="the representation that is compared")

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if self.min_events > self.max_events:
            raise ValueError("min_events is above max_events: no view has such a length")
        return self


class ProbeConfig(Config):
    """Probes while pre-training: how well a linear model on the frozen representations tells labels, after an epoch.

    The labels teach the backbone nothing; with `monitor: probe` they choose its epoch. Test users are never read.
    """

    tasks: tuple[str, ...] = Field(default=(), description="classification tasks of the corpus; none: no probes")
    readout: ReadoutName = Field(default="both", description="what the linear model reads, as of `adapt`")
    metric: Literal["auc", "log_loss"] = Field(
        default="auc", description="of the valid users; where fewer than 100, of train users in 5-fold cross-validation"
    )
    every_n_epochs: PositiveInt = Field(
        default=1, description="between probes; the first and the last planned epoch are probed"
    )
    max_users: PositiveInt = Field(default=2_000, description="train users of a task, and valid users, at most")

    @model_validator(mode="after")
    def _check_tasks(self) -> Self:
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("probe.tasks names a task twice")
        return self


class PretrainConfig(Config):
    """Settings of pre-training (paper, section 3.2): to predict the next item at every position, or masked items."""

    backbone: BackboneConfig = Field(default=BackboneConfig(), description="the network")
    prediction_weight: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="of the loss of next or masked items in the sum; 0: nothing is predicted"
    )
    contrastive: ContrastiveConfig = Field(
        default=ContrastiveConfig(), description="to tell users from each other, beside predicting items or alone"
    )
    loss: Literal["auto", "full", "sampled"] = Field(
        default="auto", description="auto: sampled softmax above `full_softmax_limit` items"
    )
    full_softmax_limit: PositiveInt = Field(default=5_000, description="items")
    negatives: PositiveInt = Field(default=2048, description="of the sampled softmax, shared by a batch")
    table_updates: Literal["auto", "dense", "rows"] = Field(
        default="auto",
        description="of the item tables: dense: AdamW; rows: only rows that a batch touches, without momentum and with "
        "one second moment a row, as fast and small for a million items as for ten thousand (sampled softmax only); "
        "auto: rows above `dense_table_limit` items. With rows the contrastive loss does not train item embeddings",
    )
    dense_table_limit: PositiveInt = Field(default=200_000, description="items")
    item_init: Literal["random", "co-occurrence"] = Field(
        default="co-occurrence",
        description="initial item embeddings; co-occurrence: factors of the users' TF-IDF rows, so that items that the "
        "same users have begin alike",
    )
    train_item_embeddings: bool | None = Field(
        default=None,
        description="whether embeddings of items and special tokens are trained; if not, they stay as they start, and "
        "items are scored with a table of their own. If not given: where they start at random, or score items "
        "themselves (backbone.tie_weights)",
    )
    masking: MaskingConfig = Field(
        default=MaskingConfig(), description="of input items in training; what a noncausal backbone predicts"
    )
    max_length: Annotated[int, Field(ge=2)] = Field(default=100, description="longest window fed to the network")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1,
        description="fraction of the embeddings, and of what each block adds to its input, that is zeroed in a step",
    )
    batch_size: PositiveInt | None = Field(
        default=None,
        description="windows; if not given, a hundredth of them, between 32 and 128: few windows need many steps",
    )
    epochs: PositiveInt = Field(default=10, description="at most")
    monitor: Literal["auto", "valid_loss", "hr@10", "mrr@10", "ndcg@10", "contrastive_loss", "probe"] = Field(
        default="auto",
        description="what of the held-out users chooses the epoch; probe: the mean over `probe.tasks`; auto: "
        "contrastive_loss where nothing is predicted, else valid_loss",
    )
    patience: PositiveInt = Field(default=3, description="epochs without a better `monitor` before stopping")
    valid_fraction: Annotated[float, Field(gt=0, lt=0.5)] = Field(default=0.03, description="users held out")
    max_valid_users: PositiveInt = Field(default=1_000, description="held-out users that are scored, at most")
    probe: ProbeConfig = Field(
        default=ProbeConfig(), description="what a linear model reads off the backbone, after an epoch"
    )
    checkpoint_every: PositiveInt = Field(default=200, description="steps between resume points, at least")
    seed: int = Field(default=0, description="of every draw")
    optim: OptimConfig = Field(default=OptimConfig(lr=2e-3), description="optimiser")
    runner: RunnerConfig = Field(default=RunnerConfig(), description="machine")

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.backbone.kind == "noncausal" and self.masking.mask_fraction == 0:
            raise ValueError(
                "a noncausal backbone learns by predicting masked items: masking.mask_fraction must be above 0"
            )
        if self.table_updates == "rows" and self.loss == "full":
            raise ValueError("the full softmax touches every row of the table: table_updates rows needs loss sampled")
        if self.train_item_embeddings is False and self.backbone.tie_weights:
            raise ValueError("embeddings that stay as they are cannot score items: set backbone.tie_weights false")
        return self

    @model_validator(mode="after")
    def _check_objectives(self) -> Self:
        predicts, contrasts = self.prediction_weight > 0, self.contrastive.weight > 0
        if not predicts and not contrasts:
            raise ValueError("nothing would be learned: set prediction_weight or contrastive.weight above 0")
        if self.chosen_by == "contrastive_loss" and not contrasts:
            raise ValueError("monitor contrastive_loss needs contrastive.weight above 0")
        if self.chosen_by not in ("contrastive_loss", "probe") and not predicts:
            raise ValueError(f"monitor {self.monitor} needs prediction_weight above 0")
        return self

    @model_validator(mode="after")
    def _check_probe(self) -> Self:
        if self.monitor == "probe" and not self.probe.tasks:
            raise ValueError("monitor probe needs something to probe: name classification tasks under probe.tasks")
        if self.monitor == "probe" and self.probe.every_n_epochs > self.patience:
            raise ValueError("monitor probe would end the training before the second probe: raise patience")
        return self

    @property
    def trains_item_embeddings(self) -> bool:
        """Whether embeddings of items and special tokens are trained."""
        if self.train_item_embeddings is not None:
            return self.train_item_embeddings
        return self.item_init == "random" or self.backbone.tie_weights

    @property
    def chosen_by(self) -> str:
        """The metric of held-out users that chooses the epoch."""
        if self.monitor != "auto":
            return self.monitor
        return "valid_loss" if self.prediction_weight > 0 else "contrastive_loss"

    def sampled(self, items: int) -> bool:
        """Return whether the softmax over a catalogue is sampled.

        Args:
            items: size of the catalogue.

        Returns:
            Whether it is.
        """
        return self.loss == "sampled" or (self.loss == "auto" and items > self.full_softmax_limit)

    def by_rows(self, items: int) -> bool:
        """Return whether only the rows of the item tables that a batch touches are updated.

        Args:
            items: size of the catalogue.

        Returns:
            Whether it is so.
        """
        large = self.table_updates == "auto" and items > self.dense_table_limit
        return self.sampled(items) and (large or self.table_updates == "rows")

    def batch_size_for(self, windows: int) -> int:
        """Return the windows of a batch.

        Args:
            windows: of an epoch.

        Returns:
            How many.
        """
        return self.batch_size or min(max(windows // 100, 32), 128)

    @property
    def mask_fraction(self) -> float:
        """The fraction of items that is chosen for masking."""
        if self.masking.mask_fraction is not None:
            return self.masking.mask_fraction
        return 0.3 if self.backbone.kind == "noncausal" else 0.0


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


class AdaptConfig(Config):
    """Settings of the transfer to a task (paper, section 3.3): strategy, patch, loss and training."""

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
    def _check_sampled_softmax(self) -> Self:
        if self.ranking_loss == "sampled-softmax" and self.negatives.sampling == "hard":
            raise ValueError(
                "a sampled softmax corrects for how probable each negative was, which is not known of hard ones: "
                "use ranking_loss bpr or bce, or other negatives"
            )
        return self
