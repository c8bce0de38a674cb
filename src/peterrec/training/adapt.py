"""The verb `adapt`: transfer to a task, or to several together; the pre-trained backbone itself never changes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from peterrec._version import __version__
from peterrec.arguments import checked
from peterrec.artifacts.bundle_io import Bundle, load_bundle, save_bundle
from peterrec.artifacts.hub import artifact_folder
from peterrec.artifacts.tensors import fingerprint
from peterrec.config import AdaptConfig, dump_yaml, with_settings, without_runner
from peterrec.data.batching import EpochStream
from peterrec.data.cache import cached_path, only_maker
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.training.adaptation_run import AdaptationRun, best_line, read_fused
from peterrec.training.callbacks import Curve
from peterrec.training.constant_baseline import useless
from peterrec.training.cross_validation import cross_validate, cross_validation_line, make_folds
from peterrec.training.distributed import on_rank_zero
from peterrec.training.erasure import Erasure
from peterrec.training.initial_bundle import InitialBundle
from peterrec.training.joint import MONITOR, JointModule, metric_in_joint, save_joint_bundles
from peterrec.training.learners import AdaptModule, Learner, StepSource, ValidBatches
from peterrec.training.loop import Plan
from peterrec.training.selection import Selection
from peterrec.training.task_kinds import mean_metrics
from peterrec.training.work_folder import WorkFolder

logger = logging.getLogger(__name__)

OF_ALL_TASKS = ("epoch", "train_loss", MONITOR, "seconds")  # what else stands in a row of a curve


@checked
def adapt(
    backbone: str | Path | UserModel,
    corpus: str | Path | Corpus,
    task: str,
    out: str | Path | None = None,
    config: AdaptConfig | None = None,
    *,
    initial: str | Path | Bundle | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> Bundle:
    """Adapt a backbone to a task of a corpus and write the bundle to `out` (paper, section 3.3).

    The backbone itself never changes: its fingerprint is the same before and after. A strategy that trains parts of it
    trains copies, which are the bundle's own. Early stopping and the choice of the best epoch look at the validation
    users only; where these are too few to choose by (`selection`), at train users, each by a network that did not learn
    from it, and then all train users are trained on up to that epoch.

    Args:
        backbone: a folder written by `pretrain`, or a loaded model.
        corpus: a folder written by `prepare`, or an opened corpus, with the catalogue of the backbone.
        task: name of a task of the corpus.
        out: folder of the bundle; while training, `OUT.training` holds the resume points. None: one in
            `~/.cache/peterrec`, as for `pretrain`.
        config: settings; defaults if not given.
        initial: bundle of the same task whose weights the training begins with, instead of fresh ones: of the backbone,
            or of one that this was grown or continued from. Strategy, patch and readout are those of the bundle;
            `max_length` and `erase`, too, where they are not set. Targets that it lacks start as in a bundle made anew.
        resume: go on with a killed run; the result is the same as without the kill, bit for bit on a CPU.
        overwrite: replace the bundle at `out`.
        callbacks: of Lightning, called while training (docs/tuning.md); an error that one raises ends it.
        settings: of `AdaptConfig`, by name, in place of those of `config`: `strategy="head", optim={"lr": 0.01}`.

    Returns:
        The bundle, as it was written; `UserModel.add_bundle` puts it on the model. Its `metrics` hold `valid`, the
        metrics of the validation users at the best epoch (`best_epoch`, from 0, or -1 where none was better than the
        `start`; `curve` has all epochs); `constant`, those of the answer that is the same for everybody;
        `cross_validation` and `erasure` (what it cost to erase an attribute), if there was one; `initial`, the bundle
        that it went on from, with fingerprints; and `warnings`, a list
        of what is wrong with the choice of the epoch, or with a model that is no better than the constant answer; these
        are logged as warnings, too.

    Raises:
        FingerprintError: the corpus has another catalogue than the backbone, or `initial` is of a backbone that this
            one does not come from.
        TaskError: no such task, a part of it without users, too few users for cross-validation, or no negative can be
            drawn for a user; or another kind of task, other classes or another split than those of `initial`.
        ArtifactError: `out` exists, something cannot be read, or there is an unfinished run that is not to be resumed
            or cannot be.
        ConfigError: settings that do not fit backbone, task or `initial`, or strategy `joint`, which is
            `adapt_jointly`'s.
        TrainingError, InterruptedRun, StorageError: as in `pretrain`.
    """
    config = with_settings(AdaptConfig, config, settings)
    if config.strategy == "joint":
        raise ConfigError("strategy joint trains several tasks at once", remedy="call adapt_jointly with their names")
    if out is not None:
        run = partial(_adapt, backbone, corpus, [task], Path(out), config, callbacks, initial)
        return run(resume=resume, overwrite=overwrite)[task]
    if not isinstance(backbone, UserModel):
        backbone = UserModel.from_pretrained(artifact_folder(backbone, "backbone"))
    model = backbone
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    fused = [fingerprint(bundle.tensors()) for bundle in read_fused(config.fuse, model)]
    fused += [] if initial is None else [InitialBundle.read(initial, model).fingerprint]
    facts = (model.fingerprint, corpus.manifest["fingerprint"], task, dump_yaml(without_runner(config)), *fused)
    path = cached_path("bundle", __version__, *facts)
    with only_maker(path):
        if path.exists() and not overwrite:
            logger.info(f"opening {path}, which was adapted to the same task with the same settings")
            return load_bundle(path, model.network.backbone, model.identity)
        return _adapt(model, corpus, [task], path, config, callbacks, initial, resume=True, overwrite=overwrite)[task]


@checked
def adapt_jointly(
    backbone: str | Path | UserModel,
    corpus: str | Path | Corpus,
    tasks: Sequence[str],
    out: str | Path,
    config: AdaptConfig | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> dict[str, Bundle]:
    """Train one backbone on several tasks together and write a bundle of each to `out/TASK`.

    The multi-task comparator of the paper (section 4.1.2). Each bundle holds a copy of the whole backbone that was
    trained, and works on the pre-trained one like any other bundle, which itself never changes. The best epoch is the
    one where the validation metrics of the tasks, each by its value without looking at users, are best in the mean.

    Args:
        backbone: a folder written by `pretrain`, or a loaded model; `config.joint_init` says whether its weights are
            the start.
        corpus: a folder written by `prepare`, or an opened corpus, with the catalogue of the backbone.
        tasks: names of tasks of the corpus.
        out: folder of the bundles; while training, `OUT.training` holds the resume points.
        config: settings, whose strategy must be `joint`; defaults if not given.
        resume: go on with a killed run; the result is the same as without the kill, bit for bit on a CPU.
        overwrite: replace what a joint training wrote to `out`.
        callbacks: as in `adapt`.
        settings: of `AdaptConfig`, by name, in place of those of `config`.

    Returns:
        The bundle of each task, by name, with `metrics` as those of `adapt`.

    Raises:
        ConfigError: no tasks, or the same twice; or another strategy.
        FingerprintError, TaskError, ArtifactError, TrainingError, InterruptedRun, StorageError: as in `adapt`.
    """
    config = with_settings(AdaptConfig, config or AdaptConfig(strategy="joint"), settings)
    if config.strategy != "joint":
        raise ConfigError(f"strategy {config.strategy} trains one task", remedy="call adapt, once for each task")
    if not tasks or len(set(tasks)) < len(tasks):
        raise ConfigError(f"tasks are {', '.join(tasks) or 'none'}", remedy="name each task once, and at least one")
    return _adapt(backbone, corpus, tasks, Path(out), config, callbacks, resume=resume, overwrite=overwrite)


def _adapt(
    backbone: str | Path | UserModel,
    corpus: str | Path | Corpus,
    tasks: Sequence[str],
    out: Path,
    config: AdaptConfig,
    callbacks: Sequence[Callback],
    initial: str | Path | Bundle | None = None,
    *,
    resume: bool,
    overwrite: bool,
) -> dict[str, Bundle]:
    """Train on tasks together and write their bundles; of a strategy for one task, that bundle is `out` itself."""
    with torch.random.fork_rng(devices=[]):  # layers draw from torch's own generator before we draw from ours
        run = AdaptationRun(backbone, corpus, tasks, out, config, callbacks, initial)
        folds = [] if run.joint else make_folds(run, run.selections[0].folds)
        work = run.open_work_folder(resume=resume, overwrite=overwrite)
        run.log_start()
        plan, cross_validation = _plan(run), None
        if folds:
            logger.info(run.selections[0].line)
            fold_plan = replace(plan, label=f"{tasks[0]} (folds)")
            cross_validation = work.stage("folds", partial(cross_validate, run, folds, fold_plan))
            logger.info(cross_validation_line(cross_validation))
            plan = replace(plan, chosen=cross_validation["best_epoch"])
            del folds
        curve = _train(run, work, plan)
        erasures = run.erase_attribute()
    bundles = {
        learner.task.name: run.new_bundle(
            learner, _metrics(run, learner, curve, selection, cross_validation, erasure), erasure
        )
        for learner, selection, erasure in zip(run.learners, run.selections, erasures, strict=True)
    }
    on_rank_zero(lambda: _save(run, bundles, overwrite=overwrite))
    on_rank_zero(work.remove)
    logger.info(best_line(curve, plan.shown))
    for bundle in bundles.values():
        for warning in bundle.metrics["warnings"]:
            logger.warning(warning)
    return bundles


def _plan(run: AdaptationRun) -> Plan:
    if run.joint:
        deciding = (metric_in_joint(learner.objective.metric_names[0], learner.task.name) for learner in run.learners)
        return Plan.from_config(run.config, "joint", "min", (MONITOR, *deciding))
    task, objective = run.learners[0].task, run.learners[0].objective
    return Plan.from_config(run.config, f"{task.name} ({run.config.strategy})", objective.mode, objective.metric_names)


def _train(run: AdaptationRun, work: WorkFolder, plan: Plan) -> Curve:
    config, learners = run.config, run.learners
    module = JointModule(learners, config) if run.joint else AdaptModule(learners, config, run.cache)
    stream = EpochStream(StepSource.over_tasks(learners), config.batch_size, config.seed)
    curve = run.train(module, stream, ValidBatches.over_tasks(learners, config, run.cache), work, plan)
    for learner in learners:
        learner.parts.head.fold()
    return curve


def _metrics(
    run: AdaptationRun,
    learner: Learner,
    curve: Curve,
    selection: Selection,
    cross_validation: dict[str, Any] | None,
    erasure: Erasure | None,
) -> dict[str, Any]:
    """Return what the bundle of a task says of its training: its own metrics, at the epoch that was best for all."""
    task, names = learner.task, learner.objective.metric_names
    names_in_curve = {metric_in_joint(name, task.name) if run.joint else name: name for name in names}
    rows = [
        {names_in_curve.get(key, key): value for key, value in row.items() if key in (*names_in_curve, *OF_ALL_TASKS)}
        for row in curve.rows
    ]
    valid = {name: curve.best[key] for key, name in names_in_curve.items()}
    metrics: dict[str, Any] = {
        "constant": mean_metrics(learner.objective.constant_sums(learner.valid)),
        **({} if cross_validation is None else {"cross_validation": cross_validation}),
        "start": {} if curve.start is None else {name: curve.start[key] for key, name in names_in_curve.items()},
        "valid": valid if erasure is None else erasure.metrics,
        **({} if erasure is None else {"erasure": erasure.facts}),
        "best_epoch": int(curve.best["epoch"]),
        "monitor": names[0],
        "seed": run.config.seed,
        "curve": rows,
        **({} if run.initial is None else {"initial": run.initial.facts}),
        **({} if not run.fused else {"fused": [bundle.name for bundle in run.fused]}),
        "corpus_fingerprint": run.corpus.manifest["fingerprint"],
    }
    warnings = [*selection.warnings, *useless(learner.objective, task.name, metrics, len(learner.valid))]
    return metrics | {"warnings": warnings}


def _save(run: AdaptationRun, bundles: dict[str, Bundle], *, overwrite: bool) -> None:
    text, fingerprint = dump_yaml(run.config), run.corpus.manifest["fingerprint"]
    if run.joint:
        save_joint_bundles(run.out, bundles, config_yaml=text, corpus_fingerprint=fingerprint, overwrite=overwrite)
        return
    (bundle,) = bundles.values()
    save_bundle(run.out, bundle, config_yaml=text, overwrite=overwrite)
