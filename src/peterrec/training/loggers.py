"""Loggers and callbacks of Lightning that `runner` names: checked before anything is trained, made on rank zero."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from peterrec.arguments import did_you_mean
from peterrec.config import RunnerConfig
from peterrec.errors import ConfigError, PeterRecError


@dataclass(frozen=True)
class NamedLogger:
    """A logger that has a short name.

    Attributes:
        cls: its class.
        packages: of which one must be installed; empty: none.
        folder_option: keyword for the folder that it writes to.
        name_option: keyword for the name of the run.
        options: defaults of further keywords.
    """

    cls: type[Logger]
    packages: tuple[str, ...]
    folder_option: str
    name_option: str
    options: Mapping[str, Any]


NAMED = {
    "csv": NamedLogger(CSVLogger, (), "save_dir", "name", {}),
    "tensorboard": NamedLogger(TensorBoardLogger, ("tensorboard", "tensorboardX"), "save_dir", "name", {}),
    "mlflow": NamedLogger(MLFlowLogger, ("mlflow", "mlflow_skinny"), "", "run_name", {"experiment_name": "peterrec"}),
    "wandb": NamedLogger(WandbLogger, ("wandb",), "save_dir", "name", {"project": "peterrec"}),
}


def check_loggers_and_callbacks(runner: RunnerConfig) -> None:
    """Refuse loggers and callbacks that cannot be made, before anything is written; none of them is made yet.

    Raises:
        ConfigError: a package is not installed, an import path leads nowhere or to something else, or an option is none
            of theirs.
    """
    for name in runner.loggers:
        cls = _logger_class(name)
        _check_options(f"logger {name}", cls, runner.options_of(name))
    for callback in runner.callbacks:
        cls = _imported(callback.path, Callback, "callback")
        _check_options(f"callback {callback.path}", cls, callback.options)


def make_loggers(runner: RunnerConfig, folder: Path) -> list[Logger]:
    """Return the loggers of a training.

    Args:
        runner: settings.
        folder: of the training, `OUT.training`: files go beside it, and runs are called as `OUT`.

    Raises:
        ConfigError: as `check_loggers_and_callbacks`, or a logger refuses its options.
    """
    return [_make(f"logger {name}", _logger_class(name), _options(name, runner, folder)) for name in runner.loggers]


def make_callbacks(runner: RunnerConfig) -> list[Callback]:
    """Return the callbacks of a training that `runner` names.

    Raises:
        ConfigError: as `check_loggers_and_callbacks`, or a callback refuses its options.
    """
    return [
        _make(f"callback {callback.path}", _imported(callback.path, Callback, "callback"), callback.options)
        for callback in runner.callbacks
    ]


def _options(name: str, runner: RunnerConfig, folder: Path) -> dict[str, Any]:
    options = runner.options_of(name)
    if name not in NAMED:
        return options
    logger = NAMED[name]
    files = name in ("csv", "tensorboard")
    defaults = dict(logger.options) | {logger.name_option: folder.stem + (".log" if files else "")}
    if logger.folder_option:
        defaults[logger.folder_option] = str(folder.parent)
    return defaults | options


def _logger_class(name: str) -> type[Logger]:
    if name not in NAMED:
        return _imported(name, Logger, "logger")
    packages = NAMED[name].packages
    if packages and not any(map(importlib.util.find_spec, packages)):
        raise ConfigError(f"{packages[0]} is not installed", remedy=f"pip install {packages[0]}")
    return NAMED[name].cls


def _imported(path: str, base: type[Any], kind: str) -> type[Any]:
    """Return the class at an import path.

    Raises:
        ConfigError: there is none, or it is no subclass of `base`.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ConfigError(f"{path!r} is no {kind}", remedy="write its import path, such as package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{kind} {path} cannot be imported: there is no module {error.name}",
            remedy="check the path; install the package that has it, or add its folder to PYTHONPATH",
        ) from error
    except Exception as error:  # whatever a module does when it is imported
        raise ConfigError(f"{kind} {path} cannot be imported ({error})", remedy="correct its module") from error
    cls = getattr(module, name, None)
    if cls is None:
        raise ConfigError(f"{module_name} has no {name}{did_you_mean(name, vars(module))}", remedy="correct the path")
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise ConfigError(
            f"{path} is no {kind} of Lightning", remedy=f"name a subclass of {base.__module__}.{base.__name__}"
        )
    return cls


def _check_options(what_for: str, cls: type[Any], options: Mapping[str, Any]) -> None:
    """Refuse keywords that a class does not take, or lack of those that it must have."""
    signature = inspect.signature(cls)
    names = [name for name, parameter in signature.parameters.items() if parameter.kind != parameter.VAR_KEYWORD]
    takes_any = len(names) < len(signature.parameters)
    for name in options:
        if name not in names and not takes_any:
            raise ConfigError(
                f"{what_for} has no option {name!r}{did_you_mean(name, names)}", remedy=f"it takes {', '.join(names)}"
            )


def _make(what_for: str, cls: type[Any], options: Mapping[str, Any]) -> Any:
    try:
        return cls(**options)
    except PeterRecError:
        raise
    except ModuleNotFoundError as error:
        raise ConfigError(f"{what_for} needs {error.name or error}", remedy=f"pip install {error.name}") from error
    except Exception as error:  # theirs: of their own kinds
        raise ConfigError(f"{what_for} cannot be made ({error})", remedy="check its options") from error
