"""Figures with what stands around them on the page: caption, legend, note."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle

from markupsafe import Markup

from peterrec.report.charts import Line, curves, dot_plot, histogram
from peterrec.report.formatting import join, metric, sentence_case
from peterrec.report.run.record import BackboneFacts, DataFacts, TaskRecord
from peterrec.report.run.tables import best_baseline, compared
from peterrec.report.svg import SERIES, Style, variable

MONITORS = {
    "log_loss": ("Log-loss of the validation users", "lower is better"),
    "mrr": ("MRR of the validation users", "whole ranking, higher is better"),
}
SHAPES = {
    "o": "M12 3a3 3 0 1 0 .01 0z",
    "s": "M9 3h6v6h-6z",
    "^": "M12 2.5l3.5 6.5h-7z",
    "D": "M12 2l4 4l-4 4l-4 -4z",
    "v": "M12 9.5l3.5 -6.5h-7z",
    "P": "M11 2.5h2v2.5h2.5v2h-2.5v2.5h-2v-2.5h-2.5v-2h2.5z",
    "X": "M9 3l3 2l3 -2l-2 3l2 3l-3 -2l-3 2l2 -3z",
    "p": "M12 2.5l3.5 2.7l-1.3 4h-4.4l-1.3 -4z",
}


@dataclass(frozen=True)
class Key:
    """One entry of a legend: the series' name, CSS variable, dashes and marker (an SVG path)."""

    name: str
    color: str
    dashes: str
    shape: str

    @classmethod
    def of(cls, name: str, style: Style) -> Key:
        """Return the entry of a series drawn in a style."""
        dashes = " ".join(f"{2 * length:g}" for length in style.dashes)
        return cls(name, variable(style.color), dashes, SHAPES[style.marker])


@dataclass(frozen=True)
class Panel:
    """A figure on the page. `of` is the task it is about, where no heading says so."""

    svg: Markup
    caption: str
    hint: str = ""
    of: str = ""
    legend: list[Key] = field(default_factory=list)
    note: str = ""


def result_panels(index: int, task: TaskRecord) -> list[Panel]:
    """Return a plot of all methods for each metric that verdicts are about."""
    evaluation = task.evaluation
    return [
        Panel(
            dot_plot(f"task{index}-dots{number}", evaluation, name),
            f"{sentence_case(metric(name))} on the test users",
            "dashed: best baseline" if best_baseline(evaluation, name) is not None else "",
        )
        for number, name in enumerate(compared(evaluation))
    ]


def pretrain_panels(backbone: BackboneFacts) -> list[Panel]:
    """Return the losses of pre-training, and what the held-out users' last items tell."""
    curve = backbone.curve
    losses = [Line("training", curve, "train_loss"), Line("validation", curve, "valid_loss")]
    ranks = [Line(metric(name), curve, name) for name in ("hr@10", "mrr@10")]
    note = "Training: mean over the epoch, while the weights still changed."
    if backbone.loss.startswith("sampled"):
        note += " It is over sampled negatives, the validation loss over all items: compare their shapes, not heights."
    return [
        _curves("pretrain-loss", "Loss per predicted item, in nats", "lower is better", losses, note),
        _curves("pretrain-ranks", "Rank of held-out users' last item", "among all items, higher is better", ranks),
    ]


def adapt_panel(index: int, task: TaskRecord) -> Panel | None:
    """Return the monitored metric per epoch of every strategy."""
    if not task.bundles:
        return None
    lines = [Line(bundle.strategy, bundle.curve, bundle.curve.monitor) for bundle in task.bundles]
    monitor = task.bundles[0].curve.monitor
    caption, hint = MONITORS.get(monitor, (sentence_case(metric(monitor)), ""))
    return _curves(f"task{index}-curve", caption, hint, lines, of=task.name)


def data_panels(data: DataFacts) -> list[Panel]:
    """Return how long histories are and how often items occur."""
    panels = []
    if data.history_length is not None:
        caption = "Users by length of their history, in events"
        panels.append(Panel(histogram("data-history", caption, data.history_length), caption))
    if data.item_events is not None:
        caption = "Items by how many events they have"
        panels.append(Panel(histogram("data-items", caption, data.item_events), caption))
    return panels


def _curves(key: str, caption: str, hint: str, lines: Sequence[Line], note: str = "", of: str = "") -> Panel:
    kept = {line.name: line.curve.best_epoch + 1 for line in lines}
    same = len(set(kept.values())) == 1
    best = f"epoch {next(iter(kept.values()))}" if same else join([f"{name} {epoch}" for name, epoch in kept.items()])
    said = f"Ringed: the epoch that was kept ({best})."
    title = f"{of}: {caption}" if of else caption
    legend = [Key.of(line.name, style) for line, style in zip(lines, cycle(SERIES), strict=False)]
    return Panel(curves(key, title, lines), caption, hint, of, legend, f"{said} {note}".strip())
