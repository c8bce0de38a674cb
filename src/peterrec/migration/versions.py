"""Versions of a bundle on a later backbone: kept as it is, trained further, or trained anew."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from peterrec.artifacts.bundle_io import Bundle, load_bundle
from peterrec.artifacts.tensors import fingerprint
from peterrec.config import AdaptConfig, MigrateConfig, load_config
from peterrec.data.corpus import Corpus, Task
from peterrec.errors import ConfigError
from peterrec.evaluation.migration_results import Version
from peterrec.model import UserModel
from peterrec.training.adapt import adapt
from peterrec.training.decide import check_calibration, decide, with_reference
from peterrec.training.erasure import attribute_to_erase
from peterrec.training.initial_bundle import InitialBundle, load_from_lineage, moved_to
from peterrec.training.work_folder import WorkFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MigratingBundle:
    """A bundle of an earlier backbone, with its task, and how it was trained.

    Attributes:
        name: of its folder.
        bundle: as it was saved, for the earlier backbone.
        start: the same on the new backbone.
        task: of the corpus.
        config: that it was trained with; of a merged or grown bundle the defaults.
        obstacle: why it cannot be trained by itself; None: it can.
    """

    name: str
    bundle: Bundle
    start: InitialBundle
    task: Task
    config: AdaptConfig
    obstacle: str | None

    @classmethod
    def read(cls, name: str, folder: Path, model: UserModel, corpus: Corpus, config: MigrateConfig) -> MigratingBundle:
        """Read a bundle, and check that it and the corpus have the same task.

        Raises:
            FingerprintError: it is of another backbone, or the events were prepared otherwise.
            TaskError: the corpus has no such task, one of other classes or another split, or too few valid users for
                its calibration.
            ArtifactError: it is missing or damaged.
            ConfigError: its `config.yaml` is of another release, or what erases its attribute is not installed.
        """
        bundle = load_from_lineage(folder, model)
        task = replace(corpus.task(bundle.name), exclude_seen=bundle.exclude_seen)
        start = InitialBundle(moved_to(bundle, model), fingerprint(bundle.tensors()), bundle.backbone_fingerprint)
        start.check_task(corpus, task)
        file = folder / "config.yaml"
        settings = load_config(AdaptConfig, file) if file.is_file() else AdaptConfig()
        check_calibration(settings, task, task.part("valid"))
        obstacle = None
        try:
            InitialBundle.read(bundle, model)
        except ConfigError as error:
            obstacle = f"{name} is neither refitted nor made anew: {error.message}"
        if obstacle is None and (config.refit or config.anew):
            attribute_to_erase(settings, corpus, [bundle.name])
        return cls(name, bundle, start, task, settings.model_copy(update={"runner": config.runner}), obstacle)

    def moved(self, model: UserModel) -> Bundle:
        """Return it with the same weights on the new backbone, calibrated again where it was trained so."""
        train, valid = self.task.part("train"), self.task.part("valid")
        seed = self.bundle.metrics.get("seed")
        metrics = {"kept": self.start.facts, "warnings": [], **({} if seed is None else {"seed": seed})}
        # Calibration, thresholds and the users to compare with were of what it answered before.
        bundle = replace(self.start.bundle, calibration=None, decision=None, reference=None, metrics=metrics)
        return with_reference(model, decide(model, bundle, self.task, valid, self.config), train, valid)

    def trained(self, model: UserModel, corpus: Corpus, work: WorkFolder, *, anew: bool) -> tuple[Bundle, Path, int]:
        """Train it further on the new backbone, or from nothing; a migration that was stopped goes on there.

        Args:
            model: the new backbone.
            corpus: with the task.
            work: folder of the migration.
            anew: from nothing.

        Returns:
            The bundle, its folder, and the epochs up to the best one.
        """
        version = f"{self.name}-{'anew' if anew else 'refitted'}"
        out = work.root / "bundles" / version
        do = partial(self._train, model, corpus, out, anew=anew)
        result = work.stage(version, do)
        return load_bundle(out, model.network.backbone, model.identity), out, int(result["epochs"])

    def _train(self, model: UserModel, corpus: Corpus, out: Path, _: WorkFolder, *, anew: bool) -> dict[str, Any]:
        logger.info(f"training {self.name} {'anew' if anew else 'further'}")
        config, started = self.config, time.perf_counter()
        if not anew and config.selection == "cross-validation":
            config = config.model_copy(update={"selection": "valid"})
        initial = None if anew else self.bundle
        out.parent.mkdir(parents=True, exist_ok=True)
        bundle = adapt(model, corpus, self.task.name, out, config, initial=initial, resume=True, overwrite=True)
        return {"epochs": bundle.metrics["best_epoch"] + 1, "seconds": time.perf_counter() - started}

    def notes(self, written: Version | None) -> list[str]:
        """Return in words what is to be known of its migration.

        Args:
            written: version that is written; None: none.
        """
        notes = [] if self.obstacle is None else [self.obstacle]
        if self.bundle.eraser is not None:
            notes.append(f"{self.bundle.erased} was erased of what {self.name} read before: it is not kept as it is")
        if written is None:
            notes.append(f"no bundle of {self.name} is written, for what it needs was not trained")
        return notes
