"""Figures: as many points as values, in their place, coloured by the page."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from peterrec.evaluation.results import Value
from peterrec.report.charts import Line, curves, dot_plot, histogram
from peterrec.report.run.figures import SHAPES, adapt_panel, pretrain_panels
from peterrec.report.run.record import Curve, Histogram, RunRecord
from peterrec.report.svg import SERIES

MakeCurve = Callable[..., Curve]


def series(svg: Any) -> dict[str, list[tuple[float, float]]]:
    """Where the markers of each series stand, in units of the drawing."""
    groups = {group.get("data-series"): group for group in ET.fromstring(svg).iter("g") if group.get("data-series")}
    return {
        str(name): [(float(use.get("x", "")), float(use.get("y", ""))) for use in group.iter("use")]
        for name, group in groups.items()
    }


def words(svg: Any) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).iter("text")]


def test_a_dot_for_each_method_in_the_order_of_the_table(record: RunRecord) -> None:
    evaluation = record.tasks[0].evaluation
    svg = dot_plot("k", evaluation, "accuracy")
    found = series(svg)
    line = found.pop("best baseline")
    assert line == []  # a line has no marker
    assert list(found) == [method.name for method in evaluation.methods]
    dots = [points[0] for points in found.values()]
    assert all(len(points) == 1 for points in found.values())
    assert [y for _, y in dots] == sorted(y for _, y in dots)
    values = [method.values["accuracy"].value for method in evaluation.methods]
    order = sorted(range(5), key=lambda i: values[i])
    assert sorted(range(5), key=lambda i: dots[i][0]) == order
    # on a linear axis, distances are proportional
    scale = [(dots[i][0] - dots[0][0]) / (values[i] - values[0]) for i in range(1, 5)]
    assert scale == pytest.approx([scale[0]] * 4, rel=0.01)
    assert {"0.741", "0.729", "0.641", "0.722", "0.736"} <= set(words(svg))


@pytest.mark.parametrize(("metric", "best"), [("accuracy", 0.736), ("log_loss", 0.519)])
def test_the_dashed_line_stands_at_the_best_baseline(record: RunRecord, metric: str, best: float) -> None:
    svg = dot_plot("k", record.tasks[0].evaluation, metric)
    line = re.search(r'data-series="best baseline">.*?d="M ([\d.]+)', svg)
    assert line is not None
    assert float(line[1]) == pytest.approx(series(svg)["tf-idf + logistic regression"][0][0], abs=0.02)
    assert best == record.tasks[0].evaluation.methods[4].values[metric].value


def test_a_method_without_limits_is_a_dot_without_an_interval(record: RunRecord) -> None:
    evaluation = record.tasks[1].evaluation
    bars = dot_plot("k", evaluation, "accuracy").count("stroke-opacity: 0.55")
    methods = [
        method.model_copy(update={"values": method.values | {"accuracy": Value(value=0.3, low=None, high=None)}})
        for method in evaluation.methods
    ]
    without = dot_plot("k", evaluation.model_copy(update={"methods": methods}), "accuracy")
    assert bars == 5
    assert "stroke-opacity: 0.55" not in without
    assert len(series(without)["patch"]) == 1


def test_a_point_for_each_epoch_and_a_ring_on_the_one_that_was_kept(make_curve: MakeCurve) -> None:
    learned = {"patch": make_curve("log_loss", 2.0, 1.5, 7, 3), "head": make_curve("log_loss", 2.1, 1.7, 4, 3)}
    svg = curves("k", "title", [Line(name, curve, "log_loss") for name, curve in learned.items()])
    found = series(svg)
    assert {name: len(points) for name, points in found.items()} == {
        "patch": 7,
        "best patch": 1,
        "head": 4,
        "best head": 1,
    }
    assert found["best patch"] == [found["patch"][3]]
    assert found["best head"] == [found["head"][3]]
    assert found["patch"][0][1] < found["patch"][3][1]  # SVG counts downwards: the loss falls


@pytest.mark.parametrize("epochs", [1, 2, 6, 13, 40, 200])
def test_epochs_are_whole_numbers_from_one(make_curve: MakeCurve, epochs: int) -> None:
    svg = curves("k", "title", [Line("patch", make_curve("mrr", 0.1, 0.4, epochs, epochs - 1), "mrr")])
    ticks = words(svg)[: words(svg).index("epoch")]
    assert all(tick.isdigit() and 1 <= int(tick) <= epochs for tick in ticks)
    assert ticks
    assert len(series(svg)["patch"]) == epochs


def test_an_epoch_without_a_value_is_left_out() -> None:
    rows: list[dict[str, float | None]] = [{"epoch": 0, "mrr": 0.1}, {"epoch": 1, "mrr": None}, {"epoch": 2}]
    svg = curves("k", "title", [Line("patch", Curve(monitor="mrr", best_epoch=1, rows=rows), "mrr")])
    assert {name: len(points) for name, points in series(svg).items()} == {"patch": 1, "best patch": 0}


def test_a_bar_for_each_bin_as_long_as_its_count() -> None:
    svg = histogram("k", "title", Histogram(edges=[0, 1, 2, 5, 10], counts=[0, 10, 40, 0, 20]))
    groups = [group for group in ET.fromstring(svg).iter("g") if group.get("data-series")]
    assert [group.get("data-series") for group in groups] == ["1", "2\u20134", "5\u20139", "10+"]
    widths = []
    for group in groups:
        path = next(group.iter("path")).get("d", "")
        xs = [float(x) for x in re.findall(r"[ML] ([\d.]+)", path)]
        widths.append(max(xs) - min(xs))
    assert widths == pytest.approx([widths[0], 4 * widths[0], 0, 2 * widths[0]], abs=0.1)
    assert "40 (57.1\u00a0%)" in words(svg)


def test_colours_are_the_pages_and_letters_stay_letters(record: RunRecord) -> None:
    for svg in (
        dot_plot("k", record.tasks[0].evaluation, "auc"),
        *(panel.svg for panel in pretrain_panels(record.backbone)),
    ):
        assert not re.search(r"#[0-9a-f]{6}", svg)
        assert "var(--s1)" in svg
        assert "font-family" not in svg
        assert "tf-idf + logistic regression" in words(svg) or "epoch" in words(svg)


def test_what_a_figure_tells_is_also_in_words(record: RunRecord) -> None:
    root = ET.fromstring(dot_plot("k", record.tasks[2].evaluation, "mrr@5"))
    title, description = (root.findtext(tag) for tag in ("title", "desc"))
    assert title == "new-department: MRR@5 of every method"
    assert description is not None
    assert "patch 0.0712 (0.0672 to 0.0752)" in description


def test_names_that_are_formulas_or_markup_are_only_names(record: RunRecord) -> None:
    evaluation = record.tasks[0].evaluation
    renamed = [
        method.model_copy(update={"name": name})
        for method, name in zip(evaluation.methods, ["$x^2$", "<b>&", "職業", "x" * 80, "é"], strict=True)
    ]
    svg = dot_plot("k", evaluation.model_copy(update={"methods": renamed, "verdicts": []}), "accuracy")
    found = words(svg)
    assert {"$x^2$", "<b>&", "職業", "é", "x" * 33 + "…"} <= set(found)


def test_the_legend_names_the_series_that_are_drawn(record: RunRecord) -> None:
    panel = adapt_panel(0, record.tasks[0])
    assert panel is not None
    assert [key.name for key in panel.legend] == ["patch", "head"]
    assert [key.color for key in panel.legend] == ["s1", "s2"]
    assert panel.note == "Ringed: the epoch that was kept (patch 5 and head 8)."
    assert all(style.marker in SHAPES for style in SERIES)


def test_sampled_losses_are_not_to_be_compared_with_full_ones(record: RunRecord) -> None:
    sampled = pretrain_panels(record.backbone)[0].note
    full = pretrain_panels(record.backbone.model_copy(update={"loss": "full softmax"}))[0].note
    assert "sampled negatives" in sampled
    assert "sampled negatives" not in full
