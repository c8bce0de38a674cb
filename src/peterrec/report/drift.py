"""The page of `drift`: what has shifted, how far, and the shares of users in bins then and now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import PercentFormatter

from peterrec.report.charts import Panel, Series
from peterrec.report.formatting import percent
from peterrec.report.page import render_template
from peterrec.report.svg import ACCENT, BASELINE, GRID, Style, draw
from peterrec.storage import write_file

BAR = 26.0  # height of a bin, with its two bars
LONGEST_LABEL = 24  # letters
THEN, NOW = Style(BASELINE, (), "s", "M9 3h6v6h-6z"), Style(ACCENT, (), "s", "M9 3h6v6h-6z")


def write_drift_page(path: Path, report: Mapping[str, Any]) -> None:
    """Write the page as one self-contained HTML file.

    Args:
        path: the file.
        report: what `DriftReport.to_json` gives.

    Raises:
        StorageError: the disk is full or the place is not writable.
    """
    write_file(path, render_drift(report).encode())


def render_drift(report: Mapping[str, Any]) -> str:
    """Return the page as text; what has shifted comes first."""
    quantities = sorted(report["quantities"], key=lambda quantity: (not quantity["shifted"], quantity["p_value"]))
    panels = [_panel(place, quantity) for place, quantity in enumerate(quantities)]
    return render_template("drift.html", {"report": report, "quantities": quantities, "panels": panels})


def _panel(place: int, quantity: Mapping[str, Any]) -> Panel:
    labels, expected, observed = quantity["bins"], quantity["expected"], quantity["observed"]
    short = [label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…" for label in labels]

    def paint(axes: Any) -> None:
        _bars(axes, expected, -0.2, THEN, "reference")
        _bars(axes, observed, 0.2, NOW, "now")
        axes.set_yticks(range(len(short)), short)
        axes.set_ylim(len(short) - 0.4, -0.6)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(axis="x")
        axes.spines["left"].set(visible=True, color=GRID)

    words = "; ".join(
        f"{label}: {percent(before)}, now {percent(after)}"
        for label, before, after in zip(labels, expected, observed, strict=True)
    )
    name = str(quantity["name"])
    svg = draw(f"quantity{place}", f"{name}: shares of users", words, BAR * len(labels) + 34, paint)
    return Panel(svg, name, _hint(quantity), legend=[Series("reference", THEN, []), Series("now", NOW, [])])


def _bars(axes: Any, shares: Sequence[float], offset: float, style: Style, name: str) -> None:
    places = [place + offset for place in range(len(shares))]
    axes.barh(places, shares, height=0.38, color=style.color, gid=f"series:{name}")


def _hint(quantity: Mapping[str, Any]) -> str:
    word = "has shifted" if quantity["shifted"] else "as before"
    return f"{word}; index {quantity['index']:.3f}, p {quantity['adjusted']:.4f}"
