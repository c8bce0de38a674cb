"""Columns that describe items become numbers, whatever they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from builders import tiny_catalogue
from peterrec.data.catalogue import Catalogue
from peterrec.data.content_encoder import ContentEncoder
from peterrec.data.item_content import ItemContent
from peterrec.errors import DataError

IDS = [f"item-{i}" for i in range(12)]
COLUMNS: dict[str, list[Any]] = {
    "text": [f"a red {name} for the garden" for name in ("pot", "pan") * 6],
    "words": [["new", "red"], ["old"]] * 6,
    "category": ["kitchen", "garden"] * 6,
    "price": [1.0, 9.0] * 6,
    "pieces": [1, 9] * 6,
    "sold": [True, False] * 6,
    "vector": [[1.0, 0.0], [0.0, 1.0]] * 6,
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_any_kind_tells_items_apart(name):
    """Of two kinds of items: those of one have the same numbers, which are others than those of the other kind."""
    features = ItemContent(pa.table({"item_id": IDS, name: COLUMNS[name]})).fit(tiny_catalogue())[1]
    assert np.isfinite(features).all()
    assert len(features) == 12
    np.testing.assert_allclose(features[::2], features[:1].repeat(6, axis=0), atol=1e-6)
    np.testing.assert_allclose(features[1::2], features[1:2].repeat(6, axis=0), atol=1e-6)
    assert np.abs(features[0] - features[1]).max() > 0.5


def test_what_is_missing_is_the_mean_and_items_without_a_row_are_marked():
    table = pa.table(
        {
            "item_id": IDS[:6],
            "price": [1.0, None, 3.0, 5.0, 1.0, 5.0],
            "vector": [[1.0], None, [3.0], [2.0], [2.0], [2.0]],
        }
    )
    features = ItemContent(table).fit(tiny_catalogue())[1]
    assert features[:, 0].tolist() == [0.0] * 6 + [1.0] * 6
    assert (features[6:, 1:] == 0).all()
    price, is_missing, vector = features[:6, 1:].T
    assert abs(price[1]) < 1e-9
    assert is_missing.argmax() == 1
    assert abs(vector[1]) < 1e-9
    assert price[0] < price[2] < price[3]


def test_the_first_row_of_an_item_counts():
    first = ItemContent(pa.table({"item_id": IDS, "price": range(12)}))
    repeated = ItemContent(pa.table({"item_id": [*IDS, *IDS, None], "price": [*range(12), *[99] * 13]}))
    assert repeated.fingerprint == first.fingerprint
    np.testing.assert_array_equal(repeated.fit(tiny_catalogue())[1], first.fit(tiny_catalogue())[1])


@pytest.mark.parametrize("source", ["parquet", "csv", "pandas", "polars"])
def test_files_and_dataframes_say_the_same(tmp_path, source):
    table = pa.table({"item_id": IDS, "category": COLUMNS["category"], "price": COLUMNS["price"]})
    pq.write_table(table, tmp_path / "items.parquet")
    pa_csv.write_csv(table, tmp_path / "items.csv")
    sources = {
        "parquet": tmp_path / "items.parquet",
        "csv": str(tmp_path / "items.csv"),
        "pandas": pd.DataFrame(table.to_pydict()),
        "polars": pl.DataFrame(table.to_pydict()),
    }
    expected = ItemContent(table).fit(tiny_catalogue())[1]
    np.testing.assert_allclose(ItemContent(sources[source]).fit(tiny_catalogue())[1], expected)


@pytest.mark.parametrize("name", COLUMNS)
def test_an_encoder_says_the_same_of_later_items(name):
    """What it is fitted to is found again by the state that is written, for items that were not there."""
    values = COLUMNS[name]
    encoder, fitted = ItemContent(pa.table({"item_id": IDS, name: values})).fit(tiny_catalogue())
    columns, arrays = encoder.state()
    later = ItemContent(pa.table({"item_id": ["new-1", "new-0", "item-0"], name: [values[1], values[0], None]}))
    catalogue = Catalogue(pa.array(["new-0", "new-1", "unheard-of"]), np.zeros(3, dtype=np.int64))
    features = later.features(catalogue, ContentEncoder.from_state(json.loads(json.dumps(columns)), arrays))
    np.testing.assert_allclose(features[:2], fitted[:2], atol=1e-9)
    assert features[2].tolist() == [1.0] + [0.0] * (features.shape[1] - 1)


@pytest.mark.parametrize("later", [{"other": [1.0]}, {"price": ["dear"]}, {"price": [[1.0]]}])
def test_later_items_need_the_columns_of_an_encoder(later):
    encoder, _ = ItemContent(pa.table({"item_id": IDS, "price": COLUMNS["price"]})).fit(tiny_catalogue())
    with pytest.raises(DataError, match=r"(?s)price.*same columns"):
        ItemContent(pa.table({"item_id": IDS[:1], **later})).features(tiny_catalogue(), encoder)


def test_integer_ids_match_texts():
    table = pa.table({"item_id": list(range(100, 112)), "price": range(12)})
    features = ItemContent(table).fit(tiny_catalogue(integers=True))[1]
    assert (features[:, 0] == 0).all()
    assert ItemContent(table).new_ids(tiny_catalogue(6, integers=True)).to_pylist() == list(range(106, 112))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"id": IDS, "price": range(12)}, "does not have the column item_id"),
        ({"item_id": IDS}, "has no column beside the ids"),
        ({"item_id": IDS, "day": pa.array(range(12), pa.date32())}, "has no column of texts"),
        ({"item_id": IDS, "text": [""] * 12, "no": pa.nulls(12)}, "has no column of texts"),
        ({"item_id": ["x"] * 12, "price": range(12)}, "describes no item"),
    ],
)
def test_a_table_that_says_nothing_is_refused(table, message):
    with pytest.raises(DataError, match=message):
        ItemContent(pa.table(table)).fit(tiny_catalogue())[1]


def test_a_file_that_is_none_is_named(tmp_path: Path):
    for name in ("missing.parquet", "broken.parquet", "missing.csv"):
        if name.startswith("broken"):
            (tmp_path / name).write_bytes(b"PAR1")
        with pytest.raises(DataError, match=name):
            ItemContent(tmp_path / name)
