"""Artifacts of before and after, made once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from training.upgrade import Upgrade


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Such small networks are slower with two, above all beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def upgrade(tmp_path_factory: pytest.TempPathFactory) -> Upgrade:
    return Upgrade(tmp_path_factory.mktemp("upgrade"))
