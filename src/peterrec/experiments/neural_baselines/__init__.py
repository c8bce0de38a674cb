"""Networks of other papers in their plain form, trained and stopped as the strategies are."""

from __future__ import annotations

from peterrec.experiments.neural_baselines.train import TrainedBaseline, train_neural_baseline

__all__ = ["TrainedBaseline", "train_neural_baseline"]
