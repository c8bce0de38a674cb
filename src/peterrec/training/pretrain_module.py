"""The Lightning module of pre-training: the weighted sum of what is predicted and of what is told apart."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from peterrec.config import PretrainConfig
from peterrec.data.sequences import FIRST_ITEM, PAD
from peterrec.evaluation.validation import last_item_metrics, last_item_ranks
from peterrec.nn.chunked_losses import chunked_full_softmax_loss, chunked_sampled_softmax_loss
from peterrec.nn.contrastive import contrastive_loss
from peterrec.nn.heads import item_scores
from peterrec.nn.losses import LogUniformSampler
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.readout import readout_named, represent
from peterrec.nn.sparse_table import TouchedRows
from peterrec.nn.tokens import items_of
from peterrec.training.batch_vocabulary import BatchVocabulary, has_content
from peterrec.training.callbacks import require_finite
from peterrec.training.distributed import gather_rows, on_rank_zero, rank, shard_rows, shard_size, world_size
from peterrec.training.loop import TrainedModule, backbone_for_runner
from peterrec.training.probe import Probe

FloatArray = npt.NDArray[np.float64]

VALID_SCORES = 2**25  # scores of positions over the whole catalogue made at once: 128 MiB


class PretrainModule(TrainedModule):
    """Lightning module of a network that learns to predict the targets of an objective (paper, section 3.2)."""

    trained: NextItemModel

    def __init__(
        self,
        network: NextItemModel,
        config: PretrainConfig,
        sampler: LogUniformSampler | None,
        probe: Probe | None = None,
    ) -> None:
        super().__init__(network, config.optim)
        self.probe = probe
        self.config: PretrainConfig = config
        self.sampler = sampler
        self.by_rows = config.by_rows(network.backbone.items)
        if self.by_rows:
            tables = [network.backbone.embedding.weight, *([] if network.head is None else [network.head.weight])]
            self.tables = [table for table in tables if isinstance(table, nn.Parameter)]
        rows = shard_size(config.batch_size_for(0))
        backbone = backbone_for_runner(network.backbone, config.runner, rows, [config.max_length])
        self.backbone = backbone.dropping_out(config.dropout)
        self._has_content = has_content(network)
        self._vocabulary: BatchVocabulary | None = None
        self._touched: list[TouchedRows] = []
        self._results: list[ValidResults] = []

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Seed what dropout draws from by the step, so that a resumed run draws the same."""
        if self.config.dropout > 0 or self._has_content:
            torch.manual_seed(step_seed(self.config.seed, self.trainer.global_step, rank()))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the weighted sum of the losses; of several ranks, this one's part of it."""
        if self.sampler is not None and self._has_content:
            self._vocabulary = BatchVocabulary.from_batch(self.trained, self.backbone, batch)
            batch = self._vocabulary.batch
        try:
            with parametrize.cached():  # with the full softmax: both parts of a table are added up once
                return self._weighted_sum(batch)
        finally:
            self._vocabulary = None

    def _weighted_sum(self, batch: dict[str, Tensor]) -> Tensor:
        losses, shares = [], []
        if self.config.prediction_weight > 0:
            losses.append(self.config.prediction_weight * self._prediction_share(batch))
            shares.append(losses[0].detach())
        if "views" in batch:
            losses.append(self.config.contrastive.weight * self._contrastive_loss(batch["views"]))
            shares.append(losses[-1].detach() / world_size())  # every rank computes the whole of it
        self.loss_share = torch.stack(shares).sum()
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0]

    def _prediction_share(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the sum of the losses over this rank's positions, divided by the positions of the whole batch."""
        if world_size() == 1:
            return self._prediction_loss(batch)
        rank_batch = batch | {name: shard_rows(batch[name]) for name in ("inputs", "targets")}
        if len(rank_batch["inputs"]) == 0:
            return torch.zeros((), device=self.device, requires_grad=True)
        count, total = (int((targets != PAD).sum()) for targets in (rank_batch["targets"], batch["targets"]))
        return self._prediction_loss(rank_batch) * (count / max(1, total))

    def _contrastive_loss(self, views: Tensor) -> Tensor:
        """Return the loss over the views of all ranks, with the gradient of this one's."""
        vectors = gather_rows(self._view_vectors(shard_rows(views)), len(views))
        with self.full_precision():  # a small temperature would make rounding of cosines large
            return contrastive_loss(vectors, self.config.contrastive.temperature)

    def _view_vectors(self, views: Tensor) -> Tensor:
        config = self.config.contrastive
        if len(views) == 0:
            width = readout_named(config.readout).width(self.config.backbone.channels)
            return torch.zeros(0, views.shape[1], width, device=self.device, requires_grad=True)
        # A dense gradient of a table of which only touched rows are updated would cost more than all else.
        backbone = self.backbone if self._vocabulary is None else self._vocabulary.backbone
        backbone = backbone.with_frozen_embedding() if self.by_rows else backbone
        vectors = represent(backbone, views.flatten(0, 1), readout=config.readout)
        with self.full_precision():
            return vectors.float().view(*views.shape[:2], -1)

    def _prediction_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss over all positions that are asked for."""
        is_target = batch["targets"] != PAD
        targets = batch["targets"][is_target]
        if len(targets) == 0:  # nothing but [UNK] to say: there is no mean
            table = self.trained.backbone.embedding.weight
            x = F.embedding(items_of(batch["inputs"]), table.detach() if self.by_rows else table)
            nothing: Tensor = self.backbone.forward_embedded(x, batch["inputs"]).sum() * 0.0
            return nothing
        if self.by_rows:
            return self._on_rows(batch, is_target, targets)
        vocabulary = self._vocabulary
        backbone = self.backbone if vocabulary is None else vocabulary.backbone
        hidden = self.trained.outgoing(backbone(batch["inputs"])[is_target])  # (N, C)
        weight, bias = self.trained.output_table() if vocabulary is None else (vocabulary.weight, vocabulary.bias)
        if self.sampler is None:
            return chunked_full_softmax_loss(hidden, targets - FIRST_ITEM, weight, bias)
        negatives = batch["negatives"]
        drawn = negatives if vocabulary is None else vocabulary.negatives
        expected = self.sampler.log_expected(drawn, len(drawn))
        return chunked_sampled_softmax_loss(hidden, targets - FIRST_ITEM, weight, bias, negatives, expected)

    def _on_rows(self, batch: dict[str, Tensor], is_target: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, computed with copies of the rows that the batch touches in place of the tables."""
        assert self.sampler is not None
        inputs, negatives = items_of(batch["inputs"]), batch["negatives"]
        table, head = self.trained.backbone.embedding.weight, self.trained.head
        offset = FIRST_ITEM if head is None else 0  # from an item to its row
        scored = (targets - FIRST_ITEM + offset, negatives + offset)
        if head is None:
            input_rows = output_rows = TouchedRows.from_indices(table, inputs, *scored)
        else:
            input_rows, output_rows = (
                TouchedRows.from_indices(table, inputs),
                TouchedRows.from_indices(head.weight, *scored),
            )
        input_places, (target_places, negative_places) = input_rows.places[0], output_rows.places[-2:]
        padding = 0 if int(input_rows.rows[0]) == PAD else None  # rows ascend, and padding is the first
        x = self.backbone.add_event_features(F.embedding(input_places, input_rows.values, padding), batch["inputs"])
        hidden = self.trained.outgoing(self.backbone.forward_embedded(x, inputs)[is_target])
        bias = self.trained.output_table()[1][(output_rows.rows - offset).clamp(min=0)]  # special tokens have none
        expected = self.sampler.log_expected(negatives, len(negatives))
        self._touched = [input_rows] if head is None else [input_rows, output_rows]
        return chunked_sampled_softmax_loss(hidden, target_places, output_rows.values, bias, negative_places, expected)

    def on_after_backward(self) -> None:
        """Give the tables the gradients of the rows that were touched."""
        for touched in self._touched:
            touched.hand_over()
        self._touched = []
        super().on_after_backward()

    def _hidden_and_positives(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        is_target = batch["targets"] != PAD
        hidden = self.trained.outgoing(self.backbone(batch["inputs"])[is_target])  # (N, C)
        return hidden, batch["targets"][is_target] - FIRST_ITEM

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add up the loss of the positions that count, and the ranks of those to rank, by full ranking; or of views."""
        self._results.append(ValidResults())
        if "views" in batch:
            vectors = self._view_vectors(batch["views"])
            with self.full_precision():
                loss = contrastive_loss(vectors, self.config.contrastive.temperature)
            require_finite(loss, "the contrastive loss", self.current_epoch)
            self._results[-1].contrastive.append(loss.cpu())
            return
        hidden, positives = self._hidden_and_positives(batch)
        is_target = batch["targets"] != PAD
        counted, ranked = batch["counted"][is_target], batch["ranked"][is_target]  # (N,)
        at_once = max(1, VALID_SCORES // self.trained.backbone.items)
        for start in range(0, len(positives), at_once):
            piece = slice(start, start + at_once)
            self._score(hidden[piece], positives[piece], counted[piece], ranked[piece])

    def _score(self, hidden: Tensor, positives: Tensor, counted: Tensor, ranked: Tensor) -> None:
        weight, bias = self.trained.output_table()
        with self.full_precision():
            scores = item_scores(hidden.float(), weight, bias)  # (N, V)
        losses = torch.nn.functional.cross_entropy(scores, positives, reduction="none").cpu().double()
        require_finite(losses, "the validation loss", self.current_epoch)
        self._results[-1].losses.append(losses[counted.cpu()])
        self._results[-1].ranks.append(last_item_ranks(scores[ranked].cpu().numpy(), positives[ranked].cpu().numpy()))

    def on_validation_epoch_end(self) -> None:
        """Log the loss over all positions and HR@10, MRR@10, NDCG@10 of the last items; the rest."""
        metrics: dict[str, float] = {}
        results, self._results = self.in_order(self._results), []
        if losses := [loss for batch in results for loss in batch.losses]:
            ranked = last_item_metrics(np.concatenate([ranks for batch in results for ranks in batch.ranks]), 10)
            metrics |= {"valid_loss": float(torch.cat(losses).mean()), **ranked}
        if contrastive := [loss for batch in results for loss in batch.contrastive]:
            metrics["contrastive_loss"] = float(torch.stack(contrastive).mean())
        if (probe := self.probe) is not None:
            metrics |= on_rank_zero(lambda: probe.measure(self.trained.backbone, self.current_epoch))
        self.log_dict(metrics)


@dataclass
class ValidResults:
    """Losses and ranks of a batch of held-out users.

    Attributes:
        losses: of positions that count.
        ranks: of the last items.
        contrastive: loss of the views.
    """

    losses: list[Tensor] = field(default_factory=list)
    ranks: list[FloatArray] = field(default_factory=list)
    contrastive: list[Tensor] = field(default_factory=list)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Return a seed for the draws of one step of a training, on one of its ranks."""
    entropy = [seed % 2**32, step, *([rank] if rank else [])]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
