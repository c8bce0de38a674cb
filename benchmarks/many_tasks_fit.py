"""Data of `many_tasks.py`, and every method trained on every task and judged by its test users."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import peterrec
from peterrec.config import AdaptConfig, EvaluateConfig, PrepareConfig, PretrainConfig
from peterrec.data.corpus import Task
from peterrec.data.pretraining_users import unlabelled_sequences
from peterrec.data.sequences import Sequences
from peterrec.data.synthetic import synthetic
from peterrec.evaluation.baselines.classification import ClassificationBaseline
from peterrec.evaluation.baselines.fit import fit_baseline
from peterrec.evaluation.baselines.tfidf_factors import TfidfFactors, factorise
from peterrec.evaluation.bundles import BundleScorer
from peterrec.evaluation.per_user import UserEvaluation, evaluate_users, pretraining_users

PATCHES, HEADS, COPIES = "patches", "heads", "fine-tuned copies"
STRATEGIES: dict[str, dict[str, Any]] = {
    PATCHES: {"strategy": "patch"},
    HEADS: {"strategy": "head"},
    COPIES: {"strategy": "all", "optim": {"lr": 5e-4, "weight_decay": 0}},
}
FACTORS = 64
FACTOR_REGRESSION = f"{FACTORS} factors + logistic regression"
REGRESSIONS = ("tf-idf + logistic regression", FACTOR_REGRESSION)
METHODS = (*STRATEGIES, *REGRESSIONS)
COLUMNS = ("gender", "age", "occupation")  # of the table of users


@dataclass
class Fitted:
    """Every method, trained on every task.

    Attributes:
        seconds: of each method, by task.
        bundles: folders of each strategy, by task.
        regressions: fitted baselines of each name, by task.
        factors: that the regressions of all tasks are fitted on.
        factor_seconds: of finding them.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: {method: [] for method in METHODS})
    bundles: dict[str, dict[str, Path]] = field(default_factory=lambda: {method: {} for method in STRATEGIES})
    regressions: dict[str, dict[str, ClassificationBaseline]] = field(
        default_factory=lambda: {name: {} for name in REGRESSIONS}
    )
    factors: TfidfFactors | None = None
    factor_seconds: float = 0.0


def missing_data(options: argparse.Namespace) -> str | None:
    """Return why there is nothing to train on, if so."""
    if options.quick:
        return None
    absent = [name for name in ("events.parquet", "users.parquet") if not (options.data / name).is_file()]
    if absent:
        return f"there is no {' and no '.join(absent)} in {options.data}: run `peterrec fetch ml-1m`, or name --data"
    columns = [name for name in COLUMNS if name not in pq.read_schema(options.data / "users.parquet").names]
    return f"users.parquet has no column {', '.join(columns)}: name the folder of MovieLens-1M" if columns else None


def prepared(work: Path, options: argparse.Namespace) -> peterrec.Corpus:
    """Write the table of labels, and prepare a task of each of its columns."""
    work.mkdir(parents=True, exist_ok=True)
    data = made_up(work / "data") if options.quick else options.data
    labels = labels_of(pq.read_table(data / "users.parquet"), options.attributes)
    pq.write_table(labels, work / "labels.parquet")
    tree = {
        "events": {"paths": [str(data / "events.parquet")]},
        "tasks": [
            {"kind": "classification", "name": name, "labels": {"path": str(work / "labels.parquet"), "label": name}}
            for name in labels.column_names[1:]
        ],
        "new_users": {"parts": ["test"]},
    }
    return peterrec.prepare(PrepareConfig.model_validate(tree), work / "corpus")


def labels_of(users: pa.Table, attributes: int) -> pa.Table:
    """Return gender, age and occupation, and whether a user has each of the most frequent values of the last two."""
    users = users.select(["user_id", *COLUMNS]).drop_null()  # every task then has the same users
    columns = {name: pc.cast(users[name], pa.string()) for name in COLUMNS}
    values = [
        (-count, name, value) for name in COLUMNS[1:] for value, count in Counter(columns[name].to_pylist()).items()
    ]
    for _, name, value in sorted(values)[:attributes]:
        columns[f"{name}-{value}"] = pc.if_else(pc.equal(columns[name], value), "yes", "no")
    return pa.table({"user_id": users["user_id"], **columns})


def made_up(folder: Path) -> Path:
    """Write users with a taste, who are described by it."""
    data = synthetic(users=300, items=60)
    cluster = data.users["cluster"].to_pylist()
    users = {"user_id": data.users["user_id"], "gender": ["M" if taste in ("c0", "c1") else "F" for taste in cluster]}
    users |= {"age": cluster, "occupation": [f"job{number % 5}" for number in range(len(cluster))]}
    folder.mkdir()
    pq.write_table(data.events.filter(pc.equal(data.events["domain"], "source")), folder / "events.parquet")
    pq.write_table(pa.table(users), folder / "users.parquet")
    return folder


def pretrained(corpus: peterrec.Corpus, options: argparse.Namespace) -> Path:
    """Pre-train with the default settings; returns the folder of the backbone, beside that of the corpus."""
    backbone = corpus.path.parent / "backbone"
    tree: dict[str, Any] = {"epochs": options.epochs, "seed": options.seed, "runner": {"progress": False}}
    if options.quick:
        tree["backbone"] = {"channels": 16, "dilations": (1, 2)}
    peterrec.pretrain(corpus, backbone, PretrainConfig.model_validate(tree))
    return backbone


def fit_all(corpus: peterrec.Corpus, backbone: Path, options: argparse.Namespace) -> Fitted:
    """Let all methods learn a task, then the next task."""
    fitted, model = Fitted(), peterrec.UserModel.from_pretrained(backbone)
    shared = {"seed": options.seed, "runner": {"progress": False}} | ({"epochs": 1} if options.quick else {})
    configs = {method: AdaptConfig.model_validate(tree | shared) for method, tree in STRATEGIES.items()}
    tasks, unlabelled = [task["name"] for task in corpus.manifest["tasks"]], unlabelled_sequences(corpus)
    bundles = backbone.parent / "bundles"
    peterrec.adapt(model, corpus, tasks[0], bundles / "uncounted", configs[HEADS])  # libraries load at the first
    for task in tasks:
        for method, config in configs.items():
            fitted.bundles[method][task] = bundles / method / task
            learn = partial(peterrec.adapt, model, corpus, task, fitted.bundles[method][task], config)
            fitted.seconds[method].append(seconds_of(learn)[0])
        for name in REGRESSIONS:
            seconds, regression = seconds_of(partial(fit_regression, name, corpus.task(task), unlabelled))
            fitted.seconds[name].append(seconds)
            fitted.regressions[name][task] = regression
        progress(f"{task}: " + ", ".join(f"{method} {fitted.seconds[method][-1]:.1f} s" for method in METHODS))
    users, items = np.arange(len(unlabelled)), len(corpus.catalogue)
    fitted.factor_seconds, fitted.factors = seconds_of(partial(factorise, unlabelled, users, items, FACTORS, 0))
    return fitted


def fit_regression(name: str, task: Task, unlabelled: Sequences) -> ClassificationBaseline:
    """Fit a baseline of the registry, reading the users first, as `adapt` does."""
    classes = len(task.class_names)
    baseline = fit_baseline(name, task.part("train"), task.part("valid"), classes=classes, unlabelled=unlabelled)
    if not isinstance(baseline, ClassificationBaseline):
        raise SystemExit(f"{task.name}: {baseline}")
    return baseline


def seconds_of(action: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long an action takes, and its result."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def evaluate_all(corpus: peterrec.Corpus, backbone: Path, fitted: Fitted) -> dict[str, dict[str, UserEvaluation]]:
    """Judge all methods by the test users of every task."""
    in_pretraining = pretraining_users(corpus, PretrainConfig())
    evaluations: dict[str, dict[str, UserEvaluation]] = {}
    for method in METHODS:
        scorers: dict[str, Any] = dict(fitted.regressions.get(method, {}))
        if method in STRATEGIES:
            model = model_of(backbone, fitted.bundles[method])
            scorers = {task: BundleScorer(model, task, 256) for task in fitted.bundles[method]}
        evaluations[method] = {
            task: evaluate_users(corpus.task(task), scorer, EvaluateConfig(), in_pretraining)
            for task, scorer in scorers.items()
        }
    return evaluations


def model_of(backbone: Path, bundles: Mapping[str, Path]) -> peterrec.UserModel:
    """Load a backbone and bundles."""
    model = peterrec.UserModel.from_pretrained(backbone)
    for task, path in bundles.items():
        model.load_bundle(path, task)
    return model


def engine_of(backbone: Path, bundles: Mapping[str, Path]) -> peterrec.Engine:
    """Load bundles into an engine."""
    engine = peterrec.Engine(peterrec.UserModel.from_pretrained(backbone))
    for task, path in bundles.items():
        engine.load(task, path)
    return engine


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
