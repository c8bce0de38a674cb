"""Ten tasks, one backbone: patches beside heads, fine-tuned copies and logistic regressions.

    peterrec fetch ml-1m && python benchmarks/many_tasks.py

The tasks are gender, age and occupation on MovieLens-1M, and whether a user has each of the seven most frequent values
of age and occupation. Test users are kept out of pre-training; all labels of train users are used. Every method learns
a task before the next task's turn comes, so that a slow minute of the machine is slow for all.

- training: seconds for all tasks, without pre-training; of a bundle with writing it.
- stored: of bundles their folders, without the backbone that they share; of regressions their arrays, equal ones once.
- in memory: arrays of all tasks, ready to answer (bundles: of an `Engine`), beyond those of the backbone alone.
- answers: all tasks about some test users, some users at a time, from ids of items; one answer is a user and a task.
- quality: means over the tasks, of test users. It grows with pre-training (--epochs), which is short by default.

Regressions are fitted and asked task by task, as the package has them. The factors of all tasks are the same, so the
seconds of finding them again, and the answers that users' factors found once would give at most, are printed beside.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read by torch: threads that spin slow each other down on few cores

import argparse
import json
import platform
import tempfile
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import many_tasks_fit as fitting  # the scripts beside this one
import numpy as np
import torch
from array_sizes import arrays_in, content_bytes, folder_bytes, memory_bytes
from many_tasks_fit import COPIES, HEADS, METHODS, PATCHES, REGRESSIONS, STRATEGIES, Fitted
from sides import Ratio, Times, in_turns, ratio

import peterrec
from peterrec.data.catalogue import ItemId
from peterrec.evaluation.intervals import Interval, Resamples, bootstrap, paired_difference
from peterrec.evaluation.per_user import UserEvaluation
from peterrec.evaluation.statistics import weighted_mean
from peterrec.serving.requests import Request

RESAMPLES = 1_000
MIB = 2**20
QUICK: dict[str, Any] = {"epochs": 1, "attributes": 1, "users": 12, "batch": 5, "rounds": 2}
Table = list[list[str]]


def main() -> None:
    """Train all, ask all, and print the tables."""
    peterrec.tune_process()  # as the command line does
    options = _options()
    if reason := fitting.missing_data(options):
        print(f"skipped: {reason}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        corpus = fitting.prepared(options.work or Path(scratch), options)
        fitting.progress(f"pre-training, {options.epochs} epochs")
        backbone = fitting.pretrained(corpus, options)
        fitted = fitting.fit_all(corpus, backbone, options)
        fitting.progress("evaluating")
        evaluations = fitting.evaluate_all(corpus, backbone, fitted)
        fitting.progress("answering")
        histories = asked_histories(corpus, options)
        engines = {method: fitting.engine_of(backbone, paths) for method, paths in fitted.bundles.items()}
        seconds = in_turns(serving_sides(backbone, engines, fitted, histories, options.batch), options.rounds)
        tables = {
            "tasks": task_table(evaluations),
            "cost": cost_table(fitted, memory_of(backbone, engines, fitted)),
            "answers": answer_table(seconds, len(histories) * len(evaluations[PATCHES])),
            "quality": quality_table(evaluations, options.seed),
        }
        lines = heading(corpus, backbone, fitted, options)
    text = "\n".join([*lines, *map(markdown, tables.values())])
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    raw = {"heading": lines, "training_seconds": fitted.seconds, "round_seconds": seconds}
    options.out.write_text(json.dumps(raw | tables, indent=1), encoding="utf-8")
    options.out.with_suffix(".md").write_text(text + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/data/ml-1m"), help="as `peterrec fetch ml-1m` makes it")
    parser.add_argument("--epochs", type=int, default=3, help="of pre-training")
    parser.add_argument("--attributes", type=int, default=7, help="tasks of yes and no")
    parser.add_argument("--users", type=int, default=500, help="that are asked about, at most")
    parser.add_argument("--batch", type=int, default=64, help="users at a time")
    parser.add_argument("--rounds", type=int, default=11, help="of asking")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="empty folder for labels, corpus and bundles; temporary if not given")
    parser.add_argument("--out", type=Path, default=Path("runs/speed/many_tasks.json"))
    parser.add_argument(
        "--quick", action="store_true", help="made-up users, at sizes at which the numbers mean nothing"
    )
    options = parser.parse_args()
    if options.work is not None and options.work.is_dir() and any(options.work.iterdir()):
        parser.error(f"{options.work} is not empty: name another folder, so that nothing old is measured")
    if options.quick:
        vars(options).update(QUICK)
    return options


# ---------------------------------------------------------------- answers and memory


def asked_histories(corpus: peterrec.Corpus, options: argparse.Namespace) -> list[list[ItemId]]:
    """Return the items of test users, evenly spread over all of them."""
    test = corpus.task(fitting.COLUMNS[0]).part("test").sequences
    options.users = min(options.users, len(test))
    rows = np.linspace(0, len(test) - 1, options.users).astype(np.int64)
    return [corpus.catalogue.decode(test[row]) for row in rows.tolist()]


def serving_sides(
    backbone: Path,
    engines: Mapping[str, peterrec.Engine],
    fitted: Fitted,
    histories: list[list[ItemId]],
    batch_size: int,
) -> dict[str, Callable[[], object]]:
    """Return the ways to ask all tasks about the same users; the first is what the others are compared with."""
    batches = [histories[start : start + batch_size] for start in range(0, len(histories), batch_size)]
    requests = [[Request(history) for history in batch] for batch in batches]
    plain = peterrec.UserModel.from_pretrained(backbone)
    models = {method: fitting.model_of(backbone, fitted.bundles[method]) for method in (PATCHES, COPIES)}

    def by_engine(method: str) -> object:
        return [engines[method].predict(batch) for batch in requests]

    def task_by_task(method: str) -> object:
        return [models[method].predict(batch, task) for batch in batches for task in fitted.bundles[method]]

    def by_regressions(name: str) -> object:
        encoded = (plain.encode(batch).sequences for batch in batches)
        return [regression.predict(users) for users in encoded for regression in fitted.regressions[name].values()]

    def factors_alone() -> object:
        assert fitted.factors is not None
        return [fitted.factors.of_users(plain.encode(batch).sequences) for batch in batches]

    sides: dict[str, Callable[[], object]] = {"patches, in mixed batches (`Engine`)": partial(by_engine, PATCHES)}
    sides |= {f"{method} (`Engine`)": partial(by_engine, method) for method in (HEADS, COPIES)}
    sides |= {f"{method}, one after the other (`UserModel`)": partial(task_by_task, method) for method in models}
    sides |= {name: partial(by_regressions, name) for name in REGRESSIONS}
    return sides | {f"{fitting.FACTORS} factors of users once for all tasks, without a regression": factors_alone}


def memory_of(backbone: Path, engines: Mapping[str, peterrec.Engine], fitted: Fitted) -> dict[str, int]:
    """Return the bytes that all tasks of each method have in memory, beyond the backbone alone."""
    alone = memory_bytes(arrays_in(fitting.engine_of(backbone, {})))
    sizes = {method: memory_bytes(arrays_in(engine)) - alone for method, engine in engines.items()}
    return sizes | {name: memory_bytes(arrays_in(by_task)) for name, by_task in fitted.regressions.items()}


# ---------------------------------------------------------------- tables


def heading(corpus: peterrec.Corpus, backbone: Path, fitted: Fitted, options: argparse.Namespace) -> list[str]:
    """Return what the tables were made with."""
    hardware = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"
    curve = peterrec.UserModel.from_pretrained(backbone).pretrained.training["curve"]
    seconds = sum(row["seconds"] for row in curve)
    tasks = len(fitted.seconds[PATCHES])
    spared_seconds = (tasks - 1) * fitted.factor_seconds
    return [
        f"{date.today()}, {hardware} {torch.__version__}, seed {options.seed}, {options.rounds} rounds of asking",
        f"{tasks} tasks, {len(corpus.sequences):,} users, {len(corpus.catalogue):,} items; {options.users:,} test "
        f"users are asked about, {options.batch} at a time",
        f"backbone: {len(curve)} epochs of pre-training, {seconds:.1f} s, {folder_bytes(backbone) / MIB:.2f} MiB",
        f"of the seconds of {fitting.FACTOR_REGRESSION}, {spared_seconds:.1f} are for finding the same factors again",
    ]


def task_table(evaluations: Mapping[str, Mapping[str, UserEvaluation]]) -> Table:
    """Return the log-loss of every method on every task."""
    table = [["task", "classes", "largest class", *(f"log-loss, {method}" for method in METHODS)]]
    for task, evaluation in evaluations[PATCHES].items():
        counts = list(evaluation.classes.values())
        row = [task, str(len(counts)), f"{max(counts) / sum(counts):.1%}"]
        table.append(row + [f"{evaluations[method][task].metrics['log_loss']:.4f}" for method in METHODS])
    return table


def cost_table(fitted: Fitted, memory: Mapping[str, int]) -> Table:
    """Return seconds of training, and bytes on disk and in memory."""
    table = [["method", "training (s)", "/ patches (10 .. 90 % of tasks)", "stored (MiB)", "in memory (MiB)"]]
    patches = np.array(fitted.seconds[PATCHES])
    for method in METHODS:
        seconds = np.array(fitted.seconds[method])
        low, high = np.quantile(seconds / patches, (0.1, 0.9)).tolist()
        if method in STRATEGIES:
            stored = sum(folder_bytes(path) for path in fitted.bundles[method].values())
        else:
            stored = content_bytes(arrays_in(fitted.regressions[method]))
        total_ratio = str(Ratio(float(seconds.sum() / patches.sum()), low, high))
        sizes = [f"{size / MIB:.3f}" for size in (stored, memory[method])]
        table.append([method, f"{seconds.sum():.1f}", total_ratio, *sizes])
    return table


def answer_table(seconds: Mapping[str, list[float]], answers: int) -> Table:
    """Return answers a second, and how many for each of the first side."""
    table = [["asked", "answers a second", "/ patches (10 .. 90 % of rounds)"]]
    times = {side: Times(tuple(rounds)) for side, rounds in seconds.items()}
    first = next(iter(times.values()))
    return table + [[side, f"{answers / t.median:,.0f}", str(ratio(first, t))] for side, t in times.items()]


def quality_table(evaluations: Mapping[str, Mapping[str, UserEvaluation]], seed: int) -> Table:
    """Return means over the tasks, and the paired difference of log-loss to patches."""
    table = [["method", "accuracy", "AUC (two classes)", "log-loss", "log-loss - patches [95 % over users]"]]
    differences = log_loss_differences(evaluations, seed)
    for method, by_task in evaluations.items():
        metrics = [evaluation.metrics for evaluation in by_task.values()]
        means = [np.mean([row[name] for row in metrics if name in row]) for name in ("accuracy", "auc", "log_loss")]
        difference = differences[method]
        cell = f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
        table.append([method, *(f"{mean:.4f}" for mean in means), "" if method == PATCHES else cell])
    return table


def log_loss_differences(evaluations: Mapping[str, Mapping[str, UserEvaluation]], seed: int) -> dict[str, Interval]:
    """Return the log-loss of each method minus that of patches: of each user the mean over tasks, users resampled."""
    tables = [evaluation.users for by_task in evaluations.values() for evaluation in by_task.values()]
    assert all(table["user_id"].equals(tables[0]["user_id"]) for table in tables), "all tasks have the same test users"
    users = len(tables[0])
    statistics = {
        method: partial(
            weighted_mean,
            np.mean([evaluation.users["log_loss"].to_numpy() for evaluation in by_task.values()], axis=0),
            np.ones(users),
        )
        for method, by_task in evaluations.items()
    }
    estimates = bootstrap(statistics, Resamples(users, RESAMPLES, seed))
    return {method: paired_difference(estimate, estimates[PATCHES]) for method, estimate in estimates.items()}


def markdown(table: Table) -> str:
    """Return a table, with an empty line before it."""
    rows = [table[0], ["---"] * len(table[0]), *table[1:]]
    return "\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    main()
