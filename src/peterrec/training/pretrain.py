"""The verb `pretrain`: a backbone learns to predict the next item at every position."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from lightning.pytorch import LightningModule
from torch import Tensor

from peterrec.artifacts.backbone_io import PretrainedBackbone, save_backbone
from peterrec.config import PretrainConfig, dump_yaml
from peterrec.data.batching import EpochStream, FixedBatches, Windows, inference_batches
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import FIRST_ITEM, MASK, IntArray, Sequences
from peterrec.data.splits import uniform
from peterrec.errors import DataError
from peterrec.evaluation.validation import last_item_metrics, last_item_ranks
from peterrec.model import UserModel
from peterrec.nn.backbone import Backbone
from peterrec.nn.heads import log_share
from peterrec.nn.losses import LogUniformSampler, full_softmax_loss, sampled_softmax_loss
from peterrec.nn.next_item import NextItemModel
from peterrec.training.loop import Plan, WorkFolder, fit
from peterrec.training.optim import make_optimizer, make_schedule

FloatArray = npt.NDArray[np.float64]

VALID_ROWS = 16  # held-out users scored at once: bounds the memory of full-catalogue scores at every position


class NextItemSource:
    """Batches of windows, with the negatives of the sampled softmax."""

    def __init__(self, windows: Windows, sampler: LogUniformSampler | None, config: PretrainConfig) -> None:
        self.windows = windows
        self.sampler = sampler
        self.negatives = config.negatives
        self.masked_share = config.masked_share

    @property
    def lengths(self) -> IntArray:
        """(windows,) items in each window."""
        return self.windows.lengths

    def batch(self, rows: IntArray, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return `tokens` and `inputs` (B, W) and, for the sampled softmax, `negatives` (S,).

        Some inputs, never targets, are [MASK]: the order of what people do need not be strict (paper, section 3.2).
        """
        tokens = self.windows.tokens(rows)
        masked = (rng.random(tokens.shape) < self.masked_share) & (tokens >= FIRST_ITEM)
        out = {"tokens": torch.from_numpy(tokens), "inputs": torch.from_numpy(np.where(masked, MASK, tokens))}
        if self.sampler is not None:
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            out["negatives"] = self.sampler.sample(self.negatives, generator)
        return out


class PretrainModule(LightningModule):
    """Next-item objective at every position (paper, section 3.2)."""

    def __init__(self, network: NextItemModel, config: PretrainConfig, sampler: LogUniformSampler | None) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.sampler = sampler
        self._losses: list[Tensor] = []
        self._ranks: list[FloatArray] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the mean loss over all positions that have a next item."""
        hidden, positives = self._hidden_and_positives(batch["inputs"], batch["tokens"])
        weight, bias = self.network.output_table()
        if self.sampler is None:
            return full_softmax_loss(hidden, positives, weight, bias)
        return sampled_softmax_loss(hidden, positives, weight, bias, batch["negatives"], self.sampler)

    def _hidden_and_positives(self, inputs: Int[Tensor, "B W"], tokens: Int[Tensor, "B W"]) -> tuple[Tensor, Tensor]:
        targets = tokens[:, 1:]
        real = targets >= FIRST_ITEM  # neither padding nor [UNK] is anything to predict
        hidden = self.network.backbone(inputs[:, :-1])[real]  # (N, C)
        return hidden, targets[real] - FIRST_ITEM

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Add up the loss of all positions, and the ranks of the last item of each user by full ranking."""
        hidden, positives = self._hidden_and_positives(batch, batch)
        if len(positives) == 0:
            return
        weight, bias = self.network.output_table()
        scores = torch.addmm(bias, hidden.float(), weight.T)  # (N, V)
        self._losses.append(torch.nn.functional.cross_entropy(scores, positives, reduction="none").double().cpu())
        real = batch[:, 1:] >= FIRST_ITEM
        last = real.sum(1).cumsum(0)[real.any(1)] - 1  # the last supervised position of each user, in (N,)
        self._ranks.append(last_item_ranks(scores[last].cpu().numpy(), positives[last].cpu().numpy()))

    def on_validation_epoch_end(self) -> None:
        """Log the loss over all positions, and HR@10, MRR@10 of the last items."""
        ranked = last_item_metrics(np.concatenate(self._ranks), 10)
        loss = float(torch.cat(self._losses).mean())
        self._losses.clear()
        self._ranks.clear()
        self.log_dict({"valid_loss": loss, "hr@10": ranked["hr@10"], "mrr@10": ranked["mrr@10"]}, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW with the configured schedule, stepped every batch."""
        optimizer = make_optimizer(self.parameters(), self.config.optim)
        schedule = make_schedule(optimizer, self.config.optim, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def pretrain(
    corpus: str | Path | Corpus,
    out: str | Path,
    config: PretrainConfig | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    report: Callable[[str], None] | None = None,
) -> UserModel:
    """Pre-train a backbone on the sequences of a corpus and write it to `out` (paper, section 3.2).

    Some users, `valid_share` of them by a hash of their id, are held out: the loss over their positions chooses
    the best epoch, and HR@10 and MRR@10 of their last item (full ranking) are recorded.

    Args:
        corpus: a folder written by `prepare`.
        out: folder of the backbone; while training, `OUT.training` holds the resume points.
        config: defaults if not given.
        resume: go on with a killed run; the result is the same as without the kill, bit for bit on a CPU.
        overwrite: replace what is at `out`.
        report: receives lines about what is done.

    Raises:
        DataError: too few users with two events or more.
        ArtifactError: `out` exists, or the corpus cannot be read.
        TrainingError: the loss is not finite.
        InterruptedRun: Ctrl-C; go on with `resume`.
    """
    config, out = config or PretrainConfig(), Path(out)
    say = report or (lambda line: None)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    work = WorkFolder(out, config, resume=resume, overwrite=overwrite)
    items = len(corpus.catalogue)
    sampled = config.loss == "sampled" or (config.loss == "auto" and items > config.full_softmax_limit)
    sampler = LogUniformSampler(items) if sampled else None
    train_rows, valid_rows = _hold_out(corpus, config)
    loss = f"sampled softmax with {config.negatives} shared negatives" if sampled else "full softmax"
    say(f"pre-training on {len(train_rows):,} users, {len(valid_rows):,} held out, {items:,} items, {loss}")
    popularity = log_share(torch.from_numpy(corpus.catalogue.counts))
    network = NextItemModel(Backbone(config.backbone, items, seed=config.seed), popularity, seed=config.seed)
    windows = Windows.over(corpus.sequences, train_rows, config.max_length)
    stream = EpochStream(NextItemSource(windows, sampler, config), config.batch_size, config.seed)
    plan = Plan(
        "pre-training",
        "valid_loss",
        "min",
        config.epochs,
        config.patience,
        config.checkpoint_every,
        config.optim.clip_norm,
        ("valid_loss", "hr@10", "mrr@10"),
    )
    module = PretrainModule(network, config, sampler)
    curve = fit(module, stream, _valid_batches(corpus, valid_rows, config), work, plan, config.runner)
    best = min(curve, key=lambda row: row["valid_loss"])
    training = {
        "users": len(train_rows),
        "windows": len(windows.lengths),
        "loss": loss,
        "corpus_fingerprint": corpus.manifest["fingerprint"],
        "best_epoch": int(best["epoch"]),
        "metrics": {name: best[name] for name in ("valid_loss", "hr@10", "mrr@10")},
        "curve": curve,
    }
    unknown: Literal["skip", "unk"] = "unk" if corpus.manifest["rare_items"] == "unk" else "skip"
    pretrained = PretrainedBackbone(network, corpus.catalogue, config.max_length, unknown, training)
    save_backbone(out, pretrained, config_yaml=dump_yaml(config), overwrite=overwrite)
    work.remove()
    return UserModel(pretrained)


def _hold_out(corpus: Corpus, config: PretrainConfig) -> tuple[IntArray, IntArray]:
    usable = corpus.sequences.lengths >= 2
    draw = uniform(corpus.user_hashes, f"pretrain-{config.seed}")
    train = np.flatnonzero(usable & (draw >= config.valid_share))
    valid = np.flatnonzero(usable & (draw < config.valid_share))
    if len(train) == 0 or len(valid) == 0:
        raise DataError(
            f"{len(train)} users to train on and {len(valid)} held out have two events or more; both are needed",
            remedy="prepare more users, lower source.min_item_events, or raise pretrain.valid_share",
            path=corpus.path,
        )
    return train, valid[: config.valid_users]


def _valid_batches(corpus: Corpus, rows: IntArray, config: PretrainConfig) -> FixedBatches[Tensor]:
    held_out: Sequences = corpus.sequences.take(rows)
    batches = inference_batches(held_out, VALID_ROWS, config.max_length + 1)
    return FixedBatches([torch.from_numpy(tokens) for _, tokens in batches])
