"""Histories of external ids to indices; what the model does not know is counted and never a surprise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import tiny_catalogue
from peterrec.data.encoding import encode_histories
from peterrec.data.sequences import FIRST_ITEM, UNK
from peterrec.errors import ConfigError, DataError, UnknownItemsError

CATALOGUE_IDS = [f"item-{i}" for i in range(12)]
CATALOGUE = tiny_catalogue()
histories_of = st.lists(st.lists(st.sampled_from([*CATALOGUE_IDS, "x", "y", "item-12"]), max_size=6), max_size=6)


def index_of(item: str) -> int:
    return FIRST_ITEM + CATALOGUE_IDS.index(item) if item in CATALOGUE_IDS else UNK


@given(histories_of, st.sampled_from(["skip", "unk"]))
def test_any_histories_against_plain_lists(histories, unknown):
    flat = [item for history in histories for item in history]
    if flat and not set(flat) & set(CATALOGUE_IDS):
        with pytest.raises(UnknownItemsError):
            encode_histories(CATALOGUE, histories, unknown)
        return
    encoded = encode_histories(CATALOGUE, histories, unknown)
    indices = [[index_of(item) for item in history] for history in histories]
    expected = indices if unknown == "unk" else [[i for i in row if i != UNK] for row in indices]
    assert [row.tolist() for row in encoded.sequences] == expected
    assert encoded.unknown_counts.tolist() == [row.count(UNK) for row in indices]
    assert (encoded.sequences.items.dtype, encoded.unknown_counts.dtype) == (np.int32, np.int64)


def test_any_unknown_item_is_an_error_if_asked():
    assert encode_histories(CATALOGUE, [["item-3"], []], "error").sequences[0].tolist() == [FIRST_ITEM + 3]
    with pytest.raises(UnknownItemsError) as caught:
        encode_histories(CATALOGUE, [["item-3"], ["item-1", "x", "y"]], "error")
    assert "2 of 4 items" in caught.value.message
    assert "'x'" in caught.value.message, "an example of what was asked"
    assert "text ids such as 'item-0'" in caught.value.message, "an example of what there is"


@pytest.mark.parametrize("unknown", ["skip", "unk", "error"])
def test_not_one_known_item_is_an_error_whatever_was_asked(unknown):
    with pytest.raises(UnknownItemsError, match=r"2 of 2 items .* 7 .*integer ids such as 100"):
        encode_histories(tiny_catalogue(integers=True), [[7], [8]], unknown)


@pytest.mark.parametrize("unknown", ["skip", "unk", "error"])
@pytest.mark.parametrize("histories", [[], [[]], [[], []]])
def test_users_of_whom_nothing_is_known_are_fine(unknown, histories):
    encoded = encode_histories(CATALOGUE, histories, unknown)
    assert [row.tolist() for row in encoded.sequences] == histories
    assert encoded.unknown_counts.tolist() == [0] * len(histories)


def test_text_and_integers_match_across_types():
    integers = tiny_catalogue(integers=True)
    assert encode_histories(integers, [["101", "0101"], [100]], "unk").sequences.items.tolist() == [5, UNK, 4]
    assert encode_histories(integers, [np.array([101, 100])], "skip").sequences[0].tolist() == [5, 4]
    assert encode_histories(integers, [("101",), np.array(["100"])], "skip").sequences.items.tolist() == [5, 4]


@pytest.mark.parametrize(
    "histories",
    [
        "item-1",
        b"item-1",
        ["item-1", "item-2"],
        [["item-1"], "item-2"],
        [100, 101],
        [["item-1"], None],
        iter(["item-1"]),
        [iter(["item-1"])],
    ],
    ids=["text", "bytes", "ids", "an id last", "integers", "none", "an iterator of ids", "an iterator for a list"],
)
def test_an_id_where_a_list_of_ids_is_meant(histories):
    with pytest.raises(DataError, match="a history is a list of item ids"):
        encode_histories(CATALOGUE, histories, "skip")


@pytest.mark.parametrize("unknown", ["drop", "", "SKIP"])
def test_a_misspelled_treatment_is_refused(unknown):
    with pytest.raises(ConfigError, match="use skip, unk or error"):
        encode_histories(CATALOGUE, [["item-1"]], unknown)
