"""The verbs `predict`, `recommend` and `embed`: raw events of any users in, answers out."""

from __future__ import annotations

import contextlib
import logging
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa

from peterrec.arguments import check, checked, did_you_mean
from peterrec.artifacts.bundle_io import Bundle
from peterrec.artifacts.hub import artifact_folder
from peterrec.config import ColumnsConfig, EventsConfig, PreprocessingConfig, dump_optional, load_config, with_settings
from peterrec.data.encoding import unknown_items_error
from peterrec.data.frames import ids_as, is_dataframe
from peterrec.data.histories import StoredFrame, read_frame, read_histories
from peterrec.data.ids import UserHistories
from peterrec.data.stored_histories import StoredHistories
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.nn.precision import Precision
from peterrec.sequence_model import attach_bundle, with_separate_bundles
from peterrec.serving.answer_files import check_format, write_answers
from peterrec.serving.answer_tables import class_table, item_table, vector_table

logger = logging.getLogger(__name__)

USERS_AT_ONCE = 100_000  # that are answered together
ITEMS_AT_ONCE = 1_000_000  # that are recommended together


@dataclass(frozen=True)
class AnswerOptions:
    """Options of `predict`, `recommend` and `embed`: reading raw events, computing and writing answers.

    Attributes:
        events: column mapping for Parquet and CSV input, where it differs from that of the log that was prepared; JSON
            lines need none.
        overrides: dotted settings that replace those of the preparation, such as `source.before=null`: see
            `PreprocessingConfig`.
        allow_empty: answer also for users without any event.
        unknown: items outside the catalogue: `skip`, `unk` or `error`; None: as the backbone was trained.
        batch_size: users at once.
        precision: of a backbone that is loaded here, as for `UserModel`.
        compile: the same.

    Raises:
        ConfigError: a value is of another type.
    """

    events: EventsConfig | None = None
    overrides: tuple[str, ...] = ()
    allow_empty: bool = False
    unknown: str | None = None
    batch_size: int = 256
    precision: Precision = "fp32"
    compile: bool = False

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self)).items():
            check(name, getattr(self, name), hint)


@checked
def predict(
    backbone: str | Path | UserModel,
    bundle: str | Path | Bundle,
    source: Any,
    out: str | Path | None = None,
    options: AnswerOptions | None = None,
    **settings: Any,
) -> pa.Table:
    """Predict a class or a number for each user of `source`.

    Memory holds the histories of some users at a time, whatever their number; the others are on disk, where temporary
    files are. All are read and checked before anything is computed. How many users, events and unknown items were read
    is logged (logger `peterrec.serving.files`, level INFO).

    Args:
        backbone: a folder written by `pretrain` or `hf://organization/name`, or a loaded model.
        bundle: as `adapt` returns it or a folder that it wrote, or `hf://...`, of a classification,
            regression or multilabel task.
        source: a DataFrame of events; a file of them (Parquet, CSV) or of JSON lines (`{"user": ..., "items": [...]}`,
            which may have `times` and `features` of the events: docs/event-features.md); or an open text stream of
            these lines.
        out: .parquet, .csv or .jsonl file to write, some users at a time; None writes none: the table is in memory.
        options: reading and writing.
        settings: of `AnswerOptions`, and of the columns of events (`user`, `item`, `time`, ...: `EventsConfig`), by
            name, in place of those of `options`: `user="customer", batch_size=512`.

    Returns:
        N rows, one a user, in the order of the input (of events: of the ids as texts): user, label, probability (in
        [0, 1]), known_events (0: the user is unknown, and the class shares of the train users are the answer), and one
        column `p(CLASS)` for each class. Of a regression task: user, prediction, known_events, and one column `q0.1`,
        ... for each quantile. Of a multilabel task: user, labels (those of a probability of 0.5 or more, with `|`
        between them), known_events, and one column `p(LABEL)` for each label. Of a DataFrame, users and items are
        called as there, and users have the type that they have there.

    Raises:
        ConfigError: the bundle is of a ranking task, `out` has another ending, or there is no such setting.
        DataError: the input cannot be read.
        UnknownItemsError: not one item is in the catalogue.
        ArtifactError, FingerprintError: the backbone or the bundle is missing, damaged, or one is not for the other.
        StorageError: the disk is full or `out` is not writable.
    """
    with open_question(backbone, bundle, source, out, options, settings) as question:
        assert question.bundle is not None
        return question.answer(class_table, out)


@checked
def recommend(
    backbone: str | Path | UserModel,
    bundle: str | Path | Bundle | None,
    source: Any,
    out: str | Path | None = None,
    options: AnswerOptions | None = None,
    *,
    k: int = 10,
    exclude_seen: bool | None = None,
    **settings: Any,
) -> pa.Table:
    """Recommend k items to each user of `source`; logs as `predict` does.

    Args:
        backbone: a folder written by `pretrain` or `hf://organization/name`, or a loaded model.
        bundle: as in `predict`, of a ranking task; None recommends next items of the source catalogue.
        source: as in `predict`.
        out: .parquet, .csv or .jsonl file to write; None writes none.
        options: reading and writing.
        k: items per user.
        exclude_seen: leave out items of the user's own history; None: as `UserModel.excludes_seen` says.
        settings: as in `predict`.

    Returns:
        Up to k rows a user, best first: user, rank (1 is best), item, score (higher is better), known_events (0: the
        user is unknown, and the most popular items are the answer).

    Raises:
        ConfigError: the bundle is of a classification task, k < 1, or `out` has another ending.
        DataError, UnknownItemsError, ArtifactError, FingerprintError, StorageError: as in `predict`.
    """
    with open_question(backbone, bundle, source, out, options, settings) as question:
        users_at_once = min(USERS_AT_ONCE, max(1, ITEMS_AT_ONCE // max(1, k)))
        return question.answer(partial(item_table, k=k, exclude_seen=exclude_seen), out, users_at_once)


@checked
def embed(
    backbone: str | Path | UserModel,
    source: Any,
    out: str | Path | None = None,
    options: AnswerOptions | None = None,
    *,
    bundle: str | Path | Bundle | None = None,
    **settings: Any,
) -> pa.Table:
    """Return one vector for each user of `source`: the hidden state at [TCL]; logs as `predict` does.

    Args:
        backbone: a folder written by `pretrain` or `hf://organization/name`, or a loaded model.
        source: as in `predict`.
        out: .parquet, .csv or .jsonl file to write; None writes none.
        options: reading and writing.
        bundle: as in `predict`, whose patch is applied and whose readout is returned; None: the backbone alone.
        settings: as in `predict`.

    Returns:
        N rows, one a user, in the order of the input: user, known_events (0: the user is unknown; the vector is that of
        an empty history), and `vector`, a list of C float32 (in CSV one column `v0`, `v1`, ... for each channel).

    Raises:
        ConfigError: `out` has another ending.
        DataError, UnknownItemsError, ArtifactError, FingerprintError, StorageError: as in `predict`.
    """
    split = out is not None and Path(out).suffix == ".csv"
    with open_question(backbone, bundle, source, out, options, settings) as question:
        return question.answer(partial(_vectors, split=split), out)


def _vectors(
    model: UserModel, bundle: str | None, users: UserHistories, *, batch_size: int, split: bool, **reading: Any
) -> pa.Table:
    embeddings = model.embed(users.items, bundle, batch_size=batch_size, features=users.features, **reading)
    return vector_table(users, embeddings.known_events, embeddings.vectors, split=split)


@dataclass(frozen=True)
class FileQuestion:
    """Question to a model about users whose histories are on disk.

    Attributes:
        model: that is asked.
        bundle: that is loaded on it; None for the backbone.
        histories: of the users.
        settings: how they are read and computed.
        frame: that they were read of; None: of a file.
    """

    model: UserModel
    bundle: str | None
    histories: StoredHistories
    settings: dict[str, Any]
    frame: StoredFrame | None

    def answer(
        self, table_of: Callable[..., pa.Table], out: str | Path | None, users_at_once: int | None = None
    ) -> pa.Table:
        """Write what `table_of` makes of model, bundle and some users at a time."""
        tables = (
            self._as_in_frame(table_of(self.model, self.bundle, users, **self.settings))
            for piece in self.histories
            for users in piece.split(users_at_once or USERS_AT_ONCE)
        )
        return write_answers(tables, None if out is None else Path(out))

    def _as_in_frame(self, table: pa.Table) -> pa.Table:
        """Return answers with users and items called as in the DataFrame, and users of their type in it."""
        if self.frame is None:
            return table
        names = {"user": self.frame.columns.user, "item": self.frame.columns.item}
        renamed = [names.get(name, name) for name in table.column_names]
        users = ids_as(table["user"].to_pylist(), self.frame.user_type)
        return table.set_column(0, "user", users).rename_columns(renamed)


@contextlib.contextmanager
def open_question(
    backbone: str | Path | UserModel,
    bundle: str | Path | Bundle | None,
    source: Any,
    out: str | Path | None,
    options: AnswerOptions | None,
    named_settings: dict[str, Any],
) -> Iterator[FileQuestion]:
    """Read all histories, refuse what cannot be answered, and say how many they are.

    Args:
        backbone: as of `predict`.
        bundle: as of `predict`; None for the backbone.
        source: as of `predict`.
        out: file that is to be written, whose ending is checked; or None.
        options: as of `predict`.
        named_settings: as `settings` of `predict`.

    Yields:
        The question, while the histories are on disk.
    """
    if not is_dataframe(source):
        check("source", source, str | Path | TextIO)
    if out is not None:
        check_format(Path(out))
    options = _answer_options(options, named_settings)
    if isinstance(backbone, UserModel):
        model = with_separate_bundles(backbone)
    else:
        folder = artifact_folder(backbone, "backbone")
        model = UserModel.from_pretrained(folder, precision=options.precision, compile=options.compile)
    name = None if bundle is None else attach_bundle(model, bundle)
    preprocessing = overridden(model.preprocessing(name), options.overrides)
    histories, frame = _read(source, options, preprocessing)
    with histories:
        # That nothing is known of some users of many does not say that their ids are written otherwise.
        settings = {"unknown": options.unknown, "preprocessing": preprocessing, "require_known": False}
        _check_known(model, name, histories, settings)
        yield FileQuestion(model, name, histories, settings | {"batch_size": options.batch_size}, frame)


def _answer_options(options: AnswerOptions | None, settings: dict[str, Any]) -> AnswerOptions:
    """Return options with settings given by name, of them and of the columns of events.

    Raises:
        ConfigError: there is no such setting, or it is of another type.
    """
    options, columns = options or AnswerOptions(), {}
    names = {field.name for field in fields(AnswerOptions)}
    for name, value in settings.items():
        if name in ColumnsConfig.model_fields:
            columns[name] = value
        elif name not in names:
            suggestion = did_you_mean(name, sorted(names | ColumnsConfig.model_fields.keys()))
            remedy = "see `AnswerOptions`, and `EventsConfig` in docs/configuration.md"
            raise ConfigError(f"there is no setting {name!r}{suggestion}", remedy=remedy)
    options = replace(options, **{name: value for name, value in settings.items() if name in names})
    if not columns:
        return options
    paths = {} if options.events is not None else {"paths": ("events",)}  # which are those of the source
    return replace(options, events=with_settings(EventsConfig, options.events, paths | columns))


def _read(
    source: Any, options: AnswerOptions, preprocessing: PreprocessingConfig | None
) -> tuple[StoredHistories, StoredFrame | None]:
    """Return histories on disk, and the DataFrame that they are of, if it is one."""
    if not is_dataframe(source):
        histories = read_histories(
            source, events=options.events, allow_empty=options.allow_empty, preprocessing=preprocessing
        )
        return histories, None
    events = options.events
    named = {} if events is None else {name: getattr(events, name) for name in events.model_fields_set - {"paths"}}
    frame = read_frame(source, named, preprocessing)
    return frame.histories, frame


def _check_known(model: UserModel, bundle: str | None, histories: StoredHistories, settings: dict[str, Any]) -> None:
    """Log how many users, events and unknown items there are.

    Raises:
        UnknownItemsError: not one item is in the catalogue; or one is not, and that is an error.
    """
    unknown_events, unknown_users, example = 0, 0, None
    refused = settings["unknown"] == "error"
    reading = settings | ({"unknown": None} if refused else {})
    for users in histories:
        encoded = model.encode(users.items, bundle, **reading)
        if example is None and encoded.unknown_counts.any():
            items = users.items[int(np.argmax(encoded.unknown_counts > 0))]
            example = items[int(np.argmin(model.catalogue.knows(items)))]
        unknown_events += int(encoded.unknown_counts.sum())
        unknown_users += int((encoded.known_counts == 0).sum())
    if example is not None and (refused or unknown_events == histories.events):
        raise unknown_items_error(model.catalogue, unknown_events, histories.events, example)
    logger.info(counts_line(histories.users, histories.events, unknown_events, unknown_users))
    for note in histories.notes:
        logger.info(note)


def counts_line(users: int, events: int, unknown_events: int, unknown_users: int) -> str:
    """Return in words how many users and events were read, and of how many nothing is known."""
    line = f"{_count(users, 'user')}, {_count(events, 'event')}; {unknown_events:,} of items that are unknown"
    return line + (f"; nothing is known of {_count(unknown_users, 'user')}" if unknown_users else "")


def overridden(preprocessing: PreprocessingConfig | None, overrides: tuple[str, ...]) -> PreprocessingConfig | None:
    """Return the settings of a model with some replaced, as `AnswerOptions.overrides` says."""
    if not overrides:
        return preprocessing
    return load_config(PreprocessingConfig, None, overrides, **(dump_optional(preprocessing) or {}))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
