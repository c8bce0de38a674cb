"""`peterrec predict`, `peterrec recommend` and `peterrec embed`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, TextIO, cast

import pyarrow as pa
import typer

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
    say,
)  # fmt: skip
from peterrec.config import EventsConfig

if TYPE_CHECKING:
    from peterrec.nn.precision import Precision
    from peterrec.serving.files import AnswerOptions

Backbone = Annotated[str, typer.Argument(help="Folder written by `peterrec pretrain`.")]
Bundle = Annotated[str, typer.Argument(help="Folder written by `peterrec adapt`.")]
Source = Annotated[
    str, typer.Argument(help='Events as Parquet or CSV, JSON lines ({"user": .., "items": [..]}), or - for stdin.')
]
Out = Annotated[
    str | None, typer.Option("--out", "-o", help="A .parquet, .csv or .jsonl file; JSON lines to stdout if not given.")
]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="Answer also for users without any event.")]
UnknownItems = Annotated[
    str | None, typer.Option("--unknown", help="Items the model does not know: skip, unk (keep as [UNK]) or error.")
]
ReadingOption = Annotated[
    list[str],
    typer.Option("--set", "-s", help="Read events otherwise than in preparation, e.g. source.before=null. Repeatable."),
]
PrecisionOption = Annotated[
    str, typer.Option("--precision", help="Of the network: fp32, or bf16, faster where the machine has it.")
]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Compile the network: a minute first, then faster; for very many users.")
]


def predict(
    backbone: Backbone,
    bundle: Bundle,
    source: Source,
    out: Out = None,
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
    precision: PrecisionOption = "fp32",
    compile: CompileOption = False,
    set_: ReadingOption = [],  # noqa: B006 - typer copies it
    quiet: QuietOption = False,
) -> None:
    """Predict a class for each user, with probabilities; the users need not have been seen before."""
    from peterrec.serving.files import predict as answer

    events = events_config(
        source, user=user, item=item, time=time, order=order, domain=domain, columns=columns, separator=separator,
        time_format=time_format, ids=ids, invalid_rows=invalid_rows, ties=ties,
    )  # fmt: skip
    options = _options(events, set_, allow_empty, unknown, precision, compile)
    with logged_remarks(quiet, warnings=True):
        table = answer(backbone, bundle, _source(source), out, options)
    _finish(table, out, quiet)


def recommend(
    backbone: Backbone,
    source: Source,
    bundle: Annotated[
        str | None, typer.Option("--bundle", "-b", help="A ranking bundle; without it, next items of the source.")
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="Items per user.")] = 10,
    seen: Annotated[
        bool | None,
        typer.Option("--seen/--unseen", help="Also items of the user's own history, or not. [default: as in training]"),
    ] = None,
    out: Out = None,
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
    precision: PrecisionOption = "fp32",
    compile: CompileOption = False,
    set_: ReadingOption = [],  # noqa: B006 - typer copies it
    quiet: QuietOption = False,
) -> None:
    """Recommend items to each user, best first, with scores."""
    from peterrec.serving.files import recommend as answer

    events = events_config(
        source, user=user, item=item, time=time, order=order, domain=domain, columns=columns, separator=separator,
        time_format=time_format, ids=ids, invalid_rows=invalid_rows, ties=ties,
    )  # fmt: skip
    options = _options(events, set_, allow_empty, unknown, precision, compile)
    exclude_seen = None if seen is None else not seen
    with logged_remarks(quiet, warnings=True):
        table = answer(backbone, bundle, _source(source), out, options, k=k, exclude_seen=exclude_seen)
    _finish(table, out, quiet)


def embed(
    backbone: Backbone,
    source: Source,
    bundle: Annotated[str | None, typer.Option("--bundle", "-b", help="With the patch of this bundle.")] = None,
    out: Out = None,
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
    precision: PrecisionOption = "fp32",
    compile: CompileOption = False,
    set_: ReadingOption = [],  # noqa: B006 - typer copies it
    quiet: QuietOption = False,
) -> None:
    """Write one vector for each user: the user's representation, for your own models."""
    from peterrec.serving.files import embed as answer

    events = events_config(
        source, user=user, item=item, time=time, order=order, domain=domain, columns=columns, separator=separator,
        time_format=time_format, ids=ids, invalid_rows=invalid_rows, ties=ties,
    )  # fmt: skip
    options = _options(events, set_, allow_empty, unknown, precision, compile)
    with logged_remarks(quiet, warnings=True):
        table = answer(backbone, _source(source), out, options, bundle=bundle)
    _finish(table, out, quiet)


def _options(
    events: EventsConfig,
    overrides: list[str],
    allow_empty: bool,
    unknown: str | None,
    precision: str,
    compile: bool,
) -> AnswerOptions:
    from peterrec.serving.files import AnswerOptions

    return AnswerOptions(
        events, tuple(overrides), allow_empty, unknown, precision=cast("Precision", precision), compile=compile
    )


def _source(source: str) -> str | TextIO:
    return sys.stdin if source == "-" else source


def _finish(table: pa.Table, out: str | None, quiet: bool) -> None:
    from peterrec.serving.files import to_json_lines

    if out is None:
        sys.stdout.write(to_json_lines(table))
        sys.stdout.flush()
    elif not quiet:
        say(f"wrote {out} ({table.num_rows:,} row{'s' if table.num_rows != 1 else ''})")
