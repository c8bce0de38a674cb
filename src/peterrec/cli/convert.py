"""`peterrec convert`."""

from __future__ import annotations

from typing import Annotated

import typer

from peterrec.cli.common import OverwriteOption, QuietOption, reporter


def command(
    format_: Annotated[str, typer.Argument(metavar="FORMAT", help="peterrec, recbole or tenrec.")],
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="The files; for recbole a folder too.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder to write.")] = ...,  # type: ignore[assignment]
    targets: Annotated[
        str | None,
        typer.Option("--targets", help="What the targets of task files (peterrec) are: items or labels."),
    ] = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Turn files of a public format into Parquet that `prepare` reads: events, users and items.

    Formats: peterrec (the CSVs of the paper's authors), recbole (atomic files), tenrec. See docs/data.md.
    """
    from peterrec.data.sources import convert

    convert(format_, paths, out, targets=targets, overwrite=overwrite, report=reporter(quiet))
