"""`peterrec drift`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from peterrec.cli.answer import AllowEmpty, Backbone, Bundle, ReadingOption, UnknownItems
from peterrec.cli.common import (
    ColumnsOption,
    DomainOption,
    IdsOption,
    InvalidRowsOption,
    ItemOption,
    OrderOption,
    QuietOption,
    SeparatorOption,
    TiesOption,
    TimeFormatOption,
    TimeOption,
    UserOption,
    events_config,
    logged_remarks,
)  # fmt: skip

Source = Annotated[
    str, typer.Argument(help='Events of now as Parquet or CSV, or JSON lines ({"user": .., "items": [..]}).')
]


def command(
    backbone: Backbone,
    bundle: Bundle,
    source: Source,
    out: Annotated[str | None, typer.Option("--out", "-o", help="Page to write, .html, and beside it .json.")] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", help="Events of a good week, instead of the valid users of training.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Labels that arrived: columns user, label and perhaps period.")
    ] = None,
    level: Annotated[float, typer.Option("--level", help="Chance of any false alarm.")] = 0.01,
    user: UserOption = None,
    item: ItemOption = None,
    time: TimeOption = None,
    order: OrderOption = None,
    ties: TiesOption = None,
    domain: DomainOption = None,
    columns: ColumnsOption = None,
    separator: SeparatorOption = None,
    time_format: TimeFormatOption = None,
    ids: IdsOption = None,
    invalid_rows: InvalidRowsOption = None,
    allow_empty: AllowEmpty = False,
    unknown: UnknownItems = None,
    set_: ReadingOption = [],  # noqa: B006 - typer copies it
    quiet: QuietOption = False,
) -> None:
    """Compare the users of now, and the answers about them, with the valid users that a bundle was judged by."""
    from peterrec.serving.files import AnswerOptions
    from peterrec.watching.drift import drift

    events = events_config(
        source, user=user, item=item, time=time, order=order, domain=domain, columns=columns, separator=separator,
        time_format=time_format, ids=ids, invalid_rows=invalid_rows, ties=ties,
    )  # fmt: skip
    options = AnswerOptions(events=events, overrides=tuple(set_), allow_empty=allow_empty, unknown=unknown)
    with logged_remarks(quiet):
        report = drift(backbone, bundle, source, out, options, reference=reference, labels=labels, level=level)
    console = Console(highlight=False)
    table = Table(title=f"{report.task}: {report.users:,} users", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("quantity", "verdict", "index", "p"):
        table.add_column(column, justify="right" if column in ("index", "p") else "left")
    for quantity in report.quantities:
        verdict = f"shifted ({quantity.size})" if quantity.shifted else "as before"
        table.add_row(quantity.name, verdict, f"{quantity.index:.3f}", f"{quantity.adjusted:.4f}")
    console.print(table)
    for row in report.periods:
        limits = f"{row.low:.3f} to {row.high:.3f}"
        console.print(f"{row.period}: {row.metric} {row.value:.3f} ({limits}), {row.users:,} users", markup=False)
    words = ", ".join(report.shifted) or "nothing"
    line = f"Shifted against {report.reference_users:,} users ({report.reference_source}): {words}."
    console.print(line, markup=False, soft_wrap=True)
