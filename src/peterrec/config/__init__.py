"""Frozen configuration models: all settings of YAML files and dotted overrides, with every default in one place."""

from peterrec.config.audit import AuditConfig
from peterrec.config.backbone import BackboneConfig
from peterrec.config.base import Config, Fraction, Name, Positive, Separator, Text
from peterrec.config.calibration import CalibrationConfig, ThresholdConfig
from peterrec.config.convert import AmazonConfig
from peterrec.config.data import (
    ActivityConfig,
    ClassificationTaskConfig,
    ColumnsConfig,
    EventsConfig,
    FirstTargetConfig,
    HistoryCutConfig,
    KeptOutUsersConfig,
    LabelsConfig,
    LabelSetsConfig,
    LabelTableConfig,
    MultilabelTaskConfig,
    NewUsersConfig,
    PrepareConfig,
    PreprocessingConfig,
    RankingTaskConfig,
    RegressionTaskConfig,
    SourceConfig,
    SplitConfig,
    TaskConfig,
    TaskKind,
)
from peterrec.config.event_features import EventFeatureConfig
from peterrec.config.experiment import (
    ExperimentConfig,
    GridDataConfig,
    MethodConfig,
    QuestionConfig,
    SyntheticConfig,
)
from peterrec.config.growth import GrowConfig
from peterrec.config.loading import (
    build_config,
    dump_optional,
    dump_yaml,
    load_config,
    load_optional,
    same_settings,
    with_settings,
    without_runner,
)
from peterrec.config.migration import MigrateConfig
from peterrec.config.negatives import NegativesConfig
from peterrec.config.patch import (
    PATCH_SETTINGS,
    BottleneckConfig,
    FusionConfig,
    LoraConfig,
    PatchConfig,
    ScaleShiftConfig,
    register_patch_settings,
)
from peterrec.config.pretraining import ContrastiveConfig, MaskingConfig, PretrainConfig, ProbeConfig
from peterrec.config.run import EvaluateConfig, RunConfig
from peterrec.config.runner import CallbackConfig, RunnerConfig
from peterrec.config.serve import EngineConfig, LimitsConfig, ReplicasConfig, ServeConfig, Window
from peterrec.config.training import READOUTS, AdaptConfig, OptimConfig, ReadoutName, Strategy
from peterrec.config.tuning import RangeConfig, TuneConfig

__all__ = [
    "PATCH_SETTINGS",
    "READOUTS",
    "ActivityConfig",
    "AdaptConfig",
    "AmazonConfig",
    "AuditConfig",
    "BackboneConfig",
    "BottleneckConfig",
    "CalibrationConfig",
    "CallbackConfig",
    "ClassificationTaskConfig",
    "ColumnsConfig",
    "Config",
    "ContrastiveConfig",
    "EngineConfig",
    "EvaluateConfig",
    "EventFeatureConfig",
    "EventsConfig",
    "ExperimentConfig",
    "FirstTargetConfig",
    "Fraction",
    "FusionConfig",
    "GridDataConfig",
    "GrowConfig",
    "HistoryCutConfig",
    "KeptOutUsersConfig",
    "LabelSetsConfig",
    "LabelTableConfig",
    "LabelsConfig",
    "LimitsConfig",
    "LoraConfig",
    "MaskingConfig",
    "MethodConfig",
    "MigrateConfig",
    "MultilabelTaskConfig",
    "Name",
    "NegativesConfig",
    "NewUsersConfig",
    "OptimConfig",
    "PatchConfig",
    "Positive",
    "PrepareConfig",
    "PreprocessingConfig",
    "PretrainConfig",
    "ProbeConfig",
    "QuestionConfig",
    "RangeConfig",
    "RankingTaskConfig",
    "ReadoutName",
    "RegressionTaskConfig",
    "ReplicasConfig",
    "RunConfig",
    "RunnerConfig",
    "ScaleShiftConfig",
    "Separator",
    "ServeConfig",
    "SourceConfig",
    "SplitConfig",
    "Strategy",
    "SyntheticConfig",
    "TaskConfig",
    "TaskKind",
    "Text",
    "ThresholdConfig",
    "TuneConfig",
    "Window",
    "build_config",
    "dump_optional",
    "dump_yaml",
    "load_config",
    "load_optional",
    "register_patch_settings",
    "same_settings",
    "with_settings",
    "without_runner",
]
