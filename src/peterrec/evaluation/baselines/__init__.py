"""What a practitioner would try first: fitted on the train part, set on the valid part, never shown the test part."""

from __future__ import annotations

from peterrec.evaluation.baselines.fit import (
    Baseline,
    FittedBaselines,
    baseline_names,
    fit_baseline,
    fit_baselines,
)
from peterrec.evaluation.baselines.trees import Unavailable

__all__ = ["Baseline", "FittedBaselines", "Unavailable", "baseline_names", "fit_baseline", "fit_baselines"]
