"""`peterrec audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from peterrec.cli.common import ConfigOption, QuietOption, SetOption, logged_remarks, say

if TYPE_CHECKING:
    from peterrec.evaluation.audit_results import AuditResult, GroupDifference
    from peterrec.evaluation.results import MetricEstimate


def command(
    backbone: Annotated[str, typer.Argument(help="Folder written by `peterrec pretrain`, or hf://...")],
    corpus: Annotated[str, typer.Argument(help="Folder written by `peterrec prepare`.")],
    attribute: Annotated[
        str, typer.Option("--attribute", "-a", help="Classification task of the corpus, or FILE:COLUMN with user_id.")
    ],
    bundles: Annotated[
        list[str], typer.Option("--bundle", "-b", help="Folder written by `peterrec adapt`, or hf://... Repeatable.")
    ] = [],  # noqa: B006 - typer copies it
    out: Annotated[str | None, typer.Option("--out", "-o", help="JSON file to write, with a page beside it.")] = None,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    quiet: QuietOption = False,
) -> None:
    """Measure how well an attribute of people can be read from vectors and answers, and how its groups are served."""
    from peterrec.auditing.audit import audit
    from peterrec.config import AuditConfig, load_config

    settings = load_config(AuditConfig, config, set_)
    with logged_remarks(quiet):
        result = audit(backbone, corpus, attribute, list(bundles), out, settings)
    print_audit(result, Console(highlight=False))
    if out is not None and not quiet:
        say(f"wrote {out} and {Path(out).with_suffix('.html')}")


def print_audit(result: AuditResult, console: Console) -> None:
    """Print what probes guess, and the largest difference between groups of each bundle and metric."""
    title = f"{result.attribute}: {result.users:,} users ({', '.join(f'{n} {c:,}' for n, c in result.classes.items())})"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("what is read")
    table.add_column("probe")
    for metric in ("AUC", "accuracy", "log-loss"):
        table.add_column(metric, justify="right")
    for row in result.probes:
        values = [_cell(row.values[metric]) for metric in ("auc", "accuracy", "log_loss")]
        table.add_row(" ".join(filter(None, (row.bundle, row.reads))), row.probe, *values)
    console.print(table)
    if result.differences:
        groups = Table(title="between groups of test users", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for column in ("bundle", "metric", "lowest", "highest", "difference"):
            groups.add_column(column)
        for difference in shown_differences(result):
            low, high = (choose(difference.groups, key=difference.groups.__getitem__) for choose in (min, max))
            ends = [f"{difference.groups[name]:.3f} {name}" for name in (low, high)]
            groups.add_row(difference.bundle, difference.metric, *ends, _cell(difference.difference))
        console.print(groups)
    for note in result.notes:
        console.print(f"Note: {note}.", markup=False, soft_wrap=True)


def shown_differences(result: AuditResult) -> list[GroupDifference]:
    """Return the differences of errors, and of each bundle's answers the class whose share differs most."""
    shown: list[GroupDifference] = []
    for bundle in dict.fromkeys(difference.bundle for difference in result.differences):
        chosen = [difference for difference in result.differences if difference.bundle == bundle]
        answered = [difference for difference in chosen if difference.metric.startswith("answered ")]
        shown += [difference for difference in chosen if difference not in answered]
        shown += sorted(answered, key=lambda difference: -difference.difference.value)[:1]
    return shown


def _cell(estimate: MetricEstimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f}\n{estimate.low:.3f} - {estimate.high:.3f}"
