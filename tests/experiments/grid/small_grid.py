"""A grid that is computed in seconds, and what tests do with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peterrec.config import load_config
from peterrec.config.experiment import ExperimentConfig
from peterrec.experiments.grid.plan import Unit
from peterrec.experiments.grid.progress import Watch
from peterrec.experiments.grid.run_unit import Outcome

SYNTHETIC = {"users": 300, "items": 24, "targets": 12, "mean_events": 6, "labelled_fraction": 0.8}
CPU = {"accelerator": "cpu"}
TASKS: tuple[dict[str, Any], ...] = (
    {"name": "cluster", "kind": "classification", "labels": {"path": "users.parquet", "label": "cluster"}},
    {"name": "target", "kind": "ranking", "domains": ["target"]},
)
METHODS: dict[str, dict[str, Any]] = {
    "patch": {"adapt": {"strategy": "patch"}},
    "head": {"adapt": {"strategy": "head"}},
    "joint": {"adapt": {"strategy": "joint"}},
    "majority": {"baseline": "majority"},
    "popularity": {"baseline": "popularity"},
    "dupn": {
        "baseline": "dupn",
        "settings": {"channels": 8, "hidden": 8, "attention": 4, "epochs": 1, "device": "cpu"},
    },
    "conet": {"baseline": "conet", "settings": {"channels": 8, "layers": [8, 4], "epochs": 1, "device": "cpu"}},
}
ALL = {"name": "all", "text": "Which?", "methods": list(METHODS)}


def small_grid(*overrides: str, questions: Sequence[dict[str, Any]] = (ALL,), **values: Any) -> ExperimentConfig:
    """A made-up data set of two tasks, one seed, tiny networks and one epoch."""
    tree: dict[str, Any] = {
        "seeds": [0],
        "data": {
            "small": {
                "synthetic": SYNTHETIC,
                "prepare": {
                    "events": {"paths": ["events.parquet"], "domain": "domain"},
                    "source": {"exclude_domains": ["target"]},
                    "split": {"train": 0.6, "valid": 0.1, "test": 0.3},
                    "tasks": list(TASKS),
                },
            }
        },
        "pretrain": {
            "backbone": {"channels": 8, "dilations": [1, 2]},
            "epochs": 1,
            "valid_fraction": 0.1,
            "runner": CPU,
        },
        "adapt": {"epochs": 1, "selection": "valid", "runner": CPU},
        "methods": METHODS,
        "questions": list(questions),
        "evaluate": {"bootstrap": 50},
    }
    return load_config(ExperimentConfig, None, overrides, **(tree | values))


def question(*methods: str, **settings: Any) -> dict[str, Any]:
    return {"name": "one", "text": "Which?", "methods": list(methods)} | settings


class Recorder(Watch):
    """Writes down what was done."""

    def __init__(self) -> None:
        self.ended_units: list[tuple[str, str]] = []
        self.errors: list[str] = []
        self.jobs = 0

    def begin(self, units: Sequence[Unit], remaining: Sequence[Unit], jobs: int) -> None:
        self.jobs = jobs

    def ended(self, unit: Unit, outcome: Outcome) -> None:
        self.ended_units.append((unit.place, outcome.status))
        if outcome.status != "done":
            self.errors.append(outcome.line)

    @property
    def done_places(self) -> list[str]:
        return sorted(place for place, status in self.ended_units if status == "done")


def cells_on_disk(out: Path) -> list[str]:
    """Places of finished cells."""
    return sorted(str(path.parent.relative_to(out / "cells")) for path in out.glob("cells/*/*/*/seed-*/cell.json"))


def workers_of(pid: int) -> list[int]:
    """Processes that do units for this one."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and "spawn_main" in (folder / "cmdline").read_text():
                pids.append(int(folder.name))
        except OSError:
            continue
    return pids
