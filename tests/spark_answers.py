"""Comparing answers that came from two engines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def sorted_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort rows of answers by user, bundle and rank."""
    return sorted(rows, key=lambda row: (row["user"], row.get("bundle", ""), row.get("rank", 0)))


def assert_equal_rows(rows: list[dict[str, Any]], expected_rows: list[dict[str, Any]]) -> None:
    """The same columns and rows, in any order of rows; numbers to within 1e-5."""
    rows, expected_rows = sorted_rows(rows), sorted_rows(expected_rows)
    assert [row["user"] for row in rows] == [row["user"] for row in expected_rows]
    for row, expected_row in zip(rows, expected_rows, strict=True):
        assert list(row) == list(expected_row)
        for name, value in expected_row.items():
            if isinstance(value, float | list):
                np.testing.assert_allclose(row[name], value, atol=1e-5)
            else:
                assert row[name] == value, name


def assert_equal_tables(table: pa.Table, expected: pa.Table) -> None:
    """The same for tables; the order of columns too."""
    assert table.column_names == expected.column_names
    assert_equal_rows(table.to_pylist(), expected.to_pylist())
