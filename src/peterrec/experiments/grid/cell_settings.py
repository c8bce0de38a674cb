"""Settings of the cells of a grid: merged settings, paths, and the inputs that decide the result."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from peterrec.config import AdaptConfig, Config, NewUsersConfig, PrepareConfig, PretrainConfig, build_config
from peterrec.config.experiment import ExperimentConfig
from peterrec.data.prepare import input_files
from peterrec.data.sources import SOURCES
from peterrec.errors import ConfigError
from peterrec.evaluation.baselines import baseline_settings, find_baseline
from peterrec.experiments.reuse import merge_settings

Json = dict[str, Any]

QUIET = {"runner": {"progress": False}}  # cells run side by side: bars would write over each other


def backbone_settings(config: ExperimentConfig, data: str, name: str, seed: int) -> PretrainConfig:
    """Return the settings that a backbone is pre-trained with on a data set.

    Raises:
        ConfigError: a key or value is wrong.
    """
    changes = (config.data[data].pretrain, config.backbones[name], {"seed": seed}, QUIET)
    with _errors_name(f"backbone {name!r} on {data!r}"):
        return build_config(PretrainConfig, merge_settings(config.pretrain, *changes))


def method_settings(config: ExperimentConfig, data: str, task: str | None, method: str, seed: int) -> AdaptConfig:
    """Return the settings that a method adapts to a task with; without a task: to all of the data set together.

    Raises:
        ConfigError: a key or value is wrong.
    """
    data_config = config.data[data]
    task_changes = data_config.task_overrides.get(task, {}) if task is not None else {}
    changes = (data_config.adapt, task_changes, config.methods[method].adapt or {}, {"seed": seed}, QUIET)
    scope = data if task is None else f"{data}/{task}"
    with _errors_name(f"method {method!r} on {scope!r}"):
        return build_config(AdaptConfig, merge_settings(config.adapt, *changes))


def trains_all(config: ExperimentConfig, data: str, method: str) -> bool:
    """Return whether a method trains all tasks of a data set together."""
    method_config = config.methods[method]
    if method_config.baseline is not None:
        return find_baseline(method_config.baseline).all_tasks
    return method_config.adapt is not None and method_settings(config, data, None, method, 0).strategy == "joint"


def prepare_settings(config: ExperimentConfig, data: str, seed: int, out: Path) -> PrepareConfig:
    """Return how a data set is prepared: paths under its root, and the seed's own split of users."""
    root, settings = data_root(config, data, out), config.data[data].prepare
    changes = {
        "events": _under_root(settings.events, root),
        "tasks": tuple(_task_under_root(task, root) for task in settings.tasks),
        "split": settings.split.model_copy(update={"salt": f"{settings.split.salt}-{seed}"}),
        "catalogue": None if settings.catalogue is None else str(root / settings.catalogue),
    }
    return settings.model_copy(update=changes)


def _task_under_root(task: Any, root: Path) -> Any:
    sources = {name: getattr(task, name, None) for name in ("labels", "events")}
    return task.model_copy(update={name: _under_root(source, root) for name, source in sources.items() if source})


def _under_root(source: Any, root: Path) -> Any:
    if hasattr(source, "path"):
        return source.model_copy(update={"path": str(root / source.path)})
    return source.model_copy(update={"paths": tuple(str(root / path) for path in source.paths)})


def data_root(config: ExperimentConfig, data: str, out: Path) -> Path:
    """Return the folder that relative paths of a data set are under."""
    return out / "data" / data if config.data[data].synthetic is not None else Path(config.data_root)


def check_settings(config: ExperimentConfig) -> None:
    """Check all that can be wrong before anything is read: settings of backbones, methods and baselines.

    Raises:
        ConfigError: something is; the message names the backbone, method or data set.
    """
    _check_seeds(config)
    for name, data in config.data.items():
        if data.fetch is not None and data.fetch not in SOURCES:
            source_names = ", ".join(sorted(SOURCES))
            raise ConfigError(
                f"data set {name!r} fetches {data.fetch!r}, which is not known", remedy=f"try {source_names}"
            )
        if data.fetch is not None and data.synthetic is not None:
            raise ConfigError(f"data set {name!r} is both fetched and made up", remedy="leave out one of the two")
        for backbone in config.backbones:
            backbone_settings(config, name, backbone, 0)
        for method in config.methods:
            _check_method(config, name, method)


def _check_seeds(config: ExperimentConfig) -> None:
    """Refuse a seed where it would be overridden by that of the cell."""
    trees: dict[str, Mapping[str, Any]] = {"pretrain": config.pretrain, "adapt": config.adapt}
    for name, data_config in config.data.items():
        trees |= {f"data.{name}.pretrain": data_config.pretrain, f"data.{name}.adapt": data_config.adapt}
        trees |= {f"data.{name}.task_overrides.{task}": changes for task, changes in data_config.task_overrides.items()}
    trees |= {f"backbones.{name}": tree for name, tree in config.backbones.items()}
    trees |= {f"methods.{name}.adapt": method.adapt or {} for name, method in config.methods.items()}
    for place, tree in trees.items():
        if "seed" in tree:
            raise ConfigError(f"{place} has a seed, but each cell has its own", remedy="list them under `seeds`")


def _check_method(config: ExperimentConfig, data: str, method: str) -> None:
    method_config = config.methods[method]
    if method_config.trained_on and trains_all(config, data, method):
        raise ConfigError(f"method {method!r} trains all tasks together", remedy="leave out its `trained_on`")
    if method_config.baseline is not None:
        with _errors_name(f"method {method!r}"):
            baseline_settings(method_config.baseline, method_config.settings)
        return
    joint = trains_all(config, data, method)
    for task in config.data[data].prepare.tasks:
        if (method_settings(config, data, task.name, method, 0).strategy == "joint") != joint:
            raise ConfigError(
                f"method {method!r}: task_overrides of {data!r} change the strategy, but `joint` is of all tasks",
                remedy="set `strategy` under the method's `adapt`",
            )


@contextlib.contextmanager
def _errors_name(subject: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{subject}: {error.message}", remedy=error.remedy) from error


def source_inputs(config: ExperimentConfig, data: str, out: Path) -> Json:
    """Return the inputs that decide the sequences and the catalogue of a corpus, the same for all seeds.

    Raises:
        DataError, ArtifactError: a file is missing or cannot be read.
    """
    settings = config.data[data].prepare
    inputs = settings.model_dump(mode="json", include={"events", "source", "catalogue"})
    if settings.new_users != NewUsersConfig():
        inputs |= settings.model_dump(mode="json", include={"new_users", "split"})
    return inputs | _file_inputs(config, data, None, out)


def task_inputs(config: ExperimentConfig, data: str, task: str, seed: int, out: Path) -> Json:
    """Return the inputs that decide the labelled users of a task and their parts; errors of `source_inputs`."""
    settings = config.data[data].prepare.model_dump(mode="json", include={"tasks", "split"})
    task_settings = next(tree for tree in settings["tasks"] if tree["name"] == task)
    return {"task": task_settings, "split": settings["split"], "seed": seed} | _file_inputs(config, data, task, out)


def _file_inputs(config: ExperimentConfig, data: str, task: str | None, out: Path) -> Json:
    made_up = config.data[data].synthetic
    if made_up is not None:  # its files may be made anew, and be the same
        return {"synthetic": made_up.model_dump(mode="json")}
    root, settings = data_root(config, data, out), prepare_settings(config, data, config.seeds[0], out)
    tasks = tuple(task_config for task_config in settings.tasks if task_config.name == task)
    files = [file.identity() for file in input_files(settings.model_copy(update={"tasks": tasks}))]
    for file in files:
        path = Path(str(file["path"]))
        file["path"] = str(path.relative_to(root) if path.is_relative_to(root) else path)
    return {"files": files}


def deciding_settings(settings: Config) -> Json:
    """Return settings as plain values, but for how the machine is used, which does not change the result."""
    return settings.model_dump(mode="json", exclude={"runner", "device"})


def digest(value: Any) -> str:
    """Return the sha256 of plain values, by which they are compared."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
