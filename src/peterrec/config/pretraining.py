"""Settings of pre-training."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from peterrec.config.backbone import BackboneConfig
from peterrec.config.base import Config, Fraction, LaterSettingsConfig, Positive
from peterrec.config.runner import RunnerConfig
from peterrec.config.training import OptimConfig, ReadoutName


class MaskingConfig(LaterSettingsConfig):
    """Masking of input items in pre-training (paper, section 3.2; GRec, Yuan et al., WWW 2020)."""

    later_settings: ClassVar[frozenset[str]] = frozenset({"feature_dropout"})

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
    feature_dropout: Fraction = Field(
        default=0.1,
        description="fraction of the windows that are read without features of events, so that a model can do without",
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


class PretrainConfig(LaterSettingsConfig):
    """Settings of pre-training (paper, section 3.2): to predict the next item at every position, or masked items."""

    later_settings: ClassVar[frozenset[str]] = frozenset({"content_dropout"})

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
    content_dropout: Fraction = Field(
        default=0.2,
        description="fraction of the items that have nothing but their content in a step, where a table of items is "
        "given: new ones will have no more",
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
