"""Ragged arrays against plain Python lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peterrec.data.sequences import FIRST_ITEM, MASK, PAD, SPECIAL_TOKENS, TCL, UNK, Sequences, pad_windows

rows_of_items = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=6), max_size=7)


def as_lists(sequences: Sequences) -> list[list[int]]:
    return [sequences[row].tolist() for row in range(len(sequences))]


def test_the_special_tokens_are_part_of_the_format():
    assert (PAD, TCL, MASK, UNK, FIRST_ITEM) == (0, 1, 2, 3, 4)
    assert SPECIAL_TOKENS == ("[PAD]", "[TCL]", "[MASK]", "[UNK]")


@given(rows_of_items)
def test_rows_come_back(rows):
    sequences = Sequences.from_rows(rows)
    assert len(sequences) == len(rows)
    assert as_lists(sequences) == rows
    assert [row.tolist() for row in sequences] == rows
    assert sequences.lengths.tolist() == [len(row) for row in rows]
    assert sequences.repeat().tolist() == [i for i, row in enumerate(rows) for _ in row]
    assert (sequences.items.dtype, sequences.offsets.dtype) == (np.int32, np.int64)
    assert sequences.offsets.tolist() == [sum(map(len, rows[:i])) for i in range(len(rows) + 1)]


@given(rows_of_items, st.integers(-9, 9))
def test_a_row_is_found_as_in_a_list(rows, index):
    sequences = Sequences.from_rows(rows)
    if -len(rows) <= index < len(rows):
        assert sequences[index].tolist() == rows[index]
    else:
        with pytest.raises(IndexError):
            sequences[index]


@given(rows_of_items, st.data())
def test_taking_rows(rows, data):
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)) if rows else []
    taken = Sequences.from_rows(rows).take(np.array(chosen, dtype=np.int64))
    assert as_lists(taken) == [rows[i] for i in chosen]
    assert Sequences.from_rows(rows).lengths_of(np.array(chosen, dtype=np.int64)).tolist() == [
        len(rows[i]) for i in chosen
    ]
    assert taken.offsets[0] == 0


@given(rows_of_items, st.data())
def test_taken_rows_can_be_taken_from(rows, data):
    order = data.draw(st.permutations(range(len(rows))))
    back = np.argsort(order).astype(np.int64)
    assert as_lists(Sequences.from_rows(rows).take(np.array(order, dtype=np.int64)).take(back)) == rows


def test_taking_from_a_memory_map_copies(tmp_path):
    np.save(tmp_path / "items.npy", np.arange(5, dtype=np.int32))
    items = np.load(tmp_path / "items.npy", mmap_mode="r")
    taken = Sequences(items, np.array([0, 2, 5])).take(np.array([1]))
    taken.items[:] = 0  # a read-only map would refuse
    assert items.tolist() == [0, 1, 2, 3, 4]


@given(st.lists(st.integers(4, 99), max_size=12), st.integers(0, 5), st.data())
def test_windows_are_padded_on_the_right(items, width, data):
    starts, lengths = [], []
    for _ in range(data.draw(st.integers(0, 4))):
        length = data.draw(st.integers(0, min(width, len(items))))
        lengths.append(length)
        starts.append(data.draw(st.integers(0, len(items) - length)))
    out = pad_windows(np.array(items, np.int32), np.array(starts, int), np.array(lengths, int), width)
    expected = [
        items[start : start + length] + [PAD] * (width - length) for start, length in zip(starts, lengths, strict=True)
    ]
    assert out.shape == (len(starts), width)
    assert out.dtype == np.int64
    assert out.tolist() == expected
