"""`peterrec experiment`."""

from __future__ import annotations

import shlex
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peterrec.cli.common import OverwriteOption, QuietOption, SetOption, logged_remarks, progress
from peterrec.errors import ConfigError

if TYPE_CHECKING:
    from peterrec.config import ExperimentConfig


def command(
    config: Annotated[
        str | None, typer.Argument(help="YAML file of a grid, such as those in configs/experiments.")
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the grid.")] = ...,  # type: ignore[assignment]
    quick: Annotated[
        bool, typer.Option("--quick", help="The grid that comes with the package: made-up data, a minute or two.")
    ] = False,
    data: Annotated[str | None, typer.Option("--data", help="Folder of the data sets; setting `data_root`.")] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Cells at a time; one for each core if not given.")
    ] = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Draw the report of the cells that are finished; compute nothing.")
    ] = False,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compute a grid of data sets, tasks, methods and seeds, and write the report that answers its questions.

    Cells that are finished are never computed again: after a kill, run the same command again to go on.
    """
    from peterrec.experiments.grid.progress import LiveTable, Watch
    from peterrec.experiments.grid.runner import experiment
    from peterrec.experiments.grid.runner import report_only as draw

    if report_only and overwrite:
        raise ConfigError("--report-only computes nothing, and --overwrite everything", remedy="give one of the two")
    settings = _settings(config, quick, set_, data)
    line = _command_line(config, out, quick, set_, data)
    if report_only:
        report = draw(settings, out, command=line)
    else:
        live = progress.is_interactive and not quiet
        watch: Watch | None = LiveTable(progress) if live else None
        with logged_remarks(quiet, logger="peterrec.experiments.grid"):
            report = experiment(settings, out, overwrite=overwrite, jobs=jobs, command=line, watch=watch)
    _conclude(settings, report)


def _settings(config: str | None, quick: bool, set_: list[str], data: str | None) -> ExperimentConfig:
    from peterrec.config import ExperimentConfig, load_config

    values: dict[str, Any] = {} if data is None else {"data_root": data}
    if config is not None and not quick:
        return load_config(ExperimentConfig, config, set_, **values)
    if config is not None or not quick:
        which = "both a file and --quick are given" if config is not None else "there is no grid to compute"
        raise ConfigError(which, remedy="name the YAML file of a grid, or pass --quick")
    with as_file(files("peterrec.experiments.grid") / "quick.yaml") as path:
        return load_config(ExperimentConfig, path, set_, **values)


def _command_line(config: str | None, out: str, quick: bool, set_: list[str], data: str | None) -> str:
    words = ["peterrec", "experiment", *([config] if config is not None else []), *(["--quick"] if quick else [])]
    words += ["--out", out, *(["--data", data] if data is not None else [])]
    for override in set_:
        words += ["--set", override]
    return shlex.join(words)


def _conclude(settings: ExperimentConfig, report: Path) -> None:
    """Print the short answers, and where the rest is."""
    from peterrec.storage import read_json

    tables = report.with_name("results.md")
    answers = read_json(report.with_name("results.json"))["answers"]
    for question in settings.questions:
        print(f"{question.text}\n  {answers[question.name]}")
    print(f"\nThe report is {report}, its tables for other documents are {tables}")
