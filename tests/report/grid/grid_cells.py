"""Grids of made-up cells: users with a hidden ability, methods that are right more or less often.

`python tests/report/grid/grid_cells.py FOLDER` writes a demonstration and its report, to be looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from peterrec.config.experiment import ExperimentConfig
from peterrec.report.grid.cells import CellKey, CellResult, Cost, write_cell
from peterrec.report.run.record import Machine

MACHINE = Machine(
    cpu="Imaginary CPU",
    cores=2,
    device="cpu",
    system="Linux",
    python="3.12.1",
    torch="2.4.0",
    lightning="2.5.3",
    peterrec="0.1.0",
)
CLASSIFICATION = {"kind": "classification", "labels": {"path": "users.csv", "label": "x"}}
RANKING = {"kind": "ranking", "after": "2020-01-01"}
METHODS: dict[str, dict[str, Any]] = {
    "patch": {"adapt": {"strategy": "patch"}},
    "patch-random": {"adapt": {"strategy": "patch-random"}},
    "head": {"adapt": {"strategy": "head"}},
    "all": {"adapt": {"strategy": "all"}, "label": "all (fine-tuning)"},
    "scratch": {"adapt": {"strategy": "scratch"}},
    "majority": {"baseline": "majority"},
    "popularity": {"baseline": "popularity"},
    "tfidf": {"baseline": "tf-idf + logistic regression", "label": "tf-idf + logistic regression"},
}
SKILL = {"patch": 0.9, "patch-random": 0.3, "head": 0.55, "all": 0.85, "scratch": 0.35, "majority": 0.0, "tfidf": 1.3}
SHARES = (0.01, 0.05, 0.1, 0.3, 1.0)


def grid_config(
    questions: Sequence[Mapping[str, Any]],
    tasks: Mapping[str, Mapping[str, Any]] | None = None,
    methods: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> ExperimentConfig:
    """Settings of a grid over one data set, `demo`."""
    task_settings = {"gender": CLASSIFICATION, "noise": CLASSIFICATION, "food": RANKING} if tasks is None else tasks
    prepare = {
        "events": {"paths": ["e.csv"]},
        "tasks": [{"name": name, **task} for name, task in task_settings.items()],
    }
    return ExperimentConfig.model_validate(
        {
            "data": {"demo": {"prepare": prepare}},
            "methods": METHODS if methods is None else methods,
            "questions": list(questions),
            **settings,
        }
    )


def users_table(
    ids: Iterable[str], columns: Mapping[str, Sequence[float]], rows: Sequence[int] | None = None, **about_users: Any
) -> pa.Table:
    """A table of test users: one event and one row each, if nothing else is said."""
    names = list(ids)
    user_columns = {
        "user_id": names,
        "events": pa.array(about_users.get("events", [1] * len(names)), pa.int64()),
        "seen": pa.array(about_users.get("seen", [True] * len(names)), pa.bool_()),
        "rows": pa.array(rows if rows is not None else [1] * len(names), pa.int64()),
    }
    return pa.table(user_columns | {name: pa.array(values, pa.float64()) for name, values in columns.items()})


def cell(
    key: CellKey, table: pa.Table, kind: str = "classification", primary: str = "accuracy", **fields: Any
) -> CellResult:
    """A finished cell whose metrics are those of its table."""
    names = [name for name in table.column_names if name not in ("user_id", "events", "seen", "rows")]
    rows = sum(table["rows"].to_pylist())
    metrics = {name: sum(table[name].to_pylist()) / rows for name in names} | fields.pop("metrics", {})
    return CellResult.model_validate(
        {
            "data": key.data,
            "task": key.task,
            "method": key.method,
            "seed": key.seed,
            "share": key.share,
            "inputs": {},
            "task_kind": kind,
            "family": "adapt",
            "users": {"test": table.num_rows},
            "metrics": metrics,
            "primary": primary,
            "finished": "2026-11-25T12:00:00+00:00",
            **fields,
        }
    )


def made_up(key: CellKey, *, users: int = 900, skill: float, kind: str) -> tuple[CellResult, pa.Table]:
    """A cell of the demonstration: a user's luck is the same for every method and seed, the split is the seed's."""
    fixed = np.random.default_rng(sum(map(ord, key.task)))
    ability, events = fixed.normal(size=users), 1 + fixed.geometric(0.12, size=users) - 1
    noise = np.random.default_rng([key.seed, sum(map(ord, key.method + key.task)), int(1000 * key.share)])
    test = np.flatnonzero(np.random.default_rng([key.seed, 7]).random(users) < 0.4)
    gain = skill * (0.5 + 0.15 * np.log10(key.share) + 0.35 * np.log1p(events[test]))
    logit = 0.8 * ability[test] + gain + 0.6 * noise.normal(size=len(test)) - (0.2 if kind == "classification" else 2.6)
    ids = [f"u{user:05d}" for user in test]
    about = {"events": events[test].tolist(), "seen": (fixed.random(users)[test] < 0.9).tolist()}
    if kind == "classification":
        right = (logit > 0).astype(float)
        columns = {"accuracy": right, "log_loss": np.log1p(np.exp(-logit))}
        table = users_table(ids, columns, **about)
        metrics = {"auc": 0.5 + 0.2 * skill + 0.01 * noise.normal(), "macro_f1": 0.4 + 0.2 * skill}
        return cell(key, table, kind, "accuracy", metrics=metrics, **_costs(key, skill, "log_loss")), table
    rows = 1 + fixed.integers(0, 3, size=users)[test]
    hit = rows / (1 + np.exp(-logit))
    columns = {"hr@5": hit, "mrr@5": 0.6 * hit, "ndcg@5": 0.7 * hit}
    columns |= {f"{name} sampled-99": np.minimum(rows, 3.0 * values) for name, values in columns.items()}
    table = users_table(ids, columns, rows.tolist(), **about)
    return cell(key, table, kind, "mrr@5", candidates=812, **_costs(key, skill, "mrr")), table


def _costs(key: CellKey, skill: float, monitor: str) -> dict[str, Any]:
    if key.method in ("majority", "popularity", "tfidf"):
        return {"family": "baseline", "cost": Cost(seconds=0.8, jobs=2), "settings": {"C": 1.0}}
    trained = {"patch": {"patch": 19_584, "head": 130}, "all": {"blocks": 1_134_592, "head": 130}}
    epochs, sign = 6 + key.seed + len(key.method) % 4, 1.0 if monitor == "mrr" else -1.0
    rows = [
        {
            "epoch": at,
            "train_loss": 1.0 / (at + 1),
            monitor: 0.5 + sign * 0.2 * skill * (1 - np.exp(-0.5 * at)),
            "seconds": 2.0 + len(key.method) / 5,
        }
        for at in range(epochs)
    ]
    seconds = sum(row["seconds"] for row in rows)
    params = trained.get(key.method, {"head": 130})
    cost = Cost(
        trained=params,
        all_params=1_154_306,
        stored_bytes=4 * sum(params.values()),
        seconds=seconds,
        seconds_per_epoch=seconds / epochs,
        peak_memory=212_000_000,
        jobs=2,
    )
    settings = {"strategy": key.method, "learning_rate": 0.001, "patch": {"kind": "bottleneck", "bottleneck": 8}}
    return {"cost": cost, "monitor": monitor, "curve": rows, "best_epoch": epochs - 3, "settings": settings}


def demonstration() -> ExperimentConfig:
    """Three tasks, eight methods, three seeds, and a question of each sort."""
    networks = ["patch", "patch-random", "head", "all", "scratch"]
    all_methods = [*networks, "majority", "popularity", "tfidf"]
    pretraining = {
        "name": "pretraining",
        "text": "Does self-supervised pre-training help?",
        "methods": ["patch", "patch-random", "all", "scratch"],
        "compare": [["patch", "patch-random"], ["all", "scratch"]],
        "label_fractions": SHARES,
        "sections": ["metrics", "label_fractions"],
    }
    tuning = {
        "name": "fine-tuning",
        "text": "Are patches as good as fine-tuning?",
        "methods": networks,
        "compare": [["patch", "all"], ["patch", "head"]],
        "sections": ["metrics", "costs", "curves"],
    }
    cold = {
        "name": "cold",
        "text": "What can be told about a user, and how cold may the user be?",
        "methods": all_methods,
        "sections": ["metrics", "events"],
    }
    return grid_config(
        [pretraining, tuning, cold],
        title="A demonstration",
        description="Made-up cells: the right answers are known, and nothing here says anything about any method.",
    )


def demonstration_cells(config: ExperimentConfig, users: int = 900) -> list[tuple[CellResult, pa.Table]]:
    """All cells of the demonstration: `noise` is told by no method."""
    cells = []
    for task in config.data["demo"].prepare.tasks:
        for name in config.methods:
            if name == ("popularity" if task.kind == "classification" else "majority") or (task.kind, name) == (
                "ranking",
                "tfidf",
            ):
                continue
            for share in SHARES if name in ("patch", "patch-random", "all", "scratch") else (1.0,):
                for seed in config.seeds:
                    skill = 0.0 if task.name == "noise" else SKILL.get(name, 0.0)
                    cells.append(
                        made_up(CellKey("demo", task.name, name, seed, share), users=users, skill=skill, kind=task.kind)
                    )
    return cells


def written(out: Path, results: Iterable[tuple[CellResult, pa.Table]]) -> list[CellResult]:
    """Write cells into the folder of a grid, and return them."""
    cells = []
    for result, table in results:
        write_cell(out, result, table)
        cells.append(result)
    return cells


def main(out: Path) -> None:
    """Write the demonstration, with two cells missing and one that cannot be had."""
    from peterrec.report.grid.page import write_grid_report

    config = demonstration()
    cells = written(out, demonstration_cells(config)[:-2])
    skipped = [(CellKey("demo", "food", "tfidf", 0), "there are too many items")]
    command = "peterrec experiment demonstration.yaml --out runs/demonstration"
    print(write_grid_report(config, cells, out, machine=MACHINE, command=command, skipped=skipped))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
