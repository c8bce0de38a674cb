"""A benchmark built once from made-up data, for all tests of this folder to read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peterrec.benchmark.build import build_benchmark
from peterrec.benchmark.folder import Benchmark
from peterrec.data.synthetic import synthetic

LABELS = ("cluster", "half")


@dataclass(frozen=True)
class Built:
    """The data, and the benchmark made of them."""

    data: Path
    folder: Path

    @property
    def opened(self) -> Benchmark:
        return Benchmark.open(self.folder)

    def rows(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.folder / name).to_pylist()
        return rows

    def users(self, name: str) -> set[str]:
        return {row["user_id"] for row in self.rows(name)}


def write_data(folder: Path, users: int = 200) -> Path:
    """Events of two domains, and users with a label of four classes, and one of two that few users lack."""
    folder.mkdir()
    data = synthetic(users=users, items=40, targets=12, mean_events=12, seed=3)
    clusters = data.users["cluster"].to_pylist()
    halves = [None if place % 10 == 0 else "ab"[name > "c1"] for place, name in enumerate(clusters)]
    pq.write_table(data.events, folder / "events.parquet")
    pq.write_table(data.users.append_column("half", pa.array(halves)), folder / "users.parquet")
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    root = tmp_path_factory.mktemp("benchmark")
    data = write_data(root / "made-up")
    return Built(data, build_benchmark(root / "out", data, labels=LABELS))
