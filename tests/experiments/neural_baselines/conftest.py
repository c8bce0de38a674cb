"""A small corpus whose users have a taste, and networks that are quick on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from peterrec.data.corpus import Corpus
from training.small import prepare_synthetic


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Such small networks are slower with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def structured(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Enough users to learn from, in seconds."""
    return prepare_synthetic(
        tmp_path_factory.mktemp("structured"), users=500, items=60, targets=20, mean_events=12, seed=5
    )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """120 users, 24 items, 8 targets."""
    return prepare_synthetic(tmp_path_factory.mktemp("tiny"), users=120, items=24, targets=8, mean_events=6, seed=3)
