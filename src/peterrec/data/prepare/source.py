"""The source events: which are kept and why, the catalogue, and the events as indices of users and items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from peterrec.config import PrepareConfig
from peterrec.data.catalogue import Catalogue
from peterrec.data.prepare.bounds import after, before, in_domains, known_domains
from peterrec.data.prepare.engine import scalars, upload
from peterrec.data.prepare.events import Events
from peterrec.data.sequences import IntArray
from peterrec.data.splits import assign_parts, user_hash
from peterrec.errors import ArtifactError, DataError

Step = dict[str, str | int]
USERS_AT_ONCE = 500_000


@dataclass(frozen=True)
class Users:
    """Users with source events, in order of their id.

    Attributes:
        table: engine table: user (text), place (0-based position), part (0 train, 1 valid, 2 test).
        hashes: (users,) `splits.user_hash`.
        parts: (users,) part of each.
        events: (users,) kept source events of each.
    """

    table: Any
    hashes: npt.NDArray[np.uint64]
    parts: IntArray
    events: IntArray

    def __len__(self) -> int:
        return len(self.hashes)


@dataclass(frozen=True)
class Source:
    """Kept source events.

    Attributes:
        chosen: expression, all columns: events of the chosen domains and time, whatever their item.
        table: engine table: place (of the user), time, [order,] rank (of the item id among those of all chosen
            events, which breaks ties), item (index; -1 - rank where the item is not in the catalogue).
        catalogue: the items.
        users: who did it.
        steps: what was kept and dropped, and why.
    """

    chosen: Any
    table: Any
    catalogue: Catalogue
    users: Users
    steps: tuple[Step, ...]


def select_source(connection: Any, events: Events, config: PrepareConfig) -> Source:
    """Choose the source events, number users and items, and keep the events as numbers.

    Raises:
        DataError: nothing is left; the message says at which step.
        ConfigError: a bound or a domain does not fit the events.
    """
    steps: list[Step] = [_step("rows of the input", events.rows + events.dropped, 0, "")]
    if events.dropped:
        steps.append(_step("rows that can be used", events.rows, events.dropped, "a value is missing or unreadable"))
    chosen = _choose(events, config, steps)
    items = _count_items(connection, chosen)
    catalogue = _catalogue(items, events, config)
    kept = chosen.inner_join(_number_items(connection, items, catalogue), "item")
    known = kept["index"].notnull()
    counts = scalars(kept.aggregate(n=kept.count(), known=known.cast("int64").sum()))
    if not counts["known"]:
        raise DataError("no event is left: no item is in the catalogue", remedy=_fewer(config), path=config.catalogue)
    lost = counts["n"] - counts["known"]
    keep_unknown = config.source.rare_items == "unk"
    if not keep_unknown:
        kept = kept.filter(known)
    why = (
        "the item is not in the catalogue that was given"
        if config.catalogue
        else f"the item has fewer than {config.source.min_item_events} events"
    )
    if lost and keep_unknown:
        steps.append(_step("events of all items", counts["n"], 0, f"{lost:,} of them as [UNK]: {why}"))
    else:
        steps.append(_step("events of items in the catalogue", counts["known"], lost, why if lost else ""))
    users = _users(connection, kept, config)
    table = _indexed(connection, kept, users)
    return Source(chosen, table, catalogue, users, tuple(steps))


def _step(what: str, left: int, dropped: int, why: str) -> Step:
    return {"what": what, "events": int(left), "dropped": int(dropped), "why": why}


def _choose(events: Events, config: PrepareConfig, steps: list[Step]) -> Any:
    """Apply the chosen domains and times, noting what each drops."""
    table, source, kind = events.table, config.source, events.time_kind
    conditions = [
        ("events of the source domains", in_domains(table, source.domains, "source.domains"), "of another domain"),
        (
            "events outside excluded domains",
            ~in_domains(table, source.exclude_domains, "source.exclude_domains")
            if source.exclude_domains
            else ibis.literal(True),
            f"domain {', '.join(source.exclude_domains)} is excluded",
        ),
        (f"events from {source.after} on", after(table, source.after, kind, "source.after"), "earlier"),
        (f"events before {source.before}", before(table, source.before, kind, "source.before"), "later"),
    ]
    asked = (source.domains is not None, bool(source.exclude_domains), source.after, source.before)
    wanted = [condition for condition, given in zip(conditions, asked, strict=True) if given]
    all_of, counts = ibis.literal(True), {}
    for number, (_, condition, _) in enumerate(wanted):
        all_of = all_of & condition
        counts[f"n{number}"] = all_of.cast("int64").sum()
    if not wanted:
        return table
    left, found = events.rows, scalars(table.aggregate(**counts))
    for number, (what, _, why) in enumerate(wanted):
        now = int(found[f"n{number}"] or 0)
        if now == 0:
            remedy = f"check the settings under `source`{known_domains(table)}"
            raise DataError(f"no event is left: there are no {what}", remedy=remedy)
        steps.append(_step(what, now, left - now, why if left > now else ""))
        left = now
    return table.filter(all_of)


def _count_items(connection: Any, chosen: Any) -> Any:
    """Return item, n (events) and rank (position of the id among all ids) of the chosen events."""
    counted = chosen.group_by("item").aggregate(n=chosen.count())
    rank = ibis.row_number().over(ibis.window(order_by="item")).cast("int32")
    return connection.create_table("counted_items", counted.mutate(rank=rank), overwrite=True)


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
        given = Catalogue.read(catalogue_file(config.catalogue))
        if given.id_type != events.item_kind:
            raise DataError(
                f"has {given.id_type} item ids, but the items of the events are {events.item_kind}",
                remedy=f"read them alike: events.ids={given.id_type} (--ids {given.id_type})",
                path=config.catalogue,
            )
        return given
    frequent = items.filter(items["n"] >= config.source.min_item_events)
    found = frequent.order_by([ibis.desc("n"), "item"]).to_pyarrow()
    if not len(found):
        raise DataError(f"no item has {config.source.min_item_events} events", remedy=_fewer(config))
    return Catalogue(found["item"].combine_chunks(), found["n"].to_numpy())


def _fewer(config: PrepareConfig) -> str:
    if config.catalogue is not None:
        return "check that the ids are of the same domain and written the same way"
    return "lower source.min_item_events, or give more events"


def _number_items(connection: Any, items: Any, catalogue: Catalogue) -> Any:
    """Return item, rank and index (null where the item is not in the catalogue)."""
    index = np.arange(catalogue.first, catalogue.first + len(catalogue), dtype=np.int32)
    known = upload(connection, "catalogue", pa.table({"item_id": catalogue.ids, "index": index}))
    joined = items.left_join(known, items["item"] == known["item_id"]).select("item", "rank", "index")
    return connection.create_table("items", joined, overwrite=True)


def _users(connection: Any, kept: Any, config: PrepareConfig) -> Users:
    counted = kept.group_by("user").aggregate(n=kept.count())
    placed = counted.mutate(place=ibis.row_number().over(ibis.window(order_by="user")))
    placed = connection.create_table("placed_users", placed, overwrite=True)
    total = int(scalars(placed.aggregate(n=placed.count()))["n"])
    hashes, parts, events = [], [], []
    schema = pa.schema([("user", pa.string()), ("place", pa.int64()), ("part", pa.int8())])
    table = connection.create_table("users", schema=ibis.schema(schema), overwrite=True)
    # One query for each batch: a stream of batches would end, without a word, at the first insertion.
    for start in range(0, total, USERS_AT_ONCE):
        chosen = placed.filter(placed["place"].between(start, start + USERS_AT_ONCE - 1))
        batch = chosen.order_by("place").to_pyarrow()
        own = user_hash(batch["user"].to_pylist())
        part = assign_parts(own, config.split).astype(np.int8)
        hashes.append(own)
        parts.append(part)
        events.append(batch["n"].to_numpy().astype(np.int64))
        connection.insert("users", pa.table([batch["user"], batch["place"], pa.array(part)], schema=schema))
    return Users(table, np.concatenate(hashes), np.concatenate(parts).astype(np.int64), np.concatenate(events))


def _indexed(connection: Any, kept: Any, users: Users) -> Any:
    order = {"order": kept["order"]} if "order" in kept.columns else {}
    joined = kept.inner_join(users.table, "user")
    columns: Sequence[str] = ("place", "time", *order, "rank", "item")
    numbered = joined.mutate(item=ibis.coalesce(joined["index"], -1 - joined["rank"]).cast("int32"))
    return connection.create_table("source", numbered.select(*columns), overwrite=True)
