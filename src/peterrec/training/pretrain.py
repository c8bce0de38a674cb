"""The verb `pretrain`: a backbone learns to predict the next item at every position, or masked items."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from peterrec.artifacts.backbone_io import PretrainedBackbone, save_backbone
from peterrec.config import PretrainConfig, dump_yaml
from peterrec.data.batching import EpochStream
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import FIRST_ITEM, PAD, IntArray, Sequences
from peterrec.data.splits import uniform
from peterrec.errors import DataError
from peterrec.evaluation.validation import last_item_metrics, last_item_ranks
from peterrec.model import UserModel
from peterrec.nn.backbone import Backbone
from peterrec.nn.heads import log_share
from peterrec.nn.losses import LogUniformSampler, full_softmax_loss, sampled_softmax_loss
from peterrec.nn.next_item import NextItemModel
from peterrec.training.callbacks import Curve, require_finite
from peterrec.training.folder import WorkFolder
from peterrec.training.loop import Plan, TrainedModule, fit
from peterrec.training.objectives import ExampleSource, objective_of, valid_batches

FloatArray = npt.NDArray[np.float64]

VALID_SCORES = 2**25  # scores of positions over the whole catalogue made at once: 128 MiB
SHOWN = ("valid_loss", "hr@10", "mrr@10")


class PretrainModule(TrainedModule):
    """Learns to say the items that an objective asks for (paper, section 3.2)."""

    trained: NextItemModel

    def __init__(self, network: NextItemModel, config: PretrainConfig, sampler: LogUniformSampler | None) -> None:
        super().__init__(network, config.optim)
        self.sampler = sampler
        self._losses: list[Tensor] = []
        self._ranks: list[FloatArray] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the mean loss over all positions that are asked for."""
        hidden, positives = self._hidden_and_positives(batch)
        if len(positives) == 0:  # nothing but [UNK] to say: there is no mean
            return hidden.sum() * 0.0
        weight, bias = self.trained.output_table()
        if self.sampler is None:
            return full_softmax_loss(hidden, positives, weight, bias)
        negatives = batch["negatives"]
        expected = self.sampler.log_expected(negatives, len(negatives))
        return sampled_softmax_loss(hidden, positives, weight, bias, negatives, expected)

    def _hidden_and_positives(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        asked = batch["targets"] != PAD
        hidden = self.trained.outgoing(self.trained.backbone(batch["inputs"])[asked])  # (N, C)
        return hidden, batch["targets"][asked] - FIRST_ITEM

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add up the loss of the positions that count, and the ranks of those to rank, by full ranking."""
        hidden, positives = self._hidden_and_positives(batch)
        asked = batch["targets"] != PAD
        counted, ranked = batch["counted"][asked], batch["ranked"][asked]  # (N,)
        at_once = max(1, VALID_SCORES // self.trained.backbone.items)
        for start in range(0, len(positives), at_once):
            some = slice(start, start + at_once)
            self._score(hidden[some], positives[some], counted[some], ranked[some])

    def _score(self, hidden: Tensor, positives: Tensor, counted: Tensor, ranked: Tensor) -> None:
        weight, bias = self.trained.output_table()
        with self.full_precision():
            scores = torch.addmm(bias, hidden.float(), weight.T)  # (N, V)
        losses = torch.nn.functional.cross_entropy(scores, positives, reduction="none").cpu().double()
        require_finite(losses, "the validation loss", self.current_epoch)
        self._losses.append(losses[counted.cpu()])
        self._ranks.append(last_item_ranks(scores[ranked].cpu().numpy(), positives[ranked].cpu().numpy()))

    def on_validation_epoch_end(self) -> None:
        """Log the loss over all positions, and HR@10, MRR@10 of the last items."""
        ranked = last_item_metrics(np.concatenate(self._ranks), 10)
        loss = float(torch.cat(self._losses).mean())
        self._losses.clear()
        self._ranks.clear()
        self.log_dict({"valid_loss": loss, "hr@10": ranked["hr@10"], "mrr@10": ranked["mrr@10"]})


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

    A causal backbone learns to predict the next item at every position, a noncausal one items that are masked in its
    input. Some users, `valid_share` of them by a hash of their id, are held out: the loss over their positions (of
    the noncausal one: over fixed masked ones) chooses the best epoch, and HR@10 and MRR@10 of their last item, by full
    ranking, are recorded.

    Args:
        corpus: a folder written by `prepare`.
        out: folder of the backbone; while training, `OUT.training` holds the resume points.
        config: defaults if not given.
        resume: go on with a killed run; the result is the same as without the kill, bit for bit on a CPU.
        overwrite: replace what is at `out`.
        report: receives lines about what is done.

    Raises:
        DataError: too few users with two events or more.
        ArtifactError: `out` exists, the corpus cannot be read, or there is an unfinished run that is not to be resumed
            or cannot be.
        ConfigError: the unfinished run had other settings, or those of the runner do not work on this machine.
        TrainingError: the loss is not finite.
        InterruptedRun: Ctrl-C or SIGTERM; go on with `resume`.
        StorageError: the disk is full or the place is not writable.
    """
    config, out = config or PretrainConfig(), Path(out)
    say = report or (lambda line: None)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    items = len(corpus.catalogue)
    sampled = config.loss == "sampled" or (config.loss == "auto" and items > config.full_softmax_limit)
    sampler = LogUniformSampler(items) if sampled else None
    train_rows, valid_rows = _hold_out(corpus, config)
    inputs = {"corpus": corpus.manifest["fingerprint"]}
    work = WorkFolder(out, config, inputs, resume=resume, overwrite=overwrite, kind="backbone")
    loss = f"sampled softmax with {config.negatives} shared negatives" if sampled else "full softmax"
    say(f"pre-training on {len(train_rows):,} users, {len(valid_rows):,} held out, {items:,} items, {loss}")
    objective = objective_of(config, items)
    windows = objective.windows(corpus.sequences, train_rows)
    stream = EpochStream(ExampleSource(objective, windows, sampler, config.negatives), config.batch_size, config.seed)
    valid = valid_batches(objective, corpus.sequences.take(valid_rows))
    with torch.random.fork_rng(devices=[]):  # layers draw from torch's own generator before we draw from ours
        module = PretrainModule(_network(corpus, config), config, sampler)
        curve = fit(module, stream, valid, work, Plan.of(config, "pre-training", "min", SHOWN), config.runner)
    training = {
        "users": len(train_rows),
        "windows": len(windows.lengths),
        "objective": objective.name,
        "loss": loss,
        "corpus_fingerprint": corpus.manifest["fingerprint"],
        **_outcome(curve),
    }
    unknown: Literal["skip", "unk"] = "unk" if corpus.manifest["rare_items"] == "unk" else "skip"
    pretrained = PretrainedBackbone(module.trained, corpus.catalogue, config.max_length, unknown, training)
    save_backbone(out, pretrained, config_yaml=dump_yaml(config), overwrite=overwrite)
    work.remove()
    return UserModel(pretrained)


def _network(corpus: Corpus, config: PretrainConfig) -> NextItemModel:
    popularity = log_share(torch.from_numpy(corpus.catalogue.counts))
    return NextItemModel(
        Backbone(config.backbone, len(corpus.catalogue), seed=config.seed), popularity, seed=config.seed
    )


def _outcome(curve: Curve) -> dict[str, Any]:
    metrics = {name: curve.best[name] for name in SHOWN}
    return {"best_epoch": int(curve.best["epoch"]), "metrics": metrics, "curve": curve.rows}


def _hold_out(corpus: Corpus, config: PretrainConfig) -> tuple[IntArray, IntArray]:
    draw = uniform(corpus.user_hashes, f"pretrain-{config.seed}")
    held_out = draw < config.valid_share
    train = np.flatnonzero(_predictable(corpus.sequences) & ~held_out)
    valid = np.flatnonzero(_predictable(corpus.sequences, config.max_length + 1) & held_out)
    if len(train) == 0 or len(valid) == 0:
        raise DataError(
            f"{len(train)} users to train on and {len(valid)} held out have two events or more; both are needed",
            remedy="prepare more users, lower source.min_item_events, or raise pretrain.valid_share",
            path=corpus.path,
        )
    # By their draw: the first ones in the corpus may be the oldest accounts.
    return train, np.sort(valid[np.argsort(draw[valid], kind="stable")[: config.valid_users]])


def _predictable(sequences: Sequences, longest: int | None = None) -> npt.NDArray[np.bool_]:
    """Say of each user whether an item, not [UNK], comes after another event, among the `longest` last; (users,)."""
    out = sequences.lengths >= 2
    starts, ends = sequences.offsets[:-1][out] + 1, sequences.offsets[1:][out]
    if longest is not None:
        starts = np.maximum(starts, ends - longest + 1)
    real = np.append(np.asarray(sequences.items) >= FIRST_ITEM, False)  # one more, so that an end can be an index
    if len(starts) > 0:
        out[out] = np.logical_or.reduceat(real, np.column_stack([starts, ends]).ravel())[::2]
    return out
