"""Plan of a grid: corpora, backbones and cells, as units that depend on one another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from peterrec.config import AdaptConfig, PrepareConfig, PretrainConfig
from peterrec.config.experiment import ExperimentConfig
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
        needs: places of the units that must be there before.
        cells: that it gives; none of a corpus or backbone.
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
        if self.kind in ("corpus", "backbone"):
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
    keys = sorted(expected_cells(config), key=lambda key: config.seeds.index(key.seed))
    for key in keys:
        plan.add(key)
    order: dict[UnitKind, int] = {"corpus": 0, "backbone": 1}
    return sorted(plan.units.values(), key=lambda unit: order.get(unit.kind, 2))


class _Plan:
    def __init__(self, config: ExperimentConfig, out: Path) -> None:
        self.config = config
        self.out = out
        self.units: dict[str, Unit] = {}
        self._digests: dict[tuple[str, ...], str] = {}

    def add(self, key: CellKey) -> None:
        """Add the unit that gives a cell, unless it is there."""
        together = resolve.trains_all(self.config, key.data, key.method)
        place = self._place(key, ALL_TASKS if together else key.task)
        if place in self.units:
            return
        tasks = [task.name for task in self.config.data[key.data].prepare.tasks] if together else [key.task]
        inputs = {
            "source": self._source(key),
            "tasks": {task: self._task(key, task) for task in tasks},
            "share": key.share,
            "seed": key.seed,
            "evaluate": resolve.evaluation_inputs(self.config.evaluate),
        }
        cells = tuple(CellKey(key.data, task, key.method, key.seed, key.share) for task in tasks)
        unit = Unit("baseline", place, inputs, (self._corpus(key),), cells, key.data, key.seed)
        if self.config.methods[key.method].adapt is None:
            self.units[place] = self._baseline(unit, key)
        else:
            self.units[place] = self._adapt(unit, key, together)

    def _adapt(self, unit: Unit, key: CellKey, together: bool) -> Unit:
        """Return a unit that adapts a backbone to a task, or to all together."""
        task = None if together else key.task
        settings = resolve.method_settings(self.config, key.data, task, key.method, key.seed)
        backbone = self._backbone(key, self.config.methods[key.method].backbone)
        assert isinstance(backbone.settings, PretrainConfig)
        inputs = {"backbone": resolve.digest(backbone.inputs), "adapt": resolve.without_runner(settings)}
        return replace(
            unit,
            kind="joint" if together else "adapt",
            inputs=_plain(unit.inputs | inputs),
            needs=(*unit.needs, backbone.place),
            settings=settings,
            seen_by=backbone.settings,
        )

    def _baseline(self, unit: Unit, key: CellKey) -> Unit:
        """Return a unit of a baseline: which users were seen is told by the first backbone, or `base`."""
        method = self.config.methods[key.method]
        backbone = "base" if "base" in self.config.backbones else next(iter(self.config.backbones))
        seen_by = resolve.backbone_settings(self.config, key.data, backbone, key.seed)
        inputs: dict[str, Any] = unit.inputs | {"seen": {"valid_fraction": seen_by.valid_fraction}}
        assert method.baseline is not None
        inputs |= {"baseline": method.baseline}
        if settings := resolve.deciding_settings(method):
            inputs |= {"settings": settings}
        return replace(unit, inputs=_plain(inputs), name=method.baseline, settings=method.settings, seen_by=seen_by)

    def _place(self, key: CellKey, task: str) -> str:
        return str(Path("bundles", *CellKey(key.data, task, key.method, key.seed, key.share).folder.parts[1:]))

    def _corpus(self, key: CellKey) -> str:
        place = f"corpora/{key.data}/seed-{key.seed}"
        if place not in self.units:
            tasks = [task.name for task in self.config.data[key.data].prepare.tasks]
            inputs = {"source": self._source(key), "tasks": {task: self._task(key, task) for task in tasks}}
            settings = resolve.prepare_settings(self.config, key.data, key.seed, self.out)
            self.units[place] = Unit("corpus", place, _plain(inputs), data=key.data, seed=key.seed, settings=settings)
        return place

    def _backbone(self, key: CellKey, name: str) -> Unit:
        place = f"backbones/{key.data}/{name}/seed-{key.seed}"
        if place not in self.units:
            settings = resolve.backbone_settings(self.config, key.data, name, key.seed)
            inputs = {"source": self._source(key), "pretrain": resolve.without_runner(settings)}
            self.units[place] = Unit(
                "backbone", place, _plain(inputs), (self._corpus(key),),
                data=key.data, seed=key.seed, settings=settings,
            )  # fmt: skip
        return self.units[place]

    def _source(self, key: CellKey) -> str:
        name = (key.data,)  # the same for all seeds: the split is of the tasks
        if name not in self._digests:
            self._digests[name] = resolve.digest(resolve.source_inputs(self.config, key.data, key.seed, self.out))
        return self._digests[name]

    def _task(self, key: CellKey, task: str) -> str:
        name = (key.data, task, str(key.seed))
        if name not in self._digests:
            self._digests[name] = resolve.digest(resolve.task_inputs(self.config, key.data, task, key.seed, self.out))
        return self._digests[name]


def _plain(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return inputs as they come back from a file, so that the two can be compared."""
    plain: dict[str, Any] = json.loads(json.dumps(inputs))
    return plain


def needed(units: Sequence[Unit], is_there: Sequence[bool]) -> list[Unit]:
    """Return the units that are not there and that a cell which is not there needs, in the same order.

    Args:
        units: as `units_of` returns them.
        is_there: whether each is.
    """
    is_done = {unit.place: unit_done for unit, unit_done in zip(units, is_there, strict=True)}
    by_place = {unit.place: unit for unit in units}
    places: set[str] = set()
    stack = [unit.place for unit in units if unit.cells and not is_done[unit.place]]
    while stack:
        place = stack.pop()
        if place not in places and not is_done[place]:
            places.add(place)
            stack += by_place[place].needs
    return [unit for unit in units if unit.place in places]
