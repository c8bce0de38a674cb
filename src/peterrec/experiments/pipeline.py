"""The verb `run`: the whole main job from one file, reusing every stage that is already there."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from peterrec.arguments import checked, did_you_mean
from peterrec.artifacts.inspection import inspect
from peterrec.config import AdaptConfig, RunConfig, build_config, dump_yaml, same_settings
from peterrec.data.corpus import Corpus
from peterrec.data.item_content import ItemContent
from peterrec.data.prepare import input_files, prepare
from peterrec.data.sources import fetch
from peterrec.errors import ConfigError, InterruptedRun
from peterrec.evaluation.bundles import evaluate
from peterrec.experiments.assemble import assemble
from peterrec.experiments.reuse import description, merge_settings, same_bundle
from peterrec.model import UserModel
from peterrec.process import alone
from peterrec.report.run.page import write_report
from peterrec.report.run.record import bundle_folder
from peterrec.storage import read_json, write_file, write_json
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.pretrain import pretrain

EVALUATION_FORMAT = 3  # of the evaluations that are reused; 2 did not say which test users are new
logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class RunState:
    """State of a run: its settings, its folder, and the stages so far.

    Attributes:
        config: of the run.
        out: folder of the run: `corpus`, `backbone`, `bundles/TASK/STRATEGY`, `evaluations`, the report.
        overwrite: do everything again.
        stages: name, seconds, reused of every stage so far.
    """

    config: RunConfig
    out: Path
    overwrite: bool
    stages: list[dict[str, Any]] = field(default_factory=list)

    def stage(self, name: str, reusable: bool, reuse: Callable[[], T], make: Callable[[], T]) -> T:
        """Run or reuse one stage, and note how long it took."""
        start = time.perf_counter()
        reused = reusable and not self.overwrite
        logger.info(f"\n[{name}] reusing what is there" if reused else f"\n[{name}]")
        result = reuse() if reused else make()
        self.stages.append({"name": name, "seconds": time.perf_counter() - start, "reused": reused})
        return result


@checked
def run(
    config: RunConfig,
    out: str | Path,
    *,
    overwrite: bool = False,
    command: str = "",
) -> Path:
    """Fetch, prepare, pre-train, adapt, evaluate and report, each stage only if it is not there already.

    The paper's whole pipeline (section 3: pre-training, then a patch for each task; section 4.2: evaluation). A stage
    is reused when it was made with the same settings from the same input; a killed training goes on.

    Args:
        config: settings of all stages, the strategies, and changes by task.
        out: folder of the run; gets `corpus`, `backbone`, `bundles/TASK/STRATEGY`, `joint`, `evaluations`, `run.json`,
            `config.yaml` and `report.html`.
        overwrite: do everything again.
        command: shown in the report, for doing it again.

    Returns:
        Path of the HTML report.

    Raises:
        ConfigError: a setting is wrong, or `task_overrides` names no task.
        FetchError, DataError, TaskError: the data cannot be fetched, read, or split into users enough.
        TrainingError: a training diverged.
        InterruptedRun: Ctrl-C or SIGTERM; the same call without `overwrite` goes on.
        ArtifactError, StorageError: what is there is something else, or the place is not writable.
    """
    try:
        return _run(config, out, overwrite, command)
    except InterruptedRun as error:  # a stage would go on with an option that a whole run does not have
        remedy = "run the same command again, without --overwrite: what is done is kept"
        raise InterruptedRun(error.message, remedy=remedy, path=error.path) from error


@alone()
def _run(config: RunConfig, out: str | Path, overwrite: bool, command: str) -> Path:
    state = RunState(config, Path(out), overwrite)
    _check_overrides(config)
    if config.fetch is None:  # else it may be among what is fetched
        _items_fingerprint(config)
    _fetch(state)
    corpus = _prepare(state)
    model = _pretrain(state, corpus)
    if "joint" in config.strategies:
        _adapt_jointly(state, model, corpus)
    evaluations = [_adapt_and_evaluate(state, model, corpus, task) for task in corpus.task_names]
    record = assemble(config, corpus, model, state.out, evaluations, state.stages, command)
    write_json(state.out / "run.json", json.loads(record.model_dump_json(by_alias=True)))
    write_file(state.out / "config.yaml", dump_yaml(config).encode())
    return write_report(record, state.out / "report.html")


def adapt_config(config: RunConfig, task: str, strategy: str) -> AdaptConfig:
    """Return the settings of adapting to one task with one strategy.

    Raises:
        ConfigError: an override of the task is not a setting of `adapt`.
    """
    tree = config.adapt.model_dump(exclude_unset=True) | {"strategy": strategy}
    return build_config(AdaptConfig, merge_settings(tree, config.task_overrides.get(task, {})))


def _fetch(state: RunState) -> None:
    name, data = state.config.fetch, Path(state.config.data)
    if name is None:
        return
    # A fetched data set is never stale, and fetching it again needs the network: `fetch --overwrite` does that.
    start = time.perf_counter()
    was_there = (data / name).exists()
    logger.info("\n[fetch]")
    fetch(name, data / name, report=logger.info)
    state.stages.append({"name": "fetch", "seconds": time.perf_counter() - start, "reused": was_there})


def _prepare(state: RunState) -> Corpus:
    path, settings = state.out / "corpus", state.config.prepare
    manifest = description(path)
    reusable = manifest.get("config") == settings.model_dump(mode="json") and manifest["inputs"] == [
        file.identity() for file in input_files(settings)
    ]
    return state.stage(
        "prepare", reusable, lambda: Corpus.open(path),
        lambda: prepare(settings, path, overwrite=True, report=logger.info),
    )  # fmt: skip


def _pretrain(state: RunState, corpus: Corpus) -> UserModel:
    path, settings, items = state.out / "backbone", state.config.pretrain, state.config.items
    training = description(path).get("training", {})
    made_from = {name: training.get(name) for name in ("corpus_fingerprint", "items")}
    inputs = {"corpus_fingerprint": corpus.manifest["fingerprint"], "items": _items_fingerprint(state.config)}
    reusable = made_from == inputs and same_settings(path / "config.yaml", settings)
    return state.stage(
        "pretrain", reusable, lambda: UserModel.from_pretrained(path),
        lambda: pretrain(corpus, path, settings, items=items, resume=not state.overwrite, overwrite=True),
    )  # fmt: skip


def _items_fingerprint(config: RunConfig) -> str | None:
    """Return the fingerprint of the table of items, if there is one.

    Raises:
        DataError: it cannot be read.
    """
    return None if config.items is None else ItemContent(config.items).fingerprint


def _adapt_jointly(state: RunState, model: UserModel, corpus: Corpus) -> None:
    path, tasks = state.out / "joint", corpus.task_names
    settings = build_config(AdaptConfig, state.config.adapt.model_dump(exclude_unset=True) | {"strategy": "joint"})
    reusable = description(path).get("tasks") == tasks and all(
        same_bundle(path / task, settings, model, corpus) for task in tasks
    )
    state.stage(
        "adapt all tasks (joint)", reusable, lambda: None,
        lambda: adapt_jointly(
            model, corpus, tasks, path, settings, resume=not state.overwrite, overwrite=True
        ) and None,
    )  # fmt: skip


def _adapt_and_evaluate(state: RunState, model: UserModel, corpus: Corpus, task: str) -> dict[str, Any]:
    paths: dict[str, Path] = {
        strategy: state.out / bundle_folder(task, strategy) for strategy in state.config.strategies
    }
    for strategy, path in paths.items():
        if strategy == "joint":
            continue
        settings = adapt_config(state.config, task, strategy)
        state.stage(
            f"adapt {task} ({strategy})", same_bundle(path, settings, model, corpus), lambda: None,
            lambda path=path, settings=settings: adapt(  # type: ignore[misc]
                model, corpus, task, path, settings, resume=not state.overwrite, overwrite=True
            ),
        )  # fmt: skip
    file = state.out / "evaluations" / f"{task}.json"
    key = {
        "config": state.config.evaluate.model_dump(mode="json"),
        "bundles": {strategy: inspect(path)["fingerprint"] for strategy, path in paths.items()},
        "corpus": corpus.manifest["fingerprint"],
        "format": EVALUATION_FORMAT,
    }

    def evaluate_bundles() -> dict[str, Any]:
        evaluation = evaluate(model, corpus, paths, config=state.config.evaluate).to_json()
        write_json(file, {"key": key, "evaluation": evaluation})
        logger.info(evaluation["sentence"])
        return evaluation

    return state.stage(
        f"evaluate {task}", file.exists() and read_json(file).get("key") == key,
        lambda: read_json(file)["evaluation"], evaluate_bundles,
    )  # fmt: skip


def _check_overrides(config: RunConfig) -> None:
    task_names = {task.name for task in config.prepare.tasks}
    for task in config.task_overrides:
        if task not in task_names:
            problem = f"task_overrides names {task!r}, which is no task{did_you_mean(task, task_names)}"
            raise ConfigError(problem, remedy="name one of prepare.tasks")
        adapt_config(config, task, config.strategies[0])
