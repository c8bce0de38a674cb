"""The verb `adapt`: transfer to one task; the pre-trained backbone itself never changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from peterrec.arguments import checked
from peterrec.artifacts.bundle_io import Bundle, save_bundle
from peterrec.config import AdaptConfig, dump_yaml
from peterrec.data.batching import EpochStream, FixedBatches
from peterrec.data.corpus import Corpus, TaskPart
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.nn.tokens import represent
from peterrec.training.callbacks import require_finite
from peterrec.training.folder import WorkFolder
from peterrec.training.loop import Plan, TrainedModule, as_asked
from peterrec.training.strategies import Trainable, build
from peterrec.training.task_loss import Sums, TaskLoss, add_up, class_weights, metric_names, metric_sums
from peterrec.training.task_source import VALID_BATCH, Batch, TaskSource, valid_batches
from peterrec.training.transfer import (
    best_line,
    metrics_of,
    new_bundle,
    parts_of,
    same_catalogue,
    standardise,
    train,
    trainable_line,
)
from peterrec.training.trunk import TrunkCache, ValidStates


class AdaptModule(TrainedModule):
    """Trains what a strategy trains on one task (paper, section 3.3)."""

    def __init__(
        self, trainable: Trainable, loss: TaskLoss, config: AdaptConfig, valid: TaskPart, cache: TrunkCache | None
    ) -> None:
        super().__init__(trainable.modules(), config.optim)
        self.backbone = trainable.backbone  # moved between devices with the rest; frozen, but for what is trained
        lengths = (config.max_length + 1, config.max_length + 2)  # with [TCL] at the end, or at both
        self.reader = as_asked(trainable.backbone, config.runner, config.batch_size, lengths)
        self.parts = trainable
        self.loss = loss
        self.config = config
        self.valid = valid
        self.cache = cache
        self._sums: list[Sums] = []

    def on_train_start(self) -> None:
        """Compute what is kept of each user, now that the backbone is on its device; again when resumed."""
        if self.cache is not None:
            with self.trainer.precision_plugin.forward_context():
                self.cache.fill(self.device, Path(self.trainer.default_root_dir))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the mean loss of the batch."""
        loss: Tensor = self.loss(self.parts.head, self._represent(batch), batch)
        return loss

    def _represent(self, batch: dict[str, Tensor]) -> Tensor:
        if self.cache is not None:
            return self.cache.trunk.above(batch["states"], batch.get("keep"), self.parts.patch)
        return represent(self.reader, batch["tokens"], self.parts.patch, self.config.readout)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add up the metrics of some validation users."""
        vectors = self._represent(batch)
        with self.full_precision():
            scores = self.parts.head(vectors.float()).cpu()
        require_finite(scores, "the scores of validation users", self.current_epoch)
        self._sums.append(metric_sums(scores, self.valid, batch["rows"].cpu().numpy(), self.loss.weights))

    def valid_batches(self) -> FixedBatches[Batch] | ValidStates:
        """Return the batches of validation users."""
        if self.cache is not None:
            return ValidStates(self.cache.valid, VALID_BATCH)
        return valid_batches(self.valid, self.config.max_length)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all validation users."""
        self.log_dict(add_up(self._sums))
        self._sums.clear()


@checked
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

    The backbone itself never changes: its fingerprint is the same before and after. A strategy that trains parts of it
    trains copies, which are the bundle's own. Early stopping and the choice of the best epoch look at the validation
    users only.

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
        ConfigError: settings that do not fit backbone or task, or strategy `joint`, which is `adapt_jointly`'s.
        TrainingError, InterruptedRun, StorageError: as in `pretrain`.
    """
    config, out = config or AdaptConfig(), Path(out)
    if config.strategy == "joint":
        raise ConfigError("strategy joint trains several tasks at once", remedy="call adapt_jointly with their names")
    say = report or (lambda line: None)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    with torch.random.fork_rng(devices=[]):  # layers draw from torch's own generator before we draw from ours
        model = backbone if isinstance(backbone, UserModel) else UserModel.from_pretrained(backbone)
        same_catalogue(model, corpus)
        spec = corpus.task(task)
        users, valid = parts_of(spec)
        parts = build(config, model.network.backbone, spec, users)
        cache = TrunkCache.of(config, parts, users.sequences, valid.sequences)
        parts.modules().to(model.device)  # Lightning would do it too, but later
        parts.backbone.to(model.device)
        standardise(parts.head, config, users, partial(represent, parts.backbone, patch=parts.patch), model.device)
        module = AdaptModule(parts, TaskLoss(config, class_weights(config, spec, users)), config, valid, cache)
        source = TaskSource(spec, users, config, cache.train if cache is not None else None)
        stream = EpochStream(source, config.batch_size, config.seed)
        inputs = {"corpus": corpus.manifest["fingerprint"], "backbone": model.fingerprint, "task": task}
        work = WorkFolder(out, config, inputs, resume=resume, overwrite=overwrite, kind="bundle")
        who = f"{len(users):,} users, {len(valid):,} to validate"
        say(f"adapting to {task!r} with strategy {config.strategy!r} on {who}")
        if config.class_weights is not None and spec.kind == "ranking":
            say(f"class_weights are not used: {task!r} is a ranking task")
        if cache is not None:
            say(cache.line)
        bundle = new_bundle(
            spec, config, model,
            head=parts.head, patch=parts.patch, backbone=parts.backbone, own=parts.own, trained=parts.counts(),
        )  # fmt: skip
        say(trainable_line(bundle.trained, bundle.all_params))
        shown, mode = metric_names(spec), "max" if spec.kind == "ranking" else "min"
        plan = Plan.of(config, f"{spec.name} ({config.strategy})", mode, shown)
        curve = train(model, module, stream, module.valid_batches(), work, plan, config)
    parts.head.fold()
    bundle = replace(bundle, metrics=metrics_of(curve, plan.shown, corpus))
    save_bundle(out, bundle, config_yaml=dump_yaml(config), overwrite=overwrite)
    work.remove()
    say(best_line(curve, plan.shown))
    return bundle
