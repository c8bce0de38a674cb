"""Tables that describe items (texts, categories, numbers, vectors), and what they say of those of a catalogue."""

from __future__ import annotations

import hashlib
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from peterrec.data.arrow_arrays import single_array
from peterrec.data.catalogue import Catalogue
from peterrec.data.content_encoder import Array, ContentEncoder
from peterrec.data.frames import FrameFiles, is_dataframe
from peterrec.errors import DataError

FORM = "give a Parquet or CSV file, or a DataFrame, with the column item_id and others that describe the items"


class ItemContent:
    """Table of items with columns that describe them: texts, categories, numbers, lists of numbers such as embeddings.

    Args:
        source: Parquet, CSV or a DataFrame with a column of ids. Of several rows of an item the first counts.
        column: with the ids.

    Raises:
        DataError: it cannot be read, lacks the column, or has no other one that can be used.
    """

    def __init__(self, source: Any, column: str = "item_id") -> None:
        table, self.path = _read(source, column)
        first = pa.table({"id": table[column], "row": np.arange(len(table))}).group_by("id").aggregate([("row", "min")])
        table = table.take(pa.array(np.sort(first["row_min"].to_numpy())))
        self.ids = single_array(table[column])
        self.table = table.select(sorted(set(table.column_names) - {column}))
        if not self.table.num_columns:
            raise DataError("has no column beside the ids", remedy=FORM, path=self.path)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hexadecimal) of ids and columns."""
        digest = hashlib.sha256()
        table = self.table.append_column("item_id", self.ids)
        for name in table.column_names:
            digest.update(f"{name} {table.schema.field(name).type}\n".encode())
            digest.update(repr(table[name].to_pylist()).encode())
        return digest.hexdigest()

    def new_ids(self, catalogue: Catalogue) -> pa.Array:
        """Return the ids that a catalogue lacks, in the order of the table."""
        return self.ids.filter(pa.array(~catalogue.knows(self.ids)))

    def fit(self, catalogue: Catalogue) -> tuple[ContentEncoder, Array]:
        """Return an encoder that is fitted to the items of a catalogue, and their `features`.

        Texts become factors of their TF-IDF rows, categories (in which few words stand) columns of 0 and 1; numbers and
        vectors are standardised. An item that is not in the table has the mean of each, and a 1 in a column of its own.

        Raises:
            DataError: it describes none of the items, or has no column that can be used.
        """
        is_there, rows = self._rows(catalogue)
        if not is_there.any():
            raise DataError("describes no item of the catalogue", remedy="check the column item_id", path=self.path)
        encoder, values = ContentEncoder.fit(rows)
        if not encoder.columns:
            raise DataError("has no column of texts, numbers or lists of numbers", remedy=FORM, path=self.path)
        return encoder, _with_missing(values, is_there)

    def features(self, catalogue: Catalogue, encoder: ContentEncoder) -> Array:
        """Return numbers for each item of a catalogue, by an encoder that was fitted to others.

        Raises:
            DataError: the table lacks a column of theirs.
        """
        is_there, rows = self._rows(catalogue)
        return _with_missing(encoder.transform(rows, self.path), is_there)

    def _rows(self, catalogue: Catalogue) -> tuple[npt.NDArray[np.bool_], pa.Table]:
        """Return which items of a catalogue are in the table, and the rows of those."""
        places = Catalogue(self.ids, np.zeros(len(self.ids), dtype=np.int64), first=0).encode(catalogue.ids)
        return places >= 0, self.table.take(pa.array(places[places >= 0]))


def _with_missing(values: Array, is_there: npt.NDArray[np.bool_]) -> Array:
    features = np.zeros((len(is_there), 1 + values.shape[1]))
    features[is_there, 1:] = values
    features[~is_there, 0] = 1.0
    return features


def read_item_ids(source: Any, column: str = "item_id") -> pa.Array:
    """Return the ids of a table of items; arguments and errors as those of `ItemContent`, but for other columns."""
    return single_array(_read(source, column)[0][column])


def _read(source: Any, column: str) -> tuple[pa.Table, str]:
    """Return the rows of a table that have an id, and what it is called in messages."""
    table, path = _read_table(source)
    if column not in table.column_names:
        raise DataError(f"does not have the column {column}", remedy=FORM, path=path)
    return table.filter(table[column].is_valid()), path


def _read_table(source: Any) -> tuple[pa.Table, str]:
    if is_dataframe(source):
        with tempfile.TemporaryDirectory(prefix="peterrec-") as folder, FrameFiles(Path(folder)) as frames:
            path = frames.write(source, "items")
            return pq.read_table(path), frames.name_of(path) or "items"
    path = Path(source)
    try:
        if path.suffix in (".parquet", ".pq"):
            return pq.read_table(path), str(path)
        as_text = pa_csv.ConvertOptions(column_types={"item_id": pa.string()})  # an id such as 007 is not the number 7
        lines = pa_csv.ParseOptions(newlines_in_values=True)
        return pa_csv.read_csv(path, parse_options=lines, convert_options=as_text), str(path)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DataError(f"cannot be read ({error})", remedy=FORM, path=path) from error
