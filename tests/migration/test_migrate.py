"""Bundles on a backbone that was trained further: judged as they answer there, and written ready to be asked."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import tiny_pretrained
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.identity import dump_identity
from peterrec.cli.main import execute
from peterrec.errors import ArtifactError, ConfigError, FingerprintError
from peterrec.evaluation.migration_results import MigrationReport
from peterrec.migration import versions
from peterrec.migration.judge import read_by
from peterrec.migration.migrate import migrate
from peterrec.model import UserModel
from peterrec.storage import read_json
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.initial_bundle import load_from_lineage, moved_to
from training.small import QUIET, StopAt, Stopped
from training.upgrade import NEW_TARGET, TASKS, Upgrade, bundle_config

SETTINGS: dict[str, Any] = {"bootstrap": 100, "runner": QUIET}


@pytest.fixture(scope="module")
def migrated(upgrade: Upgrade, tmp_path_factory: pytest.TempPathFactory) -> tuple[MigrationReport, Path]:
    out = tmp_path_factory.mktemp("migrated") / "out"
    bundles = list(upgrade.bundles.values())
    place = (upgrade.later_backbone, upgrade.later_corpus, bundles, out, upgrade.backbone)
    return migrate(*place, refit=False, **SETTINGS), out


def log_losses(model: UserModel, bundle: str, upgrade: Upgrade, **options: Any) -> np.ndarray:
    """Log-loss of each valid user of the later corpus, asked by ids."""
    valid = upgrade.later_corpus.task("cluster").part("valid")
    catalogue = upgrade.later_corpus.catalogue
    histories = [catalogue.decode(valid.sequences[row]) for row in range(len(valid))]
    answers = model.predict(histories, bundle, require_known=False, **options)
    names = upgrade.later_corpus.task("cluster").class_names
    columns = [answers.class_names.index(names[label]) for label in np.asarray(valid.labels)]
    return -np.log(answers.probabilities[np.arange(len(valid)), columns])


def test_before_and_kept_are_what_the_models_say_of_valid_users(
    upgrade: Upgrade, migrated: tuple[MigrationReport, Path]
) -> None:
    before, after = upgrade.models()
    before.load_bundle(upgrade.bundles["cluster"])
    after.add_bundle(moved_to(load_from_lineage(upgrade.bundles["cluster"], after), after))
    row = next(row for row in migrated[0].bundles if row.task == "cluster")
    values = {version.version: version.value.value for version in row.versions}
    losses = {name: log_losses(model, "cluster", upgrade) for name, model in {"before": before, "kept": after}.items()}
    assert values == pytest.approx({name: loss.mean() for name, loss in losses.items()}, rel=1e-4)
    (pair,) = row.comparisons
    assert (pair.method, pair.reference) == ("kept", "before")
    assert pair.difference == pytest.approx((losses["kept"] - losses["before"]).mean(), rel=1e-3, abs=1e-6)
    assert row.users == len(losses["kept"])


def test_kept_bundles_are_written_and_load_on_the_new_backbone_alone(
    upgrade: Upgrade, migrated: tuple[MigrationReport, Path]
) -> None:
    report, out = migrated
    assert [row.name for row in report.bundles] == list(TASKS)
    before, after = upgrade.models()
    written = [row for row in report.bundles if row.written == "kept"]
    assert written
    for row in report.bundles:
        assert (out / row.name).exists() == (row.written is not None) == (row.verdict == "keep")
    for row in written:
        assert after.load_bundle(out / row.name) == row.task
        with pytest.raises(FingerprintError):
            before.load_bundle(out / row.name)
        source, moved = load_from_lineage(upgrade.bundles[row.task], after), after.bundle(row.task)
        for name, tensor in source.tensors().items():
            torch.testing.assert_close(moved.tensors()[name], tensor, rtol=0, atol=0)
        assert moved.metrics["kept"]["backbone_fingerprint"] == before.fingerprint
        losses = {"target": -(row.comparisons[0].low or 0.0)}
        assert bool(row.notes) == (losses.get(row.task, row.comparisons[0].high or 0.0) > 0)
        assert moved.reference is not None
    tree = read_json(out / "migration.json")
    assert tree.pop("kind") == "migration"
    tree.pop("format_version")
    assert MigrationReport.model_validate(tree) == report


def test_a_target_that_a_bundle_lacks_counts_as_one_it_never_finds(
    upgrade: Upgrade, migrated: tuple[MigrationReport, Path]
) -> None:
    before, _ = upgrade.models()
    before.load_bundle(upgrade.bundles["target"])
    task = upgrade.later_corpus.task("target")
    assert task.targets is not None
    valid = read_by(before, task.part("valid"))
    names, items = before.targets("target").ids.to_pylist(), task.targets.ids.to_pylist()
    assert NEW_TARGET in set(items) - set(names)
    scores = np.concatenate(list(before.score_batches(valid.sequences, "target")))
    reciprocal = []
    assert valid.targets is not None
    for row in range(len(valid)):
        positives = {items[target] for target in valid.targets[row]}
        for target in positives:
            better = items
            if target in names:
                better = [names[n] for n in np.flatnonzero(scores[row] > scores[row, names.index(target)])]
            rank = 1 + len(set(better) - positives)
            reciprocal.append(1 / rank if rank <= 5 else 0.0)
    row = next(row for row in migrated[0].bundles if row.task == "target")
    assert row.metric == "mrr@5"
    assert valid.seen_targets is None, "nothing is left out of the rankings"
    assert row.versions[0].value.value == pytest.approx(np.mean(reciprocal), rel=1e-6)


@pytest.fixture(scope="module")
def turned(upgrade: Upgrade) -> UserModel:
    """A backbone of the same lineage whose numbers mean something else: channels are in another order."""
    before, after = upgrade.models()
    network = after.network.cpu()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.backbone.embedding.weight.copy_(network.backbone.embedding.weight[:, order])
    training = {"users": 1, "lineage": [dump_identity(before.identity)]}
    return UserModel(replace(after.pretrained, network=network, training=training), "cpu")


def test_what_is_worse_there_is_trained_further(upgrade: Upgrade, turned: UserModel, tmp_path: Path) -> None:
    place = (turned, upgrade.later_corpus, [upgrade.bundles["cluster"]], tmp_path / "out", upgrade.backbone)
    report = migrate(*place, anew=True, **SETTINGS)
    (row,) = report.bundles
    values = {version.version: version.value.value for version in row.versions}
    assert list(values) == ["before", "kept", "refitted", "anew"]
    assert values["kept"] > values["refitted"]
    assert row.verdict in ("refit", "anew")
    assert row.written == {"refit": "refitted", "anew": "anew"}[row.verdict]
    refitted, anew = row.version("refitted"), row.version("anew")
    assert refitted is not None and anew is not None  # noqa: PT018
    assert row.epochs_saved == anew.epochs - refitted.epochs  # type: ignore[operator]
    assert read_json(tmp_path / "out" / "migration.json")["bundles"][0]["epochs_saved"] == row.epochs_saved
    turned.load_bundle(tmp_path / "out" / "cluster", "written")
    expected = values[row.written]
    assert log_losses(turned, "written", upgrade).mean() == pytest.approx(expected, rel=1e-4)
    assert not (tmp_path / "out.training").exists()
    without = migrate(*place[:3], tmp_path / "b", upgrade.backbone, refit=False, **SETTINGS).bundles[0]
    assert (without.verdict, without.written) == ("refit", None)
    assert "no bundle of cluster is written" in without.notes[0]


def test_what_valid_users_decided_is_decided_again(upgrade: Upgrade, tmp_path: Path) -> None:
    calibrated = bundle_config(epochs=1, calibration={"method": "temperature"})
    before = adapt(upgrade.backbone, upgrade.corpus, "cluster", tmp_path / "cluster", calibrated)
    place = (upgrade.later_backbone, upgrade.later_corpus, [tmp_path / "cluster"], tmp_path / "out", upgrade.backbone)
    (row,) = migrate(*place, refit=False, **SETTINGS).bundles
    assert row.written == "kept"
    _, after = upgrade.models()
    after.load_bundle(tmp_path / "out" / "cluster")
    written = after.bundle("cluster")
    assert before.calibration is not None
    assert written.calibration is not None
    assert written.calibration.users == row.users
    assert written.calibration.temperature != before.calibration.temperature


def test_what_was_erased_is_erased_again_and_never_kept(upgrade: Upgrade, tmp_path: Path) -> None:
    pytest.importorskip("concept_erasure")
    adapt(upgrade.backbone, upgrade.corpus, "spend", tmp_path / "spend", bundle_config(epochs=1, erase="cluster"))
    place = (upgrade.later_backbone, upgrade.later_corpus, [tmp_path / "spend"], tmp_path / "out", upgrade.backbone)
    (row,) = migrate(*place, **SETTINGS).bundles
    assert (row.verdict, row.written) == ("refit", "refitted")
    assert "cluster was erased of what spend read before" in row.notes[0]
    _, after = upgrade.models()
    after.load_bundle(tmp_path / "out" / "spend")
    assert after.bundle("spend").erased == "cluster"


def test_bundles_of_several_tasks_are_kept_or_not(upgrade: Upgrade, tmp_path: Path) -> None:
    config = bundle_config(epochs=1, strategy="joint")
    adapt_jointly(upgrade.backbone, upgrade.corpus, ["cluster", "spend"], tmp_path / "joint", config)
    path = tmp_path / "joint" / "cluster"
    place = (upgrade.later_backbone, upgrade.later_corpus, [path], tmp_path / "out", upgrade.backbone)
    (row,) = migrate(*place, **SETTINGS).bundles
    assert [version.version for version in row.versions] == ["before", "kept"]
    assert "neither refitted nor made anew" in row.notes[0]
    assert row.written == ("kept" if row.verdict == "keep" else None)


@pytest.mark.slow
def test_a_migration_that_was_stopped_goes_on(
    upgrade: Upgrade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = (upgrade.later_backbone, upgrade.later_corpus, [upgrade.bundles["cluster"], upgrade.bundles["spend"]])
    uninterrupted = migrate(*place, tmp_path / "uninterrupted", upgrade.backbone, **SETTINGS)
    train = versions.adapt
    monkeypatch.setattr(versions, "adapt", partial(train, callbacks=[StopAt("epoch end", 3)]))
    with pytest.raises(Stopped):
        migrate(*place, tmp_path / "out", upgrade.backbone, **SETTINGS)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ArtifactError, match="holds an unfinished run"):
        migrate(*place, tmp_path / "out", upgrade.backbone, **SETTINGS)
    monkeypatch.setattr(versions, "adapt", train)
    resumed = migrate(*place, tmp_path / "out", upgrade.backbone, resume=True, **SETTINGS)
    assert resumed.bundles == uninterrupted.bundles


def test_what_does_not_fit_is_refused_before_anything_is_written(upgrade: Upgrade, tmp_path: Path) -> None:
    path, out = upgrade.bundles["cluster"], tmp_path / "out"
    place = (upgrade.later_backbone, upgrade.later_corpus)
    with pytest.raises(ConfigError, match="no bundle to migrate"):
        migrate(*place, [], out, upgrade.backbone)
    with pytest.raises(ConfigError, match="two bundles are named 'cluster'"):
        migrate(*place, [path, path], out, upgrade.backbone)
    with pytest.raises(FingerprintError, match="neither continued nor grown from the previous one"):
        migrate(upgrade.backbone, upgrade.corpus, [path], out, upgrade.later_backbone)
    save_backbone(tmp_path / "other", tiny_pretrained())
    with pytest.raises(FingerprintError, match="neither continued nor grown from the previous one"):
        migrate(*place, [path], out, tmp_path / "other")
    with pytest.raises(FingerprintError, match="its catalogue is not the backbone's"):
        migrate(upgrade.later_backbone, tiny_corpus(tmp_path), [path], out, upgrade.backbone)
    (out / "a").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="already exists"):
        migrate(*place, [path], out, upgrade.backbone)
    with pytest.raises(ArtifactError, match="is not a migration"):
        migrate(*place, [path], out, upgrade.backbone, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "other", "tiny"}


def tiny_corpus(folder: Path) -> Path:
    from builders import write_corpus

    return write_corpus(folder / "tiny")


def test_the_command_line_prints_the_table(
    upgrade: Upgrade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = [str(upgrade.later_backbone), str(upgrade.later_corpus.path), str(upgrade.bundles["spend"])]
    options = [
        "--from",
        str(upgrade.backbone),
        "--out",
        str(tmp_path / "out"),
        "--no-refit",
        "-q",
        "-s",
        "bootstrap=50",
    ]
    assert execute(["migrate", *place, *options]) == 0
    printed = capsys.readouterr().out
    assert "spend" in printed
    assert "mae" in printed
    assert execute(["inspect", str(tmp_path / "out")]) == 0
