"""Tables of products that are put side by side: row by row the same product."""

from __future__ import annotations

from pathlib import Path

from data.test_sources import csv_bytes, save
from peterrec.data.sources import ta_feng


def test_each_of_many_products_keeps_its_own_subclass(tmp_path: Path) -> None:
    # So many that the order in which groups are found is not that of the products.
    subclass = {f"{number:013d}": f"{10 + number % 7}{number % 9000:04d}" for number in range(5000)}
    bought = [product for product in subclass for _ in range(1 + int(product) % 3)]
    rows = [f"11/1/2000,00000001,<25,115,{subclass[p]},{p},1,1,1" for p in sorted(bought, key=lambda p: p[::-1])]
    items = ta_feng.read_ta_feng(save(tmp_path, csv_bytes(tuple(rows)))).items
    assert dict(zip(items["item_id"].to_pylist(), items["subclass"].to_pylist(), strict=True)) == subclass
    assert items["item_id"].to_pylist() == sorted(subclass)
