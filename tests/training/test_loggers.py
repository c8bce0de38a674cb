"""Loggers and callbacks that `runner` names: what they are told, what they change (nothing), what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers.logger import Logger

from peterrec.config import RunnerConfig, dump_yaml
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError
from peterrec.training.adapt import adapt
from peterrec.training.pretrain import pretrain
from training.small import adapt_config, pretrain_config


class Notebook(Logger):
    """A logger of somebody's own, which keeps what it is told."""

    notebooks: ClassVar[list[Notebook]] = []

    def __init__(self, title: str = "untitled") -> None:
        super().__init__()
        self.title = title
        self.settings: dict[str, Any] = {}
        self.metrics: list[dict[str, float]] = []
        self.status = ""
        Notebook.notebooks.append(self)

    @property
    def name(self) -> str:
        return self.title

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, params: Any, *_: Any) -> None:
        self.settings = dict(params)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics.append(metrics)

    def finalize(self, status: str) -> None:
        self.status = status


class Watch(Callback):
    """A callback of somebody's own."""

    epochs: ClassVar[list[int]] = []

    def __init__(self, interval: int = 1) -> None:
        self.interval = interval

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch % self.interval == 0:
            Watch.epochs.append(trainer.current_epoch)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "somebodys", sys.modules[__name__])
    Notebook.notebooks.clear()
    Watch.epochs.clear()


def runner(**settings: Any) -> RunnerConfig:
    return RunnerConfig(accelerator="cpu", progress=False, **settings)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "config.yaml"}


def test_loggers_and_callbacks_are_told_all_and_change_nothing(corpus: Corpus, backbone: Path, tmp_path: Path) -> None:
    watched = runner(
        logger=["csv", "somebodys.Notebook"],
        logger_options={"somebodys.Notebook": {"title": "mine"}},
        callbacks=["somebodys.Watch", {"path": "somebodys.Watch", "options": {"interval": 2}}],
    )
    bundle = adapt(backbone, corpus, "cluster", tmp_path / "watched" / "age", adapt_config(runner=watched))
    adapt(backbone, corpus, "cluster", tmp_path / "alone" / "age", adapt_config(runner=runner()))
    with_loggers, without = files(tmp_path / "watched" / "age"), files(tmp_path / "alone" / "age")
    assert with_loggers.keys() == without.keys()
    differing = [name for name in without if with_loggers[name] != without[name]]
    assert set(differing) <= {"metrics.json"}, "which has the seconds of epochs"
    (notebook,) = Notebook.notebooks
    assert (notebook.title, notebook.status) == ("mine", "success")
    assert notebook.settings["optim"]["lr"] == 2e-3
    assert "runner" not in notebook.settings
    logged_losses = [row["log_loss"] for row in notebook.metrics if "log_loss" in row]
    assert logged_losses[-3:] == pytest.approx([row["log_loss"] for row in bundle.metrics["curve"]])
    assert any("train_loss" in row for row in notebook.metrics)
    assert sorted(Watch.epochs) == [0, 0, 1, 2, 2]
    (table,) = (tmp_path / "watched").glob("age.log/version_0/metrics.csv")
    assert "log_loss" in table.read_text().splitlines()[0]
    assert (table.parent / "hparams.yaml").read_text().strip()


def test_a_runner_that_names_neither_is_written_as_before() -> None:
    assert "callbacks" not in dump_yaml(runner())
    assert "logger_options" not in dump_yaml(runner())
    named = runner(callbacks=["somebodys.Watch"])
    assert RunnerConfig(**named.model_dump()) == named


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"logger": "tensorbord"}, r"'tensorbord' is no logger \(did you mean 'tensorboard'\?\)"),
        ({"logger": ["csv", "csv"]}, "logger names one twice"),
        ({"logger_options": {"title": "x"}}, "logger is none"),
        ({"logger": ["csv", "somebodys.Notebook"], "logger_options": {"title": "x"}}, "by the name of each"),
        ({"callbacks": [{"pth": "a.B"}]}, "did you mean 'path'"),
        ({"callbacks": "somebodys.Watch"}, "callbacks"),
    ],
)
def test_what_is_no_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        runner(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"logger": "nowhere.Logger"}, "logger nowhere.Logger cannot be imported: there is no module nowhere"),
        ({"logger": "somebodys.Notebok"}, r"somebodys has no Notebok \(did you mean 'Notebook'\?\)"),
        ({"logger": "somebodys.Watch"}, "somebodys.Watch is no logger of Lightning"),
        ({"callbacks": ["somebodys.Notebook"]}, "somebodys.Notebook is no callback of Lightning"),
        ({"callbacks": ["Watch"]}, "'Watch' is no callback"),
        (
            {"callbacks": [{"path": "somebodys.Watch", "options": {"intervl": 2}}]},
            "no option 'intervl' .*did you mean 'interval'",
        ),
        ({"logger": "csv", "logger_options": {"naem": "x"}}, "logger csv has no option 'naem'"),
    ],
)
def test_what_cannot_be_made_is_refused_before_training(
    corpus: Corpus, backbone: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    for train in (
        lambda out: pretrain(corpus, out, pretrain_config(runner=runner(**settings))),
        lambda out: adapt(backbone, corpus, "cluster", out, adapt_config(runner=runner(**settings))),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            train(tmp_path / "out")
        assert caught.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_package_is_named(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for package in (name, "tensorboardX", "mlflow_skinny"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"{name} is not installed") as caught:
        pretrain(corpus, tmp_path / "out", pretrain_config(runner=runner(logger=name)))
    assert caught.value.remedy == f"pip install {name}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of TensorBoard and what it imports
def test_tensorboard_reads_what_is_logged(corpus: Corpus, tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    runner = RunnerConfig(accelerator="cpu", progress=False, logger="tensorboard")
    model = pretrain(corpus, tmp_path / "backbone", pretrain_config(epochs=2, runner=runner))
    (events,) = tmp_path.rglob("events.out*")
    accumulator = reading.EventAccumulator(str(events.parent))
    accumulator.Reload()
    values = [scalar.value for scalar in accumulator.Scalars("valid_loss")]
    assert len(values) == 2
    assert min(values) == pytest.approx(model.pretrained.training["metrics"]["valid_loss"])
