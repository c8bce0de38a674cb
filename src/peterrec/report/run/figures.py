"""The figures of a run, with what stands around them on the page: caption, legend, note."""

from __future__ import annotations

from collections.abc import Sequence

from peterrec.report.charts import (
    MONITORS,
    Dot,
    Panel,
    Point,
    Series,
    curves_panel,
    dot_panel,
    histogram_panel,
    learning_curve,
    reliability_panel,
)
from peterrec.report.formatting import join, metric, sentence_case
from peterrec.report.run.record import BackboneFacts, Curve, DataFacts, TaskRecord
from peterrec.report.run.tables import compared_metrics
from peterrec.report.svg import ACCENT, BASELINE, Style, style_of

MODEL_STYLE, BASELINE_STYLE = Style(ACCENT, (), "o"), Style(BASELINE, (), "D")


def result_panels(index: int, task: TaskRecord) -> list[Panel]:
    """Return a plot of all methods for each metric that verdicts are about."""
    evaluation = task.evaluation
    panels = []
    for at, name in enumerate(compared_metrics(evaluation)):
        dots = []
        for method in evaluation.methods:
            v, model = method.values[name], method.family == "model"
            dots.append(Dot(method.name, v.value, v.low, v.high, model, MODEL_STYLE if model else BASELINE_STYLE))
        lower = name in evaluation.lower_is_better
        panels.append(dot_panel(f"task{index}-dots{at}", evaluation.task, name, dots, lower=lower))
    return panels


def reliability_panels(index: int, task: TaskRecord) -> list[Panel]:
    """Return the reliability diagram of the models, of a task with probabilities."""
    methods = [method for method in task.evaluation.methods if method.family == "model" and method.reliability]
    if not methods:
        return []
    lines = []
    for at, method in enumerate(methods):
        points = [
            Point(row.predicted, row.observed, row.low, row.high, f"{row.predicted:.2f} ({row.users:,})")
            for row in method.reliability
        ]
        lines.append(Series(method.name, style_of(at), points))
    notes = {
        "classification": "Of two classes the probability of the second, of more that of the most probable one; bars: "
        "95 % intervals.",
        "multilabel": "All pairs of a user and a label together; the ECE in the table is the mean over labels.",
    }
    hint = "dashed: as often as it says; below it, the model says too much"
    return [reliability_panel(f"task{index}-reliability", lines, hint=hint, note=notes.get(task.evaluation.kind, ""))]


def pretrain_panels(backbone: BackboneFacts) -> list[Panel]:
    """Return the losses of pre-training, and how held-out users' last items are ranked."""
    curve = backbone.curve
    note = "Training: mean over the epoch, while the weights still changed."
    if backbone.objective == "contrastive":
        losses = [("training", curve, "train_loss"), ("validation", curve, "contrastive_loss")]
        return [curve_panel("pretrain-loss", "Contrastive loss, in nats", "lower is better", losses, note)]
    losses = [("training", curve, "train_loss"), ("validation", curve, "valid_loss")]
    ranks = [(metric(name), curve, name) for name in ("hr@10", "mrr@10")]
    if "contrastive" in backbone.objective:
        note += " It has the weighted contrastive loss in it, the validation loss has not."
    if backbone.loss.startswith("sampled"):
        note += " It is over sampled negatives, the validation loss over all items: compare their shapes, not heights."
    return [
        curve_panel("pretrain-loss", "Loss per predicted item, in nats", "lower is better", losses, note),
        curve_panel("pretrain-ranks", "Rank of held-out users' last item", "among all items, higher is better", ranks),
    ]


def adapt_panel(index: int, task: TaskRecord) -> Panel | None:
    """Return the monitored metric per epoch of every strategy."""
    if not task.bundles:
        return None
    lines = [(bundle.strategy, bundle.curve, bundle.curve.monitor) for bundle in task.bundles]
    monitor = task.bundles[0].curve.monitor
    caption, hint = MONITORS.get(monitor, (sentence_case(metric(monitor)), ""))
    return curve_panel(f"task{index}-curve", caption, hint, lines, task=task.name)


def data_panels(data: DataFacts) -> list[Panel]:
    """Return how long histories are and how often items occur."""
    figures = [
        ("data-history", "Users by length of their history, in events", data.history_length),
        ("data-items", "Items by how many events they have", data.item_events),
    ]
    return [histogram_panel(key, caption, bars) for key, caption, bars in figures if bars is not None]


def curve_panel(
    key: str, caption: str, hint: str, lines: Sequence[tuple[str, Curve, str]], note: str = "", task: str = ""
) -> Panel:
    """Return learning curves: each with its name, and which value of every epoch is drawn."""
    epochs = {name: curve.best_epoch + 1 for name, curve, _ in lines}
    all_alike = len(set(epochs.values())) == 1
    best = f"epoch {next(iter(epochs.values()))}" if all_alike else join([f"{name} {n}" for name, n in epochs.items()])
    note = f"Ringed: the epoch that was kept ({best}). {note}".strip()
    curves = [
        learning_curve(name, style_of(at), curve.points, value, curve.best_epoch)
        for at, (name, curve, value) in enumerate(lines)
    ]
    return curves_panel(key, caption, curves, task=task, hint=hint, note=note)
