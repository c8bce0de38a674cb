"""Answers computed in the Python workers of executors: batches of users in, batches of answers out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from peterrec.config import EventFeatureConfig, PreprocessingConfig
from peterrec.data.event_features import EventFeatureEncoder
from peterrec.data.hashing import id_hash
from peterrec.data.ids import HistoryFeatures, UserHistories, as_history
from peterrec.data.prepare.feature_columns import FeatureRows, feature_names
from peterrec.data.prepare.spark_reader import errors_as_text
from peterrec.data.sequences import IntArray
from peterrec.data.ties import equal_to_before, order_ties, seconds_of, tie_keys, tied_rows
from peterrec.errors import DataError
from peterrec.model import UserModel
from peterrec.serving.answer_tables import class_table, item_table, vector_table
from peterrec.spark.models import ModelFiles, load

Verb = Literal["predict", "recommend", "embed"]
USERS_AT_ONCE = 1024  # whose histories are Python objects at a time
SCORES_AT_ONCE = 1 << 26  # of all items for some users: 256 MB
COUNTS = ("users", "events", "unknown_events", "unknown_users", "left_out")


@dataclass(frozen=True)
class BundleQuestion:
    """One bundle, or the backbone alone, to be asked.

    Attributes:
        key: of its folder, by which it is loaded; None: the backbone alone.
        name: of its task.
        preprocessing: by which its events are read.
        keep: name of the field of an event that says whether it is read; None: all are.
    """

    key: str | None
    name: str
    preprocessing: PreprocessingConfig | None
    keep: str | None = None


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know, apart from the users.

    Attributes:
        verb: what is asked.
        files: of backbone and bundles.
        questions: to the bundles.
        stacked: whether the answers of several bundles stand below one another, with the column `bundle`.
        unknown: items outside the catalogue, as of `UserModel.encode`.
        allow_empty: answer also for users whose row has no items.
        batch_size: users at once in the network.
        k: items per user.
        exclude_seen: as of `UserModel.recommend`.
        sort_columns: fields of an event that order it: time, and order where there is one.
        units_per_second: of the times, where they are numbers.
        features: of an event, whose texts are in its fields.
        counters: accumulators of Spark by the names in `COUNTS`, or none.
    """

    verb: Verb
    files: ModelFiles
    questions: tuple[BundleQuestion, ...]
    stacked: bool = False
    unknown: str | None = None
    allow_empty: bool = False
    batch_size: int = 256
    k: int = 10
    exclude_seen: bool | None = None
    sort_columns: tuple[str, ...] = ("time",)
    units_per_second: float | None = None
    features: tuple[EventFeatureConfig, ...] = ()
    counters: Mapping[str, Any] | None = None


def answer_batches(batches: Iterator[pa.RecordBatch], job: Job) -> Iterator[pa.RecordBatch]:
    """Yield the answers of each bundle about the users of each batch; some users at a time.

    Args:
        batches: rows of user and `items` (a list of ids), or `events` (a list of structs: see `Job.sort_columns`).
        job: what is asked.

    Raises:
        DataError: a row has no user, no list of items, or an empty one.
        UnknownItemsError: `unknown` is `error`, and there are some.
    """
    model = None
    with errors_as_text():
        for batch in batches:
            model = model or load(job.files)
            for start in range(0, batch.num_rows, USERS_AT_ONCE):
                users = _UserEvents(batch.slice(start, USERS_AT_ONCE), job)
                for question in job.questions:
                    yield from _answers(model, job, question, users.histories(question)).to_batches()
                if job.counters is not None:
                    _count(model, job, users)


class _UserEvents:
    """Some users with their items in order, and whether each is read.

    Args:
        batch: rows of users.
        job: what is asked.
    """

    def __init__(self, batch: pa.RecordBatch, job: Job) -> None:
        self.user_ids = _user_ids(batch)
        self.keep: dict[str, IntArray] = {}
        self.codes: list[int] = []
        self.seconds: list[float] = []
        if "items" in batch.schema.names:
            self.items, lengths = _row_items(batch, self.user_ids, job)
            self.read_events = int(lengths.sum())
        else:
            self.items, lengths = self._event_items(batch, job)
            self.read_events = int(pc.sum(batch.column("read_events")).as_py() or 0)
        self.ends = np.cumsum(lengths)

    def _event_items(self, batch: pa.RecordBatch, job: Job) -> tuple[list[Any], IntArray]:
        lists = batch.column("events")
        lengths = np.asarray(pc.list_value_length(lists), dtype=np.int64)
        events = lists.flatten()
        fields = {field.name: events.field(field.name) for field in events.type}
        codes, seconds = np.zeros(len(events), dtype=np.int64), np.empty(0)
        if job.features:
            seconds = seconds_of(fields["time"], job.units_per_second)
            codes = FeatureRows(_feature_texts(fields), seconds).codes(EventFeatureEncoder(job.features))
        order = _event_order(self.user_ids, lengths, fields, codes, job)
        if job.features:
            self.codes, self.seconds = codes[order].tolist(), seconds[order].tolist()
        self.keep = {
            question.keep: np.asarray(fields[question.keep].to_numpy(zero_copy_only=False))[order]
            for question in job.questions
            if question.keep is not None
        }
        return fields["item"].take(pa.array(order)).to_pylist(), lengths

    def histories(self, question: BundleQuestion) -> UserHistories:
        """Return what is read for a bundle."""
        starts = [0, *self.ends[:-1].tolist()]
        rows = [slice(start, end) for start, end in zip(starts, self.ends.tolist(), strict=True)]
        places = [range(row.start, row.stop) for row in rows]
        if question.keep is not None:
            keep = self.keep[question.keep]
            places = [(np.flatnonzero(keep[row]) + row.start).tolist() for row in rows]

        def of_users(values: list[Any]) -> list[list[Any]]:
            return [[values[place] for place in user_places] for user_places in places]

        features = HistoryFeatures(of_users(self.codes), of_users(self.seconds)) if self.codes else None
        return UserHistories(self.user_ids, of_users(self.items), features)


def _user_ids(batch: pa.RecordBatch) -> list[str]:
    users = batch.column("user")
    if users.null_count:
        raise DataError("a row has no user", remedy="leave out rows without one")
    return [str(user) for user in users.to_pylist()]


def _row_items(batch: pa.RecordBatch, user_ids: list[str], job: Job) -> tuple[list[Any], IntArray]:
    histories = batch.column("items").to_pylist()
    for user, history in zip(user_ids, histories, strict=True):
        if history is None or (not history and not job.allow_empty):
            remedy = "leave out users without items, or allow them: allow_empty (--allow-empty)"
            raise DataError(f"user {user!r} has no items", remedy=remedy)
        as_history(history, f"the history of user {user!r}")
    lengths = np.array([len(history) for history in histories], dtype=np.int64)
    return [item for history in histories for item in history], lengths


def _feature_texts(fields: Mapping[str, pa.Array]) -> pa.Table:
    names = feature_names(fields)
    return pa.table({name: fields[name] for name in names} or {"item": fields["item"]})


def _event_order(
    user_ids: list[str], lengths: IntArray, fields: Mapping[str, pa.Array], codes: IntArray, job: Job
) -> IntArray:
    """Return the order of the events of some users, which are sorted already: of ties, that of their hashes."""
    users = np.repeat(np.arange(len(lengths)), lengths)
    columns = [pa.chunked_array([fields[name]]) for name in job.sort_columns]
    same_as_before = equal_to_before(pa.chunked_array([pa.array(users)]), *columns)
    tied = np.flatnonzero(tied_rows(same_as_before))
    places, inverse = np.unique(users[tied], return_inverse=True)
    user_hashes = id_hash(user_ids[place] for place in places.tolist())[inverse]
    rows = pa.array(tied)
    items = fields["item"].take(rows).dictionary_encode()
    item_hashes = id_hash(items.dictionary.to_pylist())[items.indices.to_numpy()]
    keys = tie_keys(user_hashes, seconds_of(fields["time"].take(rows), job.units_per_second), item_hashes)
    return order_ties(same_as_before, tied, keys, codes[tied])


def _settings(job: Job, question: BundleQuestion) -> dict[str, Any]:
    # Some users of many: that nothing is known of these does not say that their ids are written otherwise.
    return {"unknown": job.unknown, "preprocessing": question.preprocessing, "require_known": False}


def _answers(model: UserModel, job: Job, question: BundleQuestion, users: UserHistories) -> pa.Table:
    settings = _settings(job, question) | {"batch_size": job.batch_size}
    if job.verb == "predict":
        assert question.key is not None
        table = class_table(model, question.key, users, **settings)
    elif job.verb == "recommend":
        settings["batch_size"] = max(1, min(job.batch_size, SCORES_AT_ONCE // max(1, len(model.targets(question.key)))))
        table = item_table(model, question.key, users, k=job.k, exclude_seen=job.exclude_seen, **settings)
    else:
        embeddings = model.embed(users.items, question.key, features=users.features, **settings)
        table = vector_table(users, embeddings.known_events, embeddings.vectors)
        table = table.set_column(2, "vector", table["vector"].cast(pa.list_(pa.float32())))
    return _stacked(table, question.name, job.verb) if job.stacked else table


def _stacked(table: pa.Table, bundle: str, verb: Verb) -> pa.Table:
    """Return the answers of a bundle with its name; of a class each probability in a map, of an item the text."""
    if verb == "predict":
        if "prediction" in table.column_names:
            table = _as_map(table, table.column_names[3:], table.column_names[3:], "quantiles", pa.float64())
        else:
            if "class_set" in table.column_names:  # not every bundle has sets
                table = table.drop_columns(["class_set"])
            classes = table.column_names[3 if "labels" in table.column_names else 4 :]
            table = _as_map(table, classes, [name[2:-1] for name in classes], "probabilities", pa.float32())
    elif verb == "recommend":
        table = table.set_column(2, "item", table["item"].cast(pa.string()))
    return table.add_column(1, "bundle", pa.array([bundle] * len(table), pa.string()))


def _as_map(table: pa.Table, columns: list[str], keys: list[str], name: str, kind: pa.DataType) -> pa.Table:
    """Return a table with a map in place of some columns, its last ones."""
    values = np.stack([table[column].to_numpy() for column in columns], 1) if columns else np.empty((len(table), 0))
    offsets = pa.array(np.arange(len(table) + 1) * len(keys), pa.int32())
    key_array = pa.array(keys * len(table), pa.string())
    maps = pa.MapArray.from_arrays(offsets, key_array, pa.array(values.reshape(-1), kind))
    return table.drop_columns(columns).append_column(name, maps)


def _count(model: UserModel, job: Job, users: _UserEvents) -> None:
    assert job.counters is not None
    question = job.questions[0]
    histories = users.histories(question).items
    encoded = model.encode(histories, question.key, **_settings(job, question))
    events = sum(len(history) for history in histories)
    counts = {
        "users": len(histories),
        "events": events,
        "unknown_events": int(encoded.unknown_counts.sum()),
        "unknown_users": int((encoded.known_counts == 0).sum()),
        "left_out": users.read_events - events,
    }
    for name, count in counts.items():
        job.counters[name].add(count)
