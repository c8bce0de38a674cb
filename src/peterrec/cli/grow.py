"""`peterrec grow`."""

from __future__ import annotations

from typing import Annotated

import typer

from peterrec.cli.common import (
    ConfigOption,
    OverwriteOption,
    QuietOption,
    ResumeOption,
    SetOption,
    logged_remarks,
    say,
)


def command(
    backbone: Annotated[str, typer.Argument(help="Folder written by `peterrec pretrain` or `grow`, or hf://...")],
    corpus: Annotated[
        str | None, typer.Argument(help="Folder written by `peterrec prepare --catalogue BACKBONE --extend-catalogue`.")
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the larger backbone to write.")] = ...,  # type: ignore[assignment]
    items: Annotated[
        str | None,
        typer.Option(
            "--items",
            help="Table with item_id and columns that describe items (texts, categories, numbers, lists of numbers): "
            "beside a corpus to know its items better; alone to add all that are new in it.",
        ),
    ] = None,
    retire: Annotated[
        str | None,
        typer.Option(
            "--retire", metavar="TABLE", help="Items (item_id) that `recommend` without a bundle is to name no more."
        ),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Add new items to a backbone; of histories without them, all bundles answer as before, bit for bit.

    Bundles of the backbone before load on the larger one.
    """
    from peterrec.config import GrowConfig, load_config
    from peterrec.training.grow import grow

    overrides = [*set_, "runner.progress=false"] if quiet else set_
    settings = load_config(GrowConfig, config, overrides)
    with logged_remarks(quiet):
        model = grow(backbone, corpus, out, settings, items=items, retired=retire, resume=resume, overwrite=overwrite)
    if not quiet:
        growth = model.pretrained.training["growth"][-1]
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in growth.get("metrics", {}).items())
        retired = f", {growth['retired']:,} were retired" if "retired" in growth else ""
        say(f"wrote {out}: {growth['items']:,} items were added{f' ({metrics})' if metrics else ''}{retired}")
