"""Columns that describe items as numbers: encoders that are fitted once, and used on later items as they are."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float

from peterrec.data.arrow_arrays import single_array
from peterrec.errors import DataError

if TYPE_CHECKING:  # imported where it is used: a second that whoever loads a backbone would wait
    from sklearn.feature_extraction.text import TfidfVectorizer

TEXT_FACTORS = 256  # of the TF-IDF rows of a column of texts
MAX_CATEGORIES = 500  # of a column, the most frequent ones
MIN_ITEMS = 5  # of a category
MAX_WORDS = 50_000  # of a column of texts, the most frequent ones
NO_DEVIATION = 1e-9  # standard deviations up to it are those of a constant
WORDS_OF_TEXT = 3  # on average in a value: from there on a column holds texts, and not categories
NUMBERS = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)

Array = Float[np.ndarray, "items features"]


class ColumnEncoder(ABC):
    """One column as standardised numbers; fitted to the items that are there when it is made.

    Attributes:
        words: texts that it knows, in the order of what stands for them.
        arrays: numbers that it was fitted to.
    """

    kind: ClassVar[str]

    def __init__(self) -> None:
        self.words: tuple[str, ...] = ()
        self.arrays: dict[str, np.ndarray] = {}

    def fit(self, column: pa.Array) -> Array:
        """Learn a column, and return it as numbers of mean 0 and variance 1, without those that never change."""
        self._fit(column)
        values = self._transform(column)
        changing = values.std(axis=0) > NO_DEVIATION
        values = values[:, changing]
        self.arrays |= {
            "changing": np.flatnonzero(changing),
            "mean": values.mean(axis=0),
            "deviation": values.std(axis=0),
        }
        return self._scaled(values)

    def transform(self, column: pa.Array) -> Array:
        """Return a column as the numbers that it was learned as.

        Raises:
            pyarrow.ArrowException, ValueError: it holds something else.
        """
        return self._scaled(self._transform(column)[:, self.arrays["changing"]])

    def _scaled(self, values: Array) -> Array:
        return np.asarray((values - self.arrays["mean"]) / self.arrays["deviation"])

    @abstractmethod
    def _fit(self, column: pa.Array) -> None: ...

    @abstractmethod
    def _transform(self, column: pa.Array) -> Array: ...


class TextEncoder(ColumnEncoder):
    """Texts, or lists of words: factors of their TF-IDF rows."""

    kind = "text"

    def _fit(self, column: pa.Array) -> None:
        from sklearn.decomposition import TruncatedSVD  # noqa: PLC0415

        vectorizer = self._vectorizer(max_features=MAX_WORDS)
        rows = vectorizer.fit_transform(_texts(column))
        self.words = tuple(vectorizer.get_feature_names_out().tolist())
        self.arrays["idf"] = vectorizer.idf_
        factors = min(TEXT_FACTORS, *rows.shape)
        if factors < rows.shape[1]:
            self.arrays["components"] = TruncatedSVD(factors, random_state=0).fit(rows).components_

    def _transform(self, column: pa.Array) -> Array:
        vectorizer = self._vectorizer(vocabulary=self.words)
        vectorizer.idf_ = self.arrays["idf"]
        rows = vectorizer.transform(_texts(column))
        return np.asarray(rows @ self.arrays["components"].T if "components" in self.arrays else rows.toarray())

    @staticmethod
    def _vectorizer(**settings: Any) -> TfidfVectorizer:
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

        return TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+", **settings)


class CategoryEncoder(ColumnEncoder):
    """Categories: a column of 0 and 1 for each that is frequent, and one for all else."""

    kind = "category"

    def _fit(self, column: pa.Array) -> None:
        values, counts = np.unique(np.array(_texts(column), dtype=object), return_counts=True)
        order = np.argsort(-counts, kind="stable")[:MAX_CATEGORIES]
        self.words = tuple(sorted(values[row] for row in order if counts[row] >= MIN_ITEMS))

    def _transform(self, column: pa.Array) -> Array:
        places = {word: place for place, word in enumerate(self.words)}
        chosen = np.array([places.get(text, len(places)) for text in _texts(column)], dtype=np.int64)
        return np.asarray(np.eye(len(places) + 1)[chosen])


class NumberEncoder(ColumnEncoder):
    """Numbers, true or false: themselves, and whether they are missing."""

    kind = "number"

    def _fit(self, column: pa.Array) -> None:
        self.arrays["filling"] = np.array([_mean(self._numbers(column))])

    def _transform(self, column: pa.Array) -> Array:
        values = self._numbers(column)
        is_missing = np.isnan(values)
        return np.column_stack([np.where(is_missing, self.arrays["filling"], values), is_missing])

    @staticmethod
    def _numbers(column: pa.Array) -> np.ndarray:
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.where(np.isfinite(values), values, np.nan)


class VectorEncoder(ColumnEncoder):
    """Lists of numbers, as long as most of them are; missing ones, and those of another length, are the mean."""

    kind = "vector"

    def _fit(self, column: pa.Array) -> None:
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        width = int(np.bincount(lengths[lengths > 0]).argmax()) if (lengths > 0).any() else 0
        self.arrays["filling"] = np.zeros(width)
        self.arrays["filling"] = _mean(self._vectors(column))

    def _transform(self, column: pa.Array) -> Array:
        vectors = self._vectors(column)
        return np.where(np.isnan(vectors), self.arrays["filling"], vectors)

    def _vectors(self, column: pa.Array) -> np.ndarray:
        width = len(self.arrays["filling"])
        vectors = np.full((len(column), width), np.nan)
        rows = np.flatnonzero(pc.fill_null(pc.list_value_length(column), 0).to_numpy() == width)
        if width and len(rows):
            flat = pc.list_flatten(column.take(pa.array(rows))).cast(pa.float64())
            vectors[rows] = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
        return np.where(np.isfinite(vectors), vectors, np.nan)


COLUMN_ENCODERS: dict[str, type[ColumnEncoder]] = {
    encoder.kind: encoder for encoder in (TextEncoder, CategoryEncoder, NumberEncoder, VectorEncoder)
}


class ContentEncoder:
    """Encoder of a table that describes items.

    Attributes:
        columns: encoder of each column that is read.
    """

    def __init__(self, columns: Mapping[str, ColumnEncoder]) -> None:
        self.columns = dict(columns)

    @classmethod
    def fit(cls, table: pa.Table) -> tuple[ContentEncoder, Array]:
        """Return an encoder of the columns that say something of some items, and what it says of these."""
        encoders, parts = {}, [np.zeros((len(table), 0))]
        for name in table.column_names:
            column = single_array(table[name])
            if (kind := _kind(column)) is None:
                continue
            encoder = COLUMN_ENCODERS[kind]()
            values = encoder.fit(column)
            if values.shape[1]:
                encoders[name] = encoder
                parts.append(values)
        return cls(encoders), np.column_stack(parts)

    def transform(self, table: pa.Table, path: str = "items") -> Array:
        """Return what other items are in the numbers that it was fitted to.

        Raises:
            DataError: a column is missing, or holds something else.
        """
        parts = [np.zeros((len(table), 0))]
        for name, encoder in self.columns.items():
            remedy = "give the items the same columns as those that the encoder was fitted to"
            if name not in table.column_names:
                raise DataError(f"does not have the column {name}", remedy=remedy, path=path)
            try:
                parts.append(encoder.transform(single_array(table[name])))
            except (pa.ArrowException, ValueError, TypeError) as error:
                raise DataError(f"column {name} holds no {encoder.kind} ({error})", remedy=remedy, path=path) from error
        return np.column_stack(parts)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return plain values, and arrays by name, of which `from_state` makes it again."""
        columns = {name: {"kind": encoder.kind, "words": list(encoder.words)} for name, encoder in self.columns.items()}
        arrays = {
            f"{place}.{key}": array
            for place, encoder in enumerate(self.columns.values())
            for key, array in encoder.arrays.items()
        }
        return columns, arrays

    @classmethod
    def from_state(cls, columns: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> ContentEncoder:
        """Return the encoder of a state."""
        encoders = {}
        for place, (name, column) in enumerate(columns.items()):
            encoder = COLUMN_ENCODERS[column["kind"]]()
            encoder.words = tuple(column["words"])
            prefix = f"{place}."
            encoder.arrays = {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}
            encoders[name] = encoder
        return cls(encoders)


def _kind(column: pa.Array) -> str | None:
    """Return the kind of encoder for a column; None where it is of a type that is left out."""
    if _is_list(column.type):
        is_number = pa.types.is_floating(column.type.value_type) or pa.types.is_integer(column.type.value_type)
        return "vector" if is_number else _text_kind(column)
    if any(is_kind(column.type) for is_kind in NUMBERS):
        return "number"
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return _text_kind(column) if is_text else None


def _text_kind(column: pa.Array) -> str | None:
    texts = _texts(column)
    words = sum(len(re.findall(r"\w+", text)) for text in texts) / max(1, len(texts))
    return "text" if words >= WORDS_OF_TEXT else "category"


def _texts(column: pa.Array) -> list[str]:
    if _is_list(column.type):
        column = pc.binary_join(column.cast(pa.list_(pa.string())), " ")
    texts: list[str] = pc.fill_null(column.cast(pa.string()), "").to_pylist()
    return texts


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean of the rows that are there; 0 where none is."""
    count = (~np.isnan(values)).sum(axis=0)
    return np.asarray(np.nansum(values, axis=0) / np.maximum(count, 1))
