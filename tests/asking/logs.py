"""A made-up log in which every setting of `prepare` matters, and models of it that were never trained."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from builders import tiny_bundle, tiny_pretrained
from data.prepare.logs import write_csv
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.config import PrepareConfig, build_config
from peterrec.data.corpus import Corpus, Task
from peterrec.data.prepare import prepare

HEADER = ("user_id", "item_id", "timestamp", "n", "domain", "clock")
SPLIT = {"train": 0.4, "valid": 0.2, "test": 0.4}
# A value of every setting that changes the sequences of the log below; None: it cannot change what is asked.
VARIATIONS: dict[str, Any] = {
    "source.domains": ["shop", "food"],
    "source.exclude_domains": ["food"],
    "source.after": "4",
    "source.before": "9",
    "source.min_item_events": 60,
    "source.min_user_events": None,  # which users are there, not what is read of them
    "source.max_history": 4,
    "source.repeats": "drop",
    "source.rare_items": "unk",
    "columns.user": None,  # names of columns: a file with other names is not read
    "columns.item": None,
    "columns.time": "clock",
    "columns.order": "n",
    "columns.ties": "lines",
    "columns.domain": None,  # read in all of the tests, for domains to matter
    "columns.columns": None,  # see test_a_log_without_a_header_line
    "columns.separator": None,
    "columns.time_format": None,  # changes nothing of a log that can be read without
    "columns.ids": "text",
    "columns.invalid_rows": "drop",
    "columns.missing": ["i3"],
    "columns.features": ["n", "n:log-bins", "time:gap,hour"],
    "cut.until": "7",
    "cut.first_events": 3,
    "cut.last_events": 2,
}


def log_rows(seed: int = 0, users: int = 60) -> list[tuple[Any, ...]]:
    """Ties, repeats, three domains, rare items, and two columns of times that disagree."""
    dice = random.Random(seed)
    rows = []
    for user in range(users):
        item = 0
        for _ in range(dice.randrange(6, 16)):
            item = item if dice.random() < 0.3 else min(int(dice.expovariate(0.25)), 15)
            time = dice.randrange(12)
            domain = dice.choices(["shop", "food", "toys"], [4, 2, 1])[0]
            rows.append((f"u{user}", f"i{item}", time, dice.randrange(3), domain, 100 - time))
    return rows


def prepared(folder: Path, log: Path, settings: dict[str, Any]) -> Corpus:
    """Prepare with some settings, given as `source.before`, `columns.order`, ...; with tasks of every kind."""
    tree: dict[str, Any] = {"source": {"min_item_events": 3}, "events": {"paths": [str(log)], "domain": "domain"}}
    for name, value in settings.items():
        section, _, key = name.partition(".")
        if section != "cut":
            tree["source" if section == "source" else "events"][key] = value
    tree["events"].setdefault("invalid_rows", "drop")
    users = write_csv(folder / "users.csv", [(f"u{n}", "abc"[n % 3]) for n in range(60)], ("user_id", "group"))
    tree["tasks"] = [{"name": "group", "kind": "classification", "labels": {"path": str(users), "label": "group"}}]
    if "source.domains" not in settings and "source.exclude_domains" not in settings:
        tree["source"]["exclude_domains"] = ["toys"]
    if settings.get("source.domains") is None:
        target = {"domains": ["toys"] if "source.exclude_domains" not in settings else ["food"], "min_item_events": 1}
        tree["tasks"].append({"name": "first", "kind": "ranking", "history": "before-first-target"} | target)
    cut = {name.removeprefix("cut."): value for name, value in settings.items() if name.startswith("cut.")}
    tree["tasks"] = [task | cut for task in tree["tasks"]]
    return prepare(
        build_config(PrepareConfig, tree | {"split": SPLIT, "threads": 1}), folder / "corpus", overwrite=True
    )


def write_models(folder: Path, corpus: Corpus) -> tuple[Path, dict[str, Path]]:
    """Write an untrained backbone and a bundle of each task, with what the corpus says of its preparation."""
    unknown = "unk" if corpus.manifest["rare_items"] == "unk" else "skip"
    preprocessing = corpus.provenance().preprocessing
    pretrained = tiny_pretrained(corpus.catalogue, unknown=unknown, preprocessing=preprocessing, max_length=6)
    save_backbone(folder / "backbone", pretrained, overwrite=True)
    bundles = {}
    for name in corpus.task_names:
        bundles[name] = folder / f"bundle-{name}"
        save_bundle(bundles[name], bundle_of(pretrained, corpus.task(name)), overwrite=True)
    return folder / "backbone", bundles


def bundle_of(pretrained: Any, task: Task) -> Any:
    """Return an untrained bundle of a task."""
    facts = {"name": task.name, "provenance": task.provenance, "exclude_seen": task.exclude_seen}
    names = {} if task.targets is not None else {"class_names": task.class_names}
    return tiny_bundle(pretrained, targets=task.targets, **names, **facts)
