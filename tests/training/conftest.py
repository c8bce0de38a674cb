"""Shared fixtures: one tiny corpus and backbone, and trainings with callbacks of a test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from peterrec.data.corpus import Corpus
from peterrec.model import UserModel
from peterrec.training import adaptation_run, loop
from peterrec.training import pretrain as pretraining
from training.small import CHANNELS, LEARNS, prepare_synthetic, pretrain_config


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Such small networks are slower with two, above all beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """130 users, 24 items, 8 targets: about four batches of 24 for every training."""
    return prepare_synthetic(tmp_path_factory.mktemp("tiny"), users=130, items=24, targets=8, mean_events=8, seed=3)


@pytest.fixture(scope="session")
def backbone(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a backbone pre-trained on the tiny corpus."""
    path = tmp_path_factory.mktemp("backbone") / "backbone"
    pretraining.pretrain(corpus, path, pretrain_config(epochs=1))
    return path


@pytest.fixture(scope="session")
def structured(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Enough users to learn from, in seconds."""
    return prepare_synthetic(tmp_path_factory.mktemp("structured"), users=700, items=60, targets=20, seed=5)


@pytest.fixture(scope="module")
def trained(structured: Corpus, tmp_path_factory: pytest.TempPathFactory) -> UserModel:
    """A backbone that has learned them."""
    config = pretrain_config(backbone=CHANNELS, epochs=6, valid_fraction=0.2, **LEARNS)
    return pretraining.pretrain(structured, tmp_path_factory.mktemp("trained") / "backbone", config)


@pytest.fixture
def model(backbone: Path) -> UserModel:
    return UserModel.from_pretrained(backbone, device="cpu")


@pytest.fixture(scope="session")
def with_callbacks() -> Iterator[Callable[..., None]]:
    """Give every training from now on these callbacks beside its own."""
    original = loop.fit

    def give(*callbacks: Callback) -> None:
        def fit(*arguments: Any, extra: Iterable[Callback] = ()) -> Any:
            return original(*arguments, extra=(*callbacks, *extra))

        pretraining.fit = adaptation_run.fit = fit

    yield give
    pretraining.fit = adaptation_run.fit = original


@pytest.fixture
def watched(with_callbacks: Callable[..., None]) -> Iterator[Callable[..., None]]:
    yield with_callbacks
    with_callbacks()
