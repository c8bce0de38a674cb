"""Plan of a grid: corpora, backbones and cells, as units that depend on one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from peterrec.config import AdaptConfig, PrepareConfig, PretrainConfig
from peterrec.config.experiment import ExperimentConfig
from peterrec.evaluation.baselines import baseline_settings
from peterrec.experiments.grid import cell_settings as resolve
from peterrec.report.grid.cells import CellKey, expected_cells

UnitKind = Literal["corpus", "backbone", "adapt", "joint", "baseline"]
ALL_TASKS = "_all"  # no name of a task starts so


@dataclass(frozen=True)
class Unit:
    """A piece of work that one process does in one go.

    Attributes:
        kind: what it is.
        place: folder of its files, in the folder of the grid; no two units have the same.
        inputs: plain values that decide the result.
        needs: places of all units that must be there before, the corpus first.
        cells: that it gives; none of a corpus or backbone.
        train_tasks: for each cell the task whose train and valid users the method is fitted to.
        data, seed: whose split and whose weights.
        name: of the baseline.
        settings: of `prepare`, `pretrain` or `adapt`, or plain ones of a baseline.
        seen_by: settings of the backbone by which users of the cells are seen or not.
    """

    kind: UnitKind
    place: str
    inputs: dict[str, Any]
    needs: tuple[str, ...] = ()
    cells: tuple[CellKey, ...] = ()
    train_tasks: tuple[str, ...] = ()
    data: str = ""
    seed: int = 0
    name: str = ""
    settings: PrepareConfig | PretrainConfig | AdaptConfig | dict[str, Any] = field(default_factory=dict)
    seen_by: PretrainConfig | None = None

    @property
    def marker(self) -> str:
        """File that says with which inputs a corpus or backbone was made."""
        return f"{self.place}.json"

    def __str__(self) -> str:
        if not self.cells:
            which = f" {Path(self.place).parent.name}" if self.kind == "backbone" else ""
            return f"{self.data} {self.kind}{which}, seed {self.seed}"
        first = self.cells[0]
        task = (
            first.task_path if len(self.cells) == 1 else f"{first.data}/({', '.join(key.task for key in self.cells)})"
        )
        share = f", {100 * first.share:g} % of the labels" if first.share < 1 else ""
        return f"{task} {first.method}, seed {self.seed}{share}"


def units_of(config: ExperimentConfig, out: Path) -> list[Unit]:
    """Return all units of a grid, each after those it needs; first seeds first, then in the order of the questions.

    Cells that several questions ask for are there once, and so are the corpora and backbones that cells share.

    Args:
        config: the grid; its settings were checked (`resolve.check_settings`).
        out: folder of the grid; data that are made up lie in it.

    Raises:
        DataError, ArtifactError: an input file is missing or cannot be read.
    """
    plan = _Plan(config, out)
    for key in sorted(expected_cells(config), key=lambda key: config.seeds.index(key.seed)):
        plan.add(key)
    order: dict[UnitKind, int] = {"corpus": 0, "backbone": 1}
    return sorted(plan.units.values(), key=lambda unit: order.get(unit.kind, 2))


class _Plan:
    def __init__(self, config: ExperimentConfig, out: Path) -> None:
        self.config = config
        self.out = out
        self.units: dict[str, Unit] = {}
        self._digests: dict[tuple[Any, ...], str] = {}

    def add(self, key: CellKey) -> None:
        """Add the unit that gives a cell, and those it needs, unless they are there."""
        method = self.config.methods[key.method]
        together = resolve.trains_all(self.config, key.data, key.method)
        tasks = self._task_names(key) if together else [key.task]
        cells = tuple(replace(key, task=task) for task in tasks)
        folder = replace(key, task=ALL_TASKS).folder if together else key.folder
        place = str(Path("bundles", *folder.parts[1:]))
        if place in self.units:
            return
        train_tasks = tuple(method.trained_on.get(task, task) for task in tasks)
        inputs = self._corpus_inputs(key, dict.fromkeys([*tasks, *train_tasks])) | {
            "share": key.share,
            "seed": key.seed,
            "evaluate": self.config.evaluate.model_dump(mode="json", include={"k", "sampled_negatives"}),
        }
        if method.trained_on:
            inputs["trained_on"] = list(train_tasks)  # as JSON gives it back
        corpus = self._corpus(key)
        if method.adapt is not None:
            backbone, seen_by = self._backbone(key, method.backbone)
            settings = resolve.method_settings(
                self.config, key.data, None if together else key.task, key.method, key.seed
            )
            inputs |= {"backbone": resolve.digest(backbone.inputs), "adapt": resolve.deciding_settings(settings)}
            self.units[place] = Unit(
                "joint" if together else "adapt", place, inputs, (corpus, backbone.place), cells,
                train_tasks, key.data, key.seed, settings=settings, seen_by=seen_by,
            )  # fmt: skip
            return
        assert method.baseline is not None
        # Which users were seen is told by the backbone `base`, or the first.
        name = "base" if "base" in self.config.backbones else next(iter(self.config.backbones))
        seen_by = resolve.backbone_settings(self.config, key.data, name, key.seed)
        inputs |= {"seen": {"valid_fraction": seen_by.valid_fraction}, "baseline": method.baseline}
        if deciding := resolve.deciding_settings(baseline_settings(method.baseline, method.settings)):
            inputs["settings"] = deciding
        self.units[place] = Unit(
            "baseline", place, inputs, (corpus,), cells, train_tasks,
            key.data, key.seed, method.baseline, method.settings, seen_by,
        )  # fmt: skip

    def _task_names(self, key: CellKey) -> list[str]:
        return [task.name for task in self.config.data[key.data].prepare.tasks]

    def _corpus_inputs(self, key: CellKey, tasks: Iterable[str]) -> dict[str, Any]:
        return {
            "source": self._digest(resolve.source_inputs, key.data),
            "tasks": {task: self._digest(resolve.task_inputs, key.data, task, key.seed) for task in tasks},
        }

    def _digest(self, inputs: Callable[..., dict[str, Any]], *which: Any) -> str:
        """Return the digest of what decides a corpus or task; its files are looked at only once."""
        if which not in self._digests:
            self._digests[which] = resolve.digest(inputs(self.config, *which, self.out))
        return self._digests[which]

    def _corpus(self, key: CellKey) -> str:
        place = f"corpora/{key.data}/seed-{key.seed}"
        if place not in self.units:
            inputs = self._corpus_inputs(key, self._task_names(key))
            settings = resolve.prepare_settings(self.config, key.data, key.seed, self.out)
            self.units[place] = Unit("corpus", place, inputs, data=key.data, seed=key.seed, settings=settings)
        return place

    def _backbone(self, key: CellKey, name: str) -> tuple[Unit, PretrainConfig]:
        place = f"backbones/{key.data}/{name}/seed-{key.seed}"
        settings = resolve.backbone_settings(self.config, key.data, name, key.seed)
        if place not in self.units:
            source = self._digest(resolve.source_inputs, key.data)
            self.units[place] = Unit(
                "backbone", place, {"source": source, "pretrain": resolve.deciding_settings(settings)},
                (self._corpus(key),), data=key.data, seed=key.seed, settings=settings,
            )  # fmt: skip
        return self.units[place], settings


def needed(units: Sequence[Unit], is_there: Sequence[bool]) -> list[Unit]:
    """Return the units that are not there and that a cell which is not there needs, in the same order.

    Args:
        units: as `units_of` returns them.
        is_there: whether each is.
    """
    missing = [unit for unit, unit_is_there in zip(units, is_there, strict=True) if not unit_is_there]
    wanted = {place for unit in missing if unit.cells for place in (unit.place, *unit.needs)}
    return [unit for unit in missing if unit.place in wanted]
