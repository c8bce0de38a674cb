"""Tables of a store of events in SQLite, and what brings those of earlier versions up to date."""

from __future__ import annotations

import sqlite3

SHARDS = 64
"""Users are spread over so many sets of tables. SQLite overwrites what is deleted, but not the copies that it leaves
behind when it moves rows between pages; so erasing a user rewrites whole tables, and they must be small.
"""
USERS = """
CREATE TABLE {name} (
    number INTEGER PRIMARY KEY,
    user TEXT NOT NULL UNIQUE,
    revision TEXT NOT NULL,
    count INTEGER NOT NULL,    -- events that are kept
    arrived INTEGER NOT NULL,  -- events that ever came
    newest REAL NOT NULL,      -- timestamp of the last event
    newest_tie INTEGER NOT NULL,
    dropped REAL               -- timestamp of the newest event that was dropped
)"""
EVENTS = """
CREATE TABLE {name} (
    user INTEGER NOT NULL,     -- its number
    timestamp REAL NOT NULL,
    tie INTEGER NOT NULL,      -- what orders equal timestamps; as a signed integer, in the order of the unsigned ones
    arrival INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    item NOT NULL,             -- TEXT, INTEGER, or the digits of a larger integer as a BLOB
    domain TEXT,
    features TEXT,             -- JSON, or null
    PRIMARY KEY (user, timestamp, tie, arrival),
    UNIQUE (user, event_id)
) WITHOUT ROWID"""
DROPPED = """
CREATE TABLE {name} (
    user INTEGER NOT NULL,     -- its number
    id_hash INTEGER NOT NULL,  -- of the id of an event that was dropped
    arrival INTEGER NOT NULL,
    PRIMARY KEY (user, id_hash)
) WITHOUT ROWID"""
OPT_OUTS = """
CREATE TABLE {name} (
    user TEXT NOT NULL,        -- its id: who opts out need not have events
    task TEXT NOT NULL,
    PRIMARY KEY (user, task)
) WITHOUT ROWID"""
SERVICE = (
    # Erasures whose bytes may still be in the file or its log. Nothing about the users.
    "CREATE TABLE pending_erasures (number INTEGER PRIMARY KEY AUTOINCREMENT, since REAL NOT NULL)",
    "CREATE TABLE counters (erasures INTEGER NOT NULL)",
    "INSERT INTO counters VALUES (0)",
)


def create_tables(connection: sqlite3.Connection) -> None:
    """Make the tables of a new file."""
    for shard in range(SHARDS):
        connection.execute(USERS.format(name=f"users_{shard}"))
        connection.execute(EVENTS.format(name=f"events_{shard}"))
    _add_erasures(connection)
    _add_opt_outs(connection)


def _upgrade_from_2(connection: sqlite3.Connection) -> None:
    _add_erasures(connection)
    _upgrade_from_3(connection)


def _upgrade_from_3(connection: sqlite3.Connection) -> None:
    _add_features(connection)
    _add_opt_outs(connection)


def _add_erasures(connection: sqlite3.Connection) -> None:
    """Add the tables that version 3 has and version 2 had not."""
    for shard in range(SHARDS):
        connection.execute(DROPPED.format(name=f"dropped_{shard}"))
    for statement in SERVICE:
        connection.execute(statement)


def _add_features(connection: sqlite3.Connection) -> None:
    """Add the column that version 4 has and version 3 had not; as the last one, which is where a new file has it."""
    for shard in range(SHARDS):
        connection.execute(f"ALTER TABLE events_{shard} ADD COLUMN features TEXT")


def _add_opt_outs(connection: sqlite3.Connection) -> None:
    """Add the tables that version 4 has and version 3 had not."""
    for shard in range(SHARDS):
        connection.execute(OPT_OUTS.format(name=f"opt_outs_{shard}"))


UPGRADES = {2: _upgrade_from_2, 3: _upgrade_from_3}
"""By version of a file, what brings it up to date."""
