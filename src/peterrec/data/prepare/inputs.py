"""Inputs of `prepare`: settings, or events with keywords; files, or DataFrames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from peterrec.arguments import describe, did_you_mean
from peterrec.config import EventsConfig, PrepareConfig, RankingTaskConfig, build_config, with_settings
from peterrec.config.shortcuts import classification_task, multilabel_task, ranking_task, regression_task
from peterrec.data.frames import FrameFiles, is_dataframe
from peterrec.data.prepare.feature_columns import stored_features
from peterrec.errors import ConfigError

Names = str | Sequence[str] | Mapping[str, str]

COLUMN_SETTINGS = frozenset(EventsConfig.model_fields) - {"paths"}
SETTINGS = frozenset(PrepareConfig.model_fields) - {"events"}
SEE_SETTINGS = "see `PrepareConfig` and `EventsConfig` in docs/configuration.md"
EVENTS = "pass a DataFrame, a path, a list of paths, or a PrepareConfig"


@dataclass(frozen=True)
class Keywords:
    """Keywords of `prepare` that say in few words what its settings say in many.

    Attributes:
        users: table of users: a DataFrame or a path.
        label_user: its column with the user id; None: as in the events.
        classify: columns of it to predict, or a mapping of names of tasks to columns.
        rank: domains to recommend items of, which leave the source; or a mapping of names of tasks to domains.
        regress: columns of numbers to predict, or a mapping of names of tasks to columns.
        history: what tasks of `rank` read, `all` or `before-first-target`; None: all.
        multilabel: columns of any number of labels a user, or a mapping of names of tasks to columns.
    """

    users: Any = None
    label_user: str | None = None
    classify: Names = ()
    rank: Names = ()
    regress: Names = ()
    history: str | None = None
    multilabel: Names = ()


def prepare_config(events: Any, keywords: Keywords, settings: dict[str, Any], frames: FrameFiles) -> PrepareConfig:
    """Return the settings that the arguments of `prepare` stand for.

    Args:
        events: settings, a path, paths or a DataFrame.
        keywords: tasks in few words.
        settings: of `PrepareConfig`, and of the columns of events (`EventsConfig`), by name.
        frames: where DataFrames are written.

    Raises:
        ConfigError: an argument is of another kind or does not fit the others.
        DataError: a DataFrame cannot be read.
    """
    if isinstance(events, PrepareConfig):
        if keywords != Keywords():
            raise ConfigError(
                "events is a PrepareConfig, which names its own tasks",
                remedy="leave out users, label_user, classify, rank, regress, multilabel and history, or pass the "
                "events themselves",
            )
        return with_settings(PrepareConfig, events, settings)
    for name in settings.keys() - SETTINGS - COLUMN_SETTINGS:
        names = SETTINGS | COLUMN_SETTINGS | {field.name for field in fields(Keywords)}
        raise ConfigError(f"there is no setting {name!r}{did_you_mean(name, sorted(names))}", remedy=SEE_SETTINGS)
    columns = {name: settings[name] for name in COLUMN_SETTINGS & settings.keys()}
    settings = {name: value for name, value in settings.items() if name not in columns}
    reading = build_config(EventsConfig, {"paths": ("events",), **columns})  # refused before anything is written
    catalogue = settings.get("catalogue")
    stored = stored_features(Path(catalogue)) if isinstance(catalogue, str | Path) else ()
    read = [feature.column for feature in (*reading.features, *stored)]
    settings["events"] = {"paths": _event_paths(events, reading, read, frames), **columns}
    domains = _named(keywords.rank)
    tasks = [*_table_tasks(keywords, reading.user, frames)]
    if keywords.history is not None and not domains:
        raise ConfigError("history is of tasks of rank, and none is named", remedy='name one, e.g. rank=["garden"]')
    reads = {} if keywords.history is None else {"history": keywords.history}
    tasks += [ranking_task(domain, name) | reads for name, domain in domains]
    if domains:
        settings["source"] = _without_domains(settings.get("source", {}), [domain for _, domain in domains])
    if tasks:
        settings["tasks"] = [*settings.get("tasks", ()), *tasks]
    return build_config(PrepareConfig, settings)


def recorded_config(config: PrepareConfig, frames: FrameFiles) -> PrepareConfig:
    """Return settings as they are written beside a corpus: DataFrames by what they are called."""
    names = {str(path): name for path, name in frames.names.items()}
    paths = tuple(names.get(path, path) for path in config.events.paths)
    tasks = [
        task.model_copy(update={"labels": task.labels.model_copy(update={"path": names[task.labels.path]})})
        if not isinstance(task, RankingTaskConfig) and task.labels is not None and task.labels.path in names
        else task
        for task in config.tasks
    ]
    events = config.events.model_copy(update={"paths": paths})
    return config.model_copy(update={"events": events, "tasks": tuple(tasks)})


def _event_paths(
    events: Any, reading: EventsConfig, features: Sequence[str | None], frames: FrameFiles
) -> tuple[str, ...]:
    if is_dataframe(events):
        used = [reading.user, reading.item, reading.time, reading.order, reading.domain, *features]
        return (str(frames.write(events, "events", [column for column in used if column is not None])),)
    if isinstance(events, str | Path):
        return (str(events),)
    if isinstance(events, Sequence) and events and all(isinstance(path, str | Path) for path in events):
        return tuple(map(str, events))
    raise ConfigError(f"events is {describe(events)}", remedy=EVENTS)


def _table_tasks(keywords: Keywords, user: str, frames: FrameFiles) -> list[dict[str, Any]]:
    kinds = {"classify": classification_task, "regress": regression_task, "multilabel": multilabel_task}
    named = [(keyword, name, column) for keyword in kinds for name, column in _named(getattr(keywords, keyword))]
    if not named and keywords.users is None:
        return []
    if not named:
        remedy = 'name some, e.g. classify=["gender"] or regress=["spend"]'
        raise ConfigError("users is given, and no column to predict", remedy=remedy)
    if keywords.users is None:
        raise ConfigError(
            f"{named[0][0]} names columns of users, and there are none", remedy="pass users=, a table of them"
        )
    user = user if keywords.label_user is None else keywords.label_user
    users = keywords.users
    if is_dataframe(users):
        users = frames.write(users, "users", [user, *dict.fromkeys(column for *_, column in named)])
    if not isinstance(users, str | Path):
        raise ConfigError(f"users is {describe(users)}", remedy="pass a DataFrame or a path")
    return [kinds[keyword](str(users), column, user, name) for keyword, name, column in named]


def _named(names: Names) -> list[tuple[str | None, str]]:
    if isinstance(names, Mapping):
        return list(names.items())
    return [(None, name) for name in ([names] if isinstance(names, str) else names)]


def _without_domains(source: Any, domains: list[str]) -> Any:
    """Return settings of the source without the domains that are to be recommended of."""
    tree = dict(source) if isinstance(source, Mapping) else source.model_dump(exclude_unset=True)
    tree.setdefault("exclude_domains", domains)
    return tree
