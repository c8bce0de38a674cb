"""Patterns that ties put into data: pre-training on a log without any order, ties by hash, by item id, or by lines.

    python benchmarks/ties.py

Each user has 32 events on 4 days, items drawn uniformly from 100: nothing can be predicted, and HR@10 of held-out users
by full ranking is 0.10 by chance. What is above that is an artefact of the order that ties were given.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import peterrec

DAYS, EVENTS_A_DAY, ITEMS = 4, 8, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = write_log(Path(folder) / "log.parquet", options.users, options.seed)
        print("| ties | HR@10 | MRR@10 |\n|---|---|---|")
        for name, settings in {"hash": {}, "item id": {"order": "item_id"}, "lines": {"ties": "lines"}}.items():
            metrics = pretrained(log, Path(folder) / name, options, settings)
            print(f"| {name} | {metrics['hr@10']:.3f} | {metrics['mrr@10']:.3f} |", flush=True)


def write_log(path: Path, users: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    rows = users * DAYS * EVENTS_A_DAY
    table = {
        "user_id": np.repeat(np.arange(users), DAYS * EVENTS_A_DAY),
        "item_id": rng.integers(0, ITEMS, rows),
        "timestamp": np.tile(np.repeat(np.arange(DAYS), EVENTS_A_DAY), users),
    }
    pq.write_table(pa.table(table), path)
    return path


def pretrained(log: Path, folder: Path, options: argparse.Namespace, settings: dict[str, str]) -> dict[str, float]:
    events = peterrec.EventsConfig.model_validate({"paths": (str(log),)} | settings)
    corpus = peterrec.prepare(peterrec.PrepareConfig(events=events), folder / "corpus")
    config = peterrec.PretrainConfig(
        backbone=peterrec.BackboneConfig(channels=32), max_length=32, epochs=options.epochs, seed=options.seed,
        valid_fraction=0.1, runner=peterrec.config.RunnerConfig(progress=False),
    )  # fmt: skip
    model = peterrec.pretrain(corpus, folder / "backbone", config)
    metrics: dict[str, float] = model.pretrained.training["metrics"]
    return metrics


if __name__ == "__main__":
    main()
