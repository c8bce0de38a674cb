"""The verb `adapt`: transfer to one task, with the backbone frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from peterrec.artifacts.bundle_io import Bundle, save_bundle
from peterrec.config import AdaptConfig, dump_yaml
from peterrec.data.batching import EpochStream, FixedBatches, inference_batches, last_events
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.negatives import UniformNegatives
from peterrec.data.sequences import IntArray, Sequences
from peterrec.errors import FingerprintError
from peterrec.evaluation.validation import mean_reciprocal_rank
from peterrec.model import UserModel
from peterrec.nn.backbone import Backbone, represent
from peterrec.nn.heads import ClassificationHead
from peterrec.nn.losses import bpr_loss
from peterrec.training.loop import Plan, WorkFolder, fit
from peterrec.training.optim import make_optimizer, make_schedule
from peterrec.training.strategies import Trainable, build

VALID_BATCH = 256


class TaskSource:
    """Batches of labelled users: tokens, and either labels or (user, positive, negatives) pairs."""

    def __init__(self, part: TaskPart, max_length: int, negatives: int, items: int) -> None:
        self.part = part
        self.max_length = max_length
        self.negatives = negatives
        self.sampler = UniformNegatives(part.targets, items) if part.targets is not None else None

    @property
    def lengths(self) -> IntArray:
        """(users,) events read of each user."""
        return np.minimum(self.part.sequences.lengths, self.max_length)

    def batch(self, rows: IntArray, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return `tokens` (B, W) with `labels` (B,), or with `user`, `positive` (P,) and `negatives` (P, M)."""
        out: dict[str, Any] = {"tokens": last_events(self.part.sequences, rows, self.max_length)}
        if self.part.labels is not None:
            out["labels"] = self.part.labels[rows]
        else:
            assert self.part.targets is not None
            assert self.sampler is not None
            targets: Sequences = self.part.targets.take(rows)
            out["user"] = targets.repeat()
            out["positive"] = targets.items.astype(np.int64)
            out["negatives"] = self.sampler.sample(rows[out["user"]], self.negatives, rng)
        return {name: torch.from_numpy(value) for name, value in out.items()}


class AdaptModule(LightningModule):
    """Trains patch and head of one task over a frozen backbone (paper, section 3.3)."""

    def __init__(self, backbone: Backbone, trainable: Trainable, config: AdaptConfig, valid: TaskPart) -> None:
        super().__init__()
        self.strict_loading = False  # checkpoints hold what is trained; the frozen backbone is never copied
        self.backbone = backbone.requires_grad_(False)
        self.trainable = torch.nn.ModuleDict(trainable.groups())
        self.patch = trainable.patch
        self.head = trainable.head
        self.config = config
        self.valid = valid
        self._outputs: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return cross-entropy, or BPR over the (user, positive, negatives) pairs of the batch."""
        vectors = self._represent(batch["tokens"])
        if isinstance(self.head, ClassificationHead):
            return torch.nn.functional.cross_entropy(self.head(vectors), batch["labels"])
        users = vectors[batch["user"]]  # (P, C)
        candidates = torch.cat([batch["positive"].unsqueeze(1), batch["negatives"]], dim=1)
        scores = self.head.score(users, candidates)  # (P, 1 + M)
        return bpr_loss(scores[:, 0], scores[:, 1:])

    def _represent(self, tokens: Tensor) -> Tensor:
        if self.patch is None:
            with torch.no_grad():
                return represent(self.backbone, tokens)
        return represent(self.backbone, tokens, self.patch)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Collect the scores of the validation users."""
        self._outputs.append((batch["rows"].cpu(), self.head(self._represent(batch["tokens"])).float().cpu()))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation users."""
        rows = torch.cat([rows for rows, _ in self._outputs])
        scores = torch.cat([scores for _, scores in self._outputs])[rows.argsort()]
        self._outputs.clear()
        self.log_dict(valid_metrics(scores, self.valid), sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen backbone out."""
        checkpoint["state_dict"] = self.trainable.state_dict(prefix="trainable.")

    def configure_optimizers(self) -> Any:
        """AdamW over patch and head with the configured schedule, stepped every batch."""
        optimizer = make_optimizer(self.trainable.parameters(), self.config.optim)
        schedule = make_schedule(optimizer, self.config.optim, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def valid_metrics(scores: Tensor, part: TaskPart) -> dict[str, float]:
    """Return the validation metrics of (N, outputs) scores.

    Log-loss and accuracy; or, for ranking, MRR over the whole ranking. What decides the best epoch moves
    with every user (log-loss, untruncated MRR): the validation users are few.
    """
    if part.labels is not None:
        labels = torch.from_numpy(part.labels)
        loss = torch.nn.functional.cross_entropy(scores, labels)
        return {"log_loss": float(loss), "accuracy": float((scores.argmax(1) == labels).double().mean())}
    assert part.targets is not None
    return {"mrr": mean_reciprocal_rank([scores.numpy()], part.targets)}


def adapt(
    backbone: str | Path | UserModel,
    corpus: str | Path | Corpus,
    task: str,
    out: str | Path,
    config: AdaptConfig | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    report: Callable[[str], None] | None = None,
) -> Bundle:
    """Adapt a backbone to a task of a corpus and write the bundle to `out` (paper, section 3.3).

    The backbone is frozen: its fingerprint is the same before and after. Early stopping and the choice of the best
    epoch look at the validation users only.

    Args:
        backbone: a folder written by `pretrain`, or a loaded model.
        corpus: a folder written by `prepare`, with the catalogue of the backbone.
        task: name of a task of the corpus.
        out: folder of the bundle.
        config: defaults if not given.
        resume: go on with a killed run.
        overwrite: replace what is at `out`.
        report: receives lines about what is done.

    Raises:
        FingerprintError: the corpus has another catalogue than the backbone.
        TaskError: no such task, or no negative can be drawn for a user.
        ArtifactError: `out` exists, or something cannot be read.
        TrainingError, InterruptedRun: as in `pretrain`.
    """
    config, out = config or AdaptConfig(), Path(out)
    say = report or (lambda line: None)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    model = backbone if isinstance(backbone, UserModel) else UserModel.from_pretrained(backbone)
    _same_catalogue(model, corpus)
    spec = corpus.task(task)
    train, valid = spec.part("train"), spec.part("valid")
    before = model.pretrained.fingerprint
    trainable = build(config, model.network.backbone, spec, train)
    counts = trainable.count()
    everything = sum(p.numel() for p in model.network.parameters()) + sum(counts.values())
    source = TaskSource(train, config.max_length, config.negatives, len(spec.targets) if spec.targets else 0)
    work = WorkFolder(out, config, resume=resume, overwrite=overwrite)
    say(f"adapting to {task!r} with strategy {config.strategy!r} on {len(train):,} users, {len(valid):,} to validate")
    say(trainable_line(counts, everything))
    module = AdaptModule(model.network.backbone, trainable, config, valid)
    plan = _plan(spec, config)
    stream = EpochStream(source, config.batch_size, config.seed)
    curve = fit(module, stream, _valid_batches(valid, config.max_length), work, plan, config.runner)
    model.network.to(model.device)
    if model.pretrained.fingerprint != before:
        raise FingerprintError("the frozen backbone changed while adapting", remedy="report this as a bug", path=out)
    best = (min if plan.mode == "min" else max)(curve, key=lambda row: row[plan.monitor])
    shown = {name: best[name] for name in plan.shown}
    bundle = _bundle(
        spec,
        trainable,
        config,
        model,
        everything,
        {
            "valid": shown,
            "best_epoch": int(best["epoch"]),
            "monitor": plan.monitor,
            "curve": curve,
            "corpus_fingerprint": corpus.manifest["fingerprint"],
        },
    )
    save_bundle(out, bundle, config_yaml=dump_yaml(config), overwrite=overwrite)
    work.remove()
    say(f"best epoch {int(best['epoch']) + 1}: " + ", ".join(f"{k} {v:.4f}" for k, v in shown.items()))
    return bundle


def trainable_line(counts: dict[str, int], everything: int) -> str:
    """Return the line `trainable params: ... || all params: ... || trainable%: ...`, with the groups behind it."""
    total = sum(counts.values())
    groups = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    share = 100 * total / everything
    return f"trainable params: {total:,} || all params: {everything:,} || trainable%: {share:.4f} ({groups})"


def _same_catalogue(model: UserModel, corpus: Corpus) -> None:
    if corpus.catalogue.fingerprint != model.catalogue.fingerprint:
        raise FingerprintError(
            f"its catalogue is {corpus.catalogue.fingerprint}, the backbone's is {model.catalogue.fingerprint}",
            remedy="prepare this data with the backbone's catalogue (prepare --catalogue BACKBONE), or pre-train anew",
            path=corpus.path,
        )


def _plan(spec: Task, config: AdaptConfig) -> Plan:
    ranking = spec.kind == "ranking"
    shown = ("mrr",) if ranking else ("log_loss", "accuracy")
    mode = "max" if ranking else "min"
    label = f"{spec.name} ({config.strategy})"
    return Plan(
        label, shown[0], mode, config.epochs, config.patience, config.checkpoint_every, config.optim.clip_norm, shown
    )


def _valid_batches(valid: TaskPart, max_length: int) -> FixedBatches[dict[str, Tensor]]:
    batches = inference_batches(valid.sequences, VALID_BATCH, max_length)
    return FixedBatches([{"rows": torch.from_numpy(r), "tokens": torch.from_numpy(t)} for r, t in batches])


def _bundle(
    spec: Task, trainable: Trainable, config: AdaptConfig, model: UserModel, everything: int, metrics: dict[str, Any]
) -> Bundle:
    return Bundle(
        name=spec.name,
        kind=spec.kind,
        strategy=config.strategy,
        patch=trainable.patch,
        patch_config=config.patch if trainable.patch is not None else None,
        head=trainable.head,
        class_names=spec.class_names,
        targets=spec.targets,
        max_length=config.max_length,
        backbone_fingerprint=model.fingerprint,
        catalogue_fingerprint=model.catalogue.fingerprint,
        all_params=everything,
        metrics=metrics,
    )
