"""What the verbs share: options, output, and how errors become messages and exit statuses."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Annotated

import typer
from rich.console import Console

from peterrec.config import EventsConfig
from peterrec.errors import WARNING

errors = Console(stderr=True, soft_wrap=True, highlight=False)
progress = Console(stderr=True, soft_wrap=True, highlight=False)

ConfigOption = Annotated[str | None, typer.Option("--config", "-c", help="YAML file with the settings of this verb.")]
SetOption = Annotated[
    list[str], typer.Option("--set", "-s", help="Dotted override of a setting, e.g. optim.lr=0.01. Repeatable.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is at the output.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with a killed run.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no remarks, only warnings.")]
UserOption = Annotated[str, typer.Option("--user", help="Column with the user id.")]
ItemOption = Annotated[str, typer.Option("--item", help="Column with the item id.")]
TimeOption = Annotated[str, typer.Option("--time", help="Column that sorts a user's events.")]
OrderOption = Annotated[str | None, typer.Option("--order", help="Column that breaks ties between equal times.")]
SeparatorOption = Annotated[str | None, typer.Option("--separator", help="Of CSV files; found by itself if not given.")]
TimeFormatOption = Annotated[str | None, typer.Option("--time-format", help="Of a text time column, e.g. %d/%m/%Y.")]


def say(line: str) -> None:
    """Print a remark for the person, on standard error: standard output is for answers."""
    progress.print(line, markup=False)


def reporter(quiet: bool) -> Callable[[str], None] | None:
    """Return `say`, or None when the user wants quiet."""
    return None if quiet else say


def without_warnings(report: Callable[[str], None] | None) -> Callable[[str], None] | None:
    """Return a reporter that leaves out warnings: they are to stand below all else (`say_warnings`)."""
    if report is None:
        return None
    return lambda line: None if line.startswith(WARNING) else report(line)


def say_warnings(warnings: Iterable[str]) -> None:
    """Print what is wrong with what was made, on standard error; also to whom wants quiet."""
    for warning in warnings:
        say(f"{WARNING}{warning}")


def events_config(paths: list[str], user: str, item: str, time: str, **more: str | None) -> EventsConfig:
    """Build the column mapping from command-line options."""
    values = {name: value for name, value in more.items() if value is not None}
    return EventsConfig(paths=tuple(paths), user=user, item=item, time=time, **values)


def close_quietly() -> None:
    """Give up standard output after its reader left (`peterrec predict ... | head`)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
