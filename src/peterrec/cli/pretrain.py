"""`peterrec pretrain`."""

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
    say_warnings,
)


def command(
    corpus: Annotated[str, typer.Argument(help="Folder written by `peterrec prepare`.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the backbone to write.")],
    initial: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="BACKBONE",
            help="Go on from this backbone with a later log, prepared with --catalogue BACKBONE (--extend-catalogue).",
        ),
    ] = None,
    items: Annotated[
        str | None,
        typer.Option(
            "--items",
            help="Table with item_id and columns that describe items (texts, categories, numbers, lists of numbers): a "
            "second part of their embeddings.",
        ),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Pre-train a backbone: predict the next item at every position (or, if noncausal, masked items)."""
    from peterrec.config import PretrainConfig, load_config
    from peterrec.training.pretrain import pretrain

    overrides = [*set_, "runner.progress=false"] if quiet else set_
    settings = load_config(PretrainConfig, config, overrides)
    with logged_remarks(quiet):
        model = pretrain(corpus, out, settings, initial=initial, items=items, resume=resume, overwrite=overwrite)
    if not quiet:
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in model.pretrained.training["metrics"].items())
        say(f"wrote {out} ({metrics})\nnext: peterrec adapt {out} {corpus} TASK --out BUNDLE")
    say_warnings(model.pretrained.training["warnings"])
