"""Reading and writing configurations: YAML files and dotted overrides."""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import ValidationError

from peterrec.arguments import checked
from peterrec.config.base import Config, complete_settings, not_valid
from peterrec.config.experiment import ExperimentConfig
from peterrec.config.run import RunConfig
from peterrec.config.runner import RunnerConfig
from peterrec.config.unique_keys import load_yaml
from peterrec.errors import ConfigError

C = TypeVar("C", bound=Config)


@checked
def load_config(cls: type[C], path: str | Path | None = None, overrides: Sequence[str] = (), **values: Any) -> C:
    """Read a configuration from YAML, then apply keyword values and dotted overrides such as `optim.lr=0.01`.

    Args:
        cls: class of settings, such as `AdaptConfig`.
        path: of a YAML file; None: all settings have their defaults.
        overrides: `KEY=VALUE` texts, the key dotted, the value in YAML; they count most. A number in a key is an
            entry of a list, counted from 0: `tasks.0.min_item_events=2`.
        values: settings by name; they count more than the file. Those of a group are a mapping.

    Returns:
        The settings, checked; they cannot change.

    Raises:
        ConfigError: no such file, not YAML, a file of another verb, an unknown key or a value of the wrong type; the
            message names the key.
    """
    tree: dict[str, Any] = _read_yaml(Path(path)) if path is not None else {}
    _refuse_file_of_another_verb(cls, tree, path)
    _merge(tree, copy.deepcopy(values))  # an override changes the tree, never what the caller holds
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"override {override!r} is not KEY=VALUE", remedy="write e.g. --set optim.lr=0.01")
        _refuse_entry_of_no_list(cls, tree, key.split("."), override)
        _assign(tree, key.split("."), _parse(text, override), override)
    return build_config(cls, tree, path)


def build_config(cls: type[C], tree: dict[str, Any], path: str | Path | None = None) -> C:
    """Validate a tree of plain values.

    Raises:
        ConfigError: an unknown key or a value of the wrong type; the message names the key.
    """
    try:
        return cls.model_validate(tree)
    except ValidationError as error:
        raise not_valid(cls, error, path) from error


def with_settings(cls: type[C], config: C | None, settings: dict[str, Any]) -> C:
    """Return a configuration with settings given by name, as keywords of a verb are.

    Args:
        cls: class of settings.
        config: to start from; None: all settings have their defaults.
        settings: by name; those of a group are a mapping, which changes what it names, or an object of settings.

    Raises:
        ConfigError: an unknown key or a value of the wrong type; the message names the key.
    """
    if not settings and config is not None:
        return config
    return build_config(cls, complete_settings(settings, config))


def without_runner(config: C) -> C:
    """Return a configuration without what says how a machine is used, which does not decide what comes out."""
    return config.model_copy(update={"runner": RunnerConfig()})


def dump_optional(config: Config | None) -> dict[str, Any] | None:
    """Return a configuration as plain values; None for none."""
    return None if config is None else config.model_dump(mode="json")


def load_optional(cls: type[C], tree: dict[str, Any] | None) -> C | None:
    """Return what `dump_optional` was given; errors as those of `build_config`."""
    return None if tree is None else build_config(cls, tree)


def dump_yaml(config: Config) -> str:
    """Return the resolved configuration as YAML, for keeping beside an artifact."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def same_settings(path: Path, config: Config) -> bool:
    """Return whether a `config.yaml` that was written beside an artifact has the settings of `config`.

    The runner may differ: the machine does not decide what comes out. A missing or damaged file has other settings.
    """
    try:
        written, current = _read_yaml(path), config.model_dump(mode="json")
    except ConfigError:
        return False
    written.pop("runner", None)
    current.pop("runner", None)
    return written == current


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", remedy="check the path", path=path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not valid YAML ({error})", remedy="correct the file", path=path) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError("holds no keys at its top level", remedy="write `key: value` lines", path=path)
    return tree


def _parse(text: str, override: str) -> Any:
    try:
        return load_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of override {override!r} is not valid YAML", remedy="quote it") from error


def _refuse_file_of_another_verb(cls: type[Config], tree: dict[str, Any], path: str | Path | None) -> None:
    """Refuse the file of a whole run, or of a grid, where the settings of a single verb are wanted.

    Raises:
        ConfigError: with the verb that the file is for.
    """
    for verb, verb_settings, sections in (
        ("run", RunConfig, {"prepare"}),
        ("experiment", ExperimentConfig, {"data", "methods", "questions"}),
    ):
        foreign = tree.keys() - cls.model_fields.keys()
        if foreign & sections and sections <= tree.keys() <= verb_settings.model_fields.keys():
            names = [name for name, field in verb_settings.model_fields.items() if field.annotation is cls]
            section = f", or put what stands below `{names[0]}:` into a file of its own" if names else ""
            raise ConfigError(
                f"is the file of a whole {verb}, which has {', '.join(f'`{name}`' for name in sorted(foreign))}",
                remedy=f"pass it to `peterrec {verb} {path} --out FOLDER`{section}",
                path=path,
            )


def _refuse_entry_of_no_list(cls: type[Config], tree: dict[str, Any], keys: list[str], override: str) -> None:
    """Refuse an override of an entry of a list of settings that nothing before it has set.

    Raises:
        ConfigError: with what to do.
    """
    settings, node = cls, tree
    for place, (name, key) in enumerate(itertools.pairwise(keys), start=1):
        field = settings.model_fields.get(name)
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        value = node.get(name)
        if value is None and key.isdecimal() and any(get_origin(kind) in (tuple, list) for kind in kinds):
            setting = ".".join(keys[:place])
            raise ConfigError(
                f"override {override!r} names entry {key} of {setting}, and there is no such list to change",
                remedy=f"pass a --config that has {setting}, or set the whole list: --set '{setting}=[...]'",
            )
        groups = [kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, Config)]
        if not groups or not isinstance(value, dict | NoneType):
            return
        settings, node = groups[0], value or {}


def _assign(node: Any, keys: list[str], value: Any, override: str) -> Any:
    """Return a part of the tree with a value set by its keys, the names of groups and the numbers of entries of lists.

    Raises:
        ConfigError: a list has no such entry.
    """
    if not keys:
        if isinstance(value, dict) and isinstance(node, dict):
            _merge(node, value)
            return node
        return value
    key, deeper = keys[0], keys[1:]
    if isinstance(node, list | tuple):
        if not (key.isdecimal() and int(key) < len(node)):
            count = f"{len(node)} {'entry' if len(node) == 1 else 'entries'}"
            remedy = f"count from 0 to {len(node) - 1}" if node else "set the list itself"
            raise ConfigError(f"override {override!r} names {key!r} in a list of {count}", remedy=remedy)
        entries = list(node)
        entries[int(key)] = _assign(entries[int(key)], deeper, value, override)
        return entries
    branch = node if isinstance(node, dict) else {}
    branch[key] = _assign(branch.get(key), deeper, value, override)
    return branch


def _merge(tree: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value
