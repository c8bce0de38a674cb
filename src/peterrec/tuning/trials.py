"""Trainings of a trial, and where their artifacts are kept: a backbone, or a bundle on a backbone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import Callback

from peterrec.config import AdaptConfig, PretrainConfig, dump_yaml, same_settings, without_runner
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.nn.patch import patched_sublayers
from peterrec.storage import read_json
from peterrec.training.adapt import adapt
from peterrec.training.adaptation_run import train_and_valid
from peterrec.training.callbacks import Row
from peterrec.training.patch_size import patch_share
from peterrec.training.pretrain import check_settings, pretrain, pretraining_plan
from peterrec.training.probe import Probe
from peterrec.training.strategies import PLANS
from peterrec.training.task_kinds import OBJECTIVES
from peterrec.tuning.space import Space


@dataclass(frozen=True)
class Outcome:
    """Outcome of a trial.

    Attributes:
        value: of the metric that chose its epoch, at that epoch.
        curve: a row for each epoch.
        places: of the artifacts, by kind, in the folder of the search.
    """

    value: float
    curve: list[Row]
    places: dict[str, str]


class Trials(Protocol):
    """Trainings of a search, a trial each.

    Attributes:
        monitor: the metric of valid users that chooses an epoch, and by which trials are compared.
        mode: `min` or `max` of it.
    """

    monitor: str
    mode: str

    @property
    def spaces(self) -> Sequence[Space[Any]]:
        """Search spaces of the verbs."""

    def check(self) -> None:
        """Refuse settings that do not fit each other, the corpus or the backbone."""

    def run(self, parameters: dict[str, Any], place: str, callbacks: Sequence[Callback]) -> Outcome:
        """Train, or read what a killed search has trained."""


class Backbones:
    """Backbones of a search, each pre-trained once, in `backbones/` under the digest of its settings.

    Args:
        corpus: that they learn from.
        folder: of the search.
        space: of the settings of `pretrain`.
    """

    def __init__(self, corpus: Corpus, folder: Path, space: Space[PretrainConfig]) -> None:
        self.corpus = corpus
        self.folder = folder
        self.space = space

    def place(self, config: PretrainConfig) -> str:
        """Return where the backbone of these settings is, in the folder of the search."""
        return f"backbones/{hashlib.sha256(dump_yaml(without_runner(config)).encode()).hexdigest()[:12]}"

    def get(self, parameters: dict[str, Any], callbacks: Sequence[Callback] = ()) -> tuple[str, UserModel]:
        """Return the place and the backbone of a trial, pre-trained now if it is not there."""
        config = self.space.of_trial(parameters)
        place = self.place(config)
        path = self.folder / place
        if path.exists():
            return place, UserModel.from_pretrained(path)
        return place, pretrain(self.corpus, path, config, resume=True, overwrite=True, callbacks=callbacks)

    def check(self) -> None:
        """Refuse settings that do not fit the corpus."""
        for config in self.space.corners():
            check_settings(config, len(self.corpus.catalogue))


class PretrainTrials:
    """Trials that pre-train a backbone each, compared by what chooses its epoch.

    Args:
        backbones: of the search.
    """

    def __init__(self, backbones: Backbones) -> None:
        self.backbones = backbones
        (config, *_) = backbones.space.corners()
        plan = pretraining_plan(config, Probe.from_config(backbones.corpus, config))
        self.monitor, self.mode = plan.monitor, plan.mode

    @property
    def spaces(self) -> Sequence[Space[Any]]:
        """Search spaces of the verbs."""
        return (self.backbones.space,)

    def check(self) -> None:
        """Refuse settings that do not fit the corpus, or by which different metrics would be compared."""
        self.backbones.check()
        monitors = sorted({config.chosen_by for config in self.backbones.space.corners()})
        if len(monitors) > 1:
            raise ConfigError(
                f"the search space of pretrain has trials chosen by {' and by '.join(monitors)}, which do not compare",
                remedy="give pretrain.monitor a value, or search both with a task",
            )

    def run(self, parameters: dict[str, Any], place: str, callbacks: Sequence[Callback]) -> Outcome:
        """Pre-train, or read the backbone of the same settings."""
        backbone_place, model = self.backbones.get(parameters, callbacks)
        training = model.pretrained.training
        return Outcome(training["metrics"][self.monitor], training["curve"], {"backbone": backbone_place})


class AdaptTrials:
    """Trials that adapt to a task each, compared by what chooses the epoch: the valid users, or a cross-validation.

    Args:
        corpus: with the task.
        task: its name.
        folder: of the search.
        space: of the settings of `adapt`.
        backbone: given, or those of the search.
    """

    def __init__(
        self, corpus: Corpus, task: str, folder: Path, space: Space[AdaptConfig], backbone: UserModel | Backbones
    ) -> None:
        self.corpus = corpus
        self.folder = folder
        self.space = space
        self.backbone = backbone
        self.task = corpus.task(task)
        objective = OBJECTIVES[self.task.kind]
        self.monitor, self.mode = objective.metric_names[0], objective.mode

    @property
    def spaces(self) -> Sequence[Space[Any]]:
        """Search spaces of the verbs."""
        return (self.space,) if isinstance(self.backbone, UserModel) else (self.backbone.space, self.space)

    @cached_property
    def corners(self) -> list[AdaptConfig]:
        """Settings of `adapt` at the bounds of the space."""
        return self.space.corners()

    def check(self) -> None:
        """Refuse settings that do not fit the backbones, and a task without users."""
        if isinstance(self.backbone, UserModel):
            self.backbone.pretrained.check_corpus(self.corpus)
            networks = [self.backbone.network.backbone.config]
        else:
            self.backbone.check()
            configs = {dump_yaml(config.backbone): config.backbone for config in self.backbone.space.corners()}
            networks = list(configs.values())
        if any(config.strategy == "joint" for config in self.corners):
            raise ConfigError("strategy joint trains several tasks at once", remedy="leave it out of adapt.strategy")
        patches = {dump_yaml(config.patch): config.patch for config in self.corners if PLANS[config.strategy].patch}
        for network in networks:
            for patch in patches.values():
                patch_share(patch, network)
                patched_sublayers(patch, network)
        train_and_valid(self.task)

    def run(self, parameters: dict[str, Any], place: str, callbacks: Sequence[Callback]) -> Outcome:
        """Adapt, or read the bundle that was adapted before a kill."""
        config, path = self.space.of_trial(parameters), self.folder / place
        places, model = {"bundle": place}, self.backbone
        if isinstance(model, Backbones):
            places["backbone"], model = model.get(parameters)
        if path.exists() and same_settings(path / "config.yaml", config):
            metrics = read_json(path / "metrics.json")
        else:
            bundle = adapt(
                model, self.corpus, self.task.name, path, config, resume=True, overwrite=True, callbacks=callbacks
            )
            metrics = bundle.metrics
        judged = metrics.get("cross_validation") or metrics | {"metrics": metrics["valid"]}
        return Outcome(judged["metrics"][self.monitor], judged["curve"], places)
