from ._version import __version__
from .answers import Embeddings, LabelPredictions, NumberPredictions, Predictions, Recommendations, TopItems
from .artifacts.hub_push import push
from .artifacts.inspection import inspect
from .auditing.audit import audit
from .benchmark.build import build_benchmark
from .benchmark.predict import predict_benchmark
from .benchmark.score import BenchmarkScores, score_benchmark
from .config import (
    ActivityConfig,
    AdaptConfig,
    AmazonConfig,
    AuditConfig,
    BackboneConfig,
    ClassificationTaskConfig,
    EngineConfig,
    EvaluateConfig,
    EventsConfig,
    ExperimentConfig,
    GrowConfig,
    LabelsConfig,
    LabelSetsConfig,
    LabelTableConfig,
    LimitsConfig,
    MaskingConfig,
    MigrateConfig,
    MultilabelTaskConfig,
    NegativesConfig,
    OptimConfig,
    PatchConfig,
    PrepareConfig,
    PretrainConfig,
    RankingTaskConfig,
    RegressionTaskConfig,
    ReplicasConfig,
    RunConfig,
    RunnerConfig,
    ServeConfig,
    SourceConfig,
    SplitConfig,
    TuneConfig,
    load_config,
)
from .data.corpus import Corpus
from .data.prepare import prepare
from .data.sources import convert, fetch
from .errors import PeterRecError
from .evaluation.audit_results import AuditResult
from .evaluation.bundles import evaluate
from .evaluation.migration_results import MigrationReport
from .experiments.grid.runner import experiment
from .experiments.pipeline import run
from .export.export import export_model
from .migration.migrate import migrate
from .model import UserModel
from .process import tune_process
from .serving.backup import backup
from .serving.engine import Engine
from .serving.files import AnswerOptions, embed, predict, recommend
from .serving.http.serve import serve
from .serving.requests import Answer, ClassAnswer, ItemsAnswer, LabelsAnswer, NumberAnswer, Question, Request
from .serving.users import Users
from .training.adapt import adapt, adapt_jointly
from .training.grow import grow
from .training.grow_targets import grow_targets
from .training.merge import merge_bundles
from .training.pretrain import pretrain
from .tuning.result import TuneResult, TuneTrial
from .tuning.tune import tune
from .watching.drift import drift
from .watching.result import DriftReport, PeriodMetric

__all__ = [
    "ActivityConfig",
    "AdaptConfig",
    "AmazonConfig",
    "Answer",
    "AnswerOptions",
    "AuditConfig",
    "AuditResult",
    "BackboneConfig",
    "BenchmarkScores",
    "ClassAnswer",
    "ClassificationTaskConfig",
    "Corpus",
    "DriftReport",
    "Embeddings",
    "Engine",
    "EngineConfig",
    "EvaluateConfig",
    "EventsConfig",
    "ExperimentConfig",
    "GrowConfig",
    "ItemsAnswer",
    "LabelPredictions",
    "LabelSetsConfig",
    "LabelTableConfig",
    "LabelsAnswer",
    "LabelsConfig",
    "LimitsConfig",
    "MaskingConfig",
    "MigrateConfig",
    "MigrationReport",
    "MultilabelTaskConfig",
    "NegativesConfig",
    "NumberAnswer",
    "NumberPredictions",
    "OptimConfig",
    "PatchConfig",
    "PeriodMetric",
    "PeterRecError",
    "Predictions",
    "PrepareConfig",
    "PretrainConfig",
    "Question",
    "RankingTaskConfig",
    "Recommendations",
    "RegressionTaskConfig",
    "ReplicasConfig",
    "Request",
    "RunConfig",
    "RunnerConfig",
    "ServeConfig",
    "SourceConfig",
    "SplitConfig",
    "TopItems",
    "TuneConfig",
    "TuneResult",
    "TuneTrial",
    "UserModel",
    "Users",
    "__version__",
    "adapt",
    "adapt_jointly",
    "audit",
    "backup",
    "build_benchmark",
    "convert",
    "drift",
    "embed",
    "evaluate",
    "experiment",
    "export_model",
    "fetch",
    "grow",
    "grow_targets",
    "inspect",
    "load_config",
    "merge_bundles",
    "migrate",
    "predict",
    "predict_benchmark",
    "prepare",
    "pretrain",
    "push",
    "recommend",
    "run",
    "score_benchmark",
    "serve",
    "tune",
    "tune_process",
]
