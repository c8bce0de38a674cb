"""The verbs `predict`, `recommend` and `embed`: raw events of any users in, answers out."""

from __future__ import annotations

import copy
import io
import json
import logging
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from peterrec.arguments import check, checked
from peterrec.config import EventsConfig, PreprocessingConfig, dump_optional, load_config
from peterrec.data.encoding import Encoded
from peterrec.data.histories import read_histories
from peterrec.data.ids import UserHistories
from peterrec.data.sequences import IntArray
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.nn.precision import Precision
from peterrec.serving.answer_tables import class_table, item_table, vector_table
from peterrec.storage import replace_file

logger = logging.getLogger(__name__)

FORMATS = (".parquet", ".csv", ".jsonl")


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
    bundle: str | Path,
    source: str | Path | TextIO,
    out: str | Path | None = None,
    options: AnswerOptions | None = None,
) -> pa.Table:
    """Predict a class for each user of `source`.

    How many users, events and unknown items were read is logged (logger `peterrec.serving.files`, level INFO).

    Args:
        backbone: a folder written by `pretrain`, or a loaded model.
        bundle: a folder written by `adapt`, of a classification task.
        source: Parquet or CSV events, JSON lines (`{"user": ..., "items": [...]}`), or an open text stream of these.
        out: .parquet, .csv or .jsonl file to write; None writes none.
        options: reading and writing.

    Returns:
        N rows, one a user, in the order of the input: user, label, probability (in [0, 1]), known_events (0: the user
        is unknown, and the class shares of the train users are the answer), and one column `p(CLASS)` for each class.

    Raises:
        ConfigError: the bundle is of a ranking task, or `out` has another ending.
        DataError: the input cannot be read.
        UnknownItemsError: not one item is in the catalogue.
        ArtifactError, FingerprintError: the backbone or the bundle is missing, damaged, or one is not for the other.
        StorageError: the disk is full or `out` is not writable.
    """
    model, name, users, _, settings = _read_input(backbone, bundle, source, out, options)
    assert name is not None
    return _write(class_table(model, name, users, **settings), out)


@checked
def recommend(
    backbone: str | Path | UserModel,
    bundle: str | Path | None,
    source: str | Path | TextIO,
    out: str | Path | None = None,
    options: AnswerOptions | None = None,
    *,
    k: int = 10,
    exclude_seen: bool | None = None,
) -> pa.Table:
    """Recommend k items to each user of `source`; logs as `predict` does.

    Args:
        backbone: a folder written by `pretrain`, or a loaded model.
        bundle: a folder written by `adapt`, of a ranking task; None recommends next items of the source catalogue.
        source: as in `predict`.
        out: .parquet, .csv or .jsonl file to write; None writes none.
        options: reading and writing.
        k: items per user.
        exclude_seen: leave out items of the user's own history; None: as `UserModel.excludes_seen` says.

    Returns:
        Up to k rows a user, best first: user, rank (1 is best), item, score (higher is better), known_events (0: the
        user is unknown, and the most popular items are the answer).

    Raises:
        ConfigError: the bundle is of a classification task, k < 1, or `out` has another ending.
        DataError, UnknownItemsError, ArtifactError, FingerprintError, StorageError: as in `predict`.
    """
    model, name, users, _, settings = _read_input(backbone, bundle, source, out, options)
    return _write(item_table(model, name, users, k=k, exclude_seen=exclude_seen, **settings), out)


@checked
def embed(
    backbone: str | Path | UserModel,
    source: str | Path | TextIO,
    out: str | Path | None = None,
    options: AnswerOptions | None = None,
    *,
    bundle: str | Path | None = None,
) -> pa.Table:
    """Return one vector for each user of `source`: the hidden state at [TCL]; logs as `predict` does.

    Args:
        backbone: a folder written by `pretrain`, or a loaded model.
        source: as in `predict`.
        out: .parquet, .csv or .jsonl file to write; None writes none.
        options: reading and writing.
        bundle: a folder written by `adapt`, whose patch is applied and whose readout is returned; None: the backbone
            alone.

    Returns:
        N rows, one a user, in the order of the input: user, known_events (0: the user is unknown; the vector is that of
        an empty history), and `vector`, a list of C float32 (in CSV one column `v0`, `v1`, ... for each channel).

    Raises:
        ConfigError: `out` has another ending.
        DataError, UnknownItemsError, ArtifactError, FingerprintError, StorageError: as in `predict`.
    """
    model, name, users, known_events, settings = _read_input(backbone, bundle, source, out, options)
    vectors = model.represent(users.items, name, **settings)
    split = out is not None and Path(out).suffix == ".csv"
    return _write(vector_table(users, known_events, vectors, split=split), out)


class _Input(NamedTuple):
    model: UserModel
    bundle: str | None
    users: UserHistories
    known_events: IntArray
    settings: dict[str, Any]


def _read_input(
    backbone: str | Path | UserModel,
    bundle: str | Path | None,
    source: str | Path | TextIO,
    out: str | Path | None,
    options: AnswerOptions | None,
) -> _Input:
    if out is not None and Path(out).suffix not in FORMATS:
        raise ConfigError(f"cannot write {Path(out).name}", remedy=f"name a file that ends in {' or '.join(FORMATS)}")
    options = options or AnswerOptions()
    if isinstance(backbone, UserModel):
        model = _without_side_effects(backbone)
    else:
        model = UserModel.from_pretrained(backbone, precision=options.precision, compile=options.compile)
    name = model.load_bundle(bundle) if bundle is not None else None
    preprocessing = overridden(model.preprocessing(name), options.overrides)
    users = read_histories(source, events=options.events, allow_empty=options.allow_empty, preprocessing=preprocessing)
    settings: dict[str, Any] = {"unknown": options.unknown, "preprocessing": preprocessing}
    encoded = model.encode(users.items, name, **settings)
    _log_counts(users, encoded)
    return _Input(model, name, users, encoded.known_counts, settings | {"batch_size": options.batch_size})


def _log_counts(users: UserHistories, encoded: Encoded) -> None:
    unknown_users = int((encoded.known_counts == 0).sum())
    events = sum(len(items) for items in users.items)
    logger.info(counts_line(len(users.items), events, int(encoded.unknown_counts.sum()), unknown_users))
    for note in users.notes:
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


def _without_side_effects(model: UserModel) -> UserModel:
    """Return the same model with a copy of its bundles: loading one here must not replace the caller's."""
    model = copy.copy(model)
    model.bundles = dict(model.bundles)
    return model


def _write(table: pa.Table, out: str | Path | None) -> pa.Table:
    if out is None:
        return table
    out = Path(out)
    with replace_file(out) as temporary:
        if out.suffix == ".parquet":
            pq.write_table(table, temporary, compression="zstd")
        elif out.suffix == ".csv":
            pa.csv.write_csv(table, temporary)
        else:
            temporary.write_text(to_json_lines(table), encoding="utf-8")
    return table


def to_json_lines(table: pa.Table) -> str:
    """Return one JSON object per row and line; class probabilities go into one object, `probabilities`."""
    buffer = io.StringIO()
    for row in table.to_pylist():
        classes = {name[2:-1]: row.pop(name) for name in list(row) if name.startswith("p(") and name.endswith(")")}
        if classes:
            row["probabilities"] = classes
        buffer.write(json.dumps(row, ensure_ascii=False) + "\n")
    return buffer.getvalue()
