"""Histories in all forms that users have them in: each understood or refused, none taken for another."""

from __future__ import annotations

import enum
import re
from collections import deque
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from peterrec.data.ids import as_histories, as_history
from peterrec.errors import DataError

ROWS = [["a", "b"], ["c", "d"]]
NUMBERS = [[1, 2], [3, 4]]
pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")


class Colour(str, enum.Enum):  # noqa: UP042 - str() of one is not its value
    RED = "a"


def listed(histories: Any) -> list[list[Any]]:
    """As lists, with the very types of the ids."""
    rows = [list(row) for row in as_histories(histories)]
    assert {type(item) for row in rows for item in row} <= {int, str}
    return rows


@pytest.mark.parametrize("rows", [ROWS, NUMBERS], ids=["texts", "integers"])
@pytest.mark.parametrize(
    "form",
    [
        lambda rows: rows,
        lambda rows: tuple(map(tuple, rows)),
        lambda rows: deque(map(deque, rows)),
        np.array,
        lambda rows: np.array(rows, dtype=object),
        lambda rows: [np.array(row) for row in rows],
        lambda rows: [np.array(row, dtype=object) for row in rows],
        lambda rows: [list(np.array(row)) for row in rows],
        pa.array,
        lambda rows: pa.chunked_array([rows]),
        lambda rows: pa.array(rows, pa.large_list(pa.array(rows[0]).type)),
        lambda rows: [pa.array(row) for row in rows],
        lambda rows: [pa.array(row).dictionary_encode() for row in rows],
        lambda rows: [pandas.Series(row) for row in rows],
        lambda rows: pandas.Series(rows, index=["u", "v"]),
        lambda rows: [polars.Series(row) for row in rows],
        polars.Series,
    ],
)
def test_what_is_a_list_of_lists_is_understood(form, rows):
    assert listed(form(rows)) == rows


def test_more_forms_of_integers_and_texts():
    assert listed(torch.tensor(NUMBERS)) == NUMBERS
    assert listed([torch.tensor([1, 2]), range(3)]) == [[1, 2], [0, 1, 2]]
    assert listed([np.array([7], np.uint8), [np.int16(3), 4]]) == [[7], [3, 4]]
    assert listed([pandas.Series([1, 2], dtype="Int64")]) == [[1, 2]]
    assert listed([[Colour.RED, np.str_("b")]]) == [["a", "b"]]
    assert listed([[2**70, -1]]) == [[2**70, -1]]
    assert listed([]) == listed(np.empty((0, 3), int)) == listed(pa.array([], pa.list_(pa.int64()))) == []
    assert listed([[], (), np.array([], int), pa.array([], pa.string())]) == [[], [], [], []]


def test_an_iterator_of_histories_is_a_list_of_them():
    assert listed(iter([["a"], ["b"]])) == listed(history for history in (["a"], ["b"])) == [["a"], ["b"]]
    with pytest.raises(DataError, match="history 0 is"):
        as_histories([iter(["a"])])


FRAMES = [
    pandas.DataFrame({"user": ["u"], "item": ["a"]}),
    polars.DataFrame({"user": ["u"], "item": ["a"]}),
    polars.LazyFrame({"user": ["u"], "item": ["a"]}),
    pa.table({"user": ["u"], "item": ["a"]}),
    pa.record_batch({"user": ["u"], "item": ["a"]}),
]
NO_LISTS = [
    "ab", b"ab", bytearray(b"ab"), memoryview(b"ab"), {"u": ["a"]}, {"a"}, frozenset("a"),
    {"u": ["a"]}.keys(), {"u": ["a"]}.values(), None, 3, 1.5, True,
    np.int64(3), np.array(3), np.array([3.5]).sum(), object(), len, np.zeros((1, 1, 1), int),
]  # fmt: skip


@pytest.mark.parametrize("wrong", FRAMES, ids=lambda frame: f"{type(frame).__module__}.{type(frame).__name__}")
def test_frames_are_refused_with_what_to_pass(wrong):
    for ask in (as_histories, as_history, lambda frame: as_histories([["a"], frame])):
        with pytest.raises(DataError, match=f"a history is a list of item ids.*{type(wrong).__name__}") as caught:
            ask(wrong)
        assert "['item-1', 'item-2']" in caught.value.remedy
        assert ("peterrec.predict" in caught.value.remedy) == (ask is as_histories), "how events in files are read"


@pytest.mark.parametrize("wrong", NO_LISTS, ids=lambda value: type(value).__name__)
def test_what_is_no_list_is_refused(wrong):
    with pytest.raises(DataError, match="a history is a list of item ids"):
        as_histories(wrong)
    if not isinstance(wrong, np.ndarray) or wrong.ndim != 3:
        with pytest.raises(DataError, match="a history is a list of item ids"):
            as_histories([["a"], wrong])


@pytest.mark.parametrize(
    ("wrong", "match", "remedy"),
    [
        (17.0, "17.0", "integers"),
        (float("nan"), "nan", "integers"),
        (np.float32(2), "2.0", "integers"),
        (None, "None", "without an item"),
        (pandas.NA, "<NA>", "without an item"),
        (pandas.NaT, "NaT", "without an item"),
        (True, "True", "str\\(\\)"),
        (np.True_, "True", "str\\(\\)"),
        (b"a", "b'a'", "decode"),
        (["a"], "\\['a'\\]", "flat list"),
        (("a", 3), "'a', 3", "flat list"),
        (np.array([1]), "array", "flat list"),
        ({"item": 1}, "item", "str\\(\\)"),
        ({"a"}, "'a'", "str\\(\\)"),
        (1 + 2j, "1\\+2j", "str\\(\\)"),
    ],
)
def test_what_is_no_id_is_refused_with_its_place(wrong, match, remedy):
    for history in (["a", "b", wrong], deque([3, "b", wrong])):
        with pytest.raises(DataError, match=f"item 2 of history 1 is .*{match}.*, which is no id") as caught:
            as_histories([["a"], history])
        assert re.search(remedy, caught.value.remedy)


@pytest.mark.parametrize(
    "history",
    [
        np.array([1.0, 2.0]),
        np.array([True]),
        np.array([b"a"]),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.array([1, None]),
        np.array([(1, 2)], dtype="i,i"),
        pa.array([1.0]),
        pa.array([1, None]),
        pa.array([[1]]),
        pandas.Series([1, None]),
        pandas.Series([1, None], dtype="Int64"),
        pandas.Series(["a", None]),
        polars.Series([1, None]),
        polars.Series([1.0]),
        torch.tensor([1.0]),
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}",
)
def test_arrays_of_something_else_than_ids_are_refused(history):
    with pytest.raises(DataError, match=r"of history 0 is .*, which is no id"):
        as_histories([history])
