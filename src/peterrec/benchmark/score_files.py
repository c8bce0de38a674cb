"""Files of scores that anybody may hand in, checked row by row before anything is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from peterrec.benchmark.folder import texts
from peterrec.benchmark.protocol import K
from peterrec.data.corpus import DAMAGED
from peterrec.errors import DataError

TOLERANCE = 1e-3  # of the sum of a row: a half-precision softmax is no better
WRITE_USERS = "write one row for each user of histories/test-first-N.parquet, with N of the task"


def read_probabilities(path: Path, users: Sequence[str], classes: Sequence[str]) -> Float[np.ndarray, "U C"]:
    """Read class probabilities of users, in their order.

    Args:
        path: Parquet with `user_id` and a column of probabilities for each class.
        users: that must have one row each.
        classes: names of the columns, in the order of the result.

    Raises:
        DataError: the file is not that; the message names the row (the first is 0) and the user.
    """
    table = _read(path)
    _check_columns(path, table, [*classes])
    try:
        values = np.stack([table[name].cast(pa.float64()).to_numpy() for name in classes], axis=1)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"a probability is no number ({error})", remedy="write floats", path=path) from error
    ids = texts(table["user_id"])
    rows = _rows(path, ids, users)
    values = np.asarray(values, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        faults = {
            "a probability is missing, not a number or infinite": ~np.isfinite(values).all(axis=1),
            "a probability is negative": (values < 0).any(axis=1),
            "the probabilities do not sum to 1": np.abs(values.sum(axis=1) - 1.0) > TOLERANCE,
        }
    for problem, is_faulty in faults.items():
        if is_faulty.any():
            row = int(np.argmax(is_faulty))
            shown = ", ".join(f"{name}: {value:g}" for name, value in zip(classes, values[row], strict=True))
            remedy = f"write probabilities from 0 to 1 that sum to 1 within {TOLERANCE}"
            raise _row_error(path, row, ids[row], f"{problem} ({shown})", remedy)
    return values[rows]


def read_rankings(
    path: Path, own_items: Mapping[str, AbstractSet[str]], catalogue: AbstractSet[str]
) -> list[list[str]]:
    """Read the ranked items of users, in their order, as texts.

    Args:
        path: Parquet with `user_id` and `items`, a list of at most `K` items, best first.
        own_items: users that must have one row each, with the items of their histories: these may not be ranked.
        catalogue: items that may be.

    Raises:
        DataError: the file is not that; the message names the row (the first is 0) and the user.
    """
    table = _read(path)
    _check_columns(path, table, ["items"])
    kind = table["items"].type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise DataError(f"the column items is of type {kind}", remedy="make it a list column of item ids", path=path)
    ids = texts(table["user_id"])
    rows = _rows(path, ids, list(own_items))
    rankings = [
        _ranking(path, row, user, items, catalogue, own_items[user])
        for row, (user, items) in enumerate(zip(ids, table["items"].to_pylist(), strict=True))
    ]
    return [rankings[row] for row in rows]


def _ranking(
    path: Path, row: int, user: str, items: list[Any] | None, catalogue: AbstractSet[str], history: AbstractSet[str]
) -> list[str]:
    """Return the items of a row as texts."""
    if items is None or None in items:
        raise _row_error(
            path, row, user, "the list, or an item of it, is missing", "write an empty list if there is none"
        )
    ranking = [str(item) for item in items]
    if len(ranking) > K:
        raise _row_error(path, row, user, f"there are {len(ranking)} items", f"write the best {K} at most")
    item, count = Counter(ranking).most_common(1)[0] if ranking else ("", 0)
    if count > 1:
        raise _row_error(path, row, user, f"the item {item!r} stands in it {count} times", "write each item once")
    for item in ranking:
        if item not in catalogue:
            raise _row_error(path, row, user, f"the item {item!r} is unknown", "rank items of items.parquet only")
        if item in history:
            remedy = "leave out the items of the user's own history: they are no candidates"
            raise _row_error(path, row, user, f"the item {item!r} is in the history", remedy)
    return ranking


def _read(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise DataError("there is no such file", remedy="check the path of the scores", path=path) from None
    except DAMAGED as error:
        raise DataError(
            f"is not a readable Parquet file ({error})", remedy="write scores as Parquet", path=path
        ) from error
    return table


def _check_columns(path: Path, table: pa.Table, names: list[str]) -> None:
    wanted = ["user_id", *names]
    if sorted(table.column_names) != sorted(wanted):
        missing = [name for name in wanted if name not in table.column_names]
        unknown = [name for name in table.column_names if name not in wanted]
        problem = " and ".join(
            f"{fault}: {', '.join(columns)}"
            for fault, columns in (("lacks the columns", missing), ("has columns that are no classes", unknown))
            if columns
        )
        raise DataError(problem or "has a column twice", remedy=f"write the columns {', '.join(wanted)}", path=path)


def _rows(path: Path, ids: list[Any], users: Sequence[str]) -> list[int]:
    """Return the row of each user."""
    wanted, rows = set(users), dict[str, int]()
    for row, user in enumerate(ids):
        if user is None:
            raise _row_error(path, row, user, "the user_id is missing", WRITE_USERS)
        if user not in wanted:
            raise _row_error(path, row, user, "no test user of the task has this id", WRITE_USERS)
        if user in rows:
            raise _row_error(path, row, user, f"the user stands in row {rows[user]} already", WRITE_USERS)
        rows[user] = row
    absent = [user for user in users if user not in rows]
    if absent:
        problem = f"lacks {len(absent)} of {len(users)} test users, such as {', '.join(map(repr, absent[:3]))}"
        raise DataError(problem, remedy=WRITE_USERS, path=path)
    return [rows[user] for user in users]


def _row_error(path: Path, row: int, user: str | None, problem: str, remedy: str) -> DataError:
    return DataError(f"row {row} (counted from 0; user {user!r}): {problem}", remedy=remedy, path=path)
