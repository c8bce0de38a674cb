"""`peterrec prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peterrec.cli.common import (
    ColumnsOption,
    ConfigOption,
    DomainOption,
    IdsOption,
    InvalidRowsOption,
    OrderOption,
    OverwriteOption,
    QuietOption,
    SeparatorOption,
    SetOption,
    TiesOption,
    TimeFormatOption,
    events_settings,
    reporter,
    say,
    say_warnings,
)  # fmt: skip
from peterrec.errors import ConfigError

if TYPE_CHECKING:
    from peterrec.config import PrepareConfig
    from peterrec.data.corpus import Corpus


def command(
    events: Annotated[
        list[str] | None, typer.Argument(help="Files, globs or folders of Parquet, CSV or CSV.gz with events.")
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the corpus to write.")] = ...,  # type: ignore[assignment]
    user: Annotated[str | None, typer.Option("--user", help="Column with the user id. [default: user_id]")] = None,
    item: Annotated[str | None, typer.Option("--item", help="Column with the item id. [default: item_id]")] = None,
    time: Annotated[
        str | None, typer.Option("--time", help="Column that sorts a user's events. [default: timestamp]")
    ] = None,
    order: OrderOption = None,
    ties: TiesOption = None,
    domain: DomainOption = None,
    feature: Annotated[
        list[str],
        typer.Option(
            "--feature",
            help="What a model reads of an event beside its item: COLUMN (categories), COLUMN:log-bins (numbers), or "
            "time:gap,hour,weekday. Repeatable.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    columns: ColumnsOption = None,
    separator: SeparatorOption = None,
    time_format: TimeFormatOption = None,
    ids: IdsOption = None,
    invalid_rows: InvalidRowsOption = None,
    classify: Annotated[
        list[str],
        typer.Option(
            "--classify",
            help="Task [NAME=]TABLE:COLUMN: predict a column of a users table. Repeatable. What stands before the "
            "first = is a name, unless the whole is a file or it cannot be a name (/data/dt=1/users.csv).",
        ),
    ] = [],  # noqa: B006 - typer copies it
    regress: Annotated[
        list[str],
        typer.Option("--regress", help="Task [NAME=]TABLE:COLUMN, as --classify: predict the number of each user."),
    ] = [],  # noqa: B006 - typer copies it
    multilabel: Annotated[
        list[str],
        typer.Option(
            "--multilabel",
            help="Task [NAME=]TABLE:COLUMN, as --classify: predict any number of labels of each user. The column is a "
            "list, or a text with | between labels (another separator: labels.label_separator of the task).",
        ),
    ] = [],  # noqa: B006 - typer copies it
    rank: Annotated[
        list[str],
        typer.Option(
            "--rank",
            help="Task [NAME=]DOMAIN: recommend its items; it leaves the source. Repeatable. Write NAME=DOMAIN for a "
            "domain with = in it.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    history: Annotated[
        str | None,
        typer.Option(
            "--history",
            help="What the model of the tasks of --rank reads: all, or before-first-target (only what came before a "
            "user's first event of the domain). [default: all]",
        ),
    ] = None,
    label_user: Annotated[
        str | None,
        typer.Option("--label-user", help="Column of the users tables with the user id. [default: as --user]"),
    ] = None,
    catalogue: Annotated[
        str | None, typer.Option("--catalogue", help="Corpus or backbone whose catalogue is used, not a new one.")
    ] = None,
    extend_catalogue: Annotated[
        bool, typer.Option("--extend-catalogue", help="Append the items that --catalogue lacks, for `grow`.")
    ] = False,
    first: Annotated[
        int | None, typer.Option("--first", help="The tasks named here read only so many of a user's first events.")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", help="... only so many of the most recent ones (of the first, if given).")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="... only events before this time.")] = None,
    new_users: Annotated[
        str | None,
        typer.Option(
            "--new-users",
            help="Parts of the split, such as test or valid,test, whose users are kept out of all that is learned "
            "without labels: pre-training, catalogue, item factors.",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option("--engine", help="duckdb or spark: what does the work. The corpus is the same. [default: duckdb]"),
    ] = None,
    master: Annotated[
        str | None,
        typer.Option("--master", help="Of Spark, such as spark://host:7077. [default: threads of this machine]"),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Turn events into a corpus: catalogue, sequences and labelled tasks. Says what was kept, what dropped and why.

    Everything else (minimum counts, longest history, repeats, splits, tasks of other kinds) is a setting: see
    docs/configuration.md, and pass a YAML file with --config or single settings with --set source.max_history=100.
    """
    from peterrec.config import PrepareConfig, load_config
    from peterrec.config.shortcuts import ranking_task
    from peterrec.data.prepare import prepare

    mapping = events_settings(
        paths=events or None, user=user, item=item, time=time, order=order, domain=domain, columns=columns,
        separator=separator, time_format=time_format, ids=ids, invalid_rows=invalid_rows, ties=ties,
        features=feature or None,
    )  # fmt: skip
    values: dict[str, Any] = {"events": mapping}
    single = {"catalogue": catalogue, "engine": engine, "master": master}
    values |= {name: value for name, value in single.items() if value is not None}
    if extend_catalogue:
        values["extend_catalogue"] = True
    if new_users is not None:
        values["new_users"] = {"parts": new_users.split(",")}
    by_option = {"--classify": classify, "--regress": regress, "--multilabel": multilabel}
    owner = label_user or user or "user_id"
    tasks = [_table_task(option, text, owner) for option, texts in by_option.items() for text in texts]
    named = [_split_name(text) for text in rank]
    reads = {"history": history} if history is not None else {}
    tasks += [ranking_task(domain, name) | reads for name, domain in named]
    if history is not None and not rank:
        raise ConfigError("--history is of tasks of --rank, and none is named", remedy="name one with --rank DOMAIN")
    cut = {"first_events": first, "last_events": last, "until": until}
    cut = {name: value for name, value in cut.items() if value is not None}
    if cut and not tasks:
        raise ConfigError(
            "--first, --last and --until are of tasks, and none is named",
            remedy="name tasks with --classify, --regress, --multilabel or --rank, or set first_events, ... of each in "
            "a --config",
        )
    if tasks:
        values["tasks"] = [task | cut for task in tasks]
    if rank:
        values["source"] = {"exclude_domains": [domain for _, domain in named]}
    settings = load_config(PrepareConfig, config, set_, **values)
    corpus = prepare(settings, out, overwrite=overwrite, report=reporter(quiet))
    _say_result(corpus, settings, out, quiet=quiet)


def _say_result(corpus: Corpus, settings: PrepareConfig, out: str, *, quiet: bool) -> None:
    if quiet:
        say_warnings(corpus.manifest["warnings"])
        return
    names = ", ".join(corpus.task_names) or "none yet"
    grows = settings.extend_catalogue
    follows = f"grow {settings.catalogue} {out} --out LARGER" if grows else f"pretrain {out} --out BACKBONE"
    say(f"wrote {out} (tasks: {names})\nnext: peterrec {follows}")


def _table_task(option: str, text: str, user: str) -> dict[str, Any]:
    from peterrec.config.shortcuts import classification_task, multilabel_task, regression_task

    task, example = {
        "--classify": (classification_task, "gender"),
        "--regress": (regression_task, "spend"),
        "--multilabel": (multilabel_task, "interests"),
    }[option]
    names_file = Path(text.rpartition(":")[0]).is_file()  # a path may have an = in it: /data/dt=2024-01-01/users.csv
    name, place = ("", text) if names_file else _split_name(text)
    path, _, column = place.rpartition(":")
    if not path or not column:
        raise ConfigError(f"{option} {text!r} is not TABLE:COLUMN", remedy=f"write e.g. {option} users.csv:{example}")
    return task(path, column, user, name)


def _split_name(text: str) -> tuple[str, str]:
    """Split NAME=REST; what stands before the first = and cannot be a name (such as a path) is no name."""
    from peterrec.config.base import check_name

    name, separator, value = text.partition("=")
    try:
        return (check_name(name), value) if separator else ("", text)
    except ValueError:
        return "", text
