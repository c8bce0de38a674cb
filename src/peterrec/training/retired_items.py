"""Items that a backbone reads and does not recommend any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from peterrec.data.catalogue import Catalogue, ItemId
from peterrec.data.item_content import read_item_ids
from peterrec.errors import DataError


def retired_items(catalogue: Catalogue, table: Any, earlier: Sequence[ItemId] = ()) -> tuple[ItemId, ...]:
    """Return the items of a catalogue that a table names, and those that were retired before, in its order.

    Args:
        catalogue: of the backbone.
        table: Parquet, CSV or a DataFrame with a column `item_id`; items that the catalogue lacks are not looked at.
        earlier: items that were retired before.

    Raises:
        DataError: the catalogue has none of them, or no other; or the table cannot be read.
    """
    named = np.asarray(catalogue.encode(read_item_ids(table))) - catalogue.first
    named = named[(named >= 0) & (named < len(catalogue))]
    if not len(named):
        raise DataError("none of the items to retire is in the catalogue", remedy="check the column item_id")
    places = np.union1d(named, np.asarray(catalogue.find(earlier), dtype=np.int64) - catalogue.first)
    if len(places) == len(catalogue):
        raise DataError("all items would be retired", remedy="leave some in")
    items: list[ItemId] = catalogue.ids.take(pa.array(places.astype(np.int64))).to_pylist()
    return tuple(items)
