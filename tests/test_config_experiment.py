"""Settings of a grid: what they name must be there."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from peterrec.config import ExperimentConfig, build_config
from peterrec.errors import ConfigError
from peterrec.experiments.grid.cell_settings import check_settings

TASKS = [
    {"name": "age", "kind": "classification", "labels": {"path": "u.csv", "label": "age"}},
    {"name": "food", "kind": "ranking", "domains": ["food"]},
]


def tree(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "data": {"shop": {"prepare": {"events": {"paths": ["e.csv"]}, "tasks": TASKS}}},
        "methods": {"patch": {"adapt": {}}, "majority": {"baseline": "majority"}},
        "questions": [{"name": "q", "text": "?", "methods": ["patch", "majority"]}],
    }
    return plain | changes


def question(**changes: Any) -> dict[str, Any]:
    return {"questions": [{"name": "q", "text": "?", "methods": ["patch"]} | changes]}


def test_what_is_not_said_has_a_default() -> None:
    config = build_config(ExperimentConfig, tree())
    assert config.seeds == (0, 1, 2)
    assert config.backbones == {"base": {}}
    assert config.questions[0].label_fractions == (1.0,)


WRONG: list[tuple[dict[str, Any], str]] = [
    (question(methods=["best"]), "question 'q' names method 'best'"),
    (question(compare=[["patch", "best"]]), "question 'q' names method 'best'"),
    (question(compare=[["patch", "majority"]]), "compares 'majority', which is not one of its methods"),
    (question(tasks=["shop/gender"]), "names task 'shop/gender' .*there are .*shop/age.*shop/food"),
    (question(tasks=["age"]), "questions.0.tasks.0"),
    (question(seeds=[7]), "names seed 7, which is none of the grid's"),
    (question(label_fractions=[0.1, 0.1]), "names one of its label_fractions twice"),
    (question(methods=["patch", "patch"]), "names one of its methods twice"),
    (question(methods=["patch", "majority"], compare=[["patch", "majority"]] * 2), "names one of its compare twice"),
    (question(compare=[["patch", "patch"]]), "compares a method with itself"),
    ({"seeds": [-1]}, "seeds.0: Input should be greater than or equal to 0"),
    ({"seeds": [0, 0]}, "seeds names one of them twice"),
    (question(label_fractions=[0.0]), "questions.0.label_fractions.0"),
    (question(sections=["stars"]), "questions.0.sections.0"),
    ({"questions": 2 * question()["questions"]}, "two questions have the same name"),
    ({"methods": {"patch": {"adapt": {}, "baseline": "x"}, "majority": {"baseline": "x"}}}, "exactly one of"),
    ({"methods": {"patch": {}, "majority": {"baseline": "x"}}}, "exactly one of"),
    ({"methods": {"patch": {"adapt": {}, "settings": {"a": 1}}, "majority": {"baseline": "x"}}}, "those of a baseline"),
    ({"methods": {"patch": {"adapt": {}, "backbone": "b"}, "majority": {"baseline": "x"}}}, "names backbone 'b'"),
    ({"backbones": {}}, "backbones"),
    ({"seeds": []}, "seeds"),
    ({"jobs": 0}, "jobs"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_is_named_must_be_there(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(ExperimentConfig, tree(**changes))


def test_overrides_are_of_tasks_that_are_there() -> None:
    data = {"shop": {**tree()["data"]["shop"], "task_overrides": {"gender": {}}}}
    with pytest.raises(ConfigError, match="task_overrides of 'shop' name 'gender'; its tasks are"):
        build_config(ExperimentConfig, tree(data=data))


SEEDED: list[tuple[dict[str, Any], str]] = [
    ({"pretrain": {"seed": 1}}, "pretrain has a seed"),
    ({"adapt": {"seed": 1}}, "adapt has a seed"),
    ({"backbones": {"base": {"seed": 1}}}, "backbones.base has a seed"),
    ({"methods": {"patch": {"adapt": {"seed": 1}}, "majority": {"baseline": "majority"}}}, "methods.patch.adapt has"),
    ({"data": {"shop": {**tree()["data"]["shop"], "adapt": {"seed": 1}}}}, "data.shop.adapt has a seed"),
    ({"data": {"shop": {**tree()["data"]["shop"], "task_overrides": {"age": {"seed": 1}}}}}, "task_overrides.age has"),
]


@pytest.mark.parametrize(("changes", "message"), SEEDED)
def test_a_seed_that_the_cells_would_override_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_settings(build_config(ExperimentConfig, tree(**changes)))


def grids() -> list[Path]:
    quick_grid = Path(str(files("peterrec.experiments.grid") / "quick.yaml"))
    return [quick_grid, *sorted((Path(__file__).parents[1] / "configs" / "experiments").glob("*.yaml"))]


@pytest.mark.parametrize("path", grids(), ids=lambda path: path.name)
def test_the_grids_of_the_repository_can_be_run(path: Path) -> None:
    check_settings(build_config(ExperimentConfig, yaml.safe_load(path.read_text())))
