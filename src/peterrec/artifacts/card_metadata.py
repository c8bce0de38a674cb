"""The YAML header of a model card, in the schema of the Hugging Face Hub, which reads it there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

TAGS = {
    "backbone": ("peterrec", "recommendation", "user-modeling", "sequential-recommendation"),
    "bundle": ("peterrec", "recommendation", "user-modeling", "adapter"),
}
METRIC_TYPES = {"macro_f1": "f1", "auc": "roc_auc"}  # names of the Hub's metrics where ours are others


@dataclass(frozen=True)
class Publication:
    """Place of an artifact and statements of its owner, as its card has them; by default a folder on a disk.

    Attributes:
        repo_id: of the repository on the Hub, as `organization/name`.
        subfolder: in it; empty: its root.
        license: an identifier of the Hub's, such as `apache-2.0`.
        datasets: repositories of data on the Hub that it was trained on.
        base_model: repository of the backbone that a bundle is for.
        owner_fields: `language`, `license_name` and `license_link` of the header, where there are any.
    """

    repo_id: str | None = None
    subfolder: str = ""
    license: str | None = None
    datasets: tuple[str, ...] = ()
    base_model: str | None = None
    owner_fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model_name(self) -> str | None:
        """The name in the header: of the repository; None: there is none."""
        return None if self.repo_id is None else self.repo_id.rpartition("/")[2]


def backbone_header(meta: dict[str, Any], publication: Publication) -> str:
    """Return the header of the card of a backbone, from its config.json."""
    training = meta["training"]
    results = _results(
        {"type": "next-item-prediction", "name": "Next item"},
        training.get("corpus_fingerprint"),
        training.get("metrics", {}),
        publication,
    )
    return _header("backbone", "backbone", results, publication)


def bundle_header(meta: dict[str, Any], metrics: dict[str, Any], publication: Publication) -> str:
    """Return the header of the card of a bundle, from its adapter_config.json and metrics.json."""
    task = {"type": meta["kind_of_task"], "name": meta["name"]}
    corpus = (meta["provenance"] or {}).get("corpus_fingerprint")
    return _header("bundle", meta["name"], _results(task, corpus, metrics.get("valid", {}), publication), publication)


def _header(kind: str, name: str, results: list[dict[str, Any]], publication: Publication) -> str:
    """Return it with the fields in the order in which the Hub's client writes them."""
    index = [{"name": publication.model_name or name, "results": results}]
    fields: dict[str, Any] = {
        "base_model": publication.base_model,
        "datasets": list(publication.datasets),
        "language": publication.owner_fields.get("language"),
        "library_name": "peterrec",
        "license": publication.license,
        "license_name": publication.owner_fields.get("license_name"),
        "license_link": publication.owner_fields.get("license_link"),
        "tags": list(TAGS[kind]),
        "model-index": index if results else None,
    }
    stated = {name: value for name, value in fields.items() if value not in (None, [])}
    return f"---\n{yaml.safe_dump(stated, sort_keys=False, allow_unicode=True)}---\n\n"


def _results(
    task: dict[str, str], corpus: str | None, metrics: dict[str, Any], publication: Publication
) -> list[dict[str, Any]]:
    """Return what was measured on the valid users, as an evaluation of the Hub's; empty where nothing was.

    The Hub wants data to have a type and a name: the data set of the owner, or else the corpus.
    """
    measured = [
        {"type": METRIC_TYPES.get(name, name), "value": value, "name": name}
        for name, value in metrics.items()
        if isinstance(value, float) and math.isfinite(value)  # counts of users are no metrics
    ]
    if not measured:
        return []
    data = publication.datasets[0] if publication.datasets else None
    dataset: dict[str, Any] = {
        "name": data or ("a corpus of peterrec" if corpus is None else f"corpus {corpus[:12]}"),
        "type": data or "peterrec-corpus",
        "split": "validation",
    }
    if corpus is not None:
        dataset["args"] = {"corpus_fingerprint": corpus}
    return [{"task": task, "dataset": dataset, "metrics": measured}]
