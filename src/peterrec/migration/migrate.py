"""The verb `migrate`: which bundles may be kept on a backbone that was trained further, and which are trained again."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peterrec.arguments import checked
from peterrec.artifacts.bundle_io import Bundle, save_bundle
from peterrec.artifacts.hub import artifact_folder
from peterrec.artifacts.tensors import fingerprint
from peterrec.config import MigrateConfig, dump_yaml, with_settings
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError, FingerprintError
from peterrec.evaluation.migration_results import BundleVersion, MigratedBundle, Migration, MigrationReport, Version
from peterrec.evaluation.results import Comparison, MetricEstimate
from peterrec.migration.judge import (
    Candidate,
    compare_versions,
    decide_migration,
    deciding_metric,
    estimate_versions,
    largest_loss,
    read_by,
)
from peterrec.migration.versions import MigratingBundle
from peterrec.model import UserModel
from peterrec.process import require_one_process
from peterrec.sequence_model import with_separate_bundles
from peterrec.storage import DESCRIPTIONS, FORMAT_VERSION, check_output, new_folder, write_json
from peterrec.training.work_folder import WorkFolder

logger = logging.getLogger(__name__)

VERSION_OF: dict[Migration, Version] = {"keep": "kept", "refit": "refitted", "anew": "anew"}


@checked
def migrate(
    backbone: str | Path | UserModel,
    corpus: str | Path | Corpus,
    bundles: Sequence[str | Path],
    out: str | Path,
    previous: str | Path | UserModel,
    config: MigrateConfig | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    **settings: Any,
) -> MigrationReport:
    """Bring bundles to a backbone that was trained further: say which may be kept, and write one of each task.

    Each bundle is judged on the valid users of its task, as it was on the earlier backbone, with the same weights on
    the new one, trained further from there (`refit`), and trained from nothing (`anew`). It is kept unless that is
    clearly worse than before, or training further is clearly better; it is made anew where that is clearly better than
    training further. Clear is a paired difference whose interval is on one side of zero.

    Args:
        backbone: that the bundles are to be for: a folder of `pretrain` with `initial`, or of `grow`; or a model.
        corpus: a folder written by `prepare` with the catalogue of `backbone`, or an opened corpus, with the tasks.
        bundles: folders written by `adapt`, or `hf://organization/name`, of `previous`.
        out: folder to write: a bundle in `OUT/NAME` for each, and `OUT/migration.json`.
        previous: backbone that they are of.
        config: settings; defaults if not given.
        resume: go on with a killed migration.
        overwrite: replace the migration at `out`.
        settings: of `MigrateConfig`, by name, in place of those of `config`: `anew=True`.

    Returns:
        For each bundle the metric of its versions with intervals, their paired differences, and what is to be done.

    Raises:
        ConfigError: no bundle, or two of one name.
        FingerprintError: `backbone` does not come from `previous`, a bundle is of neither, or the corpus is of another
            catalogue.
        TaskError: the corpus lacks the task of a bundle, or has it with other classes or another split.
        ArtifactError: `out` exists, or something is missing or damaged.
        TrainingError, InterruptedRun, StorageError: as in `adapt`.
    """
    config = with_settings(MigrateConfig, config, settings)
    require_one_process()
    check_output(Path(out), overwrite=overwrite, kind="migration")
    models = [model if isinstance(model, UserModel) else _open(model) for model in (previous, backbone)]
    before, after = map(with_separate_bundles, models)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    _check(before, after, corpus)
    migrating = [
        MigratingBundle.read(name, folder, after, corpus, config) for name, folder in _folders(bundles).items()
    ]
    for bundle in migrating:
        before.identity.owner(bundle.bundle.backbone_fingerprint, bundle.bundle.catalogue_fingerprint)
    inputs = {"backbone": after.fingerprint, "previous": before.fingerprint, "corpus": corpus.manifest["fingerprint"]}
    inputs |= {f"bundle {bundle.name}": fingerprint(bundle.bundle.tensors()) for bundle in migrating}
    work = WorkFolder(Path(out), config, inputs, resume=resume, overwrite=overwrite, kind="migration")
    move = _Inputs(before, after, corpus, config, work)
    rows, sources = zip(*(_migrate_bundle(move, bundle) for bundle in migrating), strict=True)
    report = MigrationReport(
        previous_fingerprint=before.fingerprint,
        backbone_fingerprint=after.fingerprint,
        corpus_fingerprint=corpus.manifest["fingerprint"],
        bundles=list(rows),
        settings=config.model_dump(mode="json"),
    )
    _write(Path(out), report, migrating, sources, overwrite=overwrite)
    work.remove()
    return report


def _open(path: str | Path) -> UserModel:
    return UserModel.from_pretrained(artifact_folder(path, "backbone"))


def _folders(bundles: Sequence[str | Path]) -> dict[str, Path]:
    """Return the folders of bundles by their names.

    Raises:
        ConfigError: there is none, or two have one name.
    """
    names = [Path(bundle).name for bundle in bundles]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or twice:
        problem = f"two bundles are named {twice[0]!r}" if twice else "there is no bundle to migrate"
        raise ConfigError(problem, remedy="name each bundle once; those of one name in several migrations")
    return {name: artifact_folder(bundle, "bundle") for name, bundle in zip(names, bundles, strict=True)}


def _check(before: UserModel, after: UserModel, corpus: Corpus) -> None:
    """Refuse backbones of which the second does not come from the first, and a corpus of another catalogue."""
    if before.fingerprint not in [identity.fingerprint for identity in after.pretrained.lineage]:
        raise FingerprintError(
            "the new backbone was neither continued nor grown from the previous one",
            remedy="make it by `pretrain --from` or `grow`, or adapt anew",
        )
    after.pretrained.check_corpus(corpus)


@dataclass(frozen=True)
class _Inputs:
    """Inputs that all bundles of a migration share.

    Attributes:
        before: the earlier backbone.
        after: the new one.
        corpus: with the tasks.
        config: settings.
        work: folder of the migration.
    """

    before: UserModel
    after: UserModel
    corpus: Corpus
    config: MigrateConfig
    work: WorkFolder


def _versions(
    move: _Inputs, migrating: MigratingBundle
) -> tuple[dict[Version, Bundle], dict[Version, Path], dict[Version, int]]:
    """Return the versions of a bundle on the new backbone; of those that were trained, their folders and epochs."""
    versions: dict[Version, Bundle] = {"kept": migrating.moved(move.after)}
    folders: dict[Version, Path] = {}
    epochs: dict[Version, int] = {}
    trainings: dict[Version, bool] = {"refitted": move.config.refit, "anew": move.config.anew}
    for version, wanted in trainings.items():
        if wanted and migrating.obstacle is None:
            training = migrating.trained(move.after, move.corpus, move.work, anew=version == "anew")
            versions[version], folders[version], epochs[version] = training
    return versions, folders, epochs


def _migrate_bundle(move: _Inputs, migrating: MigratingBundle) -> tuple[MigratedBundle, Bundle | Path | None]:
    """Return the verdict on a bundle, and the version that it chooses: in memory, or the folder where it is."""
    task, config, before, after = migrating.task, move.config, move.before, move.after
    users, metric = task.part("valid"), deciding_metric(task, config)
    versions, folders, epochs = _versions(move, migrating)
    candidates: dict[Version, Candidate] = {
        "before": Candidate(before, before.add_bundle(migrating.bundle, "before"), read_by(before, users))
    }
    candidates |= {
        version: Candidate(after, after.add_bundle(bundle, version), users) for version, bundle in versions.items()
    }
    estimates = estimate_versions(task, candidates, config)
    comparisons = compare_versions(estimates, metric, config.confidence)
    verdict = decide_migration(comparisons, may_keep=migrating.bundle.eraser is None)
    chosen: Version | None = VERSION_OF[verdict] if VERSION_OF[verdict] in versions else None
    logger.info(f"{migrating.name}: {verdict}")
    row = MigratedBundle(
        name=migrating.name,
        task=task.name,
        kind=task.kind,
        users=len(users),
        metric=metric,
        versions=[
            BundleVersion(
                version=version,
                value=MetricEstimate.from_interval(estimate.interval(config.confidence)),
                epochs=epochs.get(version),
            )
            for version, estimate in estimates.items()
        ],
        comparisons=comparisons,
        verdict=verdict,
        epochs_saved=epochs["anew"] - epochs["refitted"] if {"anew", "refitted"} <= set(epochs) else None,
        written=chosen,
        notes=[*migrating.notes(chosen), *(_loss_notes(migrating, comparisons, metric) if chosen == "kept" else [])],
    )
    return row, None if chosen is None else folders.get(chosen, versions[chosen])


def _loss_notes(migrating: MigratingBundle, comparisons: list[Comparison], metric: str) -> list[str]:
    """Return in words what a bundle that is kept may have lost: what is not clear is not proven to be nothing."""
    loss = largest_loss(comparisons, metric)
    if loss is None:
        return []
    users = len(migrating.task.part("valid"))
    return [
        f"{migrating.name} is kept; by {users:,} valid users its {metric} may be up to {loss:.4f} worse than before"
    ]


def _write(
    out: Path,
    report: MigrationReport,
    migrating: Sequence[MigratingBundle],
    sources: Sequence[Bundle | Path | None],
    *,
    overwrite: bool,
) -> None:
    """Write the chosen bundles, each as it is on disk or in memory, and the report."""
    with new_folder(out, overwrite=overwrite, kind="migration") as folder:
        for bundle, source in zip(migrating, sources, strict=True):
            if isinstance(source, Bundle):
                save_bundle(folder / bundle.name, source, config_yaml=dump_yaml(bundle.config))
            elif source is not None:
                shutil.copytree(source, folder / bundle.name)
        meta = {"kind": "migration", "format_version": FORMAT_VERSION}
        write_json(folder / DESCRIPTIONS["migration"], meta | report.to_json())
