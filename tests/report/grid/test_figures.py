"""Figures of a grid: a mark for each value, the same colour for a method everywhere, words for who cannot see them."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from peterrec.report.charts import Panel
from peterrec.report.grid.analysis import QuestionResults, load
from peterrec.report.grid.figures import curves, dots, panels_of, shares, strata, styles
from report.grid.grid_cells import METHODS, demonstration, demonstration_cells, grid_config


@pytest.fixture(scope="module")
def questions() -> list[QuestionResults]:
    cells = demonstration_cells(demonstration(), users=200)
    tables = {cell.key: table for cell, table in cells}
    grid = load(demonstration(), [cell for cell, _ in cells], tables.__getitem__)
    return [QuestionResults(grid, question) for question in grid.config.questions]


def series(svg: Any) -> dict[str, list[tuple[float, float]]]:
    groups = {group.get("data-series"): group for group in ET.fromstring(svg).iter("g") if group.get("data-series")}
    return {
        str(name): [(float(use.get("x", "")), float(use.get("y", ""))) for use in group.iter("use")]
        for name, group in groups.items()
    }


def colour(panel: Panel, name: str) -> set[str]:
    groups = [group for group in ET.fromstring(panel.svg).iter("g") if group.get("data-series") == name]
    return set(re.findall(r"(?:fill|stroke): var\(--((?!surface)\w+)\)", ET.tostring(groups[0], encoding="unicode")))


def words(panel: Panel) -> list[str]:
    return [text.text or "" for text in ET.fromstring(panel.svg).iter("text")]


def test_a_dot_for_each_method(questions: list[QuestionResults]) -> None:
    (panel,) = dots(questions[2], "demo/gender", "k")
    points = series(panel.svg)
    assert points.pop("best baseline") == []
    names = [
        "patch",
        "patch-random",
        "head",
        "all (fine-tuning)",
        "scratch",
        "majority",
        "tf-idf + logistic regression",
    ]
    assert list(points) == names
    assert "dashed: best baseline" in panel.hint
    (without,) = dots(questions[0], "demo/gender", "k")
    assert without.hint == ""


@pytest.mark.slow
def test_a_method_has_one_colour_on_the_whole_page(questions: list[QuestionResults]) -> None:
    pretraining, tuning, cold = questions
    figures = [
        dots(pretraining, "demo/gender", "a")[0],
        shares(pretraining, "demo/food", "b")[0],
        curves(tuning, "demo/gender", "c")[0],
        dots(cold, "demo/food", "d")[0],
        strata(cold, "demo/gender", "e")[0],
    ]
    assert [colour(figure, "scratch") for figure in figures] == [{"s5"}] * 5
    assert [colour(figure, "patch") for figure in figures] == [{"s1"}] * 5
    assert colour(figures[4], "majority") == {"baseline"}
    for figure in figures[1:3]:
        assert {line.name: line.style.variable for line in figure.legend}["scratch"] == "s5"


def test_many_methods_are_told_apart() -> None:
    methods = {f"m{at}": {"adapt": {}} for at in range(40)} | METHODS
    by_method = styles(grid_config([{"name": "q", "text": "?", "methods": ["m0"]}], methods=methods))
    models = {name: style for name, style in by_method.items() if name.startswith("m") and name != "majority"}
    assert len({(style.color, style.dashes, style.marker) for style in models.values()}) == 40


def test_curves_over_epochs_and_over_seconds(questions: list[QuestionResults]) -> None:
    epochs, seconds = curves(questions[1], "demo/gender", "k")
    cells = questions[1].cells["demo/gender", "patch", 1.0]
    assert len(series(epochs.svg)["patch"]) == len(cells[0].curve)
    assert len(series(seconds.svg)["kept patch"]) == 1
    assert epochs.svg.count('data-series="again patch"') == 2  # the other two seeds
    assert "epoch" in words(epochs)
    assert "seconds of training" in words(seconds)
    total = sum(row["seconds"] or 0 for row in cells[0].curve)
    assert f"at {total:.1f} seconds" in seconds.svg
    assert [line.name for line in epochs.legend] == ["patch", "patch-random", "head", "all (fine-tuning)", "scratch"]


def test_shares_on_a_logarithmic_axis(questions: list[QuestionResults]) -> None:
    (panel,) = shares(questions[0], "demo/gender", "k")
    assert [tick.replace("\u00a0", " ") for tick in words(panel)[:5]] == ["1 %", "5 %", "10 %", "30 %", "100 %"]
    xs = [x for x, _ in series(panel.svg)["patch"]]
    assert xs[2] - xs[0] == pytest.approx(xs[4] - xs[2], abs=0.1)  # 1 to 10 as 10 to 100
    assert len(re.findall("stroke-opacity: 0.6", panel.svg)) == 4 * 5  # a whisker for each


def test_small_groups_of_users_are_pale(questions: list[QuestionResults]) -> None:
    (panel,) = strata(questions[2], "demo/gender", "k")
    assert "few patch" in series(panel.svg)
    assert len(series(panel.svg)["patch"]) + len(series(panel.svg)["few patch"]) == 6
    assert "unseen" in words(panel)


@pytest.mark.slow
def test_every_figure_says_in_words_what_it_shows(questions: list[QuestionResults]) -> None:
    ids = []
    for at, results in enumerate(questions):
        for panel in (panel for panels in panels_of(results, f"q{at}") for panel in panels):
            root = ET.fromstring(panel.svg)
            assert (root.findtext("title") or "").startswith(panel.task)
            assert "patch" in (root.findtext("desc") or "")
            ids += re.findall(r'\bid="([^"]+)"', panel.svg)
    assert len(ids) == len(set(ids))
