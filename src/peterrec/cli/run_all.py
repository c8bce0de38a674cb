"""`peterrec run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peterrec.cli.common import OverwriteOption, QuietOption, SetOption, logged_remarks


def command(
    config: Annotated[str, typer.Argument(help="YAML file of a whole run, such as configs/demo.yaml.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the run.")],
    set_: SetOption = [],  # noqa: B006 - typer copies it
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Do the whole job: fetch, prepare, pre-train, adapt, evaluate, report. What is already there is reused."""
    from peterrec.config import RunConfig, load_config
    from peterrec.experiments.pipeline import run
    from peterrec.report.run.record import bundle_folder

    settings = load_config(RunConfig, config, set_)
    command_line = " ".join(["peterrec run", config, "--out", out, *(f"--set {override}" for override in set_)])
    with logged_remarks(quiet, warnings=True):
        report = run(settings, out, overwrite=overwrite, command=command_line)
    first = settings.prepare.tasks[0].name if settings.prepare.tasks else "TASK"
    folder = bundle_folder(first, "patch" if "patch" in settings.strategies else settings.strategies[0])
    print(
        f"\nThe report is {report}\n"
        f"Try next: peterrec inspect {Path(out) / folder}\n"
        f"or your own data: copy {config}, change `prepare.events` and `prepare.tasks`, and run it again."
    )
