"""External ids to indices and back, and a fingerprint of the ids, their order and their type alone."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peterrec.data.catalogue import Catalogue
from peterrec.data.sequences import FIRST_ITEM, UNK
from peterrec.errors import ArtifactError, DataError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
integers = st.integers(-(2**63), 2**63 - 1)
id_lists = st.one_of(
    st.lists(texts, min_size=1, max_size=8, unique=True), st.lists(integers, min_size=1, max_size=8, unique=True)
)


def catalogue(ids: list, *, first: int = FIRST_ITEM) -> Catalogue:
    return Catalogue(pa.array(ids), np.arange(len(ids), 0, -1), first=first)


@given(id_lists, st.lists(st.one_of(texts, integers, st.integers(0, 20), st.integers(0, 20).map(str))))
def test_one_at_a_time_they_are_found_as_all_together(ids, queries):
    a_catalogue = catalogue(ids)
    indices = a_catalogue.find([*queries, *ids[:2]])
    assert indices == [int(a_catalogue.encode([item])[0]) for item in [*queries, *ids[:2]]]
    assert catalogue(ids, first=0).find(queries) == catalogue(ids, first=0).encode(queries).tolist()


@pytest.mark.parametrize("as_type", [str, int])
@pytest.mark.parametrize("first", [0, FIRST_ITEM])
def test_few_and_many_ids_of_a_large_catalogue_are_encoded_alike(as_type, first):
    ids = ["None", *map(str, range(300))] if as_type is str else [*range(300)]
    a_catalogue = catalogue(ids, first=first)
    unknown = a_catalogue.unknown_index
    queries, expected = [ids[7], None, as_type(900)], [first + 7, unknown, unknown]
    assert a_catalogue.encode(pa.array(queries)).tolist() == expected
    assert a_catalogue.encode(pa.array(queries * 100)).tolist() == expected * 100
    assert a_catalogue.encode([str(ids[7]), "x"]).tolist() == [first + 7, unknown]


# ---------------------------------------------------------------- there and back


@given(id_lists, st.sampled_from([0, FIRST_ITEM]), st.data())
def test_ids_become_consecutive_indices_and_come_back(ids, first, data):
    a_catalogue = catalogue(ids, first=first)
    assert len(a_catalogue) == len(ids)
    assert a_catalogue.encode(ids).tolist() == list(range(first, first + len(ids)))
    queries = data.draw(st.lists(st.sampled_from(ids)))
    assert a_catalogue.decode(a_catalogue.encode(queries)) == queries


@given(id_lists, st.data())
def test_what_is_not_there_is_unknown(ids, data):
    id_strategy = texts if isinstance(ids[0], str) else integers
    queries = data.draw(st.lists(id_strategy.filter(lambda value: value not in ids) | st.sampled_from(ids), max_size=6))
    a_catalogue = catalogue(ids)
    assert a_catalogue.knows(queries).tolist() == [value in ids for value in queries]
    assert a_catalogue.encode(queries).tolist() == [FIRST_ITEM + ids.index(v) if v in ids else UNK for v in queries]


def test_an_unknown_target_is_no_target():
    assert catalogue(["a", "b", "c", "d"], first=0).encode(["d", "x"]).tolist() == [3, -1], (
        "3 is [UNK] only in a source"
    )


@pytest.mark.parametrize(
    "container", [list, tuple, pa.array, lambda ids: pa.chunked_array([ids[:1], ids[1:]]), np.array]
)
@pytest.mark.parametrize("ids", [["a", "b"], [7, 8]], ids=["text", "integers"])
def test_ids_come_in_any_container(container, ids):
    a_catalogue = catalogue(ids)
    assert a_catalogue.encode(container([ids[1], ids[0]])).tolist() == [5, 4]
    assert a_catalogue.knows(container(ids)).tolist() == [True, True]


def test_nothing_gives_nothing():
    for a_catalogue in (catalogue(["a"]), catalogue([1])):
        assert (
            a_catalogue.encode([]).tolist()
            == a_catalogue.knows([]).tolist()
            == a_catalogue.decode(np.array([], dtype=int))
            == []
        )


@pytest.mark.parametrize("index", [FIRST_ITEM - 1, FIRST_ITEM + 2, -1])
def test_only_items_can_be_decoded(index):
    with pytest.raises(DataError, match="not an item of the catalogue"):
        catalogue(["a", "b"]).decode(np.array([FIRST_ITEM, index]))


# ---------------------------------------------------------------- text for integers and the other way round


@given(st.lists(integers, min_size=1, max_size=8, unique=True))
def test_decimal_digits_match_integers_both_ways(ids):
    digits = [str(value) for value in ids]
    expected = list(range(FIRST_ITEM, FIRST_ITEM + len(ids)))
    assert catalogue(ids).encode(digits).tolist() == expected
    assert catalogue(digits).encode(ids).tolist() == expected
    assert catalogue(digits).encode(pa.array(ids)).tolist() == expected


@pytest.mark.parametrize(
    "text",
    ["07", "+7", " 7", "7 ", "7\n", "7.0", "7e0", "0x7", "0_7", "\N{ARABIC-INDIC DIGIT SEVEN}", "-0", "", "seven", "-"],
)
def test_other_ways_to_write_a_number_are_not_that_integer(text):
    assert catalogue([7, 0]).encode([text, "7", "0"]).tolist() == [UNK, 4, 5]


def test_a_mixed_list_is_read_as_text():
    assert catalogue(["7", "x"]).encode([7, "x", "7"]).tolist() == [4, 5, 4]
    assert catalogue([7, 8]).encode([8, "x", "7"]).tolist() == [5, UNK, 4]


def test_integers_of_any_type_and_size():
    a_catalogue = catalogue([7, 2**63 - 1])
    assert a_catalogue.encode(pa.array([7], pa.uint8())).tolist() == [4]
    assert a_catalogue.encode([2**63 - 1, 2**63, 10**30, -(2**63)]).tolist() == [5, UNK, UNK, UNK]
    assert a_catalogue.encode(pa.array([2**64 - 1, 7], pa.uint64())).tolist() == [UNK, 4]
    assert catalogue([str(2**64)]).encode([2**64]).tolist() == [4]
    assert Catalogue(pa.array([2**64 - 1], pa.uint64()), [1]).id_type == "text", "too large for the integers there are"


def test_what_is_no_id_is_unknown():
    assert catalogue(["a"]).encode(pa.array(["a", None])).tolist() == [4, UNK]


@pytest.mark.parametrize("wrong", [True, None, 1.0, float("nan"), b"a", "\ud800", ["a"]], ids=repr)
def test_what_can_be_no_id_is_refused(wrong):
    for a_catalogue in (catalogue(["None", "True", "1.0", "nan"]), catalogue([1, 0])):
        for look in (a_catalogue.encode, a_catalogue.knows):
            with pytest.raises(DataError, match=r"no id|no UTF-8"):
                look(["a", wrong])


# ---------------------------------------------------------------- fingerprint


def test_the_fingerprint_is_known():
    """Computed with `printf 'text\\n1:b1:a2:ä' | sha256sum`: it must never change, or every artifact is refused."""
    expected = "39e288d29540267f9253df44de2ae5efafb9bbe6b41ba7e41d58871786f4d047"
    assert catalogue(["b", "a", "ä"]).fingerprint == expected
    assert catalogue([7, 5]).fingerprint == "6e9647cffe55483faeb2495d712ce9d05d42cdce9e463d6a04e2103eaf391476"


@given(id_lists, id_lists)
def test_fingerprints_are_the_same_exactly_if_the_ids_are(first, second):
    equal_ids = first == second  # an integer is no text, and order counts
    assert (catalogue(first).fingerprint == catalogue(second).fingerprint) == equal_ids


@pytest.mark.parametrize(
    "other_catalogue", [["b", "a"], ["ab"], ["a", "b", ""], ["", "a", "b"], ["a1:b"], [1, 2], ["1", "2"]], ids=repr
)
def test_the_fingerprint_tells_these_apart(other_catalogue):
    assert catalogue(other_catalogue).fingerprint != catalogue(["a", "b"]).fingerprint
    assert catalogue([1, 2]).fingerprint != catalogue(["1", "2"]).fingerprint


def test_counts_place_and_storage_type_are_not_in_the_fingerprint():
    expected = catalogue(["a", "b"]).fingerprint
    assert Catalogue(pa.array(["a", "b"]), [9, 9]).fingerprint == expected
    assert catalogue(["a", "b"], first=0).fingerprint == expected
    for kind in (pa.large_string(), pa.dictionary(pa.int8(), pa.string())):
        assert Catalogue(pa.array(["a", "b"]).cast(kind), [2, 1]).fingerprint == expected
    assert Catalogue(pa.array([1, 2], pa.uint8()), [2, 1]).fingerprint == catalogue([1, 2]).fingerprint


# ---------------------------------------------------------------- files


@given(id_lists, st.sampled_from([0, FIRST_ITEM]))
def test_a_file_gives_back_what_was_written(ids, first):
    a_catalogue = catalogue(ids, first=first)
    with TemporaryDirectory() as folder:
        a_catalogue.write(Path(folder) / "catalogue.parquet")
        read = Catalogue.read(Path(folder) / "catalogue.parquet")
    assert read.ids.equals(a_catalogue.ids)
    assert read.counts.tolist() == a_catalogue.counts.tolist()
    assert (read.first, read.id_type, read.fingerprint) == (first, a_catalogue.id_type, a_catalogue.fingerprint)


def broken(**columns: object) -> pa.Table:
    return pa.table({"item_id": ["a", "b"], "index": [4, 5], "count": [2, 1]} | columns)


@pytest.mark.parametrize(
    "table",
    [
        broken(index=[5, 4]),
        broken(index=[4, 6]),
        broken(index=["x", "y"]),
        broken(index=[None, None]),
        broken(item_id=["a", "a"]),
        broken(item_id=["a", None]),
        broken(count=["x", "y"]),
        broken().drop_columns("count"),
        broken().drop_columns("item_id"),
    ],
    ids=range(9),
)
def test_a_changed_file_is_damaged(tmp_path, table):
    path = tmp_path / "catalogue.parquet"
    pq.write_table(table, path)
    with pytest.raises(ArtifactError) as caught:
        Catalogue.read(path)
    assert caught.value.path == path


def test_a_truncated_missing_or_foreign_file_is_damaged(tmp_path):
    path = tmp_path / "catalogue.parquet"
    catalogue(["a", "b"]).write(path)
    intact = path.read_bytes()
    for content in (intact[: len(intact) // 2], intact[:-1], b"", b"item_id,index,count\n"):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match="cannot be read"):
            Catalogue.read(path)
    with pytest.raises(ArtifactError, match="cannot be read"):
        Catalogue.read(tmp_path / "no.parquet")


@pytest.mark.parametrize(
    ("ids", "counts", "message"),
    [
        (["a", "b"], [1], "2 item ids but 1 counts"),
        (["a", "b", "a"], [1, 1, 1], "stands twice"),
        ([1, 1], [1, 1], "stands twice"),
        (["a", None], [1, 1], "has no id"),
    ],
)
def test_ids_that_make_no_catalogue_are_refused(ids, counts, message):
    with pytest.raises(DataError, match=message):
        Catalogue(pa.array(ids), counts)
