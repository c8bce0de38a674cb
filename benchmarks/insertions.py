"""Which patch, where, how wide, and what is trained: python benchmarks/insertions.py

Adapts a backbone with every variant of a list to gender on MovieLens-1M and to food after kitchen on Amazon, and prints
a table. Defaults are chosen by it, so it never looks at test users: the users here are the train users of the paper's
70 / 3 / 27 split, split again. What is there already is not done again.

Needs a folder with `ml-1m` and `amazon-kitchen-food` as Parquet tables (--data); skips what is absent.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

import peterrec
from peterrec.evaluation.results import TaskEvaluation

PRETRAIN = {"epochs": 8, "patience": 2, "item_init": "random", "contrastive": {"weight": 0.0}, "dropout": 0.0}
BACKBONE = {"dilations": (1, 4) * 4, "tie_weights": True}
ADAPT: dict[str, Any] = {"readout": "token", "max_length": 100, "epochs": 15, "patience": 4}
ADAPT |= {"ranking_loss": "bpr", "negatives": {"count": 4}}
SPLIT = {"train": 0.6, "valid": 0.15, "test": 0.25, "salt": "development"}  # more to validate on: less luck in stopping

VARIANTS: dict[str, dict[str, Any]] = {
    "patch: serial, before norm": {},
    "serial, after norm": {"patch": {"position": "pre_act"}},
    "serial, one per block": {"patch": {"per_block": 1}},
    "parallel, before norm": {"patch": {"insertion": "parallel"}},
    "parallel, after norm": {"patch": {"insertion": "parallel", "position": "pre_act"}},
    "parallel, after ReLU": {"patch": {"insertion": "parallel", "position": "post_act"}},
    "parallel, before norm, inner skip": {"patch": {"insertion": "parallel", "inner_skip": True}},
    "parallel, after ReLU, inner skip": {
        "patch": {"insertion": "parallel", "position": "post_act", "inner_skip": True}
    },
    "serial, random start": {"patch": {"init": "random"}},
    "serial, GELU": {"patch": {"activation": "gelu"}},
    "serial, bottleneck d/16": {"patch": {"bottleneck": 0.0625}},
    "serial, bottleneck d/4": {"patch": {"bottleneck": 0.25}},
    "serial, own second norms": {"patch": {"train_norms": True}},
    "serial, own [TCL]": {"patch": {"train_task_token": True}},
    "serial, last two blocks": {"patch": {"blocks": 2}},
    "LoRA, rank 4": {"patch": {"kind": "lora"}},
    "scale-shift": {"patch": {"kind": "scale-shift"}},
    "head": {"strategy": "head"},
    "last1": {"strategy": "last1"},
    "last2": {"strategy": "last2"},
    "all": {"strategy": "all", "optim": {"lr": 5e-4, "weight_decay": 0.01}},
    "scratch": {"strategy": "scratch"},
    "patch-random": {"strategy": "patch-random"},
    "joint": {"strategy": "joint", "optim": {"lr": 5e-4, "weight_decay": 0.01}},
}
FOOD_VARIANTS: dict[str, dict[str, Any]] = {
    "BCE": {"ranking_loss": "bce"},
    "sampled softmax": {"ranking_loss": "sampled-softmax"},
    "sampled softmax, 50 negatives": {"ranking_loss": "sampled-softmax", "negatives": {"count": 50}},
    "BPR, by popularity": {"negatives": {"sampling": "popularity", "count": 4}},
    "BPR, hard": {"negatives": {"sampling": "hard", "count": 4, "candidates": 50}},
    "BPR, 50 negatives": {"negatives": {"count": 50}},
    "BPR, hard, 50 of 200": {"negatives": {"sampling": "hard", "count": 50, "candidates": 200}},
}


@dataclass(frozen=True)
class Data:
    """One data set: its task, how it is prepared, and what is reported."""

    name: str
    task: str
    metrics: tuple[str, ...]
    config: peterrec.PrepareConfig


def data_sets(root: Path) -> Iterator[tuple[str, Data]]:
    """Describe the data sets that are there."""
    movies, kitchen = root / "ml-1m", root / "amazon-kitchen-food"
    if movies.is_dir():
        labels = {"kind": "classification", "labels": {"path": str(movies / "users.parquet"), "label": "gender"}}
        tree = {"events": {"paths": [str(movies / "events.parquet")]}, "tasks": [{"name": "gender", **labels}]}
        yield "ml-1m", Data("ml-1m", "gender", ("auc", "accuracy"), peterrec.PrepareConfig.model_validate(tree))
    if kitchen.is_dir():
        tree = {
            "events": {"paths": [str(kitchen / "events.parquet")], "domain": "domain"},
            "source": {"domains": ["kitchen"]},
            "tasks": [{"name": "food", "kind": "ranking", "domains": ["food"]}],
        }
        metrics = ("mrr@5", "hr@5")
        yield "kitchen-food", Data("kitchen-food", "food", metrics, peterrec.PrepareConfig.model_validate(tree))


def development(data: Data, out: Path) -> peterrec.Corpus:
    """Return a corpus whose labelled users are the train users of the paper's split, split again."""
    if (out / "corpus").exists():
        return peterrec.Corpus.open(out / "corpus")
    corpus = peterrec.prepare(data.config, out / "whole")
    train = pc.cast(corpus.task(data.task).part("train").user_ids, "string")
    tree = data.config.model_dump(mode="json")
    tree["split"] = SPLIT
    task = tree["tasks"][0]
    if task["kind"] == "classification":
        users = pq.read_table(task["labels"]["path"])
        selected = users.filter(pc.is_in(pc.cast(users["user_id"], "string"), train))
        task["labels"]["path"] = _write(selected, out / "users.parquet")
    else:
        events = pq.read_table(tree["events"]["paths"][0])
        source = pc.is_in(pc.cast(events["domain"], "string"), pa.array(tree["source"]["domains"]))
        selected = events.filter(pc.or_(source, pc.is_in(pc.cast(events["user_id"], "string"), train)))
        tree["events"]["paths"] = [_write(selected, out / "events.parquet")]
    return peterrec.prepare(peterrec.PrepareConfig.model_validate(tree), out / "corpus")


def _write(table: Any, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return str(path)


def adapted(
    model: peterrec.UserModel, corpus: peterrec.Corpus, data: Data, out: Path, settings: dict[str, Any]
) -> Path:
    """Adapt, unless that was done before; returns the folder of the bundle."""
    config = peterrec.AdaptConfig.model_validate(ADAPT | settings | {"runner": {"progress": False}})
    if config.strategy == "joint":
        if not out.exists():
            peterrec.adapt_jointly(model, corpus, [data.task], out, config, resume=True)
        return out / data.task
    if not out.exists():
        peterrec.adapt(model, corpus, data.task, out, config, resume=True)
    return out


def sweep(data: Data, out: Path, options: argparse.Namespace) -> None:
    """Pre-train once, adapt every variant with every seed, evaluate, print."""
    corpus = development(data, out)
    pretraining = peterrec.PretrainConfig.model_validate(
        PRETRAIN | {"backbone": BACKBONE | {"kind": options.kind}, "runner": {"progress": False}}
    )
    backbone = out / f"backbone-{options.kind}"
    model = (
        peterrec.UserModel.from_pretrained(backbone)
        if backbone.exists()
        else peterrec.pretrain(corpus, backbone, pretraining, resume=True)
    )
    variants = VARIANTS | (FOOD_VARIANTS if data.task == "food" else {})
    chosen = {name: v for name, v in variants.items() if options.only is None or any(o in name for o in options.only)}
    evaluations: list[TaskEvaluation] = []
    for seed in options.seeds:
        paths: dict[str, str | Path] = {}
        for name, settings in chosen.items():
            folder = out / "bundles" / options.kind / f"{slug(name)}-{seed}"
            paths[name] = adapted(model, corpus, data, folder, settings | {"seed": seed})
            print(f"  {data.name}, seed {seed}: {name}", flush=True)
        config = peterrec.EvaluateConfig(baselines=seed == options.seeds[0], bootstrap=500)
        evaluations.append(peterrec.evaluate(model, corpus, paths, config=config))
    print_table(data, evaluations, list(chosen))


def slug(name: str) -> str:
    """Return a name that can be a folder's."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


def print_table(data: Data, evaluations: list[TaskEvaluation], variants: list[str]) -> None:
    """Print the mean over seeds, the range over seeds, and the interval over users."""
    methods = {row.name: row for row in evaluations[0].methods}
    first = data.metrics[0]
    print(f"\n{data.name}, {data.task}: {evaluations[0].users:,} development users, {len(evaluations)} seeds\n")
    heads = " | ".join(f"{metric} (range of seeds) [95 % over users]" for metric in data.metrics)
    print(f"| variant | trained | {heads} | - {variants[0]}, {first} |\n|---|---|{'---|' * len(data.metrics)}---|")
    for name, method in methods.items():
        runs = [row for evaluation in evaluations for row in evaluation.methods if row.name == name]
        cells = []
        for metric in data.metrics:
            values = [run.values[metric] for run in runs]
            points = [value.value for value in values]
            half = mean((value.high or 0) - (value.low or 0) for value in values) / 2
            cells.append(f"{mean(points):.4f} ({min(points):.4f} .. {max(points):.4f}) [± {half:.4f}]")
        trained = f"{method.trainable:,}" if method.trainable is not None else "-"
        print(f"| {name} | {trained} | {' | '.join(cells)} | {difference(evaluations, name, variants[0], first)} |")


def difference(evaluations: list[TaskEvaluation], name: str, reference: str, metric: str) -> str:
    """Return the mean paired difference to the default, with the mean of its limits over users."""
    comparisons = [
        comparison
        for evaluation in evaluations
        for comparison in evaluation.comparisons
        if (comparison.method, comparison.reference, comparison.metric)
        in ((name, reference, metric), (reference, name, metric))
    ]
    if not comparisons:
        return ""
    # Every pair of models is compared both ways; a baseline only as a reference, with the sign turned.
    direct = [comparison for comparison in comparisons if comparison.method == name]
    sign, chosen = (1, direct) if direct else (-1, comparisons)
    limits = sorted(sign * mean(getattr(comparison, side) or 0.0 for comparison in chosen) for side in ("low", "high"))
    return f"{sign * mean(comparison.difference for comparison in chosen):+.4f} [{limits[0]:+.4f}, {limits[1]:+.4f}]"


def main() -> None:
    logging.basicConfig(format="%(message)s")
    logging.getLogger("peterrec.training.pretrain").setLevel(logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/insertions"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kind", choices=["causal", "noncausal"], default="causal")
    parser.add_argument("--sets", nargs="+", default=["ml-1m", "kitchen-food"])
    parser.add_argument("--only", nargs="+", help="variants whose names hold one of these")
    options = parser.parse_args()
    data_by_name = dict(data_sets(options.data))
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, seeds {options.seeds}")
    for name in options.sets:
        if name not in data_by_name:
            print(f"skipped {name}: {options.data / name} is not there")
        else:
            sweep(data_by_name[name], options.out / name, options)


if __name__ == "__main__":
    main()
