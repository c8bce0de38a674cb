"""The tests of `prepare` on another engine: `pytest --engine spark tests/data/prepare`."""

from __future__ import annotations

from typing import Any

import pytest

from peterrec.data.prepare import event_histories, preparation


@pytest.fixture(autouse=True)
def _engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.config.getoption("--engine") == "spark":
        marker = request.node.get_closest_marker("only_duckdb")
        if marker is not None:
            pytest.skip(f"only on DuckDB: {marker.args[0]}")
        session, open_engine = request.getfixturevalue("spark"), preparation.open_engine

        def open_spark(*args: Any, **options: Any) -> Any:
            return open_engine(*args, **(options | {"session": session}))

        for module in (event_histories, preparation):
            monkeypatch.setattr(module, "open_engine", open_spark)
