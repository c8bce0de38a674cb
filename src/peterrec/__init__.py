"""peterrec: learn one user model from what people did, and reuse it for many tasks.

The public surface is what this module exports; each verb of the command line is one function here. Verbs and classes
refuse an argument of another type than its annotation with a `ConfigError`. "The paper", in all docstrings, is
Yuan, He, Karatzoglou, Zhang: "Parameter-Efficient Transfer from Sequential Behaviors for User Modeling and
Recommendation" (PeterRec), SIGIR 2020, doi:10.1145/3397271.3401156.
"""

from __future__ import annotations

import ast
import importlib
import logging
from pathlib import Path
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

# Imported when first used, so that `import peterrec` and `peterrec --help` do not wait for torch; the names stand above
# only, where type checkers read them too (as in scientific-python's SPEC 1).
_MODULE_OF = {
    alias.name: statement.module
    for statement in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
    if isinstance(statement, ast.ImportFrom) and statement.module and statement.module.startswith("peterrec.")
    for alias in statement.names
}

# A library is silent unless its user configures logging: `logging.getLogger("peterrec")`.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 - they cannot differ


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'peterrec' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
