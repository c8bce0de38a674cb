"""Exporting needs a later torch than the rest of the package does."""

from __future__ import annotations

import pytest
import torch

from peterrec.export.formats import LEAST_TORCH


@pytest.fixture(autouse=True)
def later_torch() -> None:
    if tuple(map(int, torch.__version__.split(".")[:2])) < LEAST_TORCH:
        pytest.skip(f"torch {torch.__version__} exports no such graphs: it takes {'.'.join(map(str, LEAST_TORCH))}")
