"""Strategy `joint`: one backbone trained on several tasks together (what the paper compares with as MTL)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from peterrec._version import __version__
from peterrec.arguments import checked
from peterrec.artifacts.bundle_io import Bundle, save_bundle
from peterrec.artifacts.tensors import fingerprint
from peterrec.config import AdaptConfig, dump_yaml
from peterrec.data.batching import EpochStream, FixedBatches
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.sequences import IntArray
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.nn.backbone import Backbone
from peterrec.nn.heads import ClassificationHead, ItemHead
from peterrec.nn.readout import represent, representation_width
from peterrec.storage import FORMAT_VERSION, new_folder, write_file, write_json
from peterrec.training.callbacks import Curve, require_finite
from peterrec.training.constant import constant_metrics, useless
from peterrec.training.folder import WorkFolder
from peterrec.training.loop import Plan, TrainedModule, as_asked
from peterrec.training.selection import select_jointly
from peterrec.training.strategies import build_head, count_parameters, fork, group_counts
from peterrec.training.task_loss import Sums, TaskLoss, add_up, class_weights, metric_names, metric_sums
from peterrec.training.task_source import Batch, TaskSource, valid_batches
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

MONITOR = "relative"


@dataclass(frozen=True)
class JointTask:
    """One of the tasks: its users, head and loss, and how good its validation metric is without looking at users."""

    spec: Task
    source: TaskSource
    valid: TaskPart
    head: ClassificationHead | ItemHead
    loss: TaskLoss
    start: float

    @property
    def metric(self) -> str:
        """What decides for this task alone."""
        return metric_names(self.spec)[0]

    def relative(self, value: float) -> float:
        """Return the metric by its start: below 1 is better than without looking at users, whatever the kind."""
        return self.start / value if self.metric == "mrr" else value / self.start


class JointSource:
    """Batches with users of all tasks: every labelled user of every task stands in an epoch once."""

    def __init__(self, tasks: Sequence[JointTask]) -> None:
        self.sources = [task.source for task in tasks]
        self.lengths: IntArray = np.concatenate([source.lengths for source in self.sources])
        self._ends = np.cumsum([len(source.lengths) for source in self.sources])

    def batch(self, rows: IntArray, rng: np.random.Generator) -> dict[str, Batch]:
        """Return a batch of each task that some of the rows are of, by the number of the task."""
        which = np.searchsorted(self._ends, rows, side="right")
        starts = self._ends - [len(source.lengths) for source in self.sources]
        return {
            str(i): self.sources[i].batch(rows[which == i] - starts[i], rng) for i in np.unique(which).tolist()
        }  # fmt: skip


class JointModule(TrainedModule):
    """Trains one backbone and the heads of all tasks; a task weighs as many users as it has in the batch."""

    def __init__(self, backbone: Backbone, trained: nn.ModuleDict, tasks: Sequence[JointTask], config: AdaptConfig):
        super().__init__(trained, config.optim)
        self.backbone = backbone
        lengths = (config.max_length + 1, config.max_length + 2)
        self.reader = as_asked(backbone, config.runner, config.batch_size, lengths)
        self.readout = config.readout
        self.tasks = tasks
        self.losses = nn.ModuleList(task.loss for task in tasks)
        self._sums: list[list[Sums]] = [[] for _ in tasks]

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Return the mean of the tasks' losses, weighted by their users in the batch."""
        users = {name: len(of["tokens"]) for name, of in batch.items()}
        losses = [
            self.losses[int(name)](self.tasks[int(name)].head, self._represent(of), of) * users[name]
            for name, of in batch.items()
        ]
        return torch.stack(losses).sum() / sum(users.values())

    def _represent(self, batch: Batch) -> Tensor:
        return represent(self.reader, batch["tokens"], None, self.readout)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add up the metrics of some validation users of one task."""
        task = self.tasks[int(batch["task"])]
        vectors = self._represent(batch)
        with self.full_precision():
            scores = task.head(vectors.float()).cpu()
        require_finite(scores, "the scores of validation users", self.current_epoch)
        rows = batch["rows"].cpu().numpy()
        self._sums[int(batch["task"])].append(metric_sums(scores, task.valid, rows, task.loss.weights))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of each task, as `METRIC (TASK)`, and the mean of them relative to their start."""
        metrics = [add_up(sums) for sums in self._sums]
        relative = [task.relative(of[task.metric]) for task, of in zip(self.tasks, metrics, strict=True)]
        named = {
            f"{name} ({task.spec.name})": value
            for task, of in zip(self.tasks, metrics, strict=True)
            for name, value in of.items()
        }
        self.log_dict({MONITOR: float(np.mean(relative)), **named})
        self._sums = [[] for _ in self.tasks]


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
    report: Callable[[str], None] | None = None,
) -> dict[str, Bundle]:
    """Train one backbone on several tasks together and write a bundle of each to `out/TASK`.

    The multi-task comparator of the paper (section 4.1.2). Each bundle holds a copy of the whole backbone that was
    trained, and works on the pre-trained one like any other bundle, which itself never changes. The best epoch is the
    one where the validation metrics of the tasks, each by its value without looking at users, are best in the mean.

    Args:
        backbone: a folder written by `pretrain`, or a loaded model; `config.joint_init` says whether its weights are
            the start.
        corpus: a folder written by `prepare`, with the catalogue of the backbone.
        tasks: names of tasks of the corpus.
        out: folder of the bundles.
        config: its strategy must be `joint`; defaults if not given.
        resume: go on with a killed run.
        overwrite: replace what a joint training wrote to `out`.
        report: receives lines about what is done; the last ones are the warnings in the `metrics` of the bundles.

    Raises:
        ConfigError: no tasks, or the same twice; or another strategy.
        FingerprintError, TaskError, ArtifactError, TrainingError, InterruptedRun, StorageError: as in `adapt`.
    """
    config, out = config or AdaptConfig(strategy="joint"), Path(out)
    _check(config, tasks)
    say = report or (lambda line: None)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    with torch.random.fork_rng(devices=[]):
        model = load_model(backbone, corpus, tasks, say)
        generator = torch.Generator().manual_seed(config.seed)
        all_tasks = [_task(corpus.task(name), config, model, generator) for name in tasks]
        network, own = fork(config, model.network.backbone)
        assert own is not None
        ours, heads = network.modules_of(own), [task.head for task in all_tasks]
        trained = nn.ModuleDict({"backbone": ours, "heads": nn.ModuleList(heads)})
        inputs = {"corpus": corpus.manifest["fingerprint"], "backbone": model.fingerprint, "tasks": ",".join(tasks)}
        work = WorkFolder(out, config, inputs, resume=resume, overwrite=overwrite, kind="joint")
        if config.selection == "cross-validation":
            say("selection cross-validation is not used: the valid users of all tasks choose the epoch together")
        _say_start(say, all_tasks)
        total = count_parameters(model.network) + sum(map(count_parameters, heads))
        say(trainable_line(group_counts(ours, None, list(heads)), total))
        network.to(model.device)  # Lightning would do it too, but later
        for task in all_tasks:
            standardise(task.head, config, task.source.part, partial(represent, network), model.device)
        module = JointModule(network, trained, all_tasks, config)
        stream = EpochStream(JointSource(all_tasks), config.batch_size, config.seed)
        shown = (MONITOR, *(f"{task.metric} ({task.spec.name})" for task in all_tasks))
        plan = Plan.of(config, "joint", "min", shown)
        curve = train(model, module, stream, _valid(all_tasks, config), work, plan, config)
    bundles: dict[str, Bundle] = {}
    for task in all_tasks:
        task.head.fold()
        bundle = new_bundle(
            task.spec, config, model,
            head=task.head, patch=None, backbone=network, own=own, trained=group_counts(ours, None, [task.head]),
        )  # fmt: skip
        bundles[task.spec.name] = replace(bundle, metrics=_metrics(curve, task, corpus, config))
    _write(out, bundles, config, model, corpus, overwrite=overwrite)
    work.remove()
    warnings = [warning for bundle in bundles.values() for warning in bundle.metrics["warnings"]]
    say_result(say, best_line(curve, plan.shown), warnings)
    return bundles


def _say_start(say: Callable[[str], None], tasks: Sequence[JointTask]) -> None:
    names = ", ".join(repr(task.spec.name) for task in tasks)
    users = " + ".join(f"{len(task.source.lengths):,}" for task in tasks)
    say(f"adapting to {names} jointly on {users} users")


def _check(config: AdaptConfig, tasks: Sequence[str]) -> None:
    if config.strategy != "joint":
        raise ConfigError(f"strategy {config.strategy} trains one task", remedy="call adapt, once for each task")
    if not tasks or len(set(tasks)) < len(tasks):
        raise ConfigError(f"tasks are {', '.join(tasks) or 'none'}", remedy="name each task once, and at least one")


def _task(spec: Task, config: AdaptConfig, model: UserModel, generator: torch.Generator) -> JointTask:
    users, valid = parts_of(spec)
    width = representation_width(model.network.backbone.config.channels, config.readout)
    head = build_head(spec, users, width, generator)
    loss = TaskLoss(config, class_weights(config, spec, users))
    blind = head.bias.detach().expand(len(valid), -1)  # what the head says of anybody
    found = add_up([metric_sums(blind.clone(), valid, np.arange(len(valid)), loss.weights)])
    start = found[metric_names(spec)[0]]
    return JointTask(spec, TaskSource(spec, users, config), valid, head, loss, start)


def _valid(tasks: Sequence[JointTask], config: AdaptConfig) -> FixedBatches[Batch]:
    return FixedBatches(
        [
            {**batch, "task": torch.tensor(number)}
            for number, task in enumerate(tasks)
            for batch in valid_batches(task.valid, config.max_length)
        ]
    )


def _metrics(curve: Curve, task: JointTask, corpus: Corpus, config: AdaptConfig) -> dict[str, Any]:
    """Return what the bundle of one task says: its own metrics, at the epoch that was best for all together."""
    own = {name: f"{name} ({task.spec.name})" for name in metric_names(task.spec)}
    rows = [
        {key: row[key] for key in ("epoch", "train_loss", MONITOR, "seconds")} | {n: row[k] for n, k in own.items()}
        for row in curve.rows
    ]
    found = metrics_of(curve, own.values(), corpus) | {
        "valid": {n: curve.best[k] for n, k in own.items()},
        "monitor": task.metric,
        "curve": rows,
        "constant": constant_metrics(task.spec, task.source.part, task.valid, task.loss.weights),
    }
    warnings = select_jointly(task.spec, task.source.part, task.valid).warnings
    return found | {"warnings": [*warnings, *useless(task.spec.name, found, len(task.valid), config)]}


def _write(
    out: Path, bundles: dict[str, Bundle], config: AdaptConfig, model: UserModel, corpus: Corpus, *, overwrite: bool
) -> None:
    meta: dict[str, Any] = {
        "kind": "joint",
        "format_version": FORMAT_VERSION,
        "peterrec_version": __version__,
        "tasks": list(bundles),
        "bundles": {name: fingerprint(bundle.tensors()) for name, bundle in bundles.items()},
        "backbone_fingerprint": model.fingerprint,
        "corpus_fingerprint": corpus.manifest["fingerprint"],
    }
    text = dump_yaml(config)
    with new_folder(out, overwrite=overwrite, kind="joint") as folder:
        write_json(folder / "joint.json", meta)
        write_file(folder / "config.yaml", text.encode())
        for name, bundle in bundles.items():
            save_bundle(folder / name, bundle, config_yaml=text)
