"""Reuse in runs and grids: settings laid over settings, and whether an artifact is still what would be made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peterrec.artifacts.inspection import inspect
from peterrec.config import AdaptConfig, same_settings
from peterrec.data.corpus import Corpus
from peterrec.errors import ArtifactError
from peterrec.model import UserModel


def merge_settings(settings: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with changes on top, one after the other, setting by setting also within settings.

    A `patch` that names its `kind` replaces what was said of the patch before: settings of another kind are not of
    this one. A backbone's `kind` is a setting like others.
    """
    tree = dict(settings)
    for change in changes:
        for key, value in change.items():
            old = tree.get(key)
            merges = (
                isinstance(value, Mapping) and isinstance(old, Mapping) and not (key == "patch" and "kind" in value)
            )
            tree[key] = merge_settings(old, value) if merges else value  # type: ignore[arg-type]
    return tree


def description(path: Path) -> dict[str, Any]:
    """Return the metadata of an artifact; empty where there is none that can be used."""
    try:
        return inspect(path)
    except ArtifactError:
        return {}  # not there, damaged, or of another format: made again


def same_bundle(path: Path, settings: AdaptConfig, model: UserModel, corpus: Corpus) -> bool:
    """Return whether a bundle is what adapting with these settings would give."""
    meta = description(path)
    return (
        meta.get("backbone_fingerprint") == model.fingerprint
        and meta["metrics"].get("corpus_fingerprint") == corpus.manifest["fingerprint"]
        and same_settings(path / "config.yaml", settings)
    )
