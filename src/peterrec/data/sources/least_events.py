"""Users and items with enough events, of those that are left: what is asked of them is asked again until it holds."""

from __future__ import annotations

from typing import Any

import ibis

from peterrec.config import AmazonConfig


def drop_rare(connection: Any, name: str, config: AmazonConfig, domains: int) -> Any:
    """Drop events until every user and item of a domain has enough, and users are shared where they are to be.

    What is left is the largest set of events of which this holds, in whatever order they are dropped.

    Args:
        connection: an Ibis connection.
        name: of its table with the columns `domain`, `user_id` and `item_id`. It is dropped where another replaces it.
        config: what is asked of users and items.
        domains: how many there are.

    Returns:
        The table that is left.
    """
    events = connection.table(name)
    if config.users == "all" and config.min_user_events == config.min_item_events == 1:
        return events
    rows, previous_rows, number = count(events), -1, 0
    while rows != previous_rows:
        next_events = connection.create_table(f"{name}_{number}", _with_enough(events, config, domains), temp=True)
        connection.drop_table(f"{name}_{number - 1}" if number else name)
        events, number = next_events, number + 1
        rows, previous_rows = count(events), rows
    return events


def _with_enough(events: Any, config: AmazonConfig, domains: int) -> Any:
    """Return the events whose user and item have enough events now: fewer may be left of others then."""
    remaining = events
    for column, least in (("user_id", config.min_user_events), ("item_id", config.min_item_events)):
        if least > 1:
            counts = events.group_by("domain", column).aggregate(events=events.count())
            remaining = remaining.semi_join(counts.filter(counts.events >= least), ["domain", column])
    return remaining.semi_join(_shared_users(events, domains), "user_id") if config.users == "shared" else remaining


def _shared_users(events: Any, domains: int) -> Any:
    pairs = events.select("user_id", "domain").distinct()
    users = pairs.group_by("user_id").aggregate(domains=pairs.count())
    return users.filter(users.domains == domains)


def count(events: Any) -> int:
    """Return the number of events."""
    return int(events.count().to_pyarrow().as_py())


def totals(events: Any) -> dict[str, tuple[int, int, int]]:
    """Return the numbers of events, users and items of each domain."""
    by_domain = events.group_by("domain").aggregate(
        events=events.count(), users=events.user_id.nunique(), items=events.item_id.nunique()
    )
    rows = by_domain.select("domain", "events", "users", "items").to_pyarrow().to_pylist()
    return {row["domain"]: (row["events"], row["users"], row["items"]) for row in rows}


def shared_users(events: Any, domains: int) -> int:
    """Return how many users have events in every domain."""
    return count(_shared_users(events, domains))


def titled(items: Any, titles: Any) -> Any:
    """Return the items with the first title of each, null where it has none.

    Args:
        items: `item_id` and `domain`.
        titles: `domain`, `item_id`, `title` and `place`, the order of the titles.
    """
    filled = titles.filter(titles.title.notnull())
    first = filled.group_by("domain", "item_id").aggregate(title=filled.title.argmin(filled.place))
    return items.left_join(first, ["domain", "item_id"])[["item_id", "domain", "title"]]


def distinct(reviews: Any) -> Any:
    """Return each review once; one of the same user, item and time in a domain is the same."""
    keys = ("domain", "user_id", "item_id", "timestamp")
    return reviews.group_by(*keys).aggregate(rating=reviews.rating.max())


def files_summary(reviews: Any) -> list[dict[str, Any]]:
    """Return of each file with reviews its number `file`, the first and last time, and what tells its content.

    `content` is the same for the same reviews in any order, and a sum of hashes: for others, by chance only.
    """
    digest = ibis.literal("|").join([reviews.user_id, reviews.item_id, reviews.timestamp.cast("string")]).hash()
    by_file = reviews.group_by("file").aggregate(
        rows=reviews.count(),
        content=digest.cast("decimal(38,0)").sum(),
        first=reviews.timestamp.min(),
        last=reviews.timestamp.max(),
    )
    summary: list[dict[str, Any]] = by_file.order_by("file").to_pyarrow().to_pylist()
    return summary
