"""`peterrec fetch`."""

from __future__ import annotations

from typing import Annotated

import typer

from peterrec.cli.common import OverwriteOption, QuietOption, reporter


def command(
    name: Annotated[str, typer.Argument(help="ta-feng or ml-1m.")],
    out: Annotated[str | None, typer.Option("--out", "-o", help="Folder to write; runs/data/NAME by default.")] = None,
    source_file: Annotated[
        str | None, typer.Option("--from", help="A file you already have, instead of the network.")
    ] = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fetch a public data set and write it as Parquet: events, and users and items where it has them."""
    from peterrec.data.sources import fetch

    fetch(name, out or f"runs/data/{name}", source_file=source_file, overwrite=overwrite, report=reporter(quiet))
