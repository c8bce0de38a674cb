"""`peterrec evaluate`."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from peterrec.cli.common import ConfigOption, QuietOption, SetOption, logged_remarks, say
from peterrec.errors import ConfigError

if TYPE_CHECKING:
    from peterrec.evaluation.results import MethodResult, TaskEvaluation

WIDTH = 80  # columns of a terminal, and of an issue, that nothing wraps in


def command(
    backbone: Annotated[str, typer.Argument(help="Folder written by `peterrec pretrain`, or hf://...")],
    corpus: Annotated[str, typer.Argument(help="Folder written by `peterrec prepare`.")],
    bundles: Annotated[
        list[str], typer.Argument(help="Folders written by `peterrec adapt`, or hf://..., of one task.")
    ],
    out: Annotated[str | None, typer.Option("--out", "-o", help="JSON file to write.")] = None,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    details: Annotated[
        bool, typer.Option("--details", help="Also intervals, sampled metrics, trainable shares, all comparisons.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Evaluate bundles of a task on its test users, beside cheap baselines, with 95 % intervals over users."""
    from peterrec.config import EvaluateConfig, load_config
    from peterrec.evaluation.bundles import evaluate

    if out is not None and not out.endswith(".json"):
        raise ConfigError(f"--out {out} is not a JSON file", remedy="name a file that ends in .json")
    settings = load_config(EvaluateConfig, config, set_)
    with logged_remarks(quiet):
        evaluation = evaluate(backbone, corpus, list(bundles), out, settings)
    print_evaluation(evaluation, Console(highlight=False), details=details)
    if out is not None and not quiet:
        say(f"wrote {out}")


def print_evaluation(evaluation: TaskEvaluation, console: Console, *, details: bool = False) -> None:
    """Print the methods x metrics table and the verdict below it.

    Args:
        evaluation: what is shown.
        console: where.
        details: all metrics with their intervals, trainable shares, and all comparisons in words. Without, at most 80
            columns: metrics of the full ranking, and a verdict of two lines.
    """
    results = evaluation.to_json()
    metrics = results["metrics"] if details else _main_metrics(results)
    width = None if details else min(WIDTH, console.width)
    title = f"{results['task']}: {results['users']:,} test users"
    table = Table(title=title, title_justify="left", width=width, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", ratio=None if details else 1)
    if details:
        table.add_column("trainable", justify="right")
    for metric in metrics:
        table.add_column(metric, justify="right", min_width=6)
    for method in results["methods"]:
        values = [method["values"][metric] for metric in metrics]
        fraction = method["trainable_fraction"]
        cells = ["-" if fraction is None else f"{100 * fraction:.2f} %"] if details else []
        cells += [f"{v['value']:.4f}\n{_limits(v)}" if details else f"{v['value']:.4f}" for v in values]
        table.add_row(method["name"], *cells)
    console.print(table)
    if details:
        console.print(results["sentence"], markup=False)
        return
    for line in verdict(evaluation):
        console.print(fill(line, WIDTH, break_long_words=False, break_on_hyphens=False), markup=False, soft_wrap=True)


def verdict(evaluation: TaskEvaluation) -> list[str]:
    """Return two lines on the primary metric, of the best model beside baselines and other models; then the notes."""
    primary, models = evaluation.primary, [m for m in evaluation.methods if m.family == "model"]
    if not models:
        return [f"No model was evaluated: the table has baselines only ({primary} is what is compared)."]
    sign = 1 if primary in evaluation.lower_is_better else -1
    best = min(models, key=lambda method: sign * method.values[primary].value)
    beginning = f"On {primary} {best.name} ({best.values[primary].value:.4f})"
    beside_baselines = _compared(evaluation, best, "baseline") or "stands beside no baseline"
    beside_models = _compared(evaluation, best, "model")
    second = f"Of the bundles it is the best, {beside_models.removeprefix('is ')}. " if beside_models else ""
    lines = [f"{beginning} {beside_baselines}.", f"{second}Intervals and all comparisons: --details."]
    return [*lines, *(f"Note: {note}." for note in evaluation.notes)]


def _compared(evaluation: TaskEvaluation, best: MethodResult, family: str) -> str:
    """Return how a model fares beside all methods of a family, on the primary metric; nothing if there is none."""
    names = {method.name for method in evaluation.methods if method.family == family and method.name != best.name}
    by_verdict: dict[str, list[str]] = {"better": [], "no clear difference": [], "worse": []}
    for pair in evaluation.comparisons:
        if (pair.method, pair.metric) == (best.name, evaluation.primary) and pair.reference in names:
            by_verdict[pair.verdict].append(pair.reference)
    count = sum(map(len, by_verdict.values()))
    if not count:
        return ""
    kind = f"{'other ' if family == 'model' else ''}{family}{'s' if count > 1 else ''}"
    level, worse = ", ".join(by_verdict["no clear difference"]), ", ".join(by_verdict["worse"])
    phrase = f"is clearly better than {len(by_verdict['better'])} of {count} {kind}"
    return phrase + (f", level with {level}" if level else "") + (f", worse than {worse}" if worse else "")


def _main_metrics(results: dict[str, Any]) -> list[str]:
    """Return the metrics that are shown without being asked for: of the full ranking, not of sampled negatives."""
    return [metric for metric in results["metrics"] if "sampled" not in metric]


def _limits(value: dict[str, float | None]) -> str:
    low, high = value["low"], value["high"]
    return "-" if low is None or high is None else f"{low:.3f} - {high:.3f}"
