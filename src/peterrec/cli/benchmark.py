"""`peterrec benchmark`: `build`, `score` and `predict`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from peterrec.cli.common import OverwriteOption, QuietOption, reporter, say
from peterrec.errors import ConfigError

if TYPE_CHECKING:
    from peterrec.benchmark.score import BenchmarkScores

verbs = typer.Typer(
    help="Build the transfer benchmark, and judge anybody's predictions on it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
DATA_SET = "ml-1m"
Folder = Annotated[str, typer.Argument(help="Folder written by `peterrec benchmark build`.")]


@verbs.command()
def build(
    out: Annotated[str, typer.Argument(help="Folder to write.")],
    data: Annotated[
        str | None,
        typer.Option("--data", help=f"Folder written by `fetch` or `convert`; runs/data/{DATA_SET} by default."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label", help="Column of users.parquet to predict. Repeatable. [default: gender, age, occupation]"
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the benchmark as plain Parquet files, with a README.md; MovieLens-1M is fetched if it is not there."""
    from peterrec.benchmark.build import build_benchmark
    from peterrec.benchmark.protocol import LABEL_COLUMNS
    from peterrec.data.sources import fetch

    if data is None:
        data = str(fetch(DATA_SET, f"runs/data/{DATA_SET}", report=reporter(quiet)))
    build_benchmark(out, data, labels=label or LABEL_COLUMNS, overwrite=overwrite, report=reporter(quiet))
    if not quiet:
        say(f"wrote {out}; {out}/README.md says what is in it, and what may be learned from")


@verbs.command()
def score(
    benchmark: Folder,
    task: Annotated[str, typer.Argument(help="Name of a task, such as gender-labels-10-first-5.")],
    scores: Annotated[list[str], typer.Argument(help="Parquet files of scores, one of each method.")],
    out: Annotated[str | None, typer.Option("--out", "-o", help="JSON file to write.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Judge files of scores on the test users, with 95 % intervals over users and paired tests between the files."""
    from peterrec.benchmark.score import score_benchmark

    if out is not None and not out.endswith(".json"):
        raise ConfigError(f"--out {out} is not a JSON file", remedy="name a file that ends in .json")
    result = score_benchmark(benchmark, task, list(scores), out)
    print_scores(result, Console(highlight=False))
    if out is not None and not quiet:
        say(f"wrote {out}")


@verbs.command()
def predict(
    benchmark: Folder,
    backbone: Annotated[str, typer.Argument(help="Folder written by `peterrec pretrain`.")],
    bundle: Annotated[
        str | None, typer.Argument(help="Folder written by `peterrec adapt`; without it, next items of the backbone.")
    ] = None,
    task: Annotated[str, typer.Option("--task", help="Name of a task.")] = ...,  # type: ignore[assignment]
    out: Annotated[str, typer.Option("--out", "-o", help="Parquet file to write.")] = ...,  # type: ignore[assignment]
    quiet: QuietOption = False,
) -> None:
    """Answer a task with a peterrec model, in a file of scores as `score` reads it."""
    from peterrec.benchmark.predict import predict_benchmark

    if not out.endswith(".parquet"):
        raise ConfigError(f"--out {out} is not a Parquet file", remedy="name a file that ends in .parquet")
    table = predict_benchmark(benchmark, task, backbone, out, bundle=bundle)
    if not quiet:
        say(f"wrote {out} ({len(table):,} users)")


def print_scores(result: BenchmarkScores, console: Console) -> None:
    """Print the files x metrics table, and the comparisons below it."""
    table = Table(title=f"{result.task}: {result.users:,} test users", title_justify="left")
    table.add_column("file")
    for metric in result.metrics:
        table.add_column(metric, justify="right")
    for method in result.methods:
        estimates = [method.values[metric] for metric in result.metrics]
        table.add_row(method.name, *(f"{e.value:.4f}\n{_limits(e.low, e.high, '.3f')}" for e in estimates))
    console.print(table)
    if not result.comparisons:
        return
    table = Table(title="differences on the same users (p: after Holm's correction)", title_justify="left")
    for column in ("metric", "file", "minus", "difference", "95 %", "p", "verdict"):
        table.add_column(column)
    for row in result.comparisons:
        limits = _limits(row.low, row.high, "+.4f")
        cells = (f"{row.difference:+.4f}", limits, f"{row.p_adjusted:.2g}", row.verdict)
        table.add_row(row.metric, row.method, row.reference, *cells)
    console.print(table)


def _limits(low: float | None, high: float | None, form: str) -> str:
    return "-" if low is None or high is None else f"{low:{form}} - {high:{form}}"
