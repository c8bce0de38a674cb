"""The verb `adapt`: transfer to one task; the pre-trained backbone itself never changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peterrec.arguments import checked
from peterrec.artifacts.bundle_io import Bundle, save_bundle
from peterrec.config import AdaptConfig, dump_yaml
from peterrec.data.batching import EpochStream, FixedBatches
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.nn.readout import represent
from peterrec.training.activation_cache import TrunkCache, ValidStates
from peterrec.training.callbacks import require_finite
from peterrec.training.constant import constant_metrics, useless
from peterrec.training.cross_validation import cross_validate, cross_validation_line, make_folds
from peterrec.training.folder import WorkFolder
from peterrec.training.loop import Plan, TrainedModule
from peterrec.training.selection import select_by
from peterrec.training.strategies import Trainable, build
from peterrec.training.task_loss import Sums, TaskLoss, add_up, class_weights, metric_names, metric_sums
from peterrec.training.task_reader import TaskReader
from peterrec.training.task_source import VALID_BATCH, Batch, TaskSource, valid_batches
from peterrec.training.transfer import (
    best_line,
    load_model,
    metrics_of,
    new_bundle,
    parts_of,
    say_result,
    standardise,
    train,
    trainable_line,
)


class AdaptModule(TrainedModule):
    """Trains what a strategy trains on one task (paper, section 3.3)."""

    def __init__(
        self, trainable: Trainable, loss: TaskLoss, config: AdaptConfig, valid: TaskPart, cache: TrunkCache | None
    ) -> None:
        super().__init__(trainable.modules(), config.optim)
        self.backbone = trainable.backbone  # moved between devices with the rest; frozen, but for what is trained
        self.reader = TaskReader(trainable, config, None if cache is None else cache.trunk)
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
        loss: Tensor = self.loss(self.parts.head, self.reader(batch), batch)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add up the metrics of some validation users."""
        vectors = self.reader(batch)
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
    users only; where these are too few to choose by (`selection`), at train users, each by a network that did not learn
    from it, and then all train users are trained on up to that epoch.

    `metrics` of the bundle holds `valid`, the metrics of the validation users; `constant`, those of the answer that is
    the same for everybody; `cross_validation`, if there was one; and `warnings`, a list of what is wrong with the
    choice, or with a model that is no better than the constant answer. They are the last lines of the report.

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
        TaskError: no such task, a part of it without users, too few users for cross-validation, or no negative can be
            drawn for a user.
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
        model = load_model(backbone, corpus, [task], say)
        spec = corpus.task(task)
        users, valid = parts_of(spec)
        module, stream = _build_module(config, spec, users, valid, model)
        parts, cache, weights = module.parts, module.cache, module.loss.weights
        selection = select_by(config, spec, users, valid)
        folds = make_folds(config, spec, users, selection.folds, model, cache)
        inputs = {"corpus": corpus.manifest["fingerprint"], "backbone": model.fingerprint, "task": task}
        work = WorkFolder(out, config, inputs, resume=resume, overwrite=overwrite, kind="bundle")
        _say_start(say, config, spec, f"{len(users):,} users, {len(valid):,} to validate", cache)
        bundle = new_bundle(
            spec, config, model,
            head=parts.head, patch=parts.patch, backbone=parts.backbone, own=parts.own, trained=parts.counts(),
        )  # fmt: skip
        say(trainable_line(bundle.trained, bundle.all_params))
        shown, mode = metric_names(spec), "max" if spec.kind == "ranking" else "min"
        plan = Plan.of(config, f"{spec.name} ({config.strategy})", mode, shown)
        metrics: dict[str, Any] = {"constant": constant_metrics(spec, users, valid, weights)}
        if selection.folds:
            say(selection.line)
            of_folds = replace(plan, label=f"{spec.name} (folds)")
            held_out = work.stage("folds", partial(cross_validate, model, folds, users, config, cache, of_folds))
            say(cross_validation_line(held_out))
            plan, metrics["cross_validation"] = replace(plan, chosen=held_out["best_epoch"]), held_out
            del folds
        curve = train(model, module, stream, module.valid_batches(), work, plan, config)
    parts.head.fold()
    metrics |= metrics_of(curve, plan.shown, corpus)
    metrics["warnings"] = [*selection.warnings, *useless(spec.name, metrics, len(valid), config)]
    bundle = replace(bundle, metrics=metrics)
    save_bundle(out, bundle, config_yaml=dump_yaml(config), overwrite=overwrite)
    work.remove()
    say_result(say, best_line(curve, plan.shown), metrics["warnings"])
    return bundle


def _build_module(
    config: AdaptConfig, spec: Task, users: TaskPart, valid: TaskPart, model: UserModel
) -> tuple[AdaptModule, EpochStream[Batch]]:
    """Return what is trained, and the batches of users that it is trained on."""
    parts = build(config, model.network.backbone, spec, users)
    cache = TrunkCache.of(config, parts, users.sequences, valid.sequences)
    parts.modules().to(model.device)  # Lightning would do it too, but later
    parts.backbone.to(model.device)
    standardise(parts.head, config, users, partial(represent, parts.backbone, patch=parts.patch), model.device)
    weights = class_weights(config, spec, users)
    module = AdaptModule(parts, TaskLoss(config, weights), config, valid, cache)
    source = TaskSource(spec, users, config, cache.train if cache is not None else None)
    stream = EpochStream(source, config.batch_size, config.seed)
    return module, stream


def _say_start(say: Callable[[str], None], config: AdaptConfig, spec: Task, who: str, cache: TrunkCache | None) -> None:
    say(f"adapting to {spec.name!r} with strategy {config.strategy!r} on {who}")
    if config.class_weights is not None and spec.kind == "ranking":
        say(f"class_weights are not used: {spec.name!r} is a ranking task")
    if cache is not None:
        say(cache.line)
