"""`peterrec convert`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from peterrec.cli.common import ConfigOption, OverwriteOption, QuietOption, SetOption, reporter


def command(
    format_: Annotated[str, typer.Argument(metavar="FORMAT", help="amazon, peterrec, recbole or tenrec.")],
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="The files; for recbole a folder too, for amazon DOMAIN=FILE."),
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder to write.")] = ...,  # type: ignore[assignment]
    targets: Annotated[
        str | None,
        typer.Option("--targets", help="What the targets of task files (peterrec) are: items or labels."),
    ] = None,
    users: Annotated[
        str | None,
        typer.Option("--users", help="Of amazon: all, or shared, which are those in every domain. [default: all]"),
    ] = None,
    min_user_events: Annotated[
        int | None, typer.Option("--min-user-events", help="Of amazon: least events of a user in a domain.")
    ] = None,
    min_item_events: Annotated[
        int | None, typer.Option("--min-item-events", help="Of amazon: least events of an item in a domain.")
    ] = None,
    min_rating: Annotated[
        float | None, typer.Option("--min-rating", help="Of amazon: reviews with a lower rating are left out.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option("--columns", help="Of amazon: order of CSV files, such as user,item,rating,timestamp."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Turn files of a public format into Parquet that `prepare` reads: events, users and items.

    Formats: amazon (public dumps of reviews), peterrec (the CSVs of the paper's authors), recbole (atomic files),
    tenrec. See docs/data.md.
    """
    from peterrec.config import AmazonConfig, load_config
    from peterrec.data.sources import convert

    values: dict[str, Any] = {
        "users": users,
        "min_user_events": min_user_events,
        "min_item_events": min_item_events,
        "min_rating": min_rating,
        "columns": None if columns is None else [name.strip() for name in columns.split(",")],
    }
    values = {name: value for name, value in values.items() if value is not None}
    settings = load_config(AmazonConfig, config, set_, **values) if values or config or set_ else None
    convert(format_, paths, out, targets=targets, config=settings, overwrite=overwrite, report=reporter(quiet))
