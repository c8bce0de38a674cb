"""`peterrec adapt`."""

from __future__ import annotations

from typing import Annotated

import typer

from peterrec.cli.common import ConfigOption, OverwriteOption, QuietOption, ResumeOption, SetOption, reporter, say
from peterrec.config import AdaptConfig, load_config


def command(
    backbone: Annotated[str, typer.Argument(help="Folder written by `peterrec pretrain`.")],
    corpus: Annotated[str, typer.Argument(help="Folder written by `peterrec prepare`, with the task in it.")],
    task: Annotated[str, typer.Argument(help="Name of the task.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the bundle to write.")],
    strategy: Annotated[str | None, typer.Option("--strategy", help="patch or head.")] = None,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Adapt a backbone to a task: train a patch and a head (or the head only); the backbone stays frozen."""
    from peterrec.training.adapt import adapt

    overrides = [*set_, "runner.progress=false"] if quiet else list(set_)
    if strategy is not None:
        overrides.append(f"strategy={strategy}")
    settings = load_config(AdaptConfig, config, overrides)
    adapt(backbone, corpus, task, out, settings, resume=resume, overwrite=overwrite, report=reporter(quiet))
    if not quiet:
        say(f"wrote {out}\nnext: peterrec evaluate {backbone} {corpus} {out}")
