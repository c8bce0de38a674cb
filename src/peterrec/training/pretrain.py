"""The verb `pretrain`: a backbone learns to predict the next item at every position, or masked items."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from peterrec.arguments import checked
from peterrec.artifacts.backbone_io import PretrainedBackbone, save_backbone
from peterrec.config import PretrainConfig, dump_yaml
from peterrec.data.batching import EpochStream
from peterrec.data.corpus import Corpus
from peterrec.data.pretraining_users import split_users
from peterrec.data.sequences import FIRST_ITEM, PAD, IntArray, Sequences
from peterrec.errors import ConfigError, DataError
from peterrec.evaluation.validation import last_item_metrics, last_item_ranks
from peterrec.model import UserModel
from peterrec.nn.build import build_backbone
from peterrec.nn.chunked_losses import chunked_full_softmax_loss, chunked_sampled_softmax_loss
from peterrec.nn.heads import item_scores, log_share
from peterrec.nn.losses import LogUniformSampler
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.sparse_table import TouchedRows
from peterrec.training.callbacks import Curve, require_finite
from peterrec.training.co_occurrence import item_factors
from peterrec.training.loop import Plan, TrainedModule, backbone_for_runner, fit
from peterrec.training.objectives import ExampleSource, objective_of, valid_batches
from peterrec.training.selection import too_few
from peterrec.training.work_folder import WorkFolder

FloatArray = npt.NDArray[np.float64]

logger = logging.getLogger(__name__)

VALID_SCORES = 2**25  # scores of positions over the whole catalogue made at once: 128 MiB
SHOWN = ("valid_loss", "hr@10", "mrr@10")
REPEAT_USERS = 100_000  # enough to tell how often people come back to an item
MOST_REPEATS = 0.01  # of the events, that `recommend` may leave out by default


class PretrainModule(TrainedModule):
    """Lightning module of a network that learns to predict the targets of an objective (paper, section 3.2)."""

    trained: NextItemModel

    def __init__(self, network: NextItemModel, config: PretrainConfig, sampler: LogUniformSampler | None) -> None:
        super().__init__(network, config.optim)
        self.sampler = sampler
        self.by_rows = config.by_rows(network.backbone.items)
        self.backbone = backbone_for_runner(network.backbone, config.runner, config.batch_size, [config.max_length])
        self._touched: list[TouchedRows] = []
        self._losses: list[Tensor] = []
        self._ranks: list[FloatArray] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
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
        """Add up the loss of the positions that count, and the ranks of those to rank, by full ranking."""
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
        """Log the loss over all positions, and HR@10, MRR@10 of the last items."""
        ranked = last_item_metrics(np.concatenate(self._ranks), 10)
        loss = float(torch.cat(self._losses).mean())
        self._losses.clear()
        self._ranks.clear()
        self.log_dict({"valid_loss": loss, "hr@10": ranked["hr@10"], "mrr@10": ranked["mrr@10"]})


@checked
def pretrain(
    corpus: str | Path | Corpus,
    out: str | Path,
    config: PretrainConfig | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> UserModel:
    """Pre-train a backbone on the sequences of a corpus and write it to `out` (paper, section 3.2).

    A causal backbone learns to predict the next item at every position, a noncausal one items that are masked in its
    input. Some users, `valid_fraction` of them by a hash of their id, are held out: the loss over their positions (of
    the noncausal one: over fixed masked ones) chooses the best epoch, and HR@10 and MRR@10 of their last item, by full
    ranking, are recorded.

    Args:
        corpus: a folder written by `prepare`, or an opened corpus.
        out: folder of the backbone; while training, `OUT.training` holds the resume points.
        config: settings; defaults if not given.
        resume: go on with a killed run; the result is the same as without the kill, bit for bit on a CPU.
        overwrite: replace the backbone at `out`.

    Returns:
        The backbone, as it was written, without a bundle.

    Raises:
        DataError: too few users with two events or more.
        ArtifactError: `out` exists, the corpus cannot be read, or there is an unfinished run that is not to be resumed
            or cannot be.
        ConfigError: the unfinished run had other settings, those of the runner do not work on this machine, or
            `table_updates` asks for rows of a catalogue with the full softmax.
        TrainingError: the loss is not finite.
        InterruptedRun: Ctrl-C or SIGTERM; go on with `resume`.
        StorageError: the disk is full or the place is not writable.
    """
    config, out = config or PretrainConfig(), Path(out)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    items = len(corpus.catalogue)
    sampled = config.sampled(items)
    _check_updates(config, items)
    sampler = LogUniformSampler(items) if sampled else None
    train_rows, valid_rows = _hold_out(corpus, config)
    inputs = {"corpus": corpus.manifest["fingerprint"]}
    work = WorkFolder(out, config, inputs, resume=resume, overwrite=overwrite, kind="backbone")
    loss = f"sampled softmax with {config.negatives} shared negatives" if sampled else "full softmax"
    logger.info(f"pre-training on {len(train_rows):,} users, {len(valid_rows):,} held out, {items:,} items, {loss}")
    if (new_users := int(corpus.new_users.sum())) > 0:
        logger.info(f"{new_users:,} new users are kept out of it")
    objective = objective_of(config, items)
    windows = objective.windows(corpus.sequences, train_rows)
    stream = EpochStream(ExampleSource(objective, windows, sampler, config.negatives), config.batch_size, config.seed)
    valid = valid_batches(objective, corpus.sequences.take(valid_rows))
    with torch.random.fork_rng(devices=[]):  # layers draw from torch's own generator before we draw from ours
        module = PretrainModule(_network(corpus, config, train_rows), config, sampler)
        curve = fit(module, stream, valid, work, Plan.from_config(config, "pre-training", "min", SHOWN), config.runner)
    training = {
        "users": len(train_rows),
        "windows": len(windows.lengths),
        "objective": objective.name,
        "loss": loss,
        "repeat_fraction": repeat_fraction(corpus.sequences, train_rows),
        **_outcome(curve),
        "warnings": _hold_out_warnings(len(valid_rows), config),
    }
    pretrained = _pretrained_backbone(module.trained, corpus, config, training)
    save_backbone(out, pretrained, config_yaml=dump_yaml(config), overwrite=overwrite)
    work.remove()
    for warning in training["warnings"]:
        logger.warning(warning)
    return UserModel(pretrained)


def _hold_out_warnings(held_out: int, config: PretrainConfig) -> list[str]:
    few = too_few(held_out, "held-out")
    setting = "max_valid_users" if held_out == config.max_valid_users else "valid_fraction"
    return [] if few is None else [f"{few}, but they chose it: raise {setting}"]


def _pretrained_backbone(
    network: NextItemModel, corpus: Corpus, config: PretrainConfig, training: dict[str, Any]
) -> PretrainedBackbone:
    """Return the backbone with what must be known of its data: how they were prepared, who was held out."""
    unknown: Literal["skip", "unk"] = "unk" if corpus.manifest["rare_items"] == "unk" else "skip"
    origin = {
        "corpus_fingerprint": corpus.manifest["fingerprint"],
        "seed": config.seed,
        "valid_fraction": config.valid_fraction,
    }
    return PretrainedBackbone(
        network, corpus.catalogue, config.max_length, unknown, training | origin,
        preprocessing=corpus.provenance().preprocessing,
        exclude_seen=training["repeat_fraction"] < MOST_REPEATS,
        new_users=corpus.kept_out_users,
    )  # fmt: skip


def repeat_fraction(sequences: Sequences, rows: IntArray) -> float:
    """Return the fraction of events whose item the user had before, of at most `REPEAT_USERS` of the users."""
    sample = sequences.take(rows[np.linspace(0, len(rows) - 1, min(len(rows), REPEAT_USERS)).astype(np.int64)])
    pairs = sample.repeat() * (int(sample.items.max(initial=0)) + 1) + sample.items
    items = pairs[sample.items >= FIRST_ITEM]
    return 1.0 - len(np.unique(items)) / max(1, len(items))


def _check_updates(config: PretrainConfig, items: int) -> None:
    if config.table_updates == "rows" and not config.sampled(items):
        raise ConfigError(
            f"table_updates rows needs the sampled softmax, but {items:,} items get the full one",
            remedy="set loss to sampled, or table_updates to auto",
        )


def _network(corpus: Corpus, config: PretrainConfig, rows: IntArray) -> NextItemModel:
    """Return the network before training; `rows` are the users that it may be started from."""
    popularity = log_share(torch.from_numpy(corpus.catalogue.counts))
    backbone = build_backbone(config.backbone, len(corpus.catalogue), seed=config.seed)
    if config.item_init == "co-occurrence":
        factors = item_factors(corpus.sequences, rows, backbone.items, config.backbone.channels, config.seed)
        with torch.no_grad():
            backbone.embedding.weight[FIRST_ITEM:] = torch.from_numpy(factors)
    backbone.embedding.requires_grad_(config.train_item_embeddings)
    return NextItemModel(backbone, popularity, seed=config.seed)


def _outcome(curve: Curve) -> dict[str, Any]:
    metrics = {name: curve.best[name] for name in SHOWN}
    return {"best_epoch": int(curve.best["epoch"]), "metrics": metrics, "curve": curve.rows}


def _hold_out(corpus: Corpus, config: PretrainConfig) -> tuple[IntArray, IntArray]:
    train, valid = split_users(corpus, config)
    if len(train) == 0 or len(valid) == 0:
        raise DataError(
            f"{len(train)} users to train on and {len(valid)} held out have two events or more; both are needed",
            remedy="prepare again with more users, a lower source.min_item_events or fewer new_users, or raise "
            "valid_fraction",
            path=corpus.path,
        )
    return train, valid
