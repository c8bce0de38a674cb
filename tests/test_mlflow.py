"""MLflow's flavour, by a real tracking server on SQLite."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.config import RunnerConfig
from peterrec.errors import ArtifactError, ConfigError
from peterrec.model import UserModel
from peterrec.training.pretrain import pretrain
from training.small import prepare_synthetic, pretrain_config

HISTORIES = [["item-1", "item-2"], ["item-3"], ["item-0", "item-5", "item-1"]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("mlflow.server", reason="MLflow is not installed")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *arguments],
        cwd=folder, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1).close()
            break
        except OSError:
            time.sleep(0.2)
    yield address
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def model() -> UserModel:
    pretrained = tiny_pretrained()
    user_model = UserModel(pretrained, "cpu")
    user_model.add_bundle(tiny_bundle(pretrained))
    user_model.add_bundle(tiny_bundle(pretrained, targets=tiny_catalogue(4, first=0)))
    return user_model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of MLflow and what it imports
def test_a_logged_model_answers_as_the_one_that_was_logged(server: str, model: UserModel) -> None:
    import mlflow
    import pandas

    import peterrec.mlflow

    mlflow.set_tracking_uri(server)
    mlflow.set_experiment("users")
    logged = peterrec.mlflow.log_model(model, "users", registered_model_name="users")
    loaded = peterrec.mlflow.load_model("models:/users/1")
    assert list(loaded.bundles) == ["age", "shop"]
    assert loaded.fingerprint == model.fingerprint
    expected = model.predict(HISTORIES, "age")
    assert np.array_equal(loaded.predict(HISTORIES, "age").probabilities, expected.probabilities)

    pyfunc: Any = mlflow.pyfunc.load_model(logged.model_uri)
    rows = pandas.DataFrame({"items": HISTORIES})
    assert pyfunc.predict(rows, params={"task": "age"}).equals(expected.to_pandas())
    assert pyfunc.predict(rows, params={"task": "shop", "k": 2}).equals(
        model.recommend(HISTORIES, "shop", 2).to_pandas()
    )
    assert pyfunc.predict(rows).equals(model.recommend(HISTORIES, None, 10).to_pandas())
    events = pandas.DataFrame(
        [(f"u{user}", item, time) for user, items in enumerate(HISTORIES) for time, item in enumerate(items)],
        columns=["user_id", "item_id", "timestamp"],
    )
    answers = pyfunc.predict(events, params={"task": "age"})
    assert answers.equals(model.predict(events, "age").to_pandas())
    with pytest.raises(ConfigError, match="has no task 'agee'"):
        pyfunc.predict(rows, params={"task": "agee"})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_saved_model_has_what_it_was_given(model: UserModel, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    import pandas

    import peterrec.mlflow

    example = pandas.DataFrame({"items": HISTORIES})
    options: dict[str, Any] = {"metadata": {"owner": "shop"}, "pip_requirements": ["peterrec", "pandas"]}
    peterrec.mlflow.save_model(model, tmp_path / "model", ["age"], input_example=example, **options)
    saved = mlflow.models.Model.load(str(tmp_path / "model"))
    assert set(saved.flavors) == {"peterrec", "python_function"}
    assert saved.metadata == options["metadata"]
    assert saved.load_input_example(str(tmp_path / "model"))["items"].tolist() == HISTORIES
    assert {"peterrec", "pandas"} <= set((tmp_path / "model" / "requirements.txt").read_text().split())
    loaded = peterrec.mlflow.load_model(str(tmp_path / "model"))
    assert list(loaded.bundles) == ["age"]
    with pytest.raises(ArtifactError, match="already exists"):
        peterrec.mlflow.save_model(model, tmp_path / "model")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_logger_of_a_training(server: str, tmp_path: Path) -> None:
    import mlflow

    corpus = prepare_synthetic(tmp_path / "tiny", users=130, items=24, targets=8, mean_events=8, seed=3)
    runner = RunnerConfig(accelerator="cpu", progress=False, logger="mlflow", logger_options={"tracking_uri": server})
    model = pretrain(corpus, tmp_path / "backbone", pretrain_config(epochs=1, runner=runner))
    client = mlflow.MlflowClient(server)
    (run,) = client.search_runs([client.get_experiment_by_name("peterrec").experiment_id])
    assert (run.info.run_name, run.info.status) == ("backbone", "FINISHED")
    assert run.data.params["optim/lr"] == "0.002"
    assert run.data.metrics["valid_loss"] == pytest.approx(model.pretrained.training["metrics"]["valid_loss"])


def test_without_mlflow(model: UserModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import peterrec.mlflow

    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match="mlflow is not installed"):
        peterrec.mlflow.save_model(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
