"""The source events: which are kept and why, the catalogue, and the events as indices of users and items."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from peterrec.config import NewUsersConfig, PrepareConfig, SplitConfig
from peterrec.data.arrow_arrays import single_array
from peterrec.data.catalogue import Catalogue
from peterrec.data.event_features import EventFeatureEncoder
from peterrec.data.hashing import UInt64Array, id_hash
from peterrec.data.new_users import NOBODY, kept_out_by_id
from peterrec.data.prepare.engine import Engine, scalars
from peterrec.data.prepare.event_filters import at_or_after, known_domains, source_filters
from peterrec.data.prepare.events import SORT_COLUMNS, USER_INTEGER, Events
from peterrec.data.prepare.feature_columns import feature_names, fit_features
from peterrec.data.sequences import IntArray
from peterrec.data.splits import assign_parts
from peterrec.errors import ArtifactError, DataError

Step = dict[str, str | int]
DRAWN = pa.schema([("user", pa.string()), ("is_new", pa.bool_())])
HASHED = pa.schema([("rank", pa.int64()), ("hash", pa.int64())])
SPLIT_USERS = pa.schema(
    [("user", pa.string()), ("place", pa.int64()), ("part", pa.int8()), ("hash", pa.int64()), ("n", pa.int64()),
     ("is_new", pa.bool_())]
)  # fmt: skip


@dataclass(frozen=True)
class Users:
    """Users with source events, in order of their id.

    Attributes:
        table: engine table: user (text), place (0-based position), part (0 train, 1 valid, 2 test).
        hashes: (users,) `id_hash`.
        parts: (users,) part of event_filter.
        events: (users,) kept source events of event_filter.
        new: (users,) who is kept out of all that is learned without labels.
    """

    table: Any
    hashes: UInt64Array
    parts: IntArray
    events: IntArray
    new: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.hashes)


@dataclass(frozen=True)
class Source:
    """Kept source events.

    Attributes:
        chosen: expression, all columns: events of the chosen domains and time, whatever their item.
        table: expression: place (of the user), time, [order,] [line,] rank (of the item id among those of all chosen
            events).
        time_range: `first` and `last` time as texts.
        item_hashes: (items,) `id_hash` of the item of each rank.
        item_indices: (items,) int32 index of it; -1 - rank where the item is not in the catalogue.
        catalogue: the items.
        item_events: (items of the catalogue,) kept source events of each, those of new users too.
        users: who did it.
        steps: what was kept and dropped, and why.
        units_per_second: of numeric times; None for moments.
        encoder: of the features of events, which `table` has as texts; None: there are none.
    """

    chosen: Any
    table: Any
    time_range: dict[str, str | None]
    item_hashes: UInt64Array
    item_indices: npt.NDArray[np.int32]
    catalogue: Catalogue
    item_events: IntArray
    users: Users
    steps: tuple[Step, ...]
    units_per_second: float | None
    encoder: EventFeatureEncoder | None = None


def select_source(engine: Engine, events: Events, config: PrepareConfig) -> Source:
    """Choose the source events, number users and items, and keep the events as numbers.

    Raises:
        DataError: nothing is left, or nobody to pre-train on; the message says at which step.
        ConfigError: a bound or a domain does not fit the events.
    """
    steps: list[Step] = [_step("rows of the input", events.rows + events.dropped, 0, "")]
    if events.dropped:
        steps.append(_step("rows that can be used", events.rows, events.dropped, events.drop_reason))
    chosen = _choose(events, config, steps)
    new_users = _new_users(engine, chosen, events, config)
    items = _count_items(engine, chosen, new_users)
    catalogue = _catalogue(items, events, config)
    numbered_items = _number_items(engine, items, catalogue)
    item_events = _item_events(numbered_items, catalogue)
    counts = {"n": scalars(items.aggregate(n=items["events"].sum()))["n"], "known": int(item_events.sum())}
    if not counts["known"]:
        raise DataError(
            "no event is left: no item is in the catalogue", remedy=_catalogue_remedy(config), path=config.catalogue
        )
    steps.append(_catalogue_step(counts["n"], counts["known"], config, new_users))
    indices = _item_indices(numbered_items)
    if config.source.rare_items != "unk":
        numbered_items = numbered_items.filter(numbered_items["index"].notnull())
    source_rows = chosen.inner_join(numbered_items.select("item", "rank"), "item")
    placed = _place_users(engine, source_rows, new_users)
    return Source(
        chosen,
        _indexed(source_rows, placed),
        _time_range(engine, numbered_items),
        _item_hashes(engine, items),
        indices,
        catalogue,
        item_events,
        _users(engine, placed, config),
        tuple(steps),
        events.units_per_second,
        fit_features(_of_old_users(source_rows, new_users), config.events, events.time_kind),
    )


def _catalogue_step(count: int, in_catalogue: int, config: PrepareConfig, new_users: Any | None) -> Step:
    """Return the step of the events whose items are in the catalogue."""
    lost = count - in_catalogue
    reason = (
        "the item is not in the catalogue that was given"
        if config.catalogue and not config.extend_catalogue
        else f"the item has fewer than {config.source.min_item_events} events"
        + (" of users who are not new" if new_users is not None else "")
    )
    if lost and config.source.rare_items == "unk":
        return _step("events of all items", count, 0, f"{lost:,} of them as [UNK]: {reason}")
    return _step("events of items in the catalogue", in_catalogue, lost, reason if lost else "")


def _step(description: str, remaining: int, dropped: int, reason: str) -> Step:
    return {"what": description, "events": int(remaining), "dropped": int(dropped), "why": reason}


def _choose(events: Events, config: PrepareConfig, steps: list[Step]) -> Any:
    """Apply the chosen domains and times, noting what each drops."""
    table = events.table
    filters = source_filters(table, config.source, events.time_kind)
    if not filters:
        return table
    conditions, counts = ibis.literal(True), {}
    for number, event_filter in enumerate(filters):
        conditions = conditions & event_filter.condition
        counts[f"n{number}"] = conditions.cast("int64").sum()
    events_before, totals = events.rows, scalars(table.aggregate(**counts))
    for number, event_filter in enumerate(filters):
        remaining = int(totals[f"n{number}"] or 0)
        if remaining == 0:
            remedy = f"check the settings under `source`{known_domains(table)}"
            raise DataError(f"no event is left: there are no {event_filter.kept_events}", remedy=remedy)
        steps.append(
            _step(
                event_filter.kept_events,
                remaining,
                events_before - remaining,
                event_filter.drop_reason if events_before > remaining else "",
            )
        )
        events_before = remaining
    return table.filter(conditions)


def _new_users(engine: Engine, chosen: Any, events: Events, config: PrepareConfig) -> Any | None:
    """Return user and is_new (true) of those who are kept out of all that is learned without labels; None: nobody is.

    Raises:
        DataError: nobody else is left.
        ConfigError: `first_event_after` is not of the kind of the times.
    """
    settings = config.new_users
    if settings == NOBODY:
        return None
    first_events = chosen.group_by("user").aggregate(time=chosen["time"].min())
    late = ibis.literal(False)
    if settings.first_event_after is not None:
        setting = "new_users.first_event_after"
        late = at_or_after(first_events, settings.first_event_after, events.time_kind, setting)
    draw = partial(_drawn, settings=settings, split=config.split)
    users = engine.apply("drawn_users", first_events.select("user", late=late), draw, DRAWN)
    counts = scalars(users.aggregate(n=users.count(), new=users["is_new"].cast("int64").sum()))
    everybody, kept_out = int(counts["n"]), int(counts["new"])
    if kept_out == everybody:
        raise DataError(
            f"all {everybody:,} users with source events are new, so nobody is left to pre-train on",
            remedy="keep out fewer users under `new_users`",
        )
    return users.filter(users["is_new"])


def _drawn(users: pa.Table, settings: NewUsersConfig, split: SplitConfig) -> pa.Table:
    """Say of each user whether it is kept out."""
    drawn = kept_out_by_id(id_hash(users["user"].to_pylist()), settings, split)
    return pa.table([users["user"], pa.array(drawn | users["late"].to_numpy())], schema=DRAWN)


def _of_old_users(events: Any, new_users: Any | None) -> Any:
    """Return the events of users who are not new."""
    return events if new_users is None else events.anti_join(new_users, "user")


def _count_items(engine: Engine, chosen: Any, new_users: Any | None) -> Any:
    """Return item, n (events of users who are not new), rank (position of the id among all ids), and of all users:
    events, the first and the last time.
    """
    marked = chosen if new_users is None else chosen.left_join(new_users, "user")
    counts = {"events": marked.count(), "first": marked["time"].min(), "last": marked["time"].max()}
    if new_users is not None:
        counts["n"] = marked["is_new"].isnull().cast("int64").sum()
    counted = marked.group_by("item").aggregate(**counts)
    return engine.number("items", counted if "n" in counts else counted.mutate(n=counted["events"]), "item", "rank")


def _time_range(engine: Engine, items: Any) -> dict[str, str | None]:
    """Return the first and the last time of the events of some items: as texts, for engines know more years."""
    texts = engine.texts(items.aggregate(first=items["first"].min(), last=items["last"].max()))
    if not items["first"].type().is_decimal():
        return texts
    return {name: text and text.rstrip("0").rstrip(".") for name, text in texts.items()}


def _item_indices(numbered_items: Any) -> npt.NDArray[np.int32]:
    """Return the index of the item of each rank; -1 - rank where the item is not in the catalogue."""
    index = ibis.coalesce(numbered_items["index"], -1 - numbered_items["rank"])
    indices = numbered_items.select("rank", index=index.cast("int32")).order_by("rank").to_pyarrow()
    return np.asarray(indices["index"].to_numpy(), dtype=np.int32)


def _item_events(numbered_items: Any, catalogue: Catalogue) -> IntArray:
    """Return the chosen events of each item of the catalogue, in its order."""
    present = numbered_items.filter(numbered_items["index"].notnull()).select("index", "events").to_pyarrow()
    counts = np.zeros(len(catalogue), dtype=np.int64)
    counts[present["index"].to_numpy() - catalogue.first] = present["events"].to_numpy()
    return counts


def _item_hashes(engine: Engine, items: Any) -> UInt64Array:
    """Return the hash of every item id, in the order of their ranks."""
    hashed = engine.apply("item_hashes", items.select("rank", "item"), _hashed_items, HASHED)
    return _hashes(hashed.order_by("rank").select("hash").to_pyarrow())


def _hashed_items(items: pa.Table) -> pa.Table:
    return pa.table([items["rank"], _signed(id_hash(items["item"].to_pylist()))], schema=HASHED)


def _signed(hashes: UInt64Array) -> pa.Array:
    """Return the bits of hashes as int64, for not every engine has numbers without a sign."""
    return pa.array(hashes.view(np.int64))


def _hashes(table: pa.Table) -> UInt64Array:
    return np.asarray(table["hash"].to_numpy(), dtype=np.int64).view(np.uint64)


def catalogue_file(folder: str) -> Path:
    """Return the file with the catalogue of a corpus or a backbone.

    Raises:
        ArtifactError: there is none.
    """
    path = Path(folder) / "catalogue.parquet"
    if not path.is_file():
        raise ArtifactError("has no catalogue", remedy="name the folder of a corpus or a backbone", path=folder)
    return path


def _catalogue(items: Any, events: Events, config: PrepareConfig) -> Catalogue:
    if config.catalogue is not None:
        reused = Catalogue.read(catalogue_file(config.catalogue))
        if reused.id_type != events.item_kind:
            raise DataError(
                f"has {reused.id_type} item ids, but the items of the events are {events.item_kind}",
                remedy=f"read them alike: events.ids={reused.id_type} (--ids {reused.id_type})",
                path=config.catalogue,
            )
        return _extended(reused, _frequent(items, config)) if config.extend_catalogue else reused
    ranked = _frequent(items, config)
    if not len(ranked):
        raise DataError(f"no item has {config.source.min_item_events} events", remedy=_catalogue_remedy(config))
    return Catalogue(ranked["item"], ranked["n"].to_numpy())


def _frequent(items: Any, config: PrepareConfig) -> pa.Table:
    """Return `item` and `n` of those with enough events, most frequent first."""
    frequent = items.filter(items["n"] >= config.source.min_item_events)
    return frequent.order_by([ibis.desc("n"), "item"]).to_pyarrow()


def _extended(catalogue: Catalogue, items: pa.Table) -> Catalogue:
    """Return a catalogue with the items appended that it lacks; what it has keeps its index and its count."""
    new = items.filter(pa.array(~catalogue.knows(items["item"])))
    return catalogue.extended(single_array(new["item"]), new["n"].to_numpy())


def _catalogue_remedy(config: PrepareConfig) -> str:
    if config.catalogue is not None:
        return "check that the ids are of the same domain and written the same way"
    return "lower source.min_item_events, or give more events"


def _number_items(engine: Engine, items: Any, catalogue: Catalogue) -> Any:
    """Return what there is of items, with index (null where the item is not in the catalogue)."""
    index = np.arange(catalogue.first, catalogue.first + len(catalogue), dtype=np.int32)
    catalogue_items = engine.upload("catalogue", pa.table({"item_id": catalogue.ids, "index": index}))
    joined = items.left_join(catalogue_items, items["item"] == catalogue_items["item_id"]).drop("item_id")
    return engine.store("catalogue_items", joined.mutate(rank=joined["rank"].cast("int32")))


def _place_users(engine: Engine, events_table: Any, new_users: Any | None) -> Any:
    """Return place, user, [user_integer,] n (events) and is_new of the users of some events."""
    key = _user_key(events_table)
    counted = events_table.group_by(key).aggregate(n=events_table.count())
    if key == USER_INTEGER:  # text is made once for each user, not for each event
        counted = counted.mutate(user=counted[key].cast("string"))
    if new_users is None:
        counted = counted.mutate(is_new=ibis.literal(False))
    else:
        marked = counted.left_join(new_users, "user")
        counted = marked.select(*counted.columns, is_new=marked["is_new"].notnull())
    return engine.number("user_counts", counted, "user", "place")


def _user_key(events_table: Any) -> str:
    """Return the column of users that is the quickest to group and to join by."""
    return USER_INTEGER if USER_INTEGER in events_table.columns else "user"


def _users(engine: Engine, placed: Any, config: PrepareConfig) -> Users:
    counted = placed.select("user", "place", "n", "is_new")
    table = engine.apply("users", counted, partial(_split_users, split=config.split), SPLIT_USERS)
    numbers = table.order_by("place").select("hash", "part", "n", "is_new").to_pyarrow()
    return Users(
        table.select("user", "place", "part"),
        _hashes(numbers),
        numbers["part"].to_numpy().astype(np.int64),
        numbers["n"].to_numpy().astype(np.int64),
        np.asarray(numbers["is_new"].to_numpy(), dtype=np.bool_),
    )


def _split_users(users: pa.Table, split: SplitConfig) -> pa.Table:
    """Add the hash of each user's id, and its part."""
    hashes = id_hash(users["user"].to_pylist())
    part = pa.array(assign_parts(hashes, split).astype(np.int8))
    columns = [users["user"], users["place"], part, _signed(hashes), users["n"], users["is_new"]]
    return pa.table(columns, names=SPLIT_USERS.names).cast(SPLIT_USERS)


def _indexed(events: Any, placed: Any) -> Any:
    keys = [name for name in SORT_COLUMNS if name in events.columns]
    key = _user_key(events)
    joined = events.inner_join(placed.select(key, place=placed["place"].cast("int32")), key)
    return joined.select("place", *keys, "rank", *feature_names(events.columns))
