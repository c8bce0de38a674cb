"""Figures: as many points as values, in their place, coloured by the page."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from peterrec.evaluation.results import MetricEstimate, TaskEvaluation
from peterrec.report.charts import histogram_panel
from peterrec.report.run.figures import adapt_panel, curve_panel, pretrain_panels, result_panels
from peterrec.report.run.record import Curve, Histogram, RunRecord, TaskRecord
from peterrec.report.run.tables import compared_metrics
from peterrec.report.svg import style_of

MakeCurve = Callable[..., Curve]


def series(svg: Any) -> dict[str, list[tuple[float, float]]]:
    """Where the markers of each series stand, in units of the drawing."""
    groups = {group.get("data-series"): group for group in ET.fromstring(svg).iter("g") if group.get("data-series")}
    return {
        str(name): [(float(use.get("x", "")), float(use.get("y", ""))) for use in group.iter("use")]
        for name, group in groups.items()
    }


def dot_plot(task: TaskRecord, metric: str, evaluation: TaskEvaluation | None = None) -> Any:
    """The dot plot of one metric; verdicts decide which metrics have one."""
    evaluation = evaluation or task.evaluation
    evaluation = evaluation.model_copy(update={"primary": metric})
    panels = result_panels(0, task.model_copy(update={"evaluation": evaluation}))
    return panels[compared_metrics(evaluation).index(metric)].svg


def curves(*lines: tuple[str, Curve, str]) -> Any:
    return curve_panel("k", "title", "", lines).svg


def words(svg: Any) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).iter("text")]


def test_a_dot_for_each_method_in_the_order_of_the_table(record: RunRecord) -> None:
    evaluation = record.tasks[0].evaluation
    svg = dot_plot(record.tasks[0], "accuracy")
    markers = series(svg)
    line = markers.pop("best baseline")
    assert line == []  # a line has no marker
    assert list(markers) == [method.name for method in evaluation.methods]
    dots = [points[0] for points in markers.values()]
    assert all(len(points) == 1 for points in markers.values())
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
    svg = dot_plot(record.tasks[0], metric)
    line = re.search(r'data-series="best baseline">.*?d="M ([\d.]+)', svg)
    assert line is not None
    assert float(line[1]) == pytest.approx(series(svg)["tf-idf + logistic regression"][0][0], abs=0.02)
    assert best == record.tasks[0].evaluation.methods[4].values[metric].value


def test_a_method_without_limits_is_a_dot_without_an_interval(record: RunRecord) -> None:
    evaluation = record.tasks[1].evaluation
    bars = dot_plot(record.tasks[1], "accuracy").count("stroke-opacity: 0.55")
    methods = [
        method.model_copy(
            update={"values": method.values | {"accuracy": MetricEstimate(value=0.3, low=None, high=None)}}
        )
        for method in evaluation.methods
    ]
    without = dot_plot(record.tasks[1], "accuracy", evaluation.model_copy(update={"methods": methods}))
    assert bars == 5
    assert "stroke-opacity: 0.55" not in without
    assert len(series(without)["patch"]) == 1


def test_a_point_for_each_epoch_and_a_ring_on_the_one_that_was_kept(make_curve: MakeCurve) -> None:
    learned = {"patch": make_curve("log_loss", 2.0, 1.5, 7, 3), "head": make_curve("log_loss", 2.1, 1.7, 4, 3)}
    svg = curves(*((name, curve, "log_loss") for name, curve in learned.items()))
    markers = series(svg)
    assert {name: len(points) for name, points in markers.items()} == {
        "line patch": 0,
        "patch": 7,
        "kept patch": 1,
        "line head": 0,
        "head": 4,
        "kept head": 1,
    }
    assert markers["kept patch"] == [markers["patch"][3]]
    assert markers["kept head"] == [markers["head"][3]]
    assert markers["patch"][0][1] < markers["patch"][3][1]  # SVG counts downwards: the loss falls


@pytest.mark.parametrize("epochs", [1, 2, 6, 13, 40, 200])
def test_epochs_are_whole_numbers_from_one(make_curve: MakeCurve, epochs: int) -> None:
    svg = curves(("patch", make_curve("mrr", 0.1, 0.4, epochs, epochs - 1), "mrr"))
    ticks = words(svg)[: words(svg).index("epoch")]
    assert all(tick.isdigit() and 1 <= int(tick) <= epochs for tick in ticks)
    assert ticks
    assert len(series(svg)["patch"]) == (epochs if epochs <= 40 else 0)  # many markers would hide the line


@pytest.mark.parametrize("epochs", [0, 1, 3, 25])
def test_the_start_is_epoch_zero(make_curve: MakeCurve, epochs: int) -> None:
    start = {"best_epoch": -1, "start": {"log_loss": 0.6}}
    learned = make_curve("log_loss", 0.7, 0.8, epochs, 0).model_copy(update=start)
    panel = curve_panel("k", "title", "", [("patch", learned, "log_loss")])
    ticks = words(panel.svg)[: words(panel.svg).index("epoch")]
    assert all(tick.isdigit() and 0 <= int(tick) <= epochs for tick in ticks)
    assert "0" in ticks
    markers = series(panel.svg)
    assert len(markers["patch"]) == epochs + 1
    assert markers["kept patch"] == markers["patch"][:1]
    assert panel.note == "Ringed: the epoch that was kept (epoch 0). Epoch 0: before the first step."


def test_an_epoch_without_a_value_is_left_out() -> None:
    rows: list[dict[str, float | None]] = [{"epoch": 0, "mrr": 0.1}, {"epoch": 1, "mrr": None}, {"epoch": 2}]
    svg = curves(("patch", Curve(monitor="mrr", best_epoch=1, rows=rows), "mrr"))
    assert {name: len(points) for name, points in series(svg).items()} == {"line patch": 0, "patch": 1}


def test_a_bar_for_each_bin_as_long_as_its_count() -> None:
    svg = histogram_panel("k", "title", Histogram(edges=[0, 1, 2, 5, 10], counts=[0, 10, 40, 0, 20])).svg
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
        dot_plot(record.tasks[0], "auc"),
        *(panel.svg for panel in pretrain_panels(record.backbone)),
    ):
        assert not re.search(r"#[0-9a-f]{6}", svg)
        assert "var(--s1)" in svg
        assert "font-family" not in svg
        assert "tf-idf + logistic regression" in words(svg) or "epoch" in words(svg)


def test_what_a_figure_tells_is_also_in_words(record: RunRecord) -> None:
    root = ET.fromstring(dot_plot(record.tasks[2], "mrr@5"))
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
    svg = dot_plot(record.tasks[0], "accuracy", evaluation.model_copy(update={"methods": renamed, "comparisons": []}))
    texts = words(svg)
    assert {"$x^2$", "<b>&", "職業", "é", "x" * 33 + "…"} <= set(texts)


def test_the_legend_names_the_series_that_are_drawn(record: RunRecord) -> None:
    panel = adapt_panel(0, record.tasks[0])
    assert panel is not None
    assert [series.name for series in panel.legend] == ["patch", "head"]
    assert [series.style.variable for series in panel.legend] == ["s1", "s2"]
    assert panel.note == "Ringed: the epoch that was kept (patch 5 and head 8)."
    assert all(style_of(index).legend_path for index in range(20))


def test_sampled_losses_are_not_to_be_compared_with_full_ones(record: RunRecord) -> None:
    sampled = pretrain_panels(record.backbone)[0].note
    full = pretrain_panels(record.backbone.model_copy(update={"loss": "full softmax"}))[0].note
    assert "sampled negatives" in sampled
    assert "sampled negatives" not in full


def test_the_losses_of_an_objective_are_its_own(record: RunRecord) -> None:
    """The one that was trained has the contrastive loss in it; without items there is nothing to rank."""
    assert "contrastive" not in pretrain_panels(record.backbone)[0].note
    mixed = pretrain_panels(record.backbone.model_copy(update={"objective": "next item and contrastive"}))
    assert "weighted contrastive loss" in mixed[0].note
    rows = [{"epoch": float(epoch), "train_loss": 2.0, "contrastive_loss": 1.5} for epoch in range(2)]
    curve = record.backbone.curve.model_copy(update={"rows": rows, "best_epoch": 1})
    alone = pretrain_panels(record.backbone.model_copy(update={"objective": "contrastive", "curve": curve}))
    assert [panel.caption for panel in alone] == ["Contrastive loss, in nats"]
