"""Calibration on the valid users of MovieLens-1M: what temperature and isotonic curves do to test users' probabilities.

    peterrec fetch ml-1m --out runs/data/ml-1m
    python benchmarks/calibration.py runs/data/ml-1m

Each bundle is trained once; every row decides on its valid users anew (`peterrec.training.decide`). Test users are
looked at by `evaluate` alone. Splits are 50 / 25 / 25, so that an isotonic regression has the valid users it asks for.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

import peterrec
from peterrec.artifacts.bundle_io import Bundle
from peterrec.config import CalibrationConfig, RunnerConfig
from peterrec.data.corpus import Corpus
from peterrec.training.decide import decide

METHODS: dict[str, dict[str, Any]] = {
    "none": {},
    "temperature": {"method": "temperature"},
    "isotonic": {"method": "isotonic"},
}
QUIET = RunnerConfig(progress=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with events.parquet and users.parquet")
    parser.add_argument("--tasks", nargs="+", default=["gender", "age"])
    parser.add_argument("--strategies", nargs="+", default=["patch", "all"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--balanced", action="store_true", help="train with class_weights balanced: shares that the log has not"
    )
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-history", type=int, default=50)
    options = parser.parse_args()
    logging.getLogger("peterrec").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        corpus = prepared(options, Path(folder))
        model = peterrec.pretrain(
            corpus, Path(folder) / "backbone", epochs=options.epochs, runner=QUIET,
            backbone=peterrec.BackboneConfig(channels=options.channels),
        )  # fmt: skip
        print("| task | strategy | seed | calibration | accuracy | log-loss | ECE | reached |")
        print("|---|---|---|---|---|---|---|---|")
        for task in options.tasks:
            for strategy in options.strategies:
                for seed in range(options.seeds):
                    weights = "balanced" if options.balanced else None
                    config = peterrec.AdaptConfig(strategy=strategy, class_weights=weights, seed=seed, runner=QUIET)
                    bundle = peterrec.adapt(model, corpus, task, Path(folder) / f"{task}-{strategy}-{seed}", config)
                    show(model, corpus, bundle, seed)


def prepared(options: argparse.Namespace, folder: Path) -> Corpus:
    return peterrec.prepare(
        options.data / "events.parquet", folder / "corpus", users=options.data / "users.parquet",
        classify=options.tasks, split={"train": 0.5, "valid": 0.25, "test": 0.25},
        source={"max_history": options.max_history},
    )  # fmt: skip


def show(model: peterrec.UserModel, corpus: Corpus, bundle: Bundle, seed: int) -> None:
    task = corpus.task(bundle.name)
    settings = dict(METHODS)
    if len(task.class_names) == 2:
        for precision in (0.6, 0.7):
            threshold = {"precision": precision, "positive_class": task.class_names[0]}
            settings[f"temperature, precision {precision}"] = METHODS["temperature"] | {"threshold": threshold}
        costs = {"false_positive_cost": 1, "false_negative_cost": 3, "positive_class": task.class_names[0]}
        settings["temperature, costs 1 and 3"] = METHODS["temperature"] | {"threshold": costs}
    else:
        for miss in (0.1, 0.2):
            settings[f"temperature, conformal {miss}"] = METHODS["temperature"] | {"conformal": miss}
    for name, calibration in settings.items():
        config = peterrec.AdaptConfig(calibration=CalibrationConfig(**calibration))
        decided = decide(model, bundle, task, task.part("valid"), config)
        result = peterrec.evaluate(model, corpus, {name: decided}, baselines=False)
        values = result.methods[0].values
        shown = [values[metric] for metric in ("accuracy", "log_loss", "ece")]
        cells = [f"{v.value:.3f} ({v.low:.3f} to {v.high:.3f})" for v in shown]
        reached = {metric: value for metric, value in values.items() if metric in ("precision", "recall", "cost")}
        reached |= {metric: value for metric, value in values.items() if metric.startswith("set_")}
        words = ", ".join(f"{metric} {v.value:.3f} ({v.low:.3f} to {v.high:.3f})" for metric, v in reached.items())
        if decided.calibration is not None and decided.calibration.method == "temperature" and not words:
            words = f"T = {decided.calibration.temperature:.2f}"
        print(f"| {bundle.name} | {bundle.strategy} | {seed} | {name} | {' | '.join(cells)} | {words} |", flush=True)


if __name__ == "__main__":
    main()
