"""What is to be computed: each thing once, after what it needs, told apart by what decides it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from peterrec.config.experiment import ExperimentConfig
from peterrec.data.synthetic import planted
from peterrec.errors import ConfigError, DataError
from peterrec.experiments.grid import cell_settings as resolve
from peterrec.experiments.grid.plan import Unit, needed, units_of

from .small_grid import METHODS, TASKS, question, small_grid

OUT = Path("/nowhere")


def places(config: ExperimentConfig, kind: str = "") -> list[str]:
    return [unit.place for unit in units_of(config, OUT) if not kind or unit.kind == kind]


def by_place(config: ExperimentConfig) -> dict[str, Unit]:
    return {unit.place: unit for unit in units_of(config, OUT)}


def test_each_thing_is_there_once_and_after_what_it_needs() -> None:
    two = [question("patch", "majority", name="a"), question("patch", "popularity", "head", name="b", seeds=[1])]
    config = small_grid("seeds=[1,0]", questions=two)
    units = units_of(config, OUT)
    assert len({unit.place for unit in units}) == len(units)
    cells = [key for unit in units for key in unit.cells]
    assert len(set(cells)) == len(cells)
    assert {(key.method, key.task, key.seed) for key in cells} == {
        *(("patch", task, seed) for task in ("cluster", "target") for seed in (0, 1)),
        *(("majority", "cluster", seed) for seed in (0, 1)),
        ("popularity", "target", 1),
        *(("head", task, 1) for task in ("cluster", "target")),
    }
    before: set[str] = set()
    for unit in units:
        assert before.issuperset(unit.needs), unit
        before.add(unit.place)
    assert [key.seed for key in cells] == [1] * 6 + [0] * 3, "the first seed first"
    assert places(config, "corpus") == ["corpora/small/seed-1", "corpora/small/seed-0"]
    assert places(config, "backbone") == ["backbones/small/base/seed-1", "backbones/small/base/seed-0"]


def test_what_trains_all_tasks_is_one_unit_of_many_cells() -> None:
    only = question("joint", "dupn", "conet", tasks=["small/cluster", "small/target"])
    units = {unit.place: unit for unit in units_of(small_grid(questions=[only]), OUT) if unit.cells}
    assert {(unit.kind, tuple(key.task for key in unit.cells)) for unit in units.values()} == {
        ("joint", ("cluster", "target")),
        ("baseline", ("cluster", "target")),
        ("baseline", ("target",)),  # CoNet, which ranks
    }
    alone = units_of(small_grid(questions=[question("joint", tasks=["small/target"])]), OUT)[-1]
    assert [key.task for key in alone.cells] == ["cluster", "target"], "trained on all, whatever is asked"


def test_backbones_are_made_for_the_methods_that_ask_for_them() -> None:
    methods = METHODS | {"deep": {"adapt": {"strategy": "patch"}, "backbone": "deep"}}
    backbones: dict[str, Any] = {"base": {}, "deep": {"backbone": {"dilations": [1, 2, 4]}}, "unused": {}}
    config = small_grid(methods=methods, backbones=backbones, questions=[question("deep", "majority")])
    assert places(config, "backbone") == ["backbones/small/deep/seed-0"]
    settings = resolve.backbone_settings(config, "small", "deep", 7)
    assert (settings.backbone.dilations, settings.backbone.channels, settings.seed) == ((1, 2, 4), 8, 7)
    assert places(small_grid(questions=[question("majority")]), "backbone") == []


def test_settings_are_laid_over_each_other_in_order() -> None:
    methods = {"m": {"adapt": {"optim": {"warmup_fraction": 0.5}, "patch": {"insertion": "parallel"}}}}
    config = small_grid(
        "data.small.adapt.optim.lr=0.5", "data.small.adapt.batch_size=5", "data.small.adapt.patience=2",
        "data.small.task_overrides.target.batch_size=6", "data.small.task_overrides.target.optim.warmup_fraction=0.25",
        "adapt.patch.bottleneck=3",
        methods=methods, questions=[question("m")],
    )  # fmt: skip
    target = resolve.method_settings(config, "small", "target", "m", 4)
    cluster = resolve.method_settings(config, "small", "cluster", "m", 4)
    assert (target.batch_size, cluster.batch_size, cluster.patience, target.epochs) == (6, 5, 2, 1)
    assert (target.optim.lr, target.optim.warmup_fraction, target.seed) == (0.5, 0.5, 4)
    assert (target.patch.bottleneck, target.patch.insertion) == (3, "parallel")
    assert not target.runner.progress
    assert target.runner.accelerator == "cpu"


def test_a_seed_is_another_split_of_users() -> None:
    config = small_grid("data.small.prepare.split.salt=mine")
    settings = resolve.prepare_settings(config, "small", 3, Path("grid"))
    assert settings.split.salt == "mine-3"
    assert settings.events.paths == ("grid/data/small/events.parquet",)
    labels = getattr(settings.tasks[0], "labels", None)
    assert labels is not None
    assert labels.path == "grid/data/small/users.parquet"


def changed(*overrides: str, **values: Any) -> set[str]:
    """Return the places whose inputs are others than those of the plain grid."""
    before, after = by_place(small_grid()), by_place(small_grid(*overrides, **values))
    return {place for place, unit in after.items() if place not in before or unit.inputs != before[place].inputs}


def test_a_change_touches_what_it_decides_and_nothing_else() -> None:
    assert changed("title=Other", "jobs=1", "evaluate.bootstrap=9", "evaluate.confidence=0.5") == set()
    assert changed("adapt.runner.precision=bf16-mixed", "pretrain.runner.gradient_checkpointing=true") == set()
    assert changed("methods.patch.adapt.patience=9") == {
        f"bundles/small/{task}/patch/seed-0-share-100" for task in ("cluster", "target")
    }
    assert changed("data.small.task_overrides.target.patience=9") == {
        f"bundles/small/target/{method}/seed-0-share-100" for method in ("patch", "head")
    }
    assert changed("methods.conet.settings.epochs=9") == {"bundles/small/target/conet/seed-0-share-100"}
    cells = {unit.place for unit in units_of(small_grid(), OUT) if unit.cells}
    assert changed("evaluate.k=3") == cells
    adapted = {place for place in cells if Path(place).parts[-2] in ("patch", "head", "joint")}
    assert changed("pretrain.epochs=2") == {"backbones/small/base/seed-0"} | adapted
    assert changed("data.small.synthetic.seed=1") == cells | {"corpora/small/seed-0", "backbones/small/base/seed-0"}


def test_who_is_kept_out_of_pretraining_decides_the_backbone() -> None:
    backbone = "backbones/small/base/seed-0"
    assert backbone in changed("data.small.prepare.new_users.fraction=0.1")
    assert backbone in changed("data.small.prepare.new_users.parts=[test]")
    assert backbone not in changed("data.small.prepare.split.salt=other")


def test_a_new_task_leaves_the_backbone_and_the_other_tasks_as_they_are() -> None:
    with_task = small_grid().model_dump(mode="json", exclude_unset=True)["data"]
    with_task["small"]["prepare"]["tasks"] = [*TASKS, {**TASKS[0], "name": "again"}]
    touched = changed(data=with_task)
    assert "backbones/small/base/seed-0" not in touched
    assert "corpora/small/seed-0" in touched
    assert {Path(place).parts[2] for place in touched if place.startswith("bundles")} == {"again", "_all"}


def test_files_decide_by_what_they_are_not_by_where(tmp_path: Path) -> None:
    def units(root: Path) -> list[dict[str, Any]]:
        data = small_grid().model_dump(mode="json", exclude_unset=True)["data"]
        del data["small"]["synthetic"]
        return [unit.inputs for unit in units_of(small_grid(data=data, data_root=str(root)), OUT)]

    with pytest.raises(DataError, match=r"first/events.parquet: there is no such file"):
        units(tmp_path / "first")
    copy = planted(users=20, seed=1)
    (tmp_path / "first").mkdir()
    pq.write_table(copy.events, tmp_path / "first" / "events.parquet")
    pq.write_table(copy.users, tmp_path / "first" / "users.parquet")
    first_units = units(tmp_path / "first")
    (tmp_path / "first").rename(tmp_path / "second")
    assert units(tmp_path / "second") == first_units
    pq.write_table(copy.users.slice(1), tmp_path / "second" / "users.parquet")
    after = units(tmp_path / "second")
    unchanged = [before_unit == after_unit for before_unit, after_unit in zip(first_units, after, strict=True)]
    assert any(unchanged)
    assert not all(unchanged)


def test_only_what_is_missing_is_needed() -> None:
    units = units_of(small_grid(questions=[question("patch", "majority")]), OUT)
    names = [unit.place for unit in units]
    assert needed(units, [False] * len(units)) == units
    assert needed(units, [True] * len(units)) == []
    without_corpora = [unit.kind != "corpus" for unit in units]
    assert needed(units, without_corpora) == [], "nobody asks for it any more"
    without_majority = ["majority" not in name and "corpora" not in name for name in names]
    assert [unit.kind for unit in needed(units, without_majority)] == ["corpus", "baseline"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("methods.head.adapt.epoch=3", r"method 'head' on 'small': .*epoch: there is no such setting"),
        ("adapt.batch_size=0", r"method 'patch' on 'small': .*batch_size"),
        ("data.small.task_overrides.target.lr=3", r"method 'patch' on 'small/target': .*lr: there is no such setting"),
        ("backbones.base.epoch=3", r"backbone 'base' on 'small': .*epoch: there is no such setting"),
        ("methods.majority.baseline=best", r"method 'majority': there is no baseline 'best'"),
        ("methods.dupn.settings.size=3", r"method 'dupn': baseline 'dupn'.*size"),
        ("data.small.fetch=netflix", r"data set 'small' fetches 'netflix', which is not known"),
        ("data.small.fetch=ml-1m", r"data set 'small' is both fetched and made up"),
    ],
)
def test_what_is_wrong_is_said_with_its_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve.check_settings(small_grid(override))


def test_a_task_cannot_be_joint_alone() -> None:
    methods = {"m": {"adapt": {}}}
    overrides = "data.small.task_overrides.target.strategy=joint"
    with pytest.raises(ConfigError, match="`joint` is of all tasks"):
        resolve.check_settings(small_grid(overrides, methods=methods, questions=[question("m")]))
