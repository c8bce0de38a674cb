"""The verbs `predict`, `recommend` and `embed`: raw events of any users in, answers out."""

from __future__ import annotations

import copy
import io
import json
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from peterrec.arguments import check, checked
from peterrec.config import EventsConfig, PreprocessingConfig, dump_optional, load_config
from peterrec.data.histories import Histories, read_histories
from peterrec.data.sequences import IntArray
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.nn.precision import Precision
from peterrec.storage import replace_file

FORMATS = (".parquet", ".csv", ".jsonl")


@dataclass(frozen=True)
class AnswerOptions:
    """How raw events are read and answers written.

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


Report = Callable[[str], None]


@checked
def predict(
    backbone: str | Path | UserModel,
    bundle: str | Path,
    source: str | Path | TextIO,
    out: str | Path | None = None,
    options: AnswerOptions | None = None,
    report: Report | None = None,
) -> pa.Table:
    """Predict a class for each user of `source`.

    Args:
        backbone: a folder written by `pretrain`, or a loaded model.
        bundle: a folder written by `adapt`, of a classification task.
        source: Parquet or CSV events, JSON lines (`{"user": ..., "items": [...]}`), or an open text stream of these.
        out: .parquet, .csv or .jsonl file to write; None writes none.
        options: reading and writing.
        report: receives lines about unknown items.

    Returns:
        user, label, probability, known_events (0: nothing is known of the user, and the class shares of the train users
        are the answer), and one column `p(CLASS)` for each class; one row a user, in the order of the input.

    Raises:
        ConfigError: the bundle is of a ranking task, or `out` has another ending.
        DataError: the input cannot be read.
        UnknownItemsError: not one item is in the catalogue.
    """
    model, name, histories, _, settings = _open(backbone, bundle, source, out, options, report)
    assert name is not None
    answers = model.predict(histories.items, name, **settings)
    columns: dict[str, Any] = {
        "user": histories.user_ids,
        "label": answers.labels,
        "probability": answers.probabilities.max(axis=1),
        "known_events": answers.known_events,
    }
    for i, label in enumerate(answers.class_names):
        columns[f"p({label})"] = answers.probabilities[:, i]
    return _write(pa.table(columns), out)


@checked
def recommend(
    backbone: str | Path | UserModel,
    bundle: str | Path | None,
    source: str | Path | TextIO,
    out: str | Path | None = None,
    options: AnswerOptions | None = None,
    report: Report | None = None,
    *,
    k: int = 10,
    exclude_seen: bool | None = None,
) -> pa.Table:
    """Recommend k items to each user of `source`; arguments as in `predict`.

    Args:
        backbone: as in `predict`.
        bundle: of a ranking task; None recommends next items of the source catalogue.
        source: as in `predict`.
        out: as in `predict`.
        options: as in `predict`.
        report: as in `predict`.
        k: items per user.
        exclude_seen: leave out items of the user's own history; None: as `UserModel.excludes_seen` says.

    Returns:
        user, rank (1 is best), item, score, known_events (0: nothing is known of the user, and the most popular items
        are the answer); up to k rows a user.

    Raises:
        ConfigError: the bundle is of a classification task, k < 1, or `out` has another ending.
        DataError, UnknownItemsError: as in `predict`.
    """
    model, name, histories, _, settings = _open(backbone, bundle, source, out, options, report)
    answers = model.recommend(histories.items, name, k, exclude_seen=exclude_seen, **settings)
    counts = [len(items) for items in answers.items]
    rows = np.repeat(np.arange(len(counts)), counts)
    columns = {
        "user": pa.array(histories.user_ids, pa.string()).take(pa.array(rows)),
        "rank": pa.array([rank for count in counts for rank in range(1, count + 1)], pa.int64()),
        "item": pa.array([item for items in answers.items for item in items], model.targets(name).ids.type),
        "score": pa.array([score for scores in answers.scores for score in scores], pa.float32()),
        "known_events": pa.array(np.asarray(answers.known_events, dtype=np.int64)[rows]),
    }
    return _write(pa.table(columns), out)


@checked
def embed(
    backbone: str | Path | UserModel,
    source: str | Path | TextIO,
    out: str | Path | None = None,
    options: AnswerOptions | None = None,
    report: Report | None = None,
    *,
    bundle: str | Path | None = None,
) -> pa.Table:
    """Return one vector for each user of `source`: the hidden state at [TCL]; arguments as in `predict`.

    Returns:
        user, known_events (0: nothing is known of the user; the vector is that of an empty history), and `vector` (a
        list of float32; in CSV one column `v0`, `v1`, ... for each channel).

    Raises:
        DataError, UnknownItemsError, ConfigError: as in `predict`.
    """
    model, name, histories, known, settings = _open(backbone, bundle, source, out, options, report)
    vectors = model.represent(histories.items, name, **settings)
    if out is not None and Path(out).suffix == ".csv":
        columns: dict[str, Any] = {f"v{i}": vectors[:, i] for i in range(vectors.shape[1])}
    else:
        flat = pa.array(vectors.reshape(-1), pa.float32())
        columns = {"vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}
    return _write(pa.table({"user": histories.user_ids, "known_events": known} | columns), out)


def _open(
    backbone: str | Path | UserModel,
    bundle: str | Path | None,
    source: str | Path | TextIO,
    out: str | Path | None,
    options: AnswerOptions | None,
    report: Report | None,
) -> tuple[UserModel, str | None, Histories, IntArray, dict[str, Any]]:
    if out is not None and Path(out).suffix not in FORMATS:
        raise ConfigError(f"cannot write {Path(out).name}", remedy=f"name a file that ends in {' or '.join(FORMATS)}")
    options = options or AnswerOptions()
    if isinstance(backbone, UserModel):
        model = _without_side_effects(backbone)
    else:
        model = UserModel.from_pretrained(backbone, precision=options.precision, compile=options.compile)
    name = model.load_bundle(bundle) if bundle is not None else None
    preprocessing = _overridden(model.preprocessing(name), options.overrides)
    histories = read_histories(
        source, events=options.events, allow_empty=options.allow_empty, preprocessing=preprocessing
    )
    settings: dict[str, Any] = {"unknown": options.unknown, "preprocessing": preprocessing}
    encoded = model.encode(histories.items, name, **settings)
    if report is not None:
        total = sum(len(items) for items in histories.items)
        without = int((encoded.known_counts == 0).sum())
        line = f"{_count(len(histories.items), 'user')}, {_count(total, 'event')}"
        line += f"; {int(encoded.unknown_counts.sum()):,} of items that are unknown"
        report(line + (f"; nothing is known of {_count(without, 'user')}" if without else ""))
        for note in histories.notes:
            report(note)
    return model, name, histories, encoded.known_counts, settings | {"batch_size": options.batch_size}


def _overridden(preprocessing: PreprocessingConfig | None, overrides: tuple[str, ...]) -> PreprocessingConfig | None:
    if not overrides:
        return preprocessing
    return load_config(PreprocessingConfig, None, overrides, **(dump_optional(preprocessing) or {}))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def _without_side_effects(model: UserModel) -> UserModel:
    """Return the same model with bundles of its own: loading one here must not replace the caller's."""
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
