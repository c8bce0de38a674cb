"""Baselines: cheap ones, fitted on the train part and set on the valid part, and networks of other papers.

None is ever shown a label or a target of the test part.
"""

from __future__ import annotations

from peterrec.evaluation.baselines.fit import FittedBaseline, FittedBaselines, fit_baseline, fit_baselines
from peterrec.evaluation.baselines.registry import (
    BASELINES,
    Baseline,
    baseline_names,
    baseline_settings,
    find_baseline,
)
from peterrec.evaluation.baselines.trees import Unavailable

__all__ = [
    "BASELINES",
    "Baseline",
    "FittedBaseline",
    "FittedBaselines",
    "Unavailable",
    "baseline_names",
    "baseline_settings",
    "find_baseline",
    "fit_baseline",
    "fit_baselines",
]
