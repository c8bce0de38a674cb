"""Settings of the machine that trains."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, field_validator, model_validator

from peterrec.arguments import did_you_mean
from peterrec.config.base import Config, LaterSettingsConfig

LOGGERS = ("none", "csv", "tensorboard", "mlflow", "wandb")


def _check_logger(name: str) -> str:
    if name not in LOGGERS and "." not in name:
        raise ValueError(
            f"{name!r} is no logger{did_you_mean(name, LOGGERS)}: choose of {', '.join(LOGGERS)}, or write the import "
            "path of a logger of Lightning"
        )
    return name


LoggerName = Annotated[str, AfterValidator(_check_logger)]


class CallbackConfig(Config):
    """Settings of a callback of Lightning, which may be written as its import path alone."""

    path: str = Field(description="import path of its class, such as `package.module.Class`")
    options: dict[str, Any] = Field(default={}, description="keywords that it is made with")


class RunnerConfig(LaterSettingsConfig):
    """Use of the machine, passed on to Lightning; a run may be resumed with other settings of these."""

    accelerator: str = Field(default="auto", description="auto, cpu, gpu, ...")
    devices: int | str = Field(
        default=1,
        description="how many of a machine train together, or auto; of accelerator cpu, processes. `torchrun` says it "
        "itself (docs/scale.md)",
    )
    num_nodes: PositiveInt = Field(default=1, description="machines, on each of which the command is started")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(default="32-true", description="of the arithmetic")
    compile: bool = Field(
        default=False,
        description="compile the network for full batches of the longest width (pre-training; adapting to one task): a "
        "minute at the start, then faster",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="keep only the inputs of blocks for the backward pass: much less memory, a third more time",
    )
    checkpoint_share: Annotated[float, Field(gt=0)] = Field(
        default=0.05,
        description="of the time of training that resume points within an epoch may take: of a large table they take "
        "long, and are then written less often than `checkpoint_every` says",
    )
    logger: LoggerName | tuple[LoggerName, ...] = Field(
        default="none",
        description="of losses, metrics and settings, or a list of several: csv and tensorboard (files beside the "
        "output), mlflow, wandb, or the import path of a logger of Lightning; none: no logger (docs/tuning.md)",
    )
    logger_options: dict[str, Any] = Field(
        default={},
        description="keywords that the logger is made with; of several loggers, those of each, by its name. They are "
        "written beside the output: give tokens in the environment",
    )
    callbacks: tuple[CallbackConfig, ...] = Field(
        default=(), description="of Lightning, called while training: import paths, or mappings of `path` and `options`"
    )
    progress: bool = Field(default=True, description="show a progress bar, or a line per epoch without a terminal")

    @model_validator(mode="before")
    @classmethod
    def _refuse_strategy(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and "strategy" in settings:  # of Lightning's trainer
            raise ValueError(
                "strategy is no setting: several devices always train in one way, each its share of every batch; leave "
                "it out"
            )
        return settings

    later_settings: ClassVar[frozenset[str]] = frozenset({"logger_options", "callbacks"})

    @field_validator("callbacks", mode="before")
    @classmethod
    def _read_paths(cls, callbacks: Any) -> Any:
        if not isinstance(callbacks, list | tuple):
            return callbacks
        return [{"path": callback} if isinstance(callback, str) else callback for callback in callbacks]

    @model_validator(mode="after")
    def _check_loggers(self) -> Self:
        names = self.loggers
        if len(set(names)) < len(names):
            raise ValueError("logger names one twice")
        if self.logger_options and not names:
            raise ValueError("logger_options are those of a logger, and logger is none")
        if len(names) > 1:
            for name, options in self.logger_options.items():
                if name not in names or not isinstance(options, dict):
                    raise ValueError(
                        f"logger_options of several loggers are by the name of each, which {name!r} is not"
                        f"{did_you_mean(name, names)}"
                    )
        return self

    @property
    def loggers(self) -> tuple[str, ...]:
        """Names of the loggers."""
        names = (self.logger,) if isinstance(self.logger, str) else self.logger
        return tuple(name for name in names if name != "none")

    def options_of(self, name: str) -> dict[str, Any]:
        """Return the keywords that a logger is made with.

        Args:
            name: of the logger.

        Returns:
            Keywords.
        """
        return dict(self.logger_options if len(self.loggers) == 1 else self.logger_options.get(name, {}))

    @model_validator(mode="after")
    def _check_one_form(self) -> Self:
        if self.compile and self.gradient_checkpointing:
            raise ValueError("compile and gradient_checkpointing are two forms of the network: ask for one of them")
        return self
