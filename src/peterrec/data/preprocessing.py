"""Settings by which a corpus was prepared, and the assumptions about events that its models are asked about."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from peterrec.config import (
    ColumnsConfig,
    FirstTargetConfig,
    HistoryCutConfig,
    PreprocessingConfig,
    SourceConfig,
    build_config,
)
from peterrec.data.event_features import EventFeatureEncoder
from peterrec.storage import short_hash


def preprocessing_of(manifest: Mapping[str, Any], task: str | None = None) -> PreprocessingConfig | None:
    """Return how the sequences of a corpus, or the histories of one of its tasks, were made of events.

    Args:
        manifest: of the corpus.
        task: its name; None for the source sequences.

    Returns:
        None where the manifest does not say, as those of earlier releases.
    """
    config = manifest.get("config")
    if not config or "time_kind" not in manifest:
        return None
    columns = {name: value for name, value in config["events"].items() if name != "paths"}
    columns["features"] = manifest.get("event_features", ())
    return PreprocessingConfig(
        columns=build_config(ColumnsConfig, columns),
        time_kind=manifest["time_kind"],
        units_per_second=manifest.get("units_per_second", 1.0),
        source=build_config(SourceConfig, config["source"]),
        first_target=_first_target(config["tasks"], task),
        cut=_cut(config["tasks"], task),
    )


def encoder_of(preprocessing: PreprocessingConfig | None) -> EventFeatureEncoder | None:
    """Return the encoder of the features of events that a model reads; None: it reads items alone."""
    features = () if preprocessing is None else preprocessing.columns.features
    return EventFeatureEncoder(features) if features else None


def feature_sizes(preprocessing: PreprocessingConfig | None) -> tuple[int, ...]:
    """Return the integers of each feature of events that a model reads; none where it reads items alone."""
    encoder = encoder_of(preprocessing)
    return () if encoder is None else encoder.sizes


def _first_target(tasks: list[dict[str, Any]], name: str | None) -> FirstTargetConfig | None:
    for task in tasks:
        if task["name"] == name and task.get("history") == "before-first-target":
            filter_settings = {key: task[key] for key in ("domains", "after", "before")}
            return build_config(FirstTargetConfig, filter_settings | {"separate_files": task["events"] is not None})
    return None


def _cut(tasks: list[dict[str, Any]], name: str | None) -> HistoryCutConfig:
    task = next((task for task in tasks if task["name"] == name), {})
    return build_config(HistoryCutConfig, {key: task[key] for key in HistoryCutConfig.model_fields if key in task})


def filters_times(preprocessing: PreprocessingConfig) -> bool:
    """Return whether which events are read depends on their time."""
    source, first = preprocessing.source, preprocessing.first_target
    if preprocessing.cut.until is not None:
        return True
    return source.after is not None or source.before is not None or (first is not None and not first.separate_files)


def assumptions(
    preprocessing: PreprocessingConfig | None, *, times: bool, domains: bool, features: bool = True
) -> tuple[str, ...]:
    """Return what is assumed of events, in words: what the model's data were filtered by, and they do not tell.

    Args:
        preprocessing: of the model that is asked; None is assumed to filter nothing.
        times: whether the events have times.
        domains: whether they have domains.
        features: whether they have the features that the model reads.
    """
    if preprocessing is None:
        return ()
    source, first, lines = preprocessing.source, preprocessing.first_target, []
    if not domains and (source.domains is not None or source.exclude_domains):
        wanted = f"of {', '.join(source.domains)}" if source.domains is not None else "of the source domains"
        without = f", none of {', '.join(source.exclude_domains)}" if source.exclude_domains else ""
        lines.append(f"all events are {wanted}{without}: they tell no domain")
    if not times and (source.after is not None or source.before is not None):
        since = f" at or after {source.after}" if source.after is not None else ""
        until = f" before {source.before}" if source.before is not None else ""
        lines.append(f"all events are{since}{' and' if since and until else ''}{until}: they tell no time")
    if not times and preprocessing.cut.until is not None:
        lines.append(f"all events are before {preprocessing.cut.until}: they tell no time")
    if not times and preprocessing.cut.first_events is not None:
        lines.append(whole_history(preprocessing.cut.first_events))
    if first is not None and (first.separate_files or not times or (not domains and first.domains is not None)):
        lines.append("all events are before the user's first target event: they do not tell which that is")
    if preprocessing.columns.features and not features:
        names = ", ".join(feature.name for feature in preprocessing.columns.features)
        lines.append(f"nothing is known of events but their items: {names} are missing")
    return tuple(lines)


def whole_history(first_events: int) -> str:
    """Return the assumption of a model that reads the first events of a user: there may have been earlier ones."""
    return f"the first events are the first ones that the user ever had: {first_events} of them are read"


def differences(first: PreprocessingConfig | None, second: PreprocessingConfig | None) -> list[str]:
    """Return the settings by which two models read other events, as `source.repeats: keep, drop`."""
    if first is None or second is None:
        return []
    first_settings, second_settings = _named_settings(first), _named_settings(second)
    # The other columns say where things stand, not what is read.
    ordering = ("columns.order", "columns.ties", "columns.features")
    unread = ("columns.", "time_kind", "units_per_second")
    names = [name for name in first_settings | second_settings if name in ordering or not name.startswith(unread)]
    return [
        f"{name}: {first_settings.get(name)}, {second_settings.get(name)}"
        for name in names
        if first_settings.get(name) != second_settings.get(name)
    ]


def _named_settings(preprocessing: PreprocessingConfig) -> dict[str, Any]:
    """Return settings by their dotted names; features with a digest of their categories, which may be a thousand."""
    settings = _flatten(preprocessing.model_dump(mode="json"))
    features = [
        f"{feature.name} ({len(feature.values)} categories, {short_hash(_digest(feature.values))})"
        if feature.values
        else feature.name
        for feature in preprocessing.columns.features
    ]
    return settings | ({"columns.features": ", ".join(features)} if features else {})


def _digest(values: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(values).encode()).hexdigest()


def pretraining_remarks(pretraining: PreprocessingConfig | None, manifest: Mapping[str, Any], task: str) -> list[str]:
    """Return in words what a backbone of another corpus read otherwise, and whether it may have read a task's answers.

    Args:
        pretraining: of the backbone.
        manifest: of the corpus that it is adapted on, with the task.
        task: its name.
    """
    changed = differences(pretraining, preprocessing_of(manifest))
    remarks = [f"the backbone was trained on other events than these (there, here: {line})" for line in changed]
    settings = next(
        (
            task_settings
            for task_settings in manifest.get("config", {}).get("tasks", ())
            if task_settings["name"] == task
        ),
        None,
    )
    if pretraining is None or settings is None or settings["kind"] != "ranking" or settings["events"] is not None:
        return remarks
    source, domains = pretraining.source, settings["domains"]
    inside = [name for name in domains or () if source.domains is None or name in source.domains]
    domains_overlap = domains is None or bool(set(inside) - set(source.exclude_domains))
    times_overlap = source.before is None or settings["after"] is None or _is_later(source.before, settings["after"])
    if domains_overlap and times_overlap:
        remarks.append("the backbone was pre-trained on events like the targets: it may have seen the answers")
    return remarks


def _is_later(first: str, second: str) -> bool:
    try:
        return float(first) > float(second)
    except ValueError:
        return first > second  # dates and times as ISO writes them


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
