"""Maps of a question: a square for each number of events and share of labels, against every rival at once."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest

from peterrec.config.experiment import ExperimentConfig
from peterrec.report.grid.analysis import Grid, load
from peterrec.report.grid.cells import CellKey, CellResult, write_cell
from peterrec.report.grid.conclusions import Answer, conclude
from peterrec.report.grid.figures import maps_of
from peterrec.report.grid.page import write_grid_report
from peterrec.storage import read_json
from report.grid.grid_cells import CLASSIFICATION, MACHINE, cell, grid_config, users_table

USERS = 400
TASKS = {
    "age": {**CLASSIFICATION, "labels": {"path": "users.csv", "label": "age"}},
    "gender": CLASSIFICATION,
    "gender-1": {**CLASSIFICATION, "first_events": 1},
    "gender-10": {**CLASSIFICATION, "first_events": 10},
}
METHODS = {
    "patch": {"adapt": {"strategy": "patch"}},
    "majority": {"baseline": "majority"},
    "tfidf": {"baseline": "tf-idf + logistic regression"},
}
LOSS = {
    ("gender-1", 0.1): {"patch": 0.5, "majority": 0.5, "tfidf": 0.6},  # level with one, better than the other
    ("gender-10", 0.1): {"patch": 0.4, "majority": 0.6, "tfidf": 0.5},  # better than both
    ("gender", 0.1): {"patch": 0.4, "majority": 0.6, "tfidf": 0.3},  # better than one, worse than the other
}


def losses(task: str, share: float) -> dict[str, float]:
    return LOSS.get((task, share), {"patch": 0.5, "majority": 0.6, "tfidf": 0.6})


@pytest.fixture(scope="module")
def config() -> ExperimentConfig:
    question = {
        "name": "map",
        "text": "Where?",
        "methods": ["patch", "majority", "tfidf"],
        "label_fractions": [0.1, 1.0],
        "compare": [["patch", "majority"], ["patch", "tfidf"]],
        "sections": ["map"],
    }
    return grid_config([question], TASKS, METHODS, seeds=[0])


Cells = list[tuple[CellResult, pa.Table]]


@pytest.fixture(scope="module")
def cells() -> Cells:
    noise = np.random.default_rng(0).normal(size=USERS)
    tables = {}
    for task in TASKS:
        for share in (0.1, 1.0):
            for method, loss in losses(task, share).items():
                error = np.random.default_rng(len(method)).normal(size=USERS)
                values = loss + 0.2 * noise + 0.02 * (error - error.mean())
                columns = {"accuracy": [0.5] * USERS, "log_loss": values.tolist()}
                tables[CellKey("demo", task, method, 0, share)] = users_table(map(str, range(USERS)), columns)
    return [(cell(key, table), table) for key, table in tables.items()]


@pytest.fixture(scope="module")
def grid(config: ExperimentConfig, cells: Cells) -> Grid:
    tables = {result.key: table for result, table in cells}
    return load(config, [result for result, _ in cells], tables.__getitem__)


@pytest.fixture(scope="module")
def answer(grid: Grid) -> Answer:
    return conclude(grid)[0]


def test_a_square_is_better_only_if_better_than_every_rival(answer: Answer) -> None:
    (task_map,) = (m for m in answer.maps if (m.task, m.metric) == ("demo/gender", "log_loss"))
    squares = {(square.first_events, square.share): square for square in task_map.squares}
    assert {place: square.verdict for place, square in squares.items() if place[1] == 0.1} == {
        (1, 0.1): "no clear difference",
        (10, 0.1): "better",
        (None, 0.1): "worse",
    }
    assert all(square.verdict == "better" for place, square in squares.items() if place[1] == 1.0)
    assert len(squares) == 6


def test_the_difference_is_that_to_the_best_rival(answer: Answer) -> None:
    (task_map,) = (m for m in answer.maps if (m.task, m.metric) == ("demo/gender", "log_loss"))
    squares = {(square.first_events, square.share): square for square in task_map.squares}
    assert (squares[None, 0.1].rival, round(squares[None, 0.1].difference, 2)) == ("tfidf", 0.1)
    assert (squares[10, 0.1].rival, round(squares[10, 0.1].difference, 2)) == ("tfidf", -0.1)
    assert (squares[1, 0.1].rival, round(squares[1, 0.1].difference, 2)) == ("majority", 0.0)


def test_tasks_that_differ_in_more_than_their_first_events_have_maps_of_their_own(answer: Answer) -> None:
    assert [(m.task, m.metric, len(m.squares)) for m in answer.maps] == [
        ("demo/age", "accuracy", 2),
        ("demo/age", "log_loss", 2),
        ("demo/gender", "accuracy", 6),
        ("demo/gender", "log_loss", 6),
    ]


def test_without_a_task_of_whole_histories_the_map_has_the_name_of_the_others(grid: Grid) -> None:
    tasks = {name: task for name, task in TASKS.items() if name.startswith("gender-")}
    question = grid.config.questions[0].model_dump()
    config = grid_config([question], tasks, METHODS, seeds=[0])
    (answer,) = conclude(Grid(config, {k: v for k, v in grid.cells.items() if k.task in tasks}, grid.estimates))
    assert {task_map.task for task_map in answer.maps} == {"demo/gender"}


def test_a_sentence_says_where(answer: Answer) -> None:
    sentences = [re.sub("\u00a0", " ", sentence) for sentence in answer.sentences]
    assert (
        "On demo/gender by log-loss, patch is better than every rival in 4 of 6 squares (10 % of the labels: "
        "10 events; 100 % of the labels: 1 and 10 events and whole histories), worse than a rival in 1 "
        "(10 % of the labels: whole histories)."
    ) in sentences


def test_the_picture_has_a_colour_a_symbol_and_words_for_each_square(answer: Answer) -> None:
    panel = maps_of(answer, "q0")[-1]
    root = ET.fromstring(panel.svg)
    series = [str(group.get("data-series")) for group in root.iter("g") if group.get("data-series")]
    assert "worse 10\u00a0%, all" in series
    assert "better 100\u00a0%, 1" in series
    texts = [text.text or "" for text in root.iter("text")]
    assert (texts.count("▲"), texts.count("▼"), texts.count("≈")) == (4, 1, 1)
    assert "var(--bad-tint)" in panel.svg
    assert "whole histories and 10\u00a0% of the labels: worse, +0.100 to tfidf" in (root.findtext("desc") or "")


def test_the_report_keeps_the_squares(config: ExperimentConfig, cells: Cells, tmp_path: Path) -> None:
    for result, table in cells:
        write_cell(tmp_path, result, table)
    write_grid_report(config, [result for result, _ in cells], tmp_path, machine=MACHINE, command="", skipped=[])
    (gender,) = (
        m
        for m in read_json(tmp_path / "results.json")["maps"]
        if m["task"] == "demo/gender" and m["metric"] == "log_loss"
    )
    page = (tmp_path / "report.html").read_text()
    assert page.index("minus the best rival") < page.index("Every difference"), "the maps come first"
    square = next(s for s in gender["squares"] if (s["first_events"], s["share"]) == (10, 0.1))
    assert (gender["method"], square["rival"], square["verdict"]) == ("patch", "tfidf", "better")
