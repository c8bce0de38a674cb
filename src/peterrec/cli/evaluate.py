"""`peterrec evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from peterrec.cli.common import ConfigOption, QuietOption, SetOption, logged_remarks, say
from peterrec.config import EvaluateConfig, load_config
from peterrec.errors import ConfigError

if TYPE_CHECKING:
    from peterrec.evaluation.results import TaskEvaluation


def command(
    backbone: Annotated[str, typer.Argument(help="Folder written by `peterrec pretrain`, or hf://...")],
    corpus: Annotated[str, typer.Argument(help="Folder written by `peterrec prepare`.")],
    bundles: Annotated[
        list[str], typer.Argument(help="Folders written by `peterrec adapt`, or hf://..., of one task.")
    ],
    out: Annotated[str | None, typer.Option("--out", "-o", help="JSON file to write.")] = None,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    quiet: QuietOption = False,
) -> None:
    """Evaluate bundles of a task on its test users, beside cheap baselines, with 95 % intervals over users."""
    from peterrec.evaluation.bundles import evaluate

    if out is not None and not out.endswith(".json"):
        raise ConfigError(f"--out {out} is not a JSON file", remedy="name a file that ends in .json")
    settings = load_config(EvaluateConfig, config, set_)
    with logged_remarks(quiet):
        evaluation = evaluate(backbone, corpus, list(bundles), out, settings)
    print_evaluation(evaluation, Console(highlight=False))
    if out is not None and not quiet:
        say(f"wrote {out}")


def print_evaluation(evaluation: TaskEvaluation, console: Console) -> None:
    """Print the methods x metrics table and the sentence below it."""
    results = evaluation.to_json()
    table = Table(title=f"{results['task']}: {results['users']:,} test users", title_justify="left")
    table.add_column("method")
    table.add_column("trainable", justify="right")
    for metric in results["metrics"]:
        table.add_column(metric, justify="right")
    for method in results["methods"]:
        cells = [f"{v['value']:.4f}\n{v['low']:.3f} - {v['high']:.3f}" for v in _values(method, results["metrics"])]
        fraction = method["trainable_fraction"]
        table.add_row(method["name"], "-" if fraction is None else f"{100 * fraction:.2f} %", *cells)
    console.print(table)
    console.print(results["sentence"], markup=False)


def _values(method: dict[str, dict[str, dict[str, float]]], metrics: list[str]) -> list[dict[str, float]]:
    return [method["values"][metric] for metric in metrics]
