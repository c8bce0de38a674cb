"""Columns as single arrays: the plain types while they fit, the large ones beyond a limit, here forced to be small."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peterrec.data import arrow_arrays
from peterrec.data.arrow_arrays import as_text, from_lists, single_array, to_lists
from peterrec.data.catalogue import Catalogue
from peterrec.data.sequences import Sequences

TEXTS = pa.chunked_array([["a", "bb"], [], ["ccc", "ü"]])
ROWS = [[1, 2, 3], [], [4], [5, 6], []]


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if arrays of the plain types had room for four bytes or values."""
    monkeypatch.setattr(arrow_arrays, "LIMIT", 4)


@pytest.mark.parametrize("values", [TEXTS, TEXTS.cast(pa.large_string()), pa.chunked_array([[1, 22], [333]])])
def test_texts_are_plain_while_they_fit(values: pa.ChunkedArray) -> None:
    assert as_text(values).type == pa.string()
    assert as_text(values).to_pylist() == [str(value) for value in values.to_pylist()]


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("values", [TEXTS, TEXTS.cast(pa.large_string()), pa.chunked_array([[1, 22], [333]])])
def test_texts_that_are_too_long_together_are_large(values: pa.ChunkedArray) -> None:
    assert as_text(values).type == pa.large_string()
    assert as_text(values).to_pylist() == [str(value) for value in values.to_pylist()]


@pytest.mark.usefixtures("small_limit")
def test_a_single_array_of_texts_is_large_where_it_must() -> None:
    assert single_array(TEXTS).type == pa.large_string()
    assert single_array(TEXTS).to_pylist() == TEXTS.to_pylist()
    numbers = pa.chunked_array([[1, 2], [3]])
    assert single_array(numbers).equals(pa.array([1, 2, 3]))


@pytest.mark.parametrize("kind", [pa.list_(pa.int32()), pa.large_list(pa.int32())])
def test_lists_of_several_chunks_are_one_sequence_of_rows(kind: pa.DataType) -> None:
    lists = pa.array([[9], *ROWS, [8]], kind)
    column = pa.chunked_array([lists.slice(1, 2), lists.slice(3, 0), lists.slice(3, 3)])
    sequences = from_lists(column)
    assert [row.tolist() for row in sequences] == ROWS
    assert (sequences.items.dtype, sequences.offsets.dtype) == (np.int32, np.int64)
    assert [row.tolist() for row in from_lists(pa.chunked_array([], kind))] == []


def test_rows_are_lists_and_come_back() -> None:
    lists = to_lists(Sequences.from_rows(ROWS))
    assert lists.type == pa.list_(pa.int32())
    assert lists.to_pylist() == ROWS


@pytest.mark.usefixtures("small_limit")
def test_rows_of_too_many_values_are_large_lists() -> None:
    lists = to_lists(Sequences.from_rows(ROWS))
    assert lists.type == pa.large_list(pa.int32())
    assert lists.to_pylist() == ROWS


@pytest.mark.usefixtures("small_limit")
def test_a_catalogue_of_long_ids_says_what_one_of_short_ids_says(tmp_path, monkeypatch) -> None:
    ids = pa.chunked_array([["a", "bb", "ccc"], ["7", "ü"]])
    large = Catalogue(ids, np.arange(5))
    large.write(tmp_path / "catalogue.parquet")
    large_again = Catalogue.read(tmp_path / "catalogue.parquet")
    assert large.ids.type == large_again.ids.type == pa.large_string()
    monkeypatch.setattr(arrow_arrays, "LIMIT", 2**31 - 1)
    plain = Catalogue(ids, np.arange(5))
    assert plain.ids.type == pa.string()
    asked_ids = ["ccc", 7, "nowhere", "ü", "a"] * 100
    for catalogue in (large, large_again):
        assert (catalogue.id_type, catalogue.fingerprint) == ("text", plain.fingerprint)
        assert catalogue.encode(asked_ids).tolist() == plain.encode(asked_ids).tolist()
        assert catalogue.encode(pa.array(["bb", "x"])).tolist() == plain.encode(["bb", "x"]).tolist()
        assert catalogue.knows(asked_ids).tolist() == plain.knows(asked_ids).tolist()
        assert catalogue.decode(np.array([4, 8])) == ["a", "ü"]
    plain.write(tmp_path / "plain.parquet")
    assert pq.read_table(tmp_path / "plain.parquet").column("item_id").type == pa.string()
