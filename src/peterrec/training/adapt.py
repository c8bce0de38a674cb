"""The verb `adapt`: transfer to one task, with the backbone frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peterrec.artifacts.bundle_io import Bundle, save_bundle
from peterrec.config import AdaptConfig, dump_yaml
from peterrec.data.batching import EpochStream, FixedBatches, inference_batches, last_events
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.negatives import UniformNegatives
from peterrec.data.sequences import IntArray, Sequences
from peterrec.errors import FingerprintError, TaskError
from peterrec.evaluation.validation import mean_reciprocal_rank
from peterrec.model import UserModel
from peterrec.nn.backbone import Backbone, represent
from peterrec.nn.heads import ClassificationHead
from peterrec.nn.losses import bpr_loss
from peterrec.training.callbacks import Curve, require_finite
from peterrec.training.folder import WorkFolder
from peterrec.training.loop import Plan, TrainedModule, fit
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


class AdaptModule(TrainedModule):
    """Trains patch and head of one task over a frozen backbone (paper, section 3.3)."""

    def __init__(self, backbone: Backbone, trainable: Trainable, config: AdaptConfig, valid: TaskPart) -> None:
        super().__init__(torch.nn.ModuleDict(trainable.groups()), config.optim)
        self.backbone = backbone.requires_grad_(False)
        self.parts = trainable
        self.config = config
        self.valid = valid
        self._sums: list[tuple[dict[str, float], int]] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return cross-entropy, or BPR over the (user, positive, negatives) pairs of the batch."""
        vectors, head = self._represent(batch["tokens"]), self.parts.head
        if isinstance(head, ClassificationHead):
            return torch.nn.functional.cross_entropy(head(vectors), batch["labels"])
        users = vectors[batch["user"]]  # (P, C)
        candidates = torch.cat([batch["positive"].unsqueeze(1), batch["negatives"]], dim=1)
        scores = head.score(users, candidates)  # (P, 1 + M)
        return bpr_loss(scores[:, 0], scores[:, 1:])

    def _represent(self, tokens: Tensor) -> Tensor:
        if self.parts.patch is None:
            with torch.no_grad():
                return represent(self.backbone, tokens)
        return represent(self.backbone, tokens, self.parts.patch)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add up the metrics of some validation users."""
        vectors = self._represent(batch["tokens"])
        with self.full_precision():
            scores = self.parts.head(vectors.float()).cpu()
        require_finite(scores, "the scores of validation users", self.current_epoch)
        self._sums.append(metric_sums(scores, self.valid, batch["rows"].cpu().numpy()))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all validation users."""
        count = sum(n for _, n in self._sums)
        names = self._sums[0][0]
        self.log_dict({name: sum(sums[name] for sums, _ in self._sums) / count for name in names})
        self._sums.clear()


def metric_sums(scores: Tensor, part: TaskPart, rows: IntArray) -> tuple[dict[str, float], int]:
    """Return the sums of the validation metrics over the given rows of a part, and how many were added up.

    Log-loss and accuracy of users; or, for ranking, the reciprocal rank of (user, target) pairs in the whole ranking.
    What decides the best epoch moves with every user (log-loss, untruncated MRR): the validation users are few.

    Args:
        scores: (rows, outputs).
        part: validation users.
        rows: which of them.
    """
    if part.labels is not None:
        labels = torch.from_numpy(part.labels[rows])
        loss = torch.nn.functional.cross_entropy(scores.double(), labels, reduction="sum")
        return {"log_loss": float(loss), "accuracy": float((scores.argmax(1) == labels).sum())}, len(rows)
    assert part.targets is not None
    targets = part.targets.take(rows)
    pairs = len(targets.items)
    return {"mrr": mean_reciprocal_rank([scores.numpy()], targets) * pairs}, pairs


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
        TaskError: no such task, a part of it without users, or no negative can be drawn for a user.
        ArtifactError: `out` exists, something cannot be read, or there is an unfinished run that is not to be resumed
            or cannot be.
        ConfigError, TrainingError, InterruptedRun, StorageError: as in `pretrain`.
    """
    config, out = config or AdaptConfig(), Path(out)
    say = report or (lambda line: None)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    with torch.random.fork_rng(devices=[]):  # layers draw from torch's own generator before we draw from ours
        model = backbone if isinstance(backbone, UserModel) else UserModel.from_pretrained(backbone)
        _same_catalogue(model, corpus)
        spec = corpus.task(task)
        train, valid = _parts(spec)
        trainable = build(config, model.network.backbone, spec, train)
        source = TaskSource(train, config.max_length, config.negatives, len(spec.targets) if spec.targets else 0)
        inputs = {"corpus": corpus.manifest["fingerprint"], "backbone": model.fingerprint, "task": task}
        work = WorkFolder(out, config, inputs, resume=resume, overwrite=overwrite, kind="bundle")
        users = f"{len(train):,} users, {len(valid):,} to validate"
        say(f"adapting to {task!r} with strategy {config.strategy!r} on {users}")
        plan, counts = _plan(spec, config), trainable.count()
        everything = sum(p.numel() for p in model.network.parameters()) + sum(counts.values())
        say(trainable_line(counts, everything))
        curve = _train(model, AdaptModule(model.network.backbone, trainable, config, valid), source, work, plan)
    bundle = _bundle(spec, trainable, config, model, everything, _metrics(curve, plan, corpus))
    save_bundle(out, bundle, config_yaml=dump_yaml(config), overwrite=overwrite)
    work.remove()
    say(_best_line(curve, plan))
    return bundle


def _metrics(curve: Curve, plan: Plan, corpus: Corpus) -> dict[str, Any]:
    return {
        "valid": {name: curve.best[name] for name in plan.shown},
        "best_epoch": int(curve.best["epoch"]),
        "monitor": curve.monitor,
        "curve": curve.rows,
        "corpus_fingerprint": corpus.manifest["fingerprint"],
    }


def _parts(spec: Task) -> tuple[TaskPart, TaskPart]:
    train, valid = spec.part("train"), spec.part("valid")
    if len(train) == 0 or len(valid) == 0:
        raise TaskError(
            f"has {len(train)} users to train on and {len(valid)} to validate; both are needed",
            remedy="label more users, or raise split.train or split.valid, and prepare again",
            path=spec.path,
        )
    return train, valid


def _train(model: UserModel, module: AdaptModule, source: TaskSource, work: WorkFolder, plan: Plan) -> Curve:
    config = module.config
    before = model.pretrained.fingerprint
    try:
        stream = EpochStream(source, config.batch_size, config.seed)
        curve = fit(module, stream, _valid_batches(module.valid, config.max_length), work, plan, config.runner)
    finally:
        model.network.to(model.device)  # Lightning leaves everything on the CPU
    if model.pretrained.fingerprint != before:
        raise FingerprintError("the frozen backbone changed while adapting", remedy="report this as a bug")
    module.trained.eval().requires_grad_(False)
    return curve


def trainable_line(counts: dict[str, int], everything: int) -> str:
    """Return the line `trainable params: ... || all params: ... || trainable%: ...`, with the groups behind it."""
    total = sum(counts.values())
    groups = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    share = 100 * total / everything
    return f"trainable params: {total:,} || all params: {everything:,} || trainable%: {share:.4f} ({groups})"


def _best_line(curve: Curve, plan: Plan) -> str:
    metrics = ", ".join(f"{name} {curve.best[name]:.4f}" for name in plan.shown)
    return f"best epoch {int(curve.best['epoch']) + 1}: {metrics}"


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
    return Plan(
        label=f"{spec.name} ({config.strategy})",
        monitor=shown[0],
        mode="max" if ranking else "min",
        epochs=config.epochs,
        patience=config.patience,
        checkpoint_every=config.checkpoint_every,
        clip_norm=config.optim.clip_norm,
        shown=shown,
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
