"""`peterrec predict`, `peterrec recommend` and `peterrec embed`."""

from __future__ import annotations

import functools
import inspect
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TextIO

import typer

from peterrec.arguments import did_you_mean
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
from peterrec.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from peterrec.serving.files import AnswerOptions

Backbone = Annotated[str, typer.Argument(help="Folder written by `peterrec pretrain`, or hf://...")]
Bundle = Annotated[str, typer.Argument(help="Folder written by `peterrec adapt`, or hf://...")]
Source = Annotated[
    str, typer.Argument(help='Events as Parquet or CSV, JSON lines ({"user": .., "items": [..]}), or - for stdin.')
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        help="A .parquet, .csv or .jsonl file; JSON lines to stdout if not given. Spark: a folder, URI.",
    ),
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
EngineOption = Annotated[
    str, typer.Option("--engine", help="local: this process; spark: Apache Spark, which writes a folder of Parquet.")
]
MasterOption = Annotated[
    str | None,
    typer.Option("--master", help="Of Spark, such as yarn or spark://HOST:7077. [default: Spark's settings, or local]"),
]
SharedModelOption = Annotated[
    bool, typer.Option("--shared-model", help="Executors of Spark find backbone and bundle at these paths themselves.")
]
ReplaceOption = Annotated[bool, typer.Option("--overwrite", help="Replace answers of Spark that are at the output.")]


def _reading(
    source: Source,
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
    engine: EngineOption = "local",
    master: MasterOption = None,
    shared_model: SharedModelOption = False,
    overwrite: ReplaceOption = False,
) -> Reading:
    """Return what the options say that all three verbs have."""
    events = events_config(
        source, user=user, item=item, time=time, order=order, domain=domain, columns=columns, separator=separator,
        time_format=time_format, ids=ids, invalid_rows=invalid_rows, ties=ties,
    )  # fmt: skip
    options = {
        "events": events, "overrides": tuple(set_), "allow_empty": allow_empty, "unknown": unknown,
        "precision": precision, "compile": compile,
    }  # fmt: skip
    if engine not in ("local", "spark"):
        problem = f"there is no engine {engine!r}{did_you_mean(engine, ('local', 'spark'))}"
        raise ConfigError(problem, remedy="use --engine local or --engine spark")
    if engine == "spark":
        on_executors = True if shared_model else None
        return Reading(options, {"master": master, "on_executors": on_executors, "overwrite": overwrite})
    for name, value in {"--master": master, "--shared-model": shared_model, "--overwrite": overwrite}.items():
        if value:
            raise ConfigError(f"{name} is of Spark", remedy=f"add --engine spark, or leave out {name}")
    return Reading(options, None)


class Reading(NamedTuple):
    """Arguments of `AnswerOptions`, and those of Spark; None: this process answers."""

    options: dict[str, Any]
    spark: dict[str, Any] | None


def _with_reading(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of `_reading`; it receives what that makes of them as `reading`."""
    shared = inspect.signature(_reading, eval_str=True).parameters
    parameters = {**inspect.signature(verb, eval_str=True).parameters, **shared}
    del parameters["reading"]

    @functools.wraps(verb)
    def command(**arguments: Any) -> None:
        reading = _reading(**{name: arguments[name] for name in shared})
        verb(
            reading=reading,
            **{name: value for name, value in arguments.items() if name == "source" or name not in shared},
        )

    command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    command.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return command


@_with_reading
def predict(
    backbone: Backbone,
    bundle: Bundle,
    source: Source,
    reading: Reading,
    out: Out = None,
    quiet: QuietOption = False,
) -> None:
    """Predict a class, labels or a number for each user; the users need not have been seen before."""
    from peterrec.serving.files import AnswerOptions
    from peterrec.serving.files import predict as answer

    options = AnswerOptions(**reading.options)
    if reading.spark is not None:
        return _by_spark("predict", (backbone, bundle, source), out, options, quiet, reading.spark)
    return _answer(lambda path: answer(backbone, bundle, _source(source), path, options), out, quiet)


@_with_reading
def recommend(
    backbone: Backbone,
    source: Source,
    reading: Reading,
    bundle: Annotated[
        str | None, typer.Option("--bundle", "-b", help="A ranking bundle; without it, next items of the source.")
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="Items per user.")] = 10,
    include_seen: Annotated[
        bool | None,
        typer.Option("--seen/--unseen", help="Also items of the user's own history, or not. [default: as in training]"),
    ] = None,
    out: Out = None,
    quiet: QuietOption = False,
) -> None:
    """Recommend items to each user, best first, with scores."""
    from peterrec.serving.files import AnswerOptions
    from peterrec.serving.files import recommend as answer

    options = AnswerOptions(**reading.options)
    exclude_seen = None if include_seen is None else not include_seen
    if reading.spark is not None:
        spark = reading.spark | {"k": k, "exclude_seen": exclude_seen}
        return _by_spark("recommend", (backbone, bundle, source), out, options, quiet, spark)
    settings: dict[str, Any] = {"k": k, "exclude_seen": exclude_seen}
    return _answer(lambda path: answer(backbone, bundle, _source(source), path, options, **settings), out, quiet)


@_with_reading
def embed(
    backbone: Backbone,
    source: Source,
    reading: Reading,
    bundle: Annotated[str | None, typer.Option("--bundle", "-b", help="With the patch of this bundle.")] = None,
    out: Out = None,
    quiet: QuietOption = False,
) -> None:
    """Write one vector for each user: the user's representation, for your own models."""
    from peterrec.serving.files import AnswerOptions
    from peterrec.serving.files import embed as answer

    options = AnswerOptions(**reading.options)
    if reading.spark is not None:
        return _by_spark("embed", (backbone, bundle, source), out, options, quiet, reading.spark)
    return _answer(lambda path: answer(backbone, _source(source), path, options, bundle=bundle), out, quiet)


def _by_spark(
    verb: Literal["predict", "recommend", "embed"],
    places: tuple[str, str | None, str],
    out: str | None,
    options: AnswerOptions,
    quiet: bool,
    settings: dict[str, Any],
) -> None:
    from peterrec.artifacts.hub import artifact_folder
    from peterrec.spark.files import answer_files

    if out is None:
        raise ConfigError("Spark writes a folder of Parquet, and none is named", remedy="name it with --out")
    with logged_remarks(quiet, warnings=True):
        backbone, bundle, source = places
        backbone = str(artifact_folder(backbone, "backbone"))
        bundle = None if bundle is None else str(artifact_folder(bundle, "bundle"))
        account = answer_files(verb, backbone, bundle, source, out, options, quiet=quiet, **settings)
    if not quiet:
        parts = f"{account.parts:,} part{'s' if account.parts != 1 else ''}"
        say(f"wrote {out} ({account.rows:,} row{'s' if account.rows != 1 else ''} in {parts})")


def _source(source: str) -> str | TextIO:
    return sys.stdin if source == "-" else source


def _answer(answer: Callable[[str], pa.Table], out: str | None, quiet: bool) -> None:
    """Let answers be written to `out`; without one, print them when all are there."""
    with tempfile.TemporaryDirectory(prefix="peterrec-") as folder:
        path = out or str(Path(folder) / "answers.jsonl")
        with logged_remarks(quiet, warnings=True):
            rows = answer(path).num_rows
        if out is None:
            with Path(path).open(encoding="utf-8", newline="") as lines:
                shutil.copyfileobj(lines, sys.stdout)
            sys.stdout.flush()
        elif not quiet:
            say(f"wrote {out} ({rows:,} row{'s' if rows != 1 else ''})")
