"""`predict`, `recommend` and `embed` over Spark DataFrames."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from peterrec.arguments import checked
from peterrec.data.prepare.event_histories import resolve_columns
from peterrec.data.prepare.open_engine import require_spark
from peterrec.data.preprocessing import assumptions
from peterrec.errors import ConfigError, DataError
from peterrec.model import UserModel
from peterrec.serving.files import AnswerOptions, overridden
from peterrec.spark.events import group_events, resolve_frame_columns
from peterrec.spark.inputs import ITEMS, has_items
from peterrec.spark.models import ModelFiles, ModelFolder, ship
from peterrec.spark.worker import BundleQuestion, Job, Verb, answer_batches

logger = logging.getLogger(__name__)

ORDERED_BY = (
    "order",
    "ties",
    "missing",
    "ids",
    "invalid_rows",
)  # of columns: what all bundles of one pass must share

Bundles = str | Path | Sequence[str | Path]


@checked
def predict(
    dataframe: Any,
    backbone: str | Path,
    bundle: Bundles,
    options: AnswerOptions | None = None,
    *,
    on_executors: bool | None = None,
) -> Any:
    """Predict a class or a number for each user of a Spark DataFrame.

    Executors compute it when the result is used; rows are in no order. Events are checked at once, in a few passes.

    Args:
        dataframe: rows of a user and `items` (an array of texts or integers, oldest first), or events: user_id,
            item_id, timestamp, or as `options.events` or the log that was prepared name them.
        backbone: a folder written by `pretrain`.
        bundle: a folder written by `adapt`, of a classification, regression or multilabel task, or several of one kind,
            which are answered in one pass.
        options: reading and computing; the paths of `options.events` are not looked at.
        on_executors: whether all executors find the folders at these paths, as on shared storage; False ships them to
            each once. None: only where executors are on this machine.

    Returns:
        A DataFrame with a row a user and the columns of `peterrec.predict`. Of several bundles, a row for each user and
        bundle: user, bundle (its name), label, probability, known_events, and `probabilities`, a map by class; of
        regression tasks user, bundle, prediction, known_events, and `quantiles`, a map by name (`q0.1`, ...).

    Raises:
        ConfigError: there is no Spark, the bundle is of a ranking task, or a setting cannot be followed on Spark.
        DataError: the events cannot be used as they are.
        ArtifactError, FingerprintError: the backbone or the bundle is missing, damaged, or one is not for the other.
    """
    return plan(dataframe, "predict", backbone, bundle, options, on_executors=on_executors).answers()


@checked
def recommend(
    dataframe: Any,
    backbone: str | Path,
    bundle: Bundles | None = None,
    options: AnswerOptions | None = None,
    *,
    k: int = 10,
    exclude_seen: bool | None = None,
    on_executors: bool | None = None,
) -> Any:
    """Recommend k items to each user of a Spark DataFrame; computed as `predict` is.

    Args:
        dataframe: as in `predict`.
        backbone: a folder written by `pretrain`.
        bundle: a folder written by `adapt`, of a ranking task, or several; None recommends next items of the source.
        options: as in `predict`.
        k: items per user.
        exclude_seen: leave out items of the user's own history; None: as `UserModel.excludes_seen` says.
        on_executors: as in `predict`.

    Returns:
        A DataFrame with up to k rows a user and the columns of `peterrec.recommend`; of several bundles also `bundle`,
        and items are text.

    Raises:
        ConfigError: as in `predict`, the bundle is of a classification task, or k < 1.
        DataError, ArtifactError, FingerprintError: as in `predict`.
    """
    if k < 1:
        raise ConfigError(f"k is {k}", remedy="ask for at least one item")
    planned = plan(dataframe, "recommend", backbone, bundle, options, on_executors=on_executors)
    return planned.with_job(k=k, exclude_seen=exclude_seen).answers()


@checked
def embed(
    dataframe: Any,
    backbone: str | Path,
    bundle: Bundles | None = None,
    options: AnswerOptions | None = None,
    *,
    on_executors: bool | None = None,
) -> Any:
    """Return one vector for each user of a Spark DataFrame; computed as `predict` is.

    Args:
        dataframe: as in `predict`.
        backbone: a folder written by `pretrain`.
        bundle: a folder written by `adapt`, whose patch is applied, or several; None: the backbone alone.
        options: as in `predict`.
        on_executors: as in `predict`.

    Returns:
        A DataFrame with a row a user: user, known_events, and `vector`, an array of float; of several bundles a row for
        each user and bundle, with the column `bundle`.

    Raises:
        ConfigError, DataError, ArtifactError, FingerprintError: as in `predict`.
    """
    return plan(dataframe, "embed", backbone, bundle, options, on_executors=on_executors).answers()


@dataclass(frozen=True)
class Plan:
    """Users and questions for Spark to compute answers of.

    Attributes:
        users: a DataFrame of users, for `worker.answer_batches`.
        job: what the workers are told.
        columns: names of the answer's columns and their Arrow types.
        notes: what is assumed of the users, and what looks wrong, in words.
    """

    users: Any
    job: Job
    columns: Mapping[str, pa.DataType]
    notes: tuple[str, ...]

    def with_job(self, **changes: Any) -> Plan:
        """Return the same with other fields of the job."""
        return replace(self, job=replace(self.job, **changes))

    def answers(self) -> Any:
        """Return the answers as a DataFrame."""
        from pyspark.sql.pandas.types import from_arrow_schema  # noqa: PLC0415 - an extra

        job = self.job

        def answer(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return answer_batches(batches, job)

        return self.users.mapInArrow(answer, from_arrow_schema(pa.schema(dict(self.columns))))


def plan(
    dataframe: Any | None,
    verb: Verb,
    backbone: str | Path,
    bundle: Bundles | None,
    options: AnswerOptions | None = None,
    *,
    on_executors: bool | None = None,
    session: Any = None,
) -> Plan:
    """Check everything and return what Spark is to do; arguments and errors as of `predict`.

    Args:
        dataframe: as of `predict`; None: events of the files that `options.events` names, read in the `session`.
        verb: what is asked.
        backbone, bundle, options, on_executors: as of `predict`.
        session: of Spark; that of the DataFrame if there is one.
    """
    options = options or AnswerOptions()
    session = _session(dataframe) if session is None else session
    context = _context(session)
    stacked = bundle is not None and not isinstance(bundle, str | Path)
    paths = [Path(path) for path in bundle] if stacked else [] if bundle is None else [Path(bundle)]  # type: ignore[union-attr, arg-type]
    if stacked and not paths:
        raise ConfigError("no bundle is named", remedy="name at least one")
    local = context.master.split("[")[0] == "local" if on_executors is None else on_executors
    model = UserModel.from_pretrained(Path(backbone), "cpu", precision=options.precision)
    folders = [ModelFolder.from_folder(path, on_executors=local) for path in [Path(backbone), *paths]]
    questions = _questions(model, verb, paths, folders[1:], options)
    if not local:
        for path, folder in zip([Path(backbone), *paths], folders, strict=True):
            ship(context, path, folder)
    files = ModelFiles(folders[0], tuple(folders[1:]), options.precision, options.compile)
    job = Job(verb, files, questions, stacked, options.unknown, options.allow_empty, options.batch_size)
    columns = _columns(model, verb, questions[0], stacked=stacked)
    if dataframe is not None and has_items(dataframe):
        assumed = assumptions(questions[0].preprocessing, times=False, domains=False, features=False)
        notes = [f"assumed: {line}" for line in assumed]
        return Plan(_rows(dataframe, options, job), job, columns, tuple(notes))
    return _of_events(session, dataframe, job, columns, options)


def _session(dataframe: Any) -> Any:
    require_spark()
    session = getattr(dataframe, "sparkSession", None)
    if session is None or not hasattr(dataframe, "mapInArrow"):
        raise ConfigError(
            f"this is no DataFrame of Spark but a {type(dataframe).__name__}",
            remedy="pass a Spark DataFrame, or use peterrec.predict, recommend and embed for files",
        )
    return session


def _context(session: Any) -> Any:
    try:
        return session.sparkContext
    except Exception as error:  # of Spark Connect, whose executors cannot be given files by name
        raise ConfigError(
            "the session is one of Spark Connect, which this does not work with yet",
            remedy="use a session of the classic API (SparkSession.builder.master(...))",
        ) from error


def _questions(
    model: UserModel, verb: Verb, paths: Sequence[Path], folders: Sequence[ModelFolder], options: AnswerOptions
) -> tuple[BundleQuestion, ...]:
    """Load the bundles here, which checks them, and return what is asked of them."""
    if not paths:
        if verb == "recommend":
            model.targets(None)  # refuses a backbone that predicts no items
        return (BundleQuestion(None, "", overridden(model.preprocessing(None), options.overrides)),)
    questions = []
    for path, folder in zip(paths, folders, strict=True):
        name = model.load_bundle(path, folder.key)
        if verb == "predict" and model.bundle(name).targets is not None:
            raise ConfigError(f"bundle {model.bundle(name).name!r} is of a ranking task", remedy="use recommend")
        if verb == "recommend" and model.bundle(name).targets is None:
            kind = model.bundle(name).kind
            raise ConfigError(f"bundle {model.bundle(name).name!r} is of a {kind} task", remedy="use predict")
        preprocessing = overridden(model.preprocessing(name), options.overrides)
        questions.append(BundleQuestion(name, model.bundle(name).name, preprocessing))
    twice = [name for name, count in Counter(question.name for question in questions).items() if count > 1]
    kinds = {model.bundle(folder.key).kind for folder in folders}
    if verb == "predict" and len(kinds) > 1:
        raise ConfigError(
            "bundles of classes, numbers and labels have other columns",
            remedy="ask them one after the other, kind by kind",
        )
    if twice:
        raise ConfigError(f"two bundles have the name {twice[0]!r}", remedy="ask them one after the other")
    return tuple(questions)


def _answers_sets(model: UserModel, key: str) -> bool:
    decision = model.bundle(key).decision
    return decision is not None and decision.conformal is not None


def _columns(model: UserModel, verb: Verb, question: BundleQuestion, *, stacked: bool) -> dict[str, pa.DataType]:
    columns: dict[str, pa.DataType] = {"user": pa.string()}
    if stacked:
        columns["bundle"] = pa.string()
    if verb == "predict":
        assert question.key is not None
        if (numbers := model.bundle(question.key).numbers) is not None:
            columns |= {"prediction": pa.float64(), "known_events": pa.int64()}
            if stacked:
                return columns | {"quantiles": pa.map_(pa.string(), pa.float64())}
            return columns | {name: pa.float64() for name in numbers.names[1:]}
        if model.bundle(question.key).kind == "multilabel":
            columns |= {"labels": pa.string(), "known_events": pa.int64()}
        else:
            columns |= {"label": pa.string(), "probability": pa.float32(), "known_events": pa.int64()}
        if stacked:
            return columns | {"probabilities": pa.map_(pa.string(), pa.float32())}
        columns |= {f"p({name})": pa.float32() for name in model.bundle(question.key).class_names}
        return columns | ({"class_set": pa.string()} if _answers_sets(model, question.key) else {})
    if verb == "recommend":
        item = pa.string() if stacked else model.targets(question.key).ids.type
        return columns | {"rank": pa.int64(), "item": item, "score": pa.float32(), "known_events": pa.int64()}
    return columns | {"known_events": pa.int64(), "vector": pa.list_(pa.float32())}


def _of_events(
    session: Any, dataframe: Any | None, job: Job, columns: dict[str, pa.DataType], options: AnswerOptions
) -> Plan:
    """Return the plan with events that are gathered to rows of users."""
    preprocessings = [question.preprocessing for question in job.questions]
    for question in job.questions[1:]:
        _check_alike(job.questions[0], question)
    if dataframe is not None:
        config, lines = resolve_frame_columns(dataframe.columns, options.events, preprocessings[0])
    else:
        assert options.events is not None
        config, lines = resolve_columns(options.events, preprocessings[0])
    grouped = group_events(dataframe, config, preprocessings, session)
    questions = tuple(replace(question, keep=keep) for question, keep in zip(job.questions, grouped.keeps, strict=True))
    job = replace(
        job,
        questions=questions,
        sort_columns=grouped.sort_columns,
        units_per_second=grouped.units_per_second,
        features=grouped.features,
    )
    return Plan(grouped.dataframe, job, columns, (*lines, *grouped.notes))


def _rows(dataframe: Any, options: AnswerOptions, job: Job) -> Any:
    from pyspark.sql import functions  # noqa: PLC0415 - an extra

    from peterrec.data.prepare.spark_engine import quoted  # noqa: PLC0415 - imports Spark

    named = options.events is not None and "user" in options.events.model_fields_set
    preprocessing = job.questions[0].preprocessing
    candidates = [options.events.user] if named else ["user", "user_id"]  # type: ignore[union-attr]
    if not named and preprocessing is not None:
        candidates.append(preprocessing.columns.user)
    user = next((name for name in candidates if name in dataframe.columns), None)
    if user is None:
        raise DataError(
            f"the DataFrame has a column {ITEMS!r} but none with the user ({', '.join(map(repr, candidates))}); it has "
            f"{', '.join(map(repr, dataframe.columns))}",
            remedy="say which it is (--user)",
        )
    return dataframe.select(functions.col(quoted(user)).alias("user"), ITEMS)


def _check_alike(first: BundleQuestion, second: BundleQuestion) -> None:
    """Refuse bundles whose events are read in different ways, so that one pass cannot do for both."""
    if first.preprocessing is None or second.preprocessing is None:
        return
    for name in ORDERED_BY:
        values = [getattr(question.preprocessing.columns, name) for question in (first, second)]  # type: ignore[union-attr]
        if values[0] != values[1]:
            raise ConfigError(
                f"bundles {first.name!r} and {second.name!r} read events otherwise (columns.{name}: {values[0]}, "
                f"{values[1]})",
                remedy="ask them one after the other",
            )
