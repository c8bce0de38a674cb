"""peterrec: learn one user model from what people did, and reuse it for many tasks.

The public surface is what this module exports; each verb of the command line is one function here. Source of the
method: Yuan, He, Karatzoglou, Zhang: "Parameter-Efficient Transfer from Sequential Behaviors for User Modeling and
Recommendation" (PeterRec), SIGIR 2020.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from peterrec._version import __version__

if TYPE_CHECKING:
    from peterrec.answers import Predictions, Recommendations, TopItems
    from peterrec.artifacts.inspection import inspect
    from peterrec.config import (
        ActivityConfig,
        AdaptConfig,
        BackboneConfig,
        ClassificationTaskConfig,
        EngineConfig,
        EvaluateConfig,
        EventsConfig,
        ExperimentConfig,
        LabelsConfig,
        LimitsConfig,
        MaskingConfig,
        NegativesConfig,
        OptimConfig,
        PatchConfig,
        PrepareConfig,
        PretrainConfig,
        RankingTaskConfig,
        RunConfig,
        RunnerConfig,
        ServeConfig,
        SourceConfig,
        SplitConfig,
        load_config,
    )
    from peterrec.data.corpus import Corpus
    from peterrec.data.prepare import prepare
    from peterrec.data.sources import convert, fetch
    from peterrec.errors import PeterRecError
    from peterrec.evaluation.bundles import evaluate
    from peterrec.experiments.grid.runner import experiment
    from peterrec.experiments.pipeline import run
    from peterrec.model import UserModel
    from peterrec.process import tune_process
    from peterrec.serving.backup import backup
    from peterrec.serving.engine import Engine
    from peterrec.serving.files import AnswerOptions, embed, predict, recommend
    from peterrec.serving.http.serve import serve
    from peterrec.serving.requests import Answer, ClassAnswer, ItemsAnswer, Question, Request
    from peterrec.serving.users import Users
    from peterrec.training.adapt import adapt, adapt_jointly
    from peterrec.training.pretrain import pretrain

# Imported when first used: `import peterrec` and `peterrec --help` do not wait for torch.
_PLACES = {
    "peterrec.artifacts.inspection": ["inspect"],
    "peterrec.config": [
        "ActivityConfig", "AdaptConfig", "BackboneConfig", "ClassificationTaskConfig", "EngineConfig",
        "EvaluateConfig", "EventsConfig", "ExperimentConfig", "LabelsConfig", "LimitsConfig", "MaskingConfig",
        "NegativesConfig", "OptimConfig", "PatchConfig", "PrepareConfig", "PretrainConfig", "RankingTaskConfig",
        "RunConfig", "RunnerConfig", "ServeConfig", "SourceConfig", "SplitConfig", "load_config",
    ],
    "peterrec.data.corpus": ["Corpus"],
    "peterrec.data.prepare": ["prepare"],
    "peterrec.data.sources": ["convert", "fetch"],
    "peterrec.errors": ["PeterRecError"],
    "peterrec.evaluation.bundles": ["evaluate"],
    "peterrec.experiments.grid.runner": ["experiment"],
    "peterrec.experiments.pipeline": ["run"],
    "peterrec.answers": ["Predictions", "Recommendations", "TopItems"],
    "peterrec.model": ["UserModel"],
    "peterrec.process": ["tune_process"],
    "peterrec.serving.backup": ["backup"],
    "peterrec.serving.engine": ["Engine"],
    "peterrec.serving.http.serve": ["serve"],
    "peterrec.serving.requests": ["Answer", "ClassAnswer", "ItemsAnswer", "Question", "Request"],
    "peterrec.serving.users": ["Users"],
    "peterrec.serving.files": ["AnswerOptions", "embed", "predict", "recommend"],
    "peterrec.training.adapt": ["adapt", "adapt_jointly"],
    "peterrec.training.pretrain": ["pretrain"],
}  # fmt: skip
# A library is silent unless its user configures logging: `logging.getLogger("peterrec")`.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_PLACE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [  # noqa: PLE0604 - built from the table above, so that the two cannot differ
    "__version__",
    *sorted(_PLACE_OF),
]


def __getattr__(name: str) -> Any:
    if name not in _PLACE_OF:
        raise AttributeError(f"module 'peterrec' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
