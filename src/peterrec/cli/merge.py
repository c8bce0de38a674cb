"""`peterrec merge`."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from peterrec.cli.common import OverwriteOption, QuietOption, say, say_warnings


def command(
    backbone: Annotated[str, typer.Argument(help="Folder written by `peterrec pretrain` or `grow`, or hf://...")],
    bundles: Annotated[list[str], typer.Argument(help="Two or more folders written by `peterrec adapt`, of one task.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the bundle to write.")],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="linear: the mean of all weights; ties: of the changes of one start; cat: bottlenecks side by side.",
        ),
    ] = "linear",
    weights: Annotated[
        list[float], typer.Option("--weight", help="Of each bundle, in their order, such as its users. Repeatable.")
    ] = [],  # noqa: B006 - typer copies it
    density: Annotated[float, typer.Option("--density", help="Of ties: fraction of the changes that stay.")] = 0.2,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Merge bundles of one task, of several seeds or weeks, into one."""
    from peterrec.training.merge import Method, merge_bundles

    bundle = merge_bundles(
        backbone, list(bundles), out, method=cast("Method", method), weights=list(weights) or None, density=density,
        overwrite=overwrite,
    )  # fmt: skip
    if not quiet:
        say(
            f"wrote {out}: {bundle.name}, {len(bundles)} bundles merged by {method}\n"
            f"next: peterrec evaluate {backbone} CORPUS {out}"
        )
    say_warnings(bundle.metrics["warnings"])
