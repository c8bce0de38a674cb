"""Fixtures: the service on fakes, with and without keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .in_process import FakeSite


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FakeSite]:
    """A service without keys."""
    with FakeSite(tmp_path) as service_site:
        yield service_site


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[FakeSite]:
    """A service with keys."""
    with FakeSite(tmp_path, keys=True) as service_site:
        yield service_site
