"""`peterrec migrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from peterrec.cli.common import (
    ConfigOption,
    OverwriteOption,
    QuietOption,
    ResumeOption,
    SetOption,
    logged_remarks,
    say,
)

if TYPE_CHECKING:
    from peterrec.evaluation.migration_results import MigratedBundle, MigrationReport, Version


def command(
    backbone: Annotated[str, typer.Argument(help="The new backbone: folder of `peterrec pretrain --from` or `grow`.")],
    corpus: Annotated[str, typer.Argument(help="Folder written by `peterrec prepare`, with the tasks in it.")],
    bundles: Annotated[list[str], typer.Argument(help="Folders written by `peterrec adapt`, of the earlier backbone.")],
    previous: Annotated[str, typer.Option("--from", metavar="BACKBONE", help="The earlier backbone.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder to write: OUT/NAME for each bundle, and a report.")],
    refit: Annotated[
        bool, typer.Option("--refit/--no-refit", help="Also train each further from where it was.")
    ] = True,
    anew: Annotated[bool, typer.Option("--anew", help="Also train each from nothing, which takes longest.")] = False,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring bundles to a backbone that was trained further: which may be kept, which are refitted or made anew.

    They are judged on valid users, as they were before, as they are there, and trained further.
    """
    from peterrec.config import MigrateConfig, load_config
    from peterrec.migration.migrate import migrate

    overrides = [*set_, *([] if refit else ["refit=false"]), *(["anew=true"] if anew else [])]
    overrides += ["runner.progress=false"] if quiet else []
    settings = load_config(MigrateConfig, config, overrides)
    with logged_remarks(quiet):
        report = migrate(backbone, corpus, list(bundles), out, previous, settings, resume=resume, overwrite=overwrite)
    print_migration(report, Console(highlight=False))
    if not quiet:
        say(f"wrote {out}\nnext: peterrec evaluate {backbone} {corpus} {out}/{report.bundles[0].name}")


def print_migration(report: MigrationReport, console: Console) -> None:
    """Print a row for each bundle: its metric in every version, what is to be done, and the epochs that saves."""
    table = Table(
        title="on valid users, and differences from before with their intervals",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("bundle", overflow="fold")  # all else must be read as it is
    for column in ("before", "kept", "refitted", "anew", "verdict"):
        table.add_column(column, no_wrap=True)
    for bundle in report.bundles:
        versions: tuple[Version, ...] = ("before", "kept", "refitted", "anew")
        saved = "" if bundle.epochs_saved is None else f"\n{bundle.epochs_saved} epochs\nsaved"
        cells = [_cell(bundle, version) for version in versions]
        table.add_row(f"{bundle.name}\n{bundle.metric}", *cells, bundle.verdict + saved)
    console.print(table)
    for bundle in report.bundles:
        for note in bundle.notes:
            console.print(f"Note: {note}.", markup=False, soft_wrap=True)


def _cell(bundle: MigratedBundle, version: Version) -> str:
    row = bundle.version(version)
    if row is None:
        return "-"
    lines = [f"{row.value.value:.4f}"]
    compared = [pair for pair in bundle.comparisons if (pair.method, pair.reference) == (version, "before")]
    lines += [f"{pair.difference:+.3f}\n{_limits(pair.low, pair.high)}" for pair in compared]
    if row.epochs is not None:
        lines.append(f"{row.epochs} epochs")
    return "\n".join(lines)


def _limits(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"[{low:+.3f},\n {high:+.3f}]"
