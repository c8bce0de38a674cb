"""`peterrec tune`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from peterrec.cli.common import ConfigOption, OverwriteOption, QuietOption, ResumeOption, SetOption, logged_remarks, say


def command(
    corpus: Annotated[str, typer.Argument(help="Folder written by `peterrec prepare`.")],
    backbone: Annotated[
        str | None, typer.Argument(help="Folder written by `peterrec pretrain`; without it the search pre-trains.")
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the search.")] = ...,  # type: ignore[assignment]
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Name of a task; without it settings of pretrain are searched.")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    trials: Annotated[int | None, typer.Option("--trials", "-n", help="To be had in the end. [default: 20]")] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", help="Seconds, after which no further trial starts.")
    ] = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Search for settings of adapt and pretrain with Optuna, by the metric of valid users; test users are not read.

    What is searched stands in the YAML file, such as `adapt: {patch.bottleneck: [4, 8, 16]}` (docs/tuning.md).
    """
    from peterrec.config import TuneConfig, load_config
    from peterrec.tuning.tune import tune

    values: dict[str, Any] = {"trials": trials, "time_limit": time_limit}
    settings = load_config(
        TuneConfig, config, set_, **{name: value for name, value in values.items() if value is not None}
    )
    with logged_remarks(quiet, logger="peterrec.tuning"):
        result = tune(corpus, backbone, out=out, task=task, config=settings, resume=resume, overwrite=overwrite)
    print(result.to_markdown())
    if not quiet:
        verb = f"pretrain {corpus}" if task is None else f"adapt {backbone or 'BACKBONE'} {corpus} {task}"
        if task is not None and backbone is None:
            verb = f"adapt {out}/{result.best.places['backbone']} {corpus} {task}"
        say(f"wrote {out}\nnext: peterrec {verb} --config {out}/best.yaml --out OUT")
