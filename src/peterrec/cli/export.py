"""`peterrec export`."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from peterrec.cli.common import OverwriteOption, QuietOption, say


def command(
    backbone: Annotated[str, typer.Argument(help="Folder written by `peterrec pretrain` or `grow`, or hf://...")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder to write.")],
    bundles: Annotated[
        list[str] | None,
        typer.Argument(help="Folders written by `peterrec adapt`, of different tasks. [default: the backbone alone]"),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="torch (torch.export, .pt2), onnx or openvino.", metavar="FORMAT")
    ] = "torch",
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a backbone and its bundles as one graph for other runtimes (C++, Java, a GPU server)."""
    from peterrec.export.export import Format, export_model

    meta = export_model(backbone, out, list(bundles or ()), format=cast("Format", format_), overwrite=overwrite)
    if not quiet:
        names = ", ".join(output["name"] for output in meta["outputs"])
        say(f"wrote {out}: {meta['graph']} answers {names}, as the library does\nnext: read {out}/README.md")
