"""The verbs `predict`, `recommend` and `embed` by Spark: files in, a folder of Parquet out."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from peterrec._version import __version__
from peterrec.config import EventsConfig
from peterrec.data.catalogue import Catalogue
from peterrec.data.prepare.open_engine import require_spark
from peterrec.errors import ConfigError, DataError, UnknownItemsError
from peterrec.serving.files import AnswerOptions, counts_line
from peterrec.spark.answer_folder import KIND, AnswerFolder, check_folder, new_answer_folder
from peterrec.spark.answers import Plan, plan
from peterrec.spark.inputs import as_pattern, check_distinct_users, has_items, read_source
from peterrec.spark.worker import COUNTS, Verb
from peterrec.storage import FORMAT_VERSION

logger = logging.getLogger(__name__)

USERS_AT_ONCE = 1024  # whose histories are in memory at a time


@dataclass(frozen=True)
class Account:
    """Counts of what was read and written.

    Attributes:
        users: who were answered about.
        events: of theirs that were read.
        unknown_events: how many of these are of items that the model does not know.
        unknown_users: of whom nothing is known.
        left_out: events that the model does not read.
        rows: of the answer.
        parts: files of the answer.
    """

    users: int
    events: int
    unknown_events: int
    unknown_users: int
    left_out: int
    rows: int = 0
    parts: int = 0


def answer_files(
    verb: Verb,
    backbone: str,
    bundle: str | None,
    source: str,
    out: str,
    options: AnswerOptions | None = None,
    *,
    master: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    on_executors: bool | None = None,
    k: int = 10,
    exclude_seen: bool | None = None,
) -> Account:
    """Answer about the users of files: as the verbs on files do, by Spark. Logs as they do.

    Args:
        verb: which of them.
        backbone: a folder written by `pretrain`.
        bundle: a folder written by `adapt`; None: the backbone alone.
        source: see `inputs.read_source`.
        out: folder of Parquet to make, that executors can write to, or its URI; it is there when all of it is.
        options: reading and computing.
        master: of Spark; None: what its settings say, or this machine.
        overwrite: replace answers that are at `out`.
        quiet: no progress bar.
        on_executors: as of `peterrec.spark.predict`.
        k: items per user, of `recommend`.
        exclude_seen: as of `UserModel.recommend`.

    Raises:
        ConfigError, DataError, ArtifactError, FingerprintError, StorageError: as the verbs on files.
        UnknownItemsError: not one item is in the catalogue; nothing is kept of the answers.
        ClusterError: Spark broke off.
    """
    _check_places(source, out)
    check_folder(out, overwrite=overwrite)
    options = options or AnswerOptions()
    events = (options.events or EventsConfig(paths=(source,))).model_copy(update={"paths": (source,)})
    options = replace(options, events=events)
    if verb == "recommend" and k < 1:
        raise ConfigError(f"k is {k}", remedy="ask for at least one item")
    require_spark()
    from peterrec.data.prepare.spark_session import spark_session  # noqa: PLC0415 - it need not be there

    with (
        tempfile.TemporaryDirectory(prefix="peterrec-") as scratch,
        spark_session(None, master, Path(scratch), progress=not quiet) as spark,
        new_answer_folder(spark, out, overwrite=overwrite) as folder,
    ):
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", USERS_AT_ONCE)
        dataframe = read_source(spark, source, allow_empty=options.allow_empty)
        planned = plan(dataframe, verb, backbone, bundle, options, on_executors=on_executors, session=spark)
        if dataframe is not None and has_items(dataframe):
            check_distinct_users(planned.users)
        planned = planned.with_job(
            k=k, exclude_seen=exclude_seen, counters={name: spark.sparkContext.accumulator(0) for name in COUNTS}
        )
        account = _write(planned, spark, folder, backbone)
    logger.info(counts_line(account.users, account.events, account.unknown_events, account.unknown_users))
    for note in planned.notes:
        logger.info(note)
    if account.left_out:
        total = account.events + account.left_out
        logger.info(f"{account.left_out:,} of {total:,} events are left out, as they were when data were prepared")
    return account


def _check_places(source: str, out: str) -> None:
    if source == "-":
        raise ConfigError("Spark reads files, not standard input", remedy="name files, or leave out --engine spark")
    if out.lower().endswith((".csv", ".jsonl")):
        raise ConfigError(
            f"cannot write {Path(out).name}: Spark writes a folder of Parquet", remedy="name a folder (--out)"
        )


def _write(planned: Plan, session: Any, folder: AnswerFolder, backbone: str) -> Account:
    planned.answers().write.mode("append").option("compression", "zstd").parquet(folder.uri)
    counters = planned.job.counters or {}
    account = Account(**{name: counters[name].value for name in COUNTS})
    _refuse_strangers(account, backbone)
    written = session.read.parquet(as_pattern(folder.uri))
    account = replace(account, rows=written.count(), parts=len(written.inputFiles()))
    meta = {"kind": KIND, "format_version": FORMAT_VERSION, "peterrec_version": __version__}
    folder.describe(meta | {"verb": planned.job.verb} | asdict(account))
    return account


def _refuse_strangers(account: Account, backbone: str) -> None:
    if account.users == 0:
        raise DataError("there are no histories", remedy="name files with users or events")
    if account.events and account.unknown_events == account.events:
        catalogue = Catalogue.read(Path(backbone) / "catalogue.parquet")
        example = catalogue.ids[0].as_py() if len(catalogue) else None
        raise UnknownItemsError(
            f"{account.events} of {account.events} items are not in the catalogue of the model (the catalogue has "
            f"{catalogue.id_type} ids such as {example!r})",
            remedy="check that these are ids of the domain the backbone was pre-trained on, written the same way",
        )
