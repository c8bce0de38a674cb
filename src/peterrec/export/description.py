"""Files beside an exported graph: its description, an example with its answers, and a page for its readers."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from peterrec._version import __version__
from peterrec.artifacts.bundle_io import Bundle
from peterrec.artifacts.tensors import fingerprint
from peterrec.config import PreprocessingConfig, dump_optional
from peterrec.data.preprocessing import assumptions
from peterrec.data.sequences import PAD, UNK
from peterrec.export.formats import INPUT, Answers, GraphFormat
from peterrec.export.graph import KNOWN_EVENTS, AnswerGraph, ExportedOutput
from peterrec.model import UserModel
from peterrec.storage import FORMAT_VERSION

VOCABULARY_FILE = "vocabulary.parquet"
COLUMNS_SHOWN = 20  # of an output of an example: a catalogue may have a million


def preprocessing_of(model: UserModel) -> PreprocessingConfig | None:
    """Return how events become a row of the input: as the first bundle, or the backbone, was trained."""
    return model.preprocessing(next(iter(model.bundles), None))


def unknown_items(model: UserModel) -> str:
    """Return what becomes of an item outside the vocabulary: `skip`, or `unk`, as `UserModel.encode` has it."""
    settings = preprocessing_of(model)
    if settings is None:
        return model.pretrained.unknown
    return "unk" if settings.source.rare_items == "unk" else "skip"


def describe(model: UserModel, graph: AnswerGraph, form: GraphFormat, format_name: str) -> dict[str, Any]:
    """Return the content of `graph.json`: plain values."""
    backbone, settings = model.network.backbone.config, preprocessing_of(model)
    packages = {package: importlib.import_module(package).__version__ for package in form.packages}
    return {
        "kind": "graph",
        "format_version": FORMAT_VERSION,
        "peterrec_version": __version__,
        "format": format_name,
        "graph": form.file,
        "made_with": {"torch": torch.__version__} | packages,
        "input": {
            "name": INPUT,
            "dtype": "int64",
            "shape": ["batch", graph.max_length],
            "max_length": graph.max_length,
            "padding_index": PAD,
            "padding": "before or behind the events of a row",
            "order": "oldest event first",
            "vocabulary": VOCABULARY_FILE,
            "unknown_items": unknown_items(model),
            "unknown_index": UNK if unknown_items(model) == "unk" else None,
        },
        "outputs": [_describe_output(output, model) for output in graph.outputs]
        + [{"name": KNOWN_EVENTS, "dtype": "int64", "shape": ["batch"]}],
        "backbone": {
            "fingerprint": model.fingerprint,
            "catalogue_fingerprint": model.catalogue.fingerprint,
            "architecture": backbone.architecture,
            "kind": backbone.kind,
            "channels": backbone.channels,
            "items": len(model.catalogue),
        },
        "bundles": {name: _describe_bundle(bundle) for name, bundle in model.bundles.items()},
        "preprocessing": None if settings is None else dump_optional(settings),
    }


def _describe_output(output: ExportedOutput, model: UserModel) -> dict[str, Any]:
    if output.bundle is None:
        backbone = model.network.backbone
        count = backbone.config.channels if output.targets is None else len(model.pretrained.next_items)
    else:
        targets = model.bundle(output.bundle).targets
        count = len(output.columns) if targets is None else len(targets)
    described: dict[str, Any] = {
        "name": output.name,
        "bundle": output.bundle,
        "dtype": "float64" if output.name.endswith(".numbers") else "float32",
        "shape": ["batch", count],
    }
    if output.targets is not None:
        return described | {"targets": output.targets}
    return described | ({"columns": list(output.columns)} if output.columns else {})


def _describe_bundle(bundle: Bundle) -> dict[str, Any]:
    return {
        "task": bundle.name,
        "kind_of_task": bundle.kind,
        "strategy": bundle.strategy,
        "fingerprint": fingerprint(bundle.tensors()),
        "outputs_fingerprint": bundle.outputs_fingerprint,
        "max_length": bundle.max_length,
        "readout": bundle.readout,
        "calibration": None if bundle.calibration is None else bundle.calibration.method,
        "decision": None if bundle.decision is None else bundle.decision.to_json(),
        "exclude_seen": bundle.exclude_seen if bundle.targets is not None else None,
    }


def example_json(tokens: torch.Tensor, answers: Answers) -> dict[str, Any]:
    """Return an example: rows of the input, and the first columns of what the library answers."""
    shown = {name: values.reshape(len(values), -1)[:, :COLUMNS_SHOWN].tolist() for name, values in answers.items()}
    return {"tokens": tokens.tolist(), "columns_shown": COLUMNS_SHOWN, "outputs": shown}


def readme(meta: dict[str, Any], form: GraphFormat, model: UserModel) -> str:
    """Return the page of an export."""
    settings, longest = preprocessing_of(model), meta["input"]["max_length"]
    lines = _steps(meta, settings, longest)
    rows = [f"| `{output['name']}` | {_meaning(output, meta)} |" for output in meta["outputs"]]
    return "\n".join(
        [
            f"# {', '.join(meta['bundles']) or 'A backbone'}, as a graph",
            "",
            f"Written by peterrec {meta['peterrec_version']}, which is not needed to ask it. `graph.json` says the",
            "same to a program as this page; `example.json` has rows and what must come out.",
            "",
            f"## Input: `{INPUT}`, int64, (any number of users, {longest})",
            "",
            *lines,
            "",
            "Special tokens of the model are put in by the graph. Any other number than an index of the vocabulary, "
            f"{UNK} or {PAD} is an error that the graph does not see.",
            "",
            "## Outputs",
            "",
            "| name | what |",
            "|---|---|",
            *rows,
            "",
            "About a user without an item of the vocabulary (`known_events` is 0) it answers what holds of the train",
            "users: shares of classes, the mean or quantiles, popularity. A representation is that of an empty row.",
            "",
            "## Asking it",
            "",
            "```python",
            form.usage.rstrip(),
            "```",
            "",
        ]
    )  # fmt: skip


def _steps(meta: dict[str, Any], settings: PreprocessingConfig | None, longest: int) -> list[str]:
    """Return the lines that say how events become a row of the input."""
    skips = meta["input"]["unknown_items"] == "skip"
    unknown = "leave it out" if skips else f"write {UNK} in its place"
    steps = [
        "take the user's events, oldest first;",
        *([] if settings is None or settings.source.repeats != "drop" else ["of the same item in a row keep one;"]),
        *_limits(settings),
        f"look up the `index` of each item in `{VOCABULARY_FILE}`; of an item that is not there {unknown};",
        f"keep the last {longest}, and fill the row up to {longest} with {PAD}, before or behind.",
    ]
    lines = [f"{number}. {step}" for number, step in enumerate(steps, 1)]
    assumed = [f"- {line}" for line in assumptions(settings, times=False, domains=False)]
    if assumed:
        lines += ["", "What the model was trained on, and a row must keep to:", "", *assumed]
    return lines


def _limits(settings: PreprocessingConfig | None) -> list[str]:
    if settings is None or settings.cut.first_events is None:
        return []
    return [f"keep the first {settings.cut.first_events} events;"]


def _meaning(output: dict[str, Any], meta: dict[str, Any]) -> str:
    name = output["name"]
    if name == KNOWN_EVENTS:
        return "(users): items of the row that the model knows; 0: nothing is known of the user"
    size = output["shape"][1]
    if "targets" in output:
        return f"(users, {size:,}): a score of each item of `{output['targets']}`, in its order; the highest is best"
    if name == "representation":
        return f"(users, {size}): the vector of a user"
    columns = ", ".join(output["columns"][:COLUMNS_SHOWN]) + (", ..." if size > COLUMNS_SHOWN else "")
    task = meta["bundles"][output["bundle"]]["kind_of_task"]
    kinds = {"classification": "the probability of", "multilabel": "how probable each label is:", "regression": "the"}
    by_threshold = meta["bundles"][output["bundle"]]["decision"] is not None
    thresholds = "; thresholds are in `graph.json` (`decision`)" if by_threshold else ""
    return f"(users, {size}): {kinds[task]} {columns}{thresholds}"
