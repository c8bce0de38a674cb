"""Settings from files and overrides: entries of lists, files that are for another verb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from peterrec.config import (
    AdaptConfig,
    Config,
    EvaluateConfig,
    ExperimentConfig,
    PrepareConfig,
    PretrainConfig,
    RunConfig,
    load_config,
)
from peterrec.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "configs" / "demo.yaml"
GRID = ROOT / "configs" / "experiments" / "paper.yaml"
TASKS = [
    {"kind": "ranking", "name": "food", "domains": ["food"]},
    {"kind": "ranking", "name": "tea", "domains": ["tea"], "min_item_events": 3},
]
PREPARE: dict[str, Any] = {"events": {"paths": ["a.parquet", "b.parquet"]}, "tasks": TASKS}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "prepare.yaml"
    path.write_text(yaml.safe_dump(PREPARE))
    return path


def test_an_override_names_an_entry_of_a_list(file: Path) -> None:
    config = load_config(PrepareConfig, file, ["tasks.0.min_item_events=2", "events.paths.1=c.parquet"])
    assert [task.min_item_events for task in config.tasks] == [2, 3]  # type: ignore[union-attr]
    assert config.events.paths == ("a.parquet", "c.parquet")


def test_an_override_of_an_entry_changes_what_it_names_only(file: Path) -> None:
    config = load_config(PrepareConfig, file, ["tasks.1={history: before-first-target}"])
    assert config.tasks[0] == load_config(PrepareConfig, file).tasks[0]
    assert config.tasks[1].model_dump() == load_config(PrepareConfig, file).tasks[1].model_dump() | {
        "history": "before-first-target"
    }


def test_an_entry_of_what_the_command_line_said_is_overridden_too() -> None:
    tasks = [dict(TASKS[0])]
    config = load_config(PrepareConfig, None, ["tasks.0.name=x"], events=PREPARE["events"], tasks=tasks)
    assert config.tasks[0].name == "x"
    assert tasks == TASKS[:1]  # what the caller holds stays as it is


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "source.domains.0=x",
            r"entry 0 of source.domains, and there is no such list to change\n.*--set 'source.domains=",
        ),
        ("tasks.2.name=x", r"'2' in a list of 2 entries\n.*count from 0 to 1"),
        ("tasks.-1.name=x", r"'-1' in a list of 2 entries"),
        ("tasks.food.name=x", r"'food' in a list of 2 entries"),
        ("tasks.0.nam=x", r"tasks\.0\.ranking\.nam: there is no such setting \(did you mean 'name'\?\)"),
    ],
)
def test_an_entry_that_is_not_there(file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(PrepareConfig, file, [override])


def test_a_number_is_a_name_where_there_is_no_list() -> None:
    config = load_config(RunConfig, None, ["task_overrides.53.epochs=2"], prepare=PREPARE)
    assert config.task_overrides == {"53": {"epochs": 2}}


@pytest.mark.parametrize(
    ("cls", "section"),
    [(PretrainConfig, "pretrain"), (AdaptConfig, "adapt"), (PrepareConfig, "prepare"), (EvaluateConfig, "evaluate")],
)
def test_the_file_of_a_run_is_recognised(cls: type[Config], section: str) -> None:
    with pytest.raises(ConfigError, match="is the file of a whole run") as caught:
        load_config(cls, DEMO)
    assert f"`peterrec run {DEMO} --out FOLDER`" in caught.value.remedy
    assert f"`{section}:`" in caught.value.remedy


@pytest.mark.parametrize("cls", [PretrainConfig, RunConfig])
def test_the_file_of_a_grid_is_recognised(cls: type[Config]) -> None:
    with pytest.raises(ConfigError, match="is the file of a whole experiment") as caught:
        load_config(cls, GRID)
    assert f"`peterrec experiment {GRID} --out FOLDER`" in caught.value.remedy


def test_the_file_of_a_run_is_none_of_a_grid() -> None:
    with pytest.raises(ConfigError, match="peterrec run"):
        load_config(ExperimentConfig, DEMO)


def test_a_file_with_a_misspelt_key_is_not_taken_for_another(tmp_path: Path) -> None:
    path = tmp_path / "pretrain.yaml"
    path.write_text("epoch: 3\n")
    with pytest.raises(ConfigError, match=r"epoch: there is no such setting \(did you mean 'epochs'"):
        load_config(PretrainConfig, path)
