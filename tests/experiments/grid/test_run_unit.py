"""A cell of each kind says what training and evaluation say by themselves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from builders import write_corpus
from peterrec.config import AdaptConfig, PretrainConfig
from peterrec.config.experiment import ExperimentConfig
from peterrec.data.corpus import Corpus
from peterrec.data.hashing import id_hash
from peterrec.data.sequences import FIRST_ITEM
from peterrec.data.splits import uniform
from peterrec.errors import TrainingError
from peterrec.evaluation import per_user
from peterrec.evaluation.baselines import fit_baseline
from peterrec.evaluation.bundles import evaluate
from peterrec.experiments.grid import peak_memory as memory
from peterrec.experiments.grid import run_unit as work
from peterrec.experiments.grid import state
from peterrec.experiments.grid.plan import Unit, units_of
from peterrec.experiments.grid.run_unit import Job
from peterrec.experiments.grid.runner import _write_synthetic_data
from peterrec.model import UserModel
from peterrec.report.grid.cells import CellResult, Cost, read_cell, read_users
from peterrec.storage import DESCRIPTIONS
from peterrec.training.adapt import adapt

from .small_grid import question, small_grid

SHARED = question("patch", "head", "joint", "majority", "popularity", "dupn", "conet", label_fractions=[1.0, 0.5])


@pytest.fixture(scope="module")
def config() -> ExperimentConfig:
    return small_grid(questions=[SHARED])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, config: ExperimentConfig) -> Path:
    """A grid's folder with its corpus and backbone."""
    folder = tmp_path_factory.mktemp("grid")
    _write_synthetic_data(config, folder)
    for unit in units_of(config, folder):
        if not unit.cells:
            assert work.do(Job(unit, folder, config.evaluate)).status == "done"
            assert state.is_done(folder, unit)
    return folder


def test_what_another_release_wrote_is_made_again(config: ExperimentConfig, out: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    units = [unit for unit in units_of(config, copy) if not unit.cells]
    assert units
    for unit in units:
        assert state.is_done(copy, unit)
        path = copy / unit.place / DESCRIPTIONS[unit.kind]
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 1}))
        assert not state.is_done(copy, unit)


def unit_of(config: ExperimentConfig, out: Path, method: str, task: str, share: float = 1.0) -> Unit:
    return next(
        unit
        for unit in units_of(config, out)
        for key in unit.cells
        if (key.method, key.task, key.share) == (method, task, share)
    )


def do(config: ExperimentConfig, out: Path, unit: Unit) -> list[tuple[CellResult, pa.Table]]:
    outcome = work.do(Job(unit, out, config.evaluate, jobs=3))
    assert outcome.status == "done", outcome.line
    assert state.is_done(out, unit)
    return [(read_cell(out / key.folder), read_users(out / key.folder)) for key in unit.cells]


def check_sums(cell: CellResult, users: pa.Table) -> None:
    rows = users["rows"].to_numpy()
    assert len(users) == cell.users["test"]
    metrics = [name for name in users.column_names if name not in ("user_id", "events", "seen", "rows")]
    assert cell.primary in metrics
    for name in metrics:
        assert users[name].to_numpy().sum() / rows.sum() == pytest.approx(cell.metrics[name], abs=1e-12), name


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("task", ["cluster", "target"])
def test_an_adapted_cell_is_adapt_and_evaluate(config: ExperimentConfig, out: Path, tmp_path: Path, task: str) -> None:
    unit = unit_of(config, out, "patch", task)
    [(cell, users)] = do(config, out, unit)
    assert isinstance(unit.settings, AdaptConfig)
    model = UserModel.from_pretrained(out / "backbones/small/base/seed-0", device="cpu")
    corpus = Corpus.open(out / "corpora/small/seed-0")
    bundle = adapt(model, corpus, task, tmp_path / "bundle", unit.settings)
    judged = evaluate(model, corpus, [tmp_path / "bundle"], config=config.evaluate).methods[0]
    assert cell.metrics == pytest.approx({name: value.value for name, value in judged.values.items()}, abs=1e-9)
    check_sums(cell, users)
    assert (cell.family, cell.cost.trained, cell.cost.all_params) == ("adapt", bundle.trained, bundle.all_params)
    assert (cell.monitor, cell.best_epoch) == (bundle.metrics["monitor"], bundle.metrics["best_epoch"])
    assert len(cell.curve) == 1
    assert cell.start == bundle.metrics["start"] != {}
    assert cell.cost.seconds == pytest.approx(cell.curve[0]["seconds"])
    assert cell.cost.stored_bytes == sum(path.stat().st_size for path in (out / unit.place).iterdir())
    assert cell.cost.jobs == 3
    assert cell.inputs == unit.inputs
    assert cell.settings["strategy"] == "patch"
    test = corpus.task(task).part("test")
    assert users["user_id"].to_pylist() == test.user_ids.to_pylist()
    assert users["events"].to_pylist() == test.sequences.lengths.tolist()
    assert 0 < sum(users["seen"].to_pylist()) < len(users)
    if test.targets is not None:
        assert users["rows"].to_pylist() == test.targets.lengths.tolist()
        assert (cell.primary, cell.candidates) == ("mrr@5", 12)
        assert "hr@5 sampled-99" in users.column_names
    else:
        assert sum(cell.classes.values()) == len(users)


@pytest.mark.slow
def test_a_share_trains_on_fewer_and_is_judged_on_the_same(config: ExperimentConfig, out: Path) -> None:
    [(full, users)], [(half, half_users)] = (
        do(config, out, unit_of(config, out, "head", "cluster", share)) for share in (1.0, 0.5)
    )
    assert half.users["train"] == round(full.users["train"] / 2)
    assert (half.users["valid"], half.users["test"]) == (full.users["valid"], full.users["test"])
    assert users.select(["user_id", "events", "seen"]).equals(half_users.select(["user_id", "events", "seen"]))
    assert half.metrics["log_loss"] != full.metrics["log_loss"]


def test_a_baseline_is_fitted_on_the_share_and_on_all_that_has_no_label(
    config: ExperimentConfig, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[Any] = []

    def spy(*arguments: Any, unlabelled: Any, **options: Any) -> Any:
        handed.append(unlabelled)
        return fit_baseline(*arguments, unlabelled=unlabelled, **options)

    monkeypatch.setattr(work, "fit_baseline", spy)
    [(cell, users)] = do(config, out, unit_of(config, out, "popularity", "target", 0.5))
    corpus = Corpus.open(out / "corpora/small/seed-0")
    assert [len(sequences) for sequences in handed] == [corpus.manifest["users"]]
    train = work.with_share(corpus, 0.5, 0).task("target").part("train")
    fitted = fit_baseline("popularity", train, train, n_targets=12)
    assert not isinstance(fitted, str)
    results = per_user.evaluate_users(
        corpus.task("target"), fitted, config.evaluate, lambda ids: np.zeros(len(ids), dtype=bool)
    )
    assert cell.metrics == results.metrics
    assert cell.family == "baseline"
    assert cell.cost.trained == {}
    assert cell.curve == []
    check_sums(cell, users)


@pytest.mark.slow
@pytest.mark.usefixtures("last_epoch_kept")
@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("method", "family"), [("joint", "adapt"), ("dupn", "neural-baseline")])
def test_what_trains_all_tasks_gives_a_cell_of_each(
    config: ExperimentConfig, out: Path, method: str, family: str
) -> None:
    results = do(config, out, unit_of(config, out, method, "cluster"))
    assert [cell.task for cell, _ in results] == ["cluster", "target"]
    for cell, users in results:
        assert (cell.family, cell.method) == (family, method)
        assert cell.cost.seconds is not None
        assert cell.cost.all_params is not None
        assert cell.best_epoch == 0
        check_sums(cell, users)


def test_a_training_whose_start_was_chosen_has_no_time_per_epoch() -> None:
    fields = work._training_fields([], "log_loss", -1, settings={}, start={"log_loss": 0.6}, seconds=3.5)
    assert fields["cost"] == Cost(seconds=3.5, seconds_per_epoch=None)
    assert (fields["best_epoch"], fields["curve"], fields["start"]) == (-1, [], {"log_loss": 0.6})


@pytest.mark.slow
def test_seconds_of_a_neural_baseline_are_of_each_epoch(out: Path) -> None:
    config = small_grid("methods.conet.settings.epochs=3", "methods.conet.settings.patience=3", questions=[SHARED])
    [(cell, _)] = do(config, out, unit_of(config, out, "conet", "target"))
    assert cell.cost.seconds == pytest.approx(sum(row["seconds"] or 0.0 for row in cell.curve))
    assert len(cell.curve) == 3


@pytest.mark.slow
def test_large_bundles_are_not_kept(config: ExperimentConfig, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = unit_of(config, out, "head", "target")
    monkeypatch.setattr(work, "LARGE", 10)
    do(config, out, unit)
    assert not (out / unit.place).exists()
    assert state.is_done(out, unit)
    monkeypatch.undo()
    do(config, out, unit)
    assert (out / unit.place).exists()


@pytest.mark.slow
def test_a_bundle_that_is_there_is_not_trained_again(
    config: ExperimentConfig, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = unit_of(config, out, "patch", "target")
    [(before, _)] = do(config, out, unit)
    monkeypatch.setattr(work, "adapt", None)
    [(after, _)] = do(config, out, unit)
    assert after.metrics == before.metrics


def test_what_cannot_be_had_is_skipped_with_the_reason(out: Path) -> None:
    methods_ = {"last2": {"adapt": {"strategy": "last2"}}, "few": {"adapt": {"strategy": "head"}}}
    asks = [question("last2"), question("few", name="two", label_fractions=[0.001], tasks=["small/cluster"])]
    config = small_grid("pretrain.backbone.dilations=[1]", methods=methods_, questions=asks)
    backbone = next(unit for unit in units_of(config, out) if unit.kind == "backbone")
    unit = unit_of(config, out, "last2", "cluster")
    shallow = replace(unit, needs=(unit.needs[0], "shallow"))
    assert work.do(Job(replace(backbone, place="shallow"), out, config.evaluate)).status == "done"
    for skipped_unit, words in (
        (shallow, "the backbone has 1"),
        (unit_of(config, out, "few", "cluster", 0.001), "too few"),
    ):
        outcome = work.do(Job(skipped_unit, out, config.evaluate))
        assert outcome.status == "skipped"
        assert words in outcome.line
        assert state.is_done(out, skipped_unit), "it is not tried again"
        assert words in state.why_missing(out, skipped_unit.cells[0], skipped_unit)
        assert not state.is_done(out, replace(skipped_unit, inputs=skipped_unit.inputs | {"seed": 9})), (
            "unless something changed"
        )


@pytest.mark.slow
def test_an_error_is_noted_and_forgotten_when_it_goes_well(
    config: ExperimentConfig, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = unit_of(config, out, "head", "cluster", 0.5)
    key = replace(unit.cells[0], method="other")
    failing_unit = replace(unit, cells=(key,), place="bundles/other")

    def broken(*_: Any, **__: Any) -> None:
        raise TrainingError("it diverged", remedy="lower the rate")

    monkeypatch.setattr(work, "adapt", broken)
    outcome = work.do(Job(failing_unit, out, config.evaluate))
    assert outcome.status == "failed"
    assert "it diverged" in outcome.line
    note = out / key.folder.with_name(f"{key.folder.name}.failed.json")
    assert "broken" in "".join(json.loads(note.read_text())["trace"])
    assert not state.is_done(out, failing_unit), "it is tried again"
    monkeypatch.setattr(work, "adapt", lambda *_, **__: 1 / 0)
    assert "unexpected ZeroDivisionError" in work.do(Job(failing_unit, out, config.evaluate)).line
    monkeypatch.undo()
    do(config, out, failing_unit)
    assert not note.exists()


@pytest.mark.parametrize("rare", ["drop", "unk"])
def test_the_users_of_pretraining_are_those_that_it_takes(tmp_path: Path, rare: str) -> None:
    corpus = Corpus.open(write_corpus(tmp_path / "corpus", users=60, rare_items=rare))
    items = np.array(corpus.sequences.items)
    if rare == "unk":
        items[np.random.default_rng(0).random(len(items)) < 0.7] = FIRST_ITEM - 1
        np.save(corpus.path / "cache" / "items.npy", items)
        corpus = Corpus.open(corpus.path)
    names = [f"user-{i}" for i in range(60)]
    for seed in (0, 1):
        held_out = uniform(id_hash(names), f"pretrain-{seed}") < 0.2
        has_items = [any(item >= FIRST_ITEM for item in corpus.sequences[row][1:]) for row in range(60)]
        expected = [has_items[row] and not held_out[row] for row in range(60)]
        assert 0 < sum(expected) < 60
        in_pretraining = per_user.pretraining_users(corpus, PretrainConfig(seed=seed, valid_fraction=0.2))
        assert in_pretraining(pa.array([*names, "a stranger"])).tolist() == [*expected, False]
    nobody_held_out = per_user.pretraining_users(corpus, PretrainConfig(valid_fraction=1e-9))
    assert nobody_held_out(pa.array(names)).tolist() == has_items, "it is of no use to pre-training, but it can be said"


@pytest.mark.slow
def test_the_peak_of_memory_is_that_of_what_is_watched() -> None:
    once = memory.watch_memory()
    if once() is None:
        pytest.skip("the system keeps no peak that can be set back")
    large = np.ones(40_000_000 // 8)
    grown = once()
    assert grown is not None
    assert 35_000_000 < grown < 80_000_000
    del large
    second_growth = memory.watch_memory()
    assert (second_growth() or 0) < 20_000_000, "the peak of before is forgotten"


@pytest.mark.slow
def test_memory_is_none_where_it_cannot_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CLEAR", Path("/nowhere/clear_refs"))
    assert memory.watch_memory()() is None
