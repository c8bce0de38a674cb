"""What tests of HTTP share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A service without keys."""
    with Site(tmp_path) as found:
        yield found


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Site]:
    """A service with keys."""
    with Site(tmp_path, keys=True) as found:
        yield found
