"""The preset of the paper's method trains tasks of both kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from peterrec.config import RunConfig, load_config
from peterrec.data.corpus import Corpus
from peterrec.training.adapt import adapt
from peterrec.training.pretrain import pretrain

PRESET = Path(__file__).resolve().parents[2] / "configs" / "paper-method.yaml"


@pytest.mark.slow
def test_it_trains(corpus: Corpus, tmp_path: Path) -> None:
    small = ["pretrain.epochs=1", "pretrain.backbone.channels=16", "adapt.epochs=1"]
    settings = load_config(RunConfig, PRESET, small)
    model = pretrain(corpus, tmp_path / "backbone", settings.pretrain)
    for task in corpus.task_names:
        bundle = adapt(model, corpus, task, tmp_path / task, settings.adapt)
        assert (bundle.readout, bundle.strategy) == ("token", "patch")
