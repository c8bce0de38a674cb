"""Searches of real trainings: what they leave, what they never read, and what a kill changes: nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from peterrec.cli.main import execute
from peterrec.config import AdaptConfig, PretrainConfig, dump_yaml, load_config
from peterrec.data.corpus import Corpus
from peterrec.errors import ArtifactError, ConfigError, PeterRecError, TaskError
from peterrec.model import UserModel
from peterrec.training.adapt import adapt
from peterrec.training.pretrain import pretrain
from peterrec.tuning import study as studies
from peterrec.tuning.result import TuneResult
from peterrec.tuning.tune import tune
from training.small import adapt_config, pretrain_config

RATE = {"low": 1e-4, "high": 1e-1, "log": True}
ADAPT = adapt_config(epochs=2).model_dump(exclude_unset=True, exclude={"patch": {"kind"}}) | {"optim.lr": RATE}
ADAPT["runner"] = {"accelerator": "cpu"}
PRETRAIN = pretrain_config(epochs=2).model_dump(exclude_unset=True) | {"runner": {"accelerator": "cpu"}}
PRETRAIN["backbone"]["dilations"] = [[1, 2]]  # a list as a value


def search(corpus: Corpus, backbone: Any, out: Path, **settings: Any) -> TuneResult:
    return tune(corpus, backbone, out=out, task="cluster", **({"adapt": ADAPT, "trials": 3} | settings))


@pytest.fixture(scope="module")
def result(corpus: Corpus, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> TuneResult:
    return search(corpus, backbone, tmp_path_factory.mktemp("searched") / "search")


def test_the_best_trial_is_what_adapt_makes_of_its_settings(
    corpus: Corpus, backbone: Path, result: TuneResult, tmp_path: Path
) -> None:
    assert [trial.state for trial in result.trials] == ["finished"] * 3
    values = [trial.value for trial in result.trials]
    assert result.best.value == min(value for value in values if value is not None)
    config = load_config(AdaptConfig, result.path / "best.yaml")
    assert config == result.adapt
    assert config.optim.lr == result.best.settings["adapt.optim.lr"]
    bundle = adapt(backbone, corpus, "cluster", tmp_path / "bundle", config)
    assert bundle.metrics["valid"]["log_loss"] == result.best.value
    weights = "adapter_model.safetensors"
    searched = result.path / result.best.places["bundle"] / weights
    assert searched.read_bytes() == (tmp_path / "bundle" / weights).read_bytes()


def test_what_is_left_and_said(result: TuneResult) -> None:
    assert {path.name for path in result.path.iterdir()} == {
        "best.yaml", "search.json", "search.sqlite3", "trials", "trials.md",
    }  # fmt: skip
    text = (result.path / "trials.md").read_text()
    assert text == result.to_markdown()
    assert f"**{result.best.value:.4f}**" in text
    assert "test users were not read" in text
    assert result.to_arrow().column_names == ["trial", "state", "log_loss", "adapt.optim.lr", "epochs", "seconds"]
    assert repr(result).startswith("TuneResult(")


def test_test_users_are_never_read(corpus: Corpus, backbone: Path, result: TuneResult, tmp_path: Path) -> None:
    shutil.copytree(corpus.path, tmp_path / "corpus")
    for path in (tmp_path / "corpus" / "tasks").glob("*/test.parquet"):
        path.write_bytes(b"unreadable")
    unreadable = Corpus.open(tmp_path / "corpus")
    with pytest.raises(ArtifactError):
        unreadable.task("cluster").part("test")
    blind = search(unreadable, backbone, tmp_path / "search", trials=1)
    assert blind.trials[0].value == result.trials[0].value


@pytest.mark.slow
def test_more_trials_go_on_with_the_same_search(
    corpus: Corpus, backbone: Path, result: TuneResult, tmp_path: Path
) -> None:
    first = search(corpus, backbone, tmp_path / "search", trials=1)
    with pytest.raises(ArtifactError, match="holds a search"):
        search(corpus, backbone, tmp_path / "search")
    with pytest.raises(ConfigError, match="had another settings"):
        search(corpus, backbone, tmp_path / "search", resume=True, adapt=ADAPT | {"epochs": 1})
    second = search(corpus, backbone, tmp_path / "search", resume=True)
    assert len(first.trials) == 1
    assert [(trial.settings, trial.value) for trial in second.trials] == [
        (trial.settings, trial.value) for trial in result.trials
    ]


KILLED = """
import sys
from pathlib import Path
from peterrec.data.corpus import Corpus
from tuning.test_tune import search
search(Corpus.open(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
"""


@pytest.mark.slow
def test_a_killed_search_goes_on_as_if_it_had_not_been(
    corpus: Corpus, backbone: Path, result: TuneResult, tmp_path: Path
) -> None:
    out, tests = tmp_path / "search", str(Path(__file__).parents[1])
    paths = os.pathsep.join([tests, *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(corpus.path), str(backbone), str(out)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )
    while not (out / "trials" / "0001.training" / "last.ckpt").exists():
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "best.yaml").exists()
    resumed = search(corpus, backbone, out, resume=True)
    assert [(trial.settings, trial.value, trial.epochs) for trial in resumed.trials] == [
        (trial.settings, trial.value, trial.epochs) for trial in result.trials
    ]
    assert sorted(path.name for path in (out / "trials").iterdir()) == ["0000", "0001", "0002"]


@pytest.mark.slow
def test_pruned_and_diverged_trials_leave_no_bundle(
    corpus: Corpus, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "STARTUP_TRIALS", 1)
    # The seed draws the good rate before the bad one.
    adapt_settings = ADAPT | {"optim.lr": [1e-3, 1.0, 1e20], "optim.clip_norm": None, "epochs": 3}
    pruned = search(corpus, backbone, tmp_path / "search", adapt=adapt_settings, trials=4, seed=3)
    states = {trial.state for trial in pruned.trials}
    assert states == {"finished", "pruned", "diverged"}
    bundles = sorted(path.name for path in (tmp_path / "search" / "trials").iterdir())
    assert bundles == [f"{trial.number:04}" for trial in pruned.trials if trial.state == "finished"]
    assert all(trial.epochs < 3 for trial in pruned.trials if trial.state == "pruned")
    unpruned = search(corpus, backbone, tmp_path / "all", adapt=adapt_settings, trials=4, seed=3, pruning=False)
    assert {trial.state for trial in unpruned.trials} == {"finished", "diverged"}


@pytest.mark.slow
def test_backbones_are_searched_with_a_task_and_trained_once(corpus: Corpus, tmp_path: Path) -> None:
    settings = {"pretrain": PRETRAIN | {"item_init": ["random", "co-occurrence"]}, "trials": 6}
    result_of_both = search(corpus, None, tmp_path / "search", **settings)
    folders = list((result_of_both.path / "backbones").iterdir())
    assert len(folders) == len({trial.settings["pretrain.item_init"] for trial in result_of_both.trials}) == 2
    assert load_config(PretrainConfig, result_of_both.path / "best-pretrain.yaml") == result_of_both.pretrain
    model = UserModel.from_pretrained(result_of_both.path / result_of_both.best.places["backbone"])
    model.load_bundle(result_of_both.path / result_of_both.best.places["bundle"])
    assert set(result_of_both.importance) <= {"adapt.optim.lr", "pretrain.item_init"}


@pytest.mark.slow
def test_pre_training_alone_is_searched_by_its_held_out_users(corpus: Corpus, tmp_path: Path) -> None:
    settings = PRETRAIN | {"optim.lr": [0.001, 0.03]}
    searched = tune(corpus, out=tmp_path / "search", pretrain=settings, trials=3)
    assert (searched.monitor, searched.mode, searched.adapt) == ("valid_loss", "min", None)
    config = load_config(PretrainConfig, tmp_path / "search" / "best.yaml")
    model = pretrain(corpus, tmp_path / "backbone", config)
    assert model.pretrained.training["metrics"]["valid_loss"] == searched.best.value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"adapt": {"optim.lrr": RATE}}, "did you mean 'lr'"),
        ({"adapt": {"epochs": 3}}, "nothing to search"),
        ({"adapt": {"patch.bottleneck": [4, 8]}}, "narrower|bottleneck"),
        ({"adapt": {"patch.blocks": [1, 5]}}, "patch.blocks is 5, but the backbone has 2 blocks"),
        ({"adapt": {"strategy": ["patch", "joint"]}}, "strategy joint trains several tasks"),
        ({"pretrain": {"epochs": [1, 2]}}, "a backbone is given that is pre-trained already"),
        ({"task": None}, "settings of adapt are searched by a task"),
        ({"task": "clustre"}, "has no task 'clustre'"),
        ({"trials": 0}, "trials"),
        ({"tirals": 3}, "did you mean 'trials'"),
        ({"adapt": {"class_weights": {"none": 2.0}, "epochs": [1, 2]}}, "none"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    corpus: Corpus, backbone: Path, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    good: dict[str, Any] = {"task": "cluster", "adapt": ADAPT, "trials": 1}
    with pytest.raises((ConfigError, TaskError), match=message) as caught:
        tune(corpus, backbone, out=tmp_path / "search", **(good | arguments))
    assert caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_and_no_search_stays(corpus: Corpus, backbone: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    for choice in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(PeterRecError):
            search(corpus, backbone, tmp_path / "notes", **choice)
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"


def test_without_optuna(corpus: Corpus, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match="optuna is not installed") as caught:
        search(corpus, backbone, tmp_path / "search")
    assert caught.value.remedy == "pip install 'peterrec[tune]'"


def test_the_study_is_one_that_optuna_opens(result: TuneResult) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{result.path / 'search.sqlite3'}")
    try:
        study = optuna.load_study(study_name="search", storage=storage)
        assert study.best_value == result.best.value
    finally:
        storage.remove_session()
        storage.engine.dispose()


@pytest.mark.slow
def test_the_verb(corpus: Corpus, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space, out = tmp_path / "space.yaml", tmp_path / "search"
    space.write_text(yaml.safe_dump({"adapt": yaml.safe_load(dump_yaml(adapt_config(epochs=1)))}))
    line = ["tune", str(corpus.path), str(backbone), "--task", "cluster", "-c", str(space), "-o", str(out), "-n", "2"]
    assert execute([*line, "--set", "adapt.optim.lr={low: 1e-3, high: 1e-1, log: true}"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("# Search for settings of task 'cluster'")
    assert "trial 1: log_loss" in output.err
    assert f"--config {out}/best.yaml" in output.err
