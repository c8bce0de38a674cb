"""A readout from outside the package: one class and one entry, and all verbs take it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from peterrec import config
from peterrec.config import AdaptConfig
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.nn import readout
from peterrec.nn.readout import FullPass, Readout, register_readout
from peterrec.serving.engine import Engine
from peterrec.serving.requests import Request
from peterrec.training.adapt import adapt
from training.small import adapt_config


class MaximumReadout(Readout):
    """The largest value of each channel over the events."""

    description = "the largest value of each channel over the events"

    def width(self, channels: int) -> int:
        return channels

    def combine(self, states: FullPass) -> torch.Tensor:
        return states.hidden.masked_fill(~states.events.unsqueeze(2), -9.0).amax(dim=1)


@pytest.fixture
def maximum() -> Iterator[str]:
    register_readout("maximum", MaximumReadout())
    yield "maximum"
    del readout._READOUTS["maximum"], config.READOUTS["maximum"]


def test_a_readout_from_outside_is_adapted_saved_loaded_and_served(
    model: UserModel, corpus: Corpus, tmp_path: Path, maximum: str
) -> None:
    histories = corpus.task("cluster").part("test").sequences
    bundle = adapt(model, corpus, "cluster", tmp_path / "out", adapt_config(readout=maximum, epochs=1))
    assert bundle.head.weight.shape[1] == model.network.backbone.config.channels
    model.add_bundle(bundle, "made")
    model.load_bundle(tmp_path / "out", "loaded")
    in_memory, loaded = (model.probabilities(histories, name) for name in ("made", "loaded"))
    np.testing.assert_array_equal(in_memory, loaded)
    requests = [Request(history) for history in (["s0001", "s0002"], ["s0005"])]
    expected = model.predict([request.items for request in requests], "loaded").probabilities
    for answer, row in zip(Engine(model).predict(requests), expected, strict=True):
        np.testing.assert_allclose(list(answer.tasks["loaded"].probabilities.values()), row, atol=1e-5)


def test_a_name_that_nobody_registered_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="'maximum' is no readout: choose one of token, pooled, both"):
        AdaptConfig(readout="maximum")
    with pytest.raises(ConfigError, match="choose one of token, pooled, both"):
        readout.readout_named("maximum")
