"""Shared by the verbs: options, output, and how errors become messages and exit statuses."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from peterrec.errors import WARNING
from peterrec.process import is_first_rank

if TYPE_CHECKING:
    from peterrec.config import EventsConfig

errors = Console(stderr=True, soft_wrap=True, highlight=False)
progress = Console(stderr=True, soft_wrap=True, highlight=False)

ConfigOption = Annotated[str | None, typer.Option("--config", "-c", help="YAML file with the settings of this verb.")]
SetOption = Annotated[
    list[str],
    typer.Option("--set", "-s", help="Dotted override of a setting, e.g. optim.lr=0.01 or tasks.0.name=a. Repeatable."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is at the output.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with a killed run.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no remarks, only warnings.")]
UserOption = Annotated[str | None, typer.Option("--user", help="Column with the user id. [default: as in preparation]")]
ItemOption = Annotated[str | None, typer.Option("--item", help="Column with the item id. [default: as in preparation]")]
TimeOption = Annotated[
    str | None, typer.Option("--time", help="Column that sorts a user's events. [default: as in preparation]")
]
OrderOption = Annotated[str | None, typer.Option("--order", help="Column that orders events with equal times.")]
TiesOption = Annotated[
    str | None,
    typer.Option("--ties", help="What orders events that are still equal: hash, or lines (as in the files)."),
]
SeparatorOption = Annotated[str | None, typer.Option("--separator", help="Of CSV files; found by itself if not given.")]
TimeFormatOption = Annotated[str | None, typer.Option("--time-format", help="Of a text time column, e.g. %d/%m/%Y.")]
DomainOption = Annotated[str | None, typer.Option("--domain", help="Column that tells domains apart.")]
ColumnsOption = Annotated[
    str | None, typer.Option("--columns", help="Names for CSV files without a header line: user_id,item_id,...")
]
IdsOption = Annotated[str | None, typer.Option("--ids", help="auto, text or integer: how ids are read.")]
InvalidRowsOption = Annotated[
    str | None, typer.Option("--invalid-rows", help="error or drop: rows without a user, an item or a readable time.")
]


def say(line: str) -> None:
    """Print a remark for the person, on standard error: standard output is for answers. Of ranks, the first speaks."""
    if is_first_rank():
        progress.print(line, markup=False)


def reporter(quiet: bool) -> Callable[[str], None] | None:
    """Return `say`, or None when the user wants quiet."""
    return None if quiet else say


class _Remarks(logging.Handler):
    """Handler that prints the log of the library as remarks."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{WARNING if record.levelno >= logging.WARNING else ''}{record.getMessage()}")


@contextmanager
def logged_remarks(quiet: bool, *, warnings: bool = False, logger: str = "peterrec") -> Iterator[None]:
    """Print what the library logs within the block, on standard error; nothing of it when the user wants quiet.

    Args:
        quiet: what the user said.
        warnings: also those; otherwise they are to stand below all else (`say_warnings`).
        logger: name of the topmost one that is listened to.
    """
    if quiet:
        yield
        return
    handler, source = _Remarks(), logging.getLogger(logger)
    if not warnings:
        handler.addFilter(lambda record: record.levelno < logging.WARNING)
    level = source.level
    source.addHandler(handler)
    source.setLevel(logging.INFO)
    try:
        yield
    finally:
        source.removeHandler(handler)
        source.setLevel(level)


def say_warnings(warnings: Iterable[str]) -> None:
    """Print what is wrong with what was made, on standard error; also to whom wants quiet."""
    for warning in warnings:
        say(f"{WARNING}{warning}")


def events_settings(columns: str | None = None, **options: Any) -> dict[str, Any]:
    """Return what was said on the command line of how events are read, as settings of `EventsConfig`."""
    names = columns.split(",") if columns is not None else None
    return {name: value for name, value in ({"columns": names} | options).items() if value is not None}


def events_config(source: str, **options: Any) -> EventsConfig:
    """Return how events are read, from options of the command line; what is not named is as it was in preparation.

    Raises:
        ConfigError: as in `build_config`.
    """
    from peterrec.config import EventsConfig, build_config

    return build_config(EventsConfig, events_settings(**options) | {"paths": [source]})


def close_quietly() -> None:
    """Give up standard output after its reader left (`peterrec predict ... | head`)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
