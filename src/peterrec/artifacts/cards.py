"""The README.md (model card) that every artifact carries."""

from __future__ import annotations

from typing import Any

from peterrec.artifacts.card_metadata import Publication, backbone_header, bundle_header


def backbone_card(meta: dict[str, Any], publication: Publication | None = None) -> str:
    """Return the model card of a backbone, from its config.json.

    Args:
        meta: the file.
        publication: where it is on the Hub; None: it is a folder.
    """
    publication = publication or Publication()
    config, training = meta["backbone"], meta["training"]
    metrics = "".join(f"| {name} | {_number(value)} |\n" for name, value in training.get("metrics", {}).items())
    probed = ", `probe_...` of a linear model on the vectors of labelled users" if "probe" in training else ""
    contrasted = ", `contrastive_loss` of pieces of them" if "contrastive_loss" in training.get("metrics", {}) else ""
    return f"""{backbone_header(meta, publication)}# A peterrec backbone

A {config["kind"]} user model: {_blocks(config)}, {meta["items"]:,} items, {meta["parameters"]:,} parameters.

It was pre-trained {_objective(training)}, on {training.get("users", "?")} users.
On held-out users (`valid_loss` over all of their positions{contrasted}{probed}, the others for the last item of each):

| metric | value |
|---|---|
{metrics}{_warnings(training)}
- Reads at most the {meta["max_length"]} most recent events of a user; unknown items: {meta["unknown"]}.
{_new_users(meta)}- Fingerprint: `{meta["fingerprint"]}`
- Fingerprint of the catalogue: `{meta["catalogue_fingerprint"]}`
- Written by peterrec {meta["peterrec_version"]}.

```python
from peterrec import UserModel

model = UserModel.from_pretrained({_place(publication)})
vectors = model.represent([["item-1", "item-2"]])
```

It learned from what people did, so it repeats what they did, biases included. Check it on your own users before
decisions about people rest on it.
"""


def bundle_card(meta: dict[str, Any], metrics: dict[str, Any], publication: Publication | None = None) -> str:
    """Return the model card of a bundle, from its adapter_config.json and metrics.json.

    Args:
        meta: adapter_config.json.
        metrics: metrics.json.
        publication: where it is on the Hub; None: it is a folder.
    """
    publication = publication or Publication()
    verb = "recommend" if meta["kind_of_task"] == "ranking" else "predict"
    constant = metrics.get("constant", {})  # not of bundles that were trained elsewhere
    rows = "".join(
        f"| {name} | {_number(value)} | {_number(constant.get(name, '?'))} |\n"
        for name, value in metrics.get("valid", {}).items()
    )
    return f"""{bundle_header(meta, metrics, publication)}# Adapter bundle `{meta["name"]}`

Strategy `{meta["strategy"]}` for the {meta["kind_of_task"]} task `{meta["name"]}`:
{meta["trainable_params"]:,} trained parameters, {100 * meta["trainable_fraction"]:.2f} % of all.

On the validation users:

| metric | value | the same answer for everybody |
|---|---|---|
{rows}{_cross_validation(metrics)}{_merged(metrics)}{_start(metrics)}{_warnings(metrics)}
{_readout(meta, metrics)}{_new_users(meta)}- Works only on the backbone `{meta["backbone_fingerprint"]}`
- and the catalogue `{meta["catalogue_fingerprint"]}`.
- Written by peterrec {meta["peterrec_version"]}.

```python
from peterrec import UserModel

model = UserModel.from_pretrained("{publication.base_model or "BACKBONE_FOLDER"}")
model.load_bundle({_place(publication)}, name="{meta["name"]}")
answers = model.{verb}([["item-1", "item-2"]], bundle="{meta["name"]}")
```
"""


def _place(publication: Publication) -> str:
    """Return the arguments that load it."""
    if publication.repo_id is None:
        return '"THIS_FOLDER"'
    subfolder = f', subfolder="{publication.subfolder}"' if publication.subfolder else ""
    return f'"{publication.repo_id}"{subfolder}'


def _readout(meta: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Return what is to be said of what its head reads: that it is trained, or without an attribute."""
    params = meta.get("readout_params")
    trained = (
        "" if params is None else f"- Its head reads `{meta['readout']}`, by {params:,} numbers of the task's own.\n"
    )
    if "erased" not in meta:
        return trained
    erasure, (metric, *_) = metrics["erasure"], metrics["valid"]
    values = " -> ".join(_number(erasure[when][metric]) for when in ("before", "after"))
    return trained + (
        f"- `{meta['erased']['attribute']}` was erased from what its head reads, for linear models, by "
        f"{erasure['users']:,} users ({metric} {values}); others may still read it.\n"
    )


def _cross_validation(metrics: dict[str, Any]) -> str:
    summary = metrics.get("cross_validation")
    if summary is None:
        return ""
    rows = "".join(
        f"| {name} | {_number(value)} | {_number(summary['constant'][name])} |\n"
        for name, value in summary["metrics"].items()
    )
    return f"""
The epoch was chosen by {summary["folds"]}-fold cross-validation within the {summary["users"]} train users:

| metric | value | the same answer for everybody |
|---|---|---|
{rows}"""


def _merged(metrics: dict[str, Any]) -> str:
    merged = metrics.get("merged")
    if merged is None:
        return ""
    return f"\n{len(merged['bundles'])} bundles were merged by `{merged['method']}`; the result was not measured.\n"


def _start(metrics: dict[str, Any]) -> str:
    start_is_best = metrics.get("best_epoch") == -1
    return "\nNo epoch was better than the start, which is what is kept.\n" if start_is_best else ""


def _warnings(metrics: dict[str, Any]) -> str:
    lines = metrics.get("warnings", ())
    return "".join(f"\n**Warning:** {line}.\n" for line in lines)


def _new_users(meta: dict[str, Any]) -> str:
    new = meta.get("new_users")
    if new is None:
        return ""
    parts = [f"the {' and '.join(new['parts'])} users of the split `{new['split']['salt']}`"] if new["parts"] else []
    if new["fraction"]:
        parts.append(f"{100 * new['fraction']:g} % of all by a hash of their id")
    if new["first_event_after"] is not None:
        parts.append(f"those who came at or after {new['first_event_after']}")
    return f"- Pre-trained without any event of {new['users']:,} new users: {', or '.join(parts)}.\n"


def _blocks(config: dict[str, Any]) -> str:
    if config.get("architecture") == "transformer":
        return f"""{config["layers"]} blocks of self-attention
({config["heads"]} heads; {config["positions"]} positions from the last event back), {config["channels"]} channels"""
    return f"""{len(config["dilations"])} residual blocks of dilated convolutions
(dilations {config["dilations"]}, the second convolution of a block at twice that), {config["channels"]} channels,
kernel {config["kernel_size"]}"""


def _objective(training: dict[str, Any]) -> str:
    learned = {
        "next item": "to predict the next item at every position",
        "masked items": "to predict items that are masked in its input",
        "contrastive": "to tell pieces of a user's history from those of others",
    }
    return " and ".join(learned.get(name, name) for name in str(training.get("objective", "next item")).split(" and "))


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
