"""A process forked from one that has answered on several threads answers as well, and does not hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import tiny_pretrained
from peterrec import process
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.requests import Request

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")

# Large enough that torch divides the work: the parent's answers do not come from one thread.
START = """
import json, multiprocessing, os, sys, warnings
warnings.simplefilter("ignore")  # Python's own, of a fork with threads
sys.path.insert(0, {tests!r})
import numpy as np, pyarrow as pa, pyarrow.parquet as pq, torch
from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
import peterrec
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.requests import Request

torch.set_num_threads(2)
pretrained = tiny_pretrained(tiny_catalogue(300))
model = UserModel(pretrained, "cpu")
model.add_bundle(tiny_bundle(pretrained))
model.add_bundle(tiny_bundle(pretrained, targets=tiny_catalogue(50, first=0)))
engine = Engine(model)
rng = np.random.default_rng(0)
histories = [[f"item-{{i}}" for i in row] for row in rng.integers(0, 300, (1500, 40))]

def ask():
    (torch.ones(700, 700) @ torch.ones(700, 700)).sum()
    answers = engine.predict([Request(items) for items in histories[:200]])
    return {{
        "age": model.predict(histories, "age").probabilities.astype(float).sum(0).tolist(),
        "shop": model.recommend(histories, "shop", 3).scores[-1],
        "next": model.recommend(histories, None, 3).scores[-1],
        "engine": list(answers[-1].tasks["age"].probabilities.values()),
        "vector": model.represent(histories)[-1].astype(float).tolist(),
    }}

def prepared(folder):
    rows = [(u, i, t) for t, (u, i) in enumerate((u, i) for u in range(30) for i in range(8))]
    events = dict(zip(("user_id", "item_id", "timestamp"), map(list, zip(*rows))))
    pq.write_table(pa.table(events), f"{{folder}}.parquet")
    return peterrec.prepare(peterrec.PrepareConfig(events={{"paths": [f"{{folder}}.parquet"]}}), folder)

expected = ask()
assert torch.get_num_threads() == 2
"""
FORKED = """
parent, child = multiprocessing.get_context("fork").Pipe()
def work():
    child.send((ask(), torch.get_num_threads()))
running = multiprocessing.get_context("fork").Process(target=work, daemon=True)
running.start()
assert parent.poll(60), "the child hangs"
found, threads = parent.recv()
running.join(60)
assert torch.get_num_threads() == 2, "the parent keeps its own"
ask()
print(json.dumps([expected, found, threads]))
"""
LOADER = """
class Users(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, row):
        return torch.from_numpy(model.predict(histories[100 * row : 100 * row + 100], "age").probabilities)
loader = torch.utils.data.DataLoader(Users(), num_workers=2, multiprocessing_context="fork", timeout=60)
found = torch.cat([each[0] for each in loader])
print(json.dumps([model.predict(histories[:800], "age").probabilities.sum(0).tolist(), found.sum(0).tolist(), 1]))
"""
PREPARED = """
folder = sys.argv[1]
first = prepared(f"{folder}/first")
small = peterrec.PretrainConfig(epochs=1, max_length=8, backbone={"channels": 8, "dilations": [1]})
peterrec.pretrain(first, f"{folder}/first-backbone", small)
def work():
    second = prepared(f"{folder}/second")
    model = peterrec.pretrain(second, f"{folder}/second-backbone", small)
    child.send((second.manifest["fingerprint"], model.fingerprint))
parent, child = multiprocessing.get_context("fork").Pipe()
running = multiprocessing.get_context("fork").Process(target=work, daemon=True)
running.start()
assert parent.poll(120), "the child hangs"
found = parent.recv()
running.join(60)
backbone = peterrec.inspect(f"{folder}/first-backbone")["fingerprint"]
print(json.dumps([[first.manifest["fingerprint"], backbone], found, 1]))
"""


def run(program: str, *arguments: str, timeout: float = 200) -> Any:
    start = START.format(tests=str(Path(__file__).parent))
    completed = subprocess.run(
        [sys.executable, "-c", start + program, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr[-3000:]
    return json.loads(completed.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("program", [FORKED, LOADER], ids=["multiprocessing", "DataLoader"])
def test_forked_processes_answer_as_their_parent_does(program: str) -> None:
    expected, actual, threads = run(program)
    if isinstance(expected, list):
        expected, actual = {"age": expected}, {"age": actual}
    for name, values in expected.items():
        assert actual[name] == pytest.approx(values, abs=1e-2 if name == "age" else 1e-4), (
            name
        )  # the sum over all users
    assert threads == 1


@pytest.mark.slow
def test_forked_processes_prepare_and_train_as_their_parent_does(tmp_path: Path) -> None:
    expected, actual, _ = run(PREPARED, str(tmp_path))
    assert actual[0] == expected[0]
    assert len(actual[1]) == len(expected[1])


# ---------------------------------------------------------------- a GPU does not survive a fork


@pytest.fixture
def fork_state(monkeypatch: pytest.MonkeyPatch) -> type:
    for name in ("child", "cuda_at_fork", "lost_cuda"):
        monkeypatch.setattr(process._Fork, name, False)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    return process._Fork


@pytest.mark.parametrize("used", [True, False])
def test_a_gpu_that_was_in_use_before_the_fork_is_refused(
    monkeypatch: pytest.MonkeyPatch, fork_state: type, used: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    process._before_fork()
    process.check_device_after_fork(torch.device("cuda"))  # the parent goes on
    process._after_fork()
    assert process.forked()
    process.check_device_after_fork(torch.device("cpu"))
    if used:
        with pytest.raises(ConfigError, match="forked after CUDA was in use") as caught:
            process.check_device_after_fork(torch.device("cuda"))
        assert "spawn" in caught.value.remedy
    else:
        process.check_device_after_fork(torch.device("cuda"))


def test_model_and_engine_look_at_their_device(monkeypatch: pytest.MonkeyPatch, fork_state: type) -> None:
    model = UserModel(tiny_pretrained(), "cpu")
    engine = Engine(model)
    monkeypatch.setattr(fork_state, "lost_cuda", True)
    engine.predict([Request(["item-1"])])
    gpu = torch.device("cuda")
    object.__setattr__(model.inference, "device", gpu)
    monkeypatch.setattr(engine._reader, "device", gpu)
    for ask in (lambda: model.represent([["item-1"]]), lambda: engine.predict([Request(["item-1"])])):
        with pytest.raises(ConfigError, match="forked after CUDA"):
            ask()


def test_what_was_compiled_is_not_run_after_a_fork(monkeypatch: pytest.MonkeyPatch, fork_state: type) -> None:
    """Its loops have the number of threads of the parent in them."""
    model, compiled = (UserModel(tiny_pretrained(), "cpu", compile=compile) for compile in (False, True))
    monkeypatch.setattr("peterrec.nn.execution._compiled", lambda: pytest.fail("compiled"))
    monkeypatch.setattr(fork_state, "child", True)
    history = [[f"item-{i}" for i in range(6)]]
    assert (compiled.represent(history, batch_size=1) == model.represent(history, batch_size=1)).all()
