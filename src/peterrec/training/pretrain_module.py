"""The Lightning module of pre-training: the weighted sum of what is predicted and of what is told apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from peterrec.config import PretrainConfig
from peterrec.data.sequences import FIRST_ITEM, PAD
from peterrec.evaluation.validation import last_item_metrics, last_item_ranks
from peterrec.nn.chunked_losses import chunked_full_softmax_loss, chunked_sampled_softmax_loss
from peterrec.nn.contrastive import contrastive_loss
from peterrec.nn.heads import item_scores
from peterrec.nn.losses import LogUniformSampler
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.readout import represent
from peterrec.nn.sparse_table import TouchedRows
from peterrec.training.callbacks import require_finite
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
        self.config = config
        self.sampler = sampler
        self.by_rows = config.by_rows(network.backbone.items)
        rows = config.batch_size_for(0)
        backbone = backbone_for_runner(network.backbone, config.runner, rows, [config.max_length])
        self.backbone = backbone.dropping_out(config.dropout)
        self._touched: list[TouchedRows] = []
        self._losses: list[Tensor] = []
        self._ranks: list[FloatArray] = []
        self._contrastive_losses: list[Tensor] = []

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Seed what dropout draws from by the step, so that a resumed run draws the same."""
        if self.config.dropout > 0:
            torch.manual_seed(step_seed(self.config.seed, self.trainer.global_step))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the weighted sum of the losses."""
        losses = []
        if self.config.prediction_weight > 0:
            losses.append(self.config.prediction_weight * self._prediction_loss(batch))
        if "views" in batch:
            losses.append(self.config.contrastive.weight * self._contrastive_loss(batch["views"]))
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0]

    def _contrastive_loss(self, views: Tensor) -> Tensor:
        config = self.config.contrastive
        # A dense gradient of a table of which only touched rows are updated would cost more than all else.
        backbone = self.backbone.with_frozen_embedding() if self.by_rows else self.backbone
        vectors = represent(backbone, views.flatten(0, 1), readout=config.readout)
        with self.full_precision():  # a small temperature would make rounding of cosines large
            return contrastive_loss(vectors.float().view(*views.shape[:2], -1), config.temperature)

    def _prediction_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss over all positions that are asked for."""
        is_target = batch["targets"] != PAD
        targets = batch["targets"][is_target]
        if len(targets) == 0:  # nothing but [UNK] to say: there is no mean
            table = self.trained.backbone.embedding.weight
            x = F.embedding(batch["inputs"], table.detach() if self.by_rows else table)
            nothing: Tensor = self.backbone.forward_embedded(x, batch["inputs"]).sum() * 0.0
            return nothing
        if self.by_rows:
            return self._on_rows(batch, is_target, targets)
        hidden = self.trained.outgoing(self.backbone(batch["inputs"])[is_target])  # (N, C)
        weight, bias = self.trained.output_table()
        if self.sampler is None:
            return chunked_full_softmax_loss(hidden, targets - FIRST_ITEM, weight, bias)
        negatives = batch["negatives"]
        expected = self.sampler.log_expected(negatives, len(negatives))
        return chunked_sampled_softmax_loss(hidden, targets - FIRST_ITEM, weight, bias, negatives, expected)

    def _on_rows(self, batch: dict[str, Tensor], is_target: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, computed with copies of the rows that the batch touches in place of the tables."""
        assert self.sampler is not None
        inputs, negatives = batch["inputs"], batch["negatives"]
        table, head = self.trained.backbone.embedding.weight, self.trained.head
        if head is None:
            input_rows = output_rows = TouchedRows.from_indices(table, inputs, targets, negatives + FIRST_ITEM)
        else:
            input_rows = TouchedRows.from_indices(table, inputs)
            output_rows = TouchedRows.from_indices(head.weight, targets - FIRST_ITEM, negatives)
        offset = FIRST_ITEM if head is None else 0  # from an item to its row
        padding = input_rows.find(torch.tensor([PAD], device=inputs.device)) if bool((inputs == PAD).any()) else None
        x = F.embedding(input_rows.find(inputs), input_rows.values, None if padding is None else int(padding))
        hidden = self.trained.outgoing(self.backbone.forward_embedded(x, inputs)[is_target])
        bias = self.trained.output_table()[1][(output_rows.rows - offset).clamp(min=0)]  # special tokens have none
        expected = self.sampler.log_expected(negatives, len(negatives))
        self._touched = [input_rows] if head is None else [input_rows, output_rows]
        return chunked_sampled_softmax_loss(
            hidden, output_rows.find(targets - FIRST_ITEM + offset), output_rows.values, bias,
            output_rows.find(negatives + offset), expected,
        )  # fmt: skip

    def on_after_backward(self) -> None:
        """Give the tables the gradients of the rows that were touched."""
        for touched in self._touched:
            touched.hand_over()
        self._touched = []

    def _hidden_and_positives(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        is_target = batch["targets"] != PAD
        hidden = self.trained.outgoing(self.backbone(batch["inputs"])[is_target])  # (N, C)
        return hidden, batch["targets"][is_target] - FIRST_ITEM

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add up the loss of the positions that count, and the ranks of those to rank, by full ranking; or of views."""
        if "views" in batch:
            loss = self._contrastive_loss(batch["views"])
            require_finite(loss, "the contrastive loss", self.current_epoch)
            self._contrastive_losses.append(loss)
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
        self._losses.append(losses[counted.cpu()])
        self._ranks.append(last_item_ranks(scores[ranked].cpu().numpy(), positives[ranked].cpu().numpy()))

    def on_validation_epoch_end(self) -> None:
        """Log the loss over all positions and HR@10, MRR@10, NDCG@10 of the last items; the rest."""
        metrics: dict[str, float] = {}
        if self._losses:
            ranked = last_item_metrics(np.concatenate(self._ranks), 10)
            metrics |= {"valid_loss": float(torch.cat(self._losses).mean()), **ranked}
        if self._contrastive_losses:
            metrics["contrastive_loss"] = float(torch.stack(self._contrastive_losses).mean())
        for values in (self._losses, self._ranks, self._contrastive_losses):
            values.clear()
        if self.probe is not None:
            metrics |= self.probe.measure(self.trained.backbone, self.current_epoch)
        self.log_dict(metrics)


def step_seed(seed: int, step: int) -> int:
    """Return a seed for the draws of one step of a training."""
    return int(np.random.SeedSequence([seed % 2**32, step]).generate_state(1, np.uint64)[0] >> 1)
