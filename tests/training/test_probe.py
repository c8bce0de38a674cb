"""Probes while pre-training: what they measure, whom they read, and that they change nothing but the chosen epoch."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from peterrec.config import PretrainConfig, ProbeConfig, RunnerConfig
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError, TaskError
from peterrec.storage import read_json
from peterrec.training import probe as probing
from peterrec.training.linear_probe import LinearProbe
from peterrec.training.pretrain import pretrain
from peterrec.training.probe import Probe, metric_of
from training.small import corpus_of, plain, pretrain_config

PROBED = {"tasks": ["cluster"], "readout": "token"}


def curve_of(corpus: Corpus, out: Path, **settings: Any) -> list[dict[str, float]]:
    return pretrain(corpus, out, pretrain_config(**settings)).pretrained.training["curve"]


@pytest.mark.parametrize("metric", ["auc", "log_loss"])
def test_it_is_what_a_linear_model_on_the_saved_representations_gives(
    corpus: Corpus, tmp_path: Path, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "ENOUGH_USERS", 5)
    model = pretrain(corpus, tmp_path / "out", pretrain_config(epochs=2, probe={**PROBED, "metric": metric}))
    train, valid = (corpus.task("cluster").part(part) for part in ("train", "valid"))
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=100))
    linear.fit(model.representations(train.sequences), train.labels)
    answers = linear.predict_proba(model.representations(valid.sequences))
    expected = {
        "auc": np.mean([roc_auc_score(valid.labels == label, answers[:, label]) for label in np.unique(valid.labels)]),
        "log_loss": log_loss(valid.labels, answers, labels=range(4)),
    }
    training = read_json(tmp_path / "out" / "config.json")["training"]
    row = training["curve"][training["best_epoch"]]
    assert row[f"probe_{metric} (cluster)"] == pytest.approx(expected[metric], abs=1e-4)
    assert training["metrics"][f"probe_{metric}"] == row[f"probe_{metric}"] == row[f"probe_{metric} (cluster)"]
    assert training["probe"] == {"cluster": {"train_users": len(train), "judged_on": f"{len(valid)} valid users"}}
    assert training["monitor"] == "valid_loss"
    assert f"| probe_{metric} |" in (tmp_path / "out" / "README.md").read_text()


def test_test_users_are_never_read(corpus: Corpus, tmp_path: Path) -> None:
    shutil.copytree(corpus.path, tmp_path / "corpus")
    (tmp_path / "corpus" / "tasks" / "cluster" / "test.parquet").unlink()
    for metric in ("auc", "log_loss"):
        by_probe = {"epochs": 1, "monitor": "probe", "probe": {"tasks": ["cluster"], "metric": metric}}
        without = curve_of(Corpus.open(tmp_path / "corpus"), tmp_path / f"without {metric}", **by_probe)
        assert plain(without) == plain(curve_of(corpus, tmp_path / metric, **by_probe))


@pytest.mark.parametrize("kind", ["causal", "noncausal"])
def test_probes_change_no_weight_and_no_other_metric(corpus: Corpus, tmp_path: Path, kind: str) -> None:
    backbone = {"kind": kind, "channels": 8, "dilations": (1, 2)}
    models = [
        pretrain(corpus, tmp_path / str(number), pretrain_config(epochs=2, backbone=backbone, probe=probe))
        for number, probe in enumerate(({}, {"tasks": ["cluster"]}))
    ]
    assert models[0].fingerprint == models[1].fingerprint
    rows = [plain(model.pretrained.training["curve"]) for model in models]
    assert rows[0] == [{name: value for name, value in row.items() if "probe" not in name} for row in rows[1]]
    assert all("probe_auc (cluster)" in row for row in rows[1])
    assert "probe" not in models[0].pretrained.training


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Let epoch n be measured as values[n]."""
    monkeypatch.setattr(Probe, "_measure_task", lambda self, backbone, task, epoch: values[epoch])


@pytest.mark.parametrize(("metric", "values"), [("auc", [0.6, 0.9, 0.7, 0.8]), ("log_loss", [0.6, 0.2, 0.4, 0.3])])
def test_a_probe_that_is_the_monitor_chooses_the_epoch_and_ends_the_training(
    corpus: Corpus, tmp_path: Path, metric: str, values: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, values)
    probe = {"tasks": ["cluster"], "metric": metric}
    settings = {"epochs": 4, "valid_fraction": 0.1, "monitor": "probe", "probe": probe}
    model = pretrain(corpus, tmp_path / "out", pretrain_config(patience=2, **settings))
    training = model.pretrained.training
    assert training["best_epoch"] == 1
    assert len(training["curve"]) == 4, "the last epoch with patience 2"
    assert training["monitor"] == f"probe_{metric}"
    assert training["warnings"] == [], "the few held-out users chose nothing"
    shorter = pretrain(corpus, tmp_path / "short", pretrain_config(patience=1, **settings))
    assert len(shorter.pretrained.training["curve"]) == 3


def test_epochs_between_probes_have_no_such_column(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(monkeypatch, [0.6, 0.7, 0.8, 0.5, 0.55])
    probe = {"tasks": ["cluster"], "every_n_epochs": 2}
    runner = RunnerConfig(accelerator="cpu", progress=True, logger="csv")
    config = pretrain_config(epochs=4, patience=2, monitor="probe", probe=probe, runner=runner)
    training = pretrain(corpus, tmp_path / "out", config).pretrained.training
    columns = [row.get("probe_auc") for row in training["curve"]]
    assert columns == pytest.approx([0.6, None, 0.8, 0.5]), "the last planned epoch, too"
    assert training["best_epoch"] == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "pre-training, epoch" in line]
    assert [re.findall(r"probe_auc [\d.]+", line) for line in lines] == [
        ["probe_auc 0.6000"], [], ["probe_auc 0.8000"], ["probe_auc 0.5000"]
    ]  # fmt: skip
    with next(tmp_path.glob("out.log/*/metrics.csv")).open() as file:
        logged = [row["probe_auc"] for row in csv.DictReader(file) if row["probe_auc"]]
    assert [float(value) for value in logged] == pytest.approx([0.6, 0.8, 0.5])


def test_where_valid_users_are_few_nobody_is_judged_by_a_model_that_knows_them(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Probe, "_represent", lambda self, backbone, sequences, epoch: np.arange(len(sequences))[:, None]
    )
    judged: list[float] = []

    class Spy(LinearProbe):
        @classmethod
        def fit(cls, vectors: np.ndarray, labels: np.ndarray, classes: int, *settings: Any) -> LinearProbe:
            fitted = cls(np.zeros((classes, 1)), np.zeros(classes), 1.0)
            object.__setattr__(fitted, "fitted_on", set(vectors[:, 0]))
            return fitted

        def probabilities(self, vectors: np.ndarray) -> np.ndarray:
            assert not self.fitted_on & set(vectors[:, 0])
            judged.extend(vectors[:, 0])
            return np.eye(len(self.bias))[np.zeros(len(vectors), int)]

    monkeypatch.setattr(probing, "LinearProbe", Spy)
    probe = Probe.from_config(corpus, pretrain_config(probe={"tasks": ["cluster"], "max_users": 50}))
    assert probe is not None
    assert probe.tasks[0].judged_on == "5-fold cross-validation"
    assert probe.measure(None, 0) == {"probe_auc": 0.5, "probe_auc (cluster)": 0.5}
    assert sorted(judged) == list(range(50)), "so many train users, each once"


def test_several_tasks_have_a_mean_of_their_own() -> None:
    tasks = [type("Named", (), {"name": name})() for name in ("age", "gender")]
    probe = Probe(pretrain_config(), tasks)
    probe._measure_task = lambda backbone, task, epoch: {"age": 0.5, "gender": 0.8}[task.name]  # type: ignore[method-assign]
    expected = {"probe_auc": 0.65, "probe_auc (age)": 0.5, "probe_auc (gender)": 0.8}
    assert probe.measure(None, 0) == pytest.approx(expected)
    assert probe.shown == tuple(expected)


def test_metrics_and_probabilities_of_odd_users() -> None:
    labels = np.array([0, 1, 1, 0])
    assert metric_of("auc", np.full((4, 2), 0.5), labels) == 0.5
    assert metric_of("auc", np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]]), labels) == 1.0
    assert metric_of("auc", np.eye(3)[labels], labels) == 1.0, "a third class that nobody has does not count"
    vectors = np.array([[1.0, 5.0], [2.0, 5.0]])
    apart = LinearProbe.fit(np.repeat(vectors, 50, axis=0), np.repeat([0, 3], 50), 4, 0.03).probabilities(vectors)
    assert apart[0, 0] > 0.7
    assert apart[1, 3] > 0.7
    assert np.isfinite(apart).all(), "a column that is the same for all"


def test_tasks_that_cannot_be_probed_are_refused_before_anything_is_written(corpus: Corpus, tmp_path: Path) -> None:
    few = corpus_of(
        tmp_path / "few", [[4, 5, 6]] * 30, 3, labels={"train": [0] * 20, "valid": [0, 1], "test": [1]},
        parts={"train": [[4]] * 20, "valid": [[4], [5]], "test": [[6]]},
    )  # fmt: skip
    cases = [
        (corpus, "shop", "is a ranking task: probes read classes"),
        (corpus, "nothing", "has no task 'nothing'"),
        (few, "job", "has 20 train users of 1 classes to probe"),
    ]
    for data, task, message in cases:
        with pytest.raises(TaskError, match=message):
            pretrain(data, tmp_path / "out", pretrain_config(probe={"tasks": [task]}))
    assert not list(tmp_path.glob("out*"))


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="something to probe"):
        PretrainConfig(monitor="probe")
    with pytest.raises(ConfigError, match="names a task twice"):
        ProbeConfig(tasks=("a", "a"))
    with pytest.raises(ConfigError, match="raise patience"):
        PretrainConfig(patience=2, monitor="probe", probe=ProbeConfig(tasks=("a",), every_n_epochs=3))
    with pytest.raises(ConfigError, match="no readout"):
        ProbeConfig(readout="nothing")
