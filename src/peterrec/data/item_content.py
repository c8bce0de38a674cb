"""Content of items (texts, categories, numbers, vectors) as numbers, by scikit-learn's encoders."""

from __future__ import annotations

import hashlib
import re
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from jaxtyping import Float
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from peterrec.data.arrow_arrays import single_array
from peterrec.data.catalogue import Catalogue
from peterrec.data.frames import FrameFiles, is_dataframe
from peterrec.errors import DataError

TEXT_FACTORS = 128  # of the TF-IDF rows of a column of texts
MAX_CATEGORIES = 500  # of a column; rarer ones are one category
MIN_ITEMS = 5  # of a category
MAX_WORDS = 50_000  # of a column of texts, the most frequent ones
NO_DEVIATION = 1e-9  # standard deviations up to it are those of a constant
WORDS_OF_TEXT = 3  # on average in a value: from there on a column holds texts, and not categories
NUMBERS = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
FORM = "give a Parquet or CSV file, or a DataFrame, with the column item_id and others that describe the items"

Array = Float[np.ndarray, "items features"]


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

    def features(self, catalogue: Catalogue) -> Array:
        """Return numbers for each item of a catalogue; encoders are fitted on the rows of its items.

        Texts become factors of their TF-IDF rows, categories (in which few words stand) columns of 0 and 1; numbers and
        vectors are standardised. An item that is not in the table has the mean of each, and a 1 in a column of its own.
        """
        places = Catalogue(self.ids, np.zeros(len(self.ids), dtype=np.int64), first=0).encode(catalogue.ids)
        is_there = places >= 0
        if not is_there.any():
            raise DataError("describes no item of the catalogue", remedy="check the column item_id", path=self.path)
        rows = self.table.take(pa.array(places[is_there]))
        encoded = (_encoded(single_array(rows[name])) for name in rows.column_names)
        parts = [part for part in encoded if part is not None]
        if not parts:
            raise DataError("has no column of texts, numbers or lists of numbers", remedy=FORM, path=self.path)
        features = np.zeros((len(catalogue), 1 + sum(part.shape[1] for part in parts)))
        features[is_there, 1:] = np.column_stack(parts)
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


def _encoded(column: pa.Array) -> Array | None:
    """Return a column as numbers of mean 0; None where it is of a type that is left out, or says nothing."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type):
            return _scaled(_vectors(column))
        column = pc.binary_join(column.cast(pa.list_(pa.string())), " ")
        kind = column.type
    if any(is_kind(kind) for is_kind in NUMBERS):
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)[:, None]
        return _scaled(SimpleImputer(add_indicator=True, keep_empty_features=True).fit_transform(values))
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    texts = pc.fill_null(column, "").to_pylist()
    words = sum(len(re.findall(r"\w+", text)) for text in texts) / max(1, len(texts))
    return _scaled(_text_factors(texts) if words >= WORDS_OF_TEXT else _categories(texts))


def _text_factors(texts: list[str]) -> Array:
    counts = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+", max_features=MAX_WORDS).fit_transform(texts)
    factors = min(TEXT_FACTORS, *counts.shape)
    if factors == counts.shape[1]:
        return np.asarray(counts.toarray())
    return np.asarray(TruncatedSVD(factors, random_state=0).fit_transform(counts))


def _categories(texts: list[str]) -> Array:
    encoder = OneHotEncoder(min_frequency=MIN_ITEMS, max_categories=MAX_CATEGORIES, sparse_output=False)
    return np.asarray(encoder.fit_transform([[text] for text in texts]))


def _vectors(column: pa.Array) -> Array:
    """Return lists as rows; missing ones, and those of another length than most, as their mean."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    width = int(np.bincount(lengths).argmax()) if len(lengths) and lengths.max() > 0 else 0
    width = width or int(lengths.max(initial=0))
    vectors = np.full((len(column), width), np.nan)
    for row in np.flatnonzero(lengths == width):
        vectors[row] = column[int(row)].as_py()
    return np.asarray(SimpleImputer(keep_empty_features=True).fit_transform(vectors))


def _scaled(values: Array) -> Array | None:
    """Return values with mean 0 and variance 1, without columns that are the same everywhere; None if all are."""
    values = values[:, values.std(axis=0) > NO_DEVIATION]
    return np.asarray(StandardScaler().fit_transform(values)) if values.shape[1] else None
