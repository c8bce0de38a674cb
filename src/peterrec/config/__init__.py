"""Frozen configuration models: what YAML files and dotted overrides may say, with every default in one place."""

from peterrec.config.backbone import BackboneConfig
from peterrec.config.base import Config, Fraction, Name, Positive, Separator, Text
from peterrec.config.data import (
    ActivityConfig,
    ClassificationTaskConfig,
    ColumnsConfig,
    EventsConfig,
    FirstTargetConfig,
    LabelsConfig,
    PrepareConfig,
    PreprocessingConfig,
    RankingTaskConfig,
    SourceConfig,
    SplitConfig,
    TaskConfig,
)
from peterrec.config.experiment import (
    ExperimentConfig,
    GridDataConfig,
    MethodConfig,
    QuestionConfig,
    SyntheticConfig,
)
from peterrec.config.loading import build_config, dump_optional, dump_yaml, load_config, load_optional, same_settings
from peterrec.config.patch import PatchConfig
from peterrec.config.run import EvaluateConfig, RunConfig
from peterrec.config.serve import EngineConfig, LimitsConfig, ServeConfig, Window
from peterrec.config.training import (
    AdaptConfig,
    MaskingConfig,
    NegativesConfig,
    OptimConfig,
    PretrainConfig,
    Readout,
    RunnerConfig,
    Strategy,
)

__all__ = [
    "ActivityConfig",
    "AdaptConfig",
    "BackboneConfig",
    "ClassificationTaskConfig",
    "ColumnsConfig",
    "Config",
    "EngineConfig",
    "EvaluateConfig",
    "EventsConfig",
    "ExperimentConfig",
    "FirstTargetConfig",
    "Fraction",
    "GridDataConfig",
    "LabelsConfig",
    "LimitsConfig",
    "MaskingConfig",
    "MethodConfig",
    "Name",
    "NegativesConfig",
    "OptimConfig",
    "PatchConfig",
    "Positive",
    "PrepareConfig",
    "PreprocessingConfig",
    "PretrainConfig",
    "QuestionConfig",
    "RankingTaskConfig",
    "Readout",
    "RunConfig",
    "RunnerConfig",
    "Separator",
    "ServeConfig",
    "SourceConfig",
    "SplitConfig",
    "Strategy",
    "SyntheticConfig",
    "TaskConfig",
    "Text",
    "Window",
    "build_config",
    "dump_optional",
    "dump_yaml",
    "load_config",
    "load_optional",
    "same_settings",
]
