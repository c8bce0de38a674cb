"""`peterrec serve --workers 2` for real: one address, one backbone in memory, the same bundles and users."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.artifacts.backbone_io import PretrainedBackbone, load_backbone, save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.config import BackboneConfig, ServeConfig
from peterrec.errors import FingerprintError
from peterrec.nn.backbone import Backbone
from peterrec.nn.next_item import NextItemModel
from peterrec.serving.http.serve import load_model
from peterrec.serving.http.workers import WorkerPlan, new_counts

from .in_own_process import ServiceProcess, process, write_artifacts
from .in_process import until

ASK = {"requests": [{"items": ["item-1"], "tasks": "*"}]}
ITEMS = 200_000
slow = pytest.mark.slow  # each worker imports torch: seconds


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifacts(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def served(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    options = ["--workers", "2", "--bundle", f"age={artifacts / 'age'}", "--set", "replicas.poll_ms=50"]
    with process(artifacts, tmp_path_factory.mktemp("state"), *options) as service:
        yield service


def children(parent: int) -> list[int]:
    """Workers of a service: without the helper of multiprocessing that watches its resources."""
    pids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def ask(service: ServiceProcess, method: str, path: str, body: Any = None) -> httpx.Response:
    """Ask over a connection of its own, which any worker may accept."""
    return httpx.request(method, f"{service.address}{path}", json=body, timeout=20)


def versions(service: ServiceProcess) -> dict[str, str]:
    answer = ask(service, "POST", "/v1/predict", ASK)
    assert answer.status_code == 200, answer.text
    return {name: task["version"] for name, task in answer.json()["answers"][0]["tasks"].items()}


@slow
def test_a_bundle_that_one_worker_is_given_answers_on_all(served: ServiceProcess) -> None:
    old = versions(served)
    loaded = ask(served, "PUT", "/v1/bundles/age", {"path": "age2"}).json()
    until(lambda: all(versions(served) == {"age": loaded["version"]} for _ in range(10)), 5)
    back = ask(served, "POST", "/v1/bundles/age/rollback", {}).json()
    assert back["generation"] == loaded["generation"] + 1
    until(lambda: all(versions(served) == old for _ in range(10)), 5)


@slow
def test_users_are_shared_and_erased_on_all(served: ServiceProcess) -> None:
    for number in range(10):
        event = {"id": str(number), "user": "anna", "item": f"item-{number}"}
        assert ask(served, "POST", "/v1/events", {"events": [event]}).json()["stored"] == 1
        for _ in range(4):
            assert ask(served, "POST", "/v1/users/anna/predict").json()["events"] == number + 1
    assert ask(served, "DELETE", "/v1/users/anna").json()["erased"] == 10
    for _ in range(10):
        assert ask(served, "POST", "/v1/users/anna/predict").json()["events"] == 0
        assert "peterrec_users_histories 0.0" in ask(served, "GET", "/metrics").text


@slow
def test_counters_are_of_all_workers(served: ServiceProcess) -> None:
    def count() -> float:
        text = ask(served, "GET", "/metrics").text
        return sum(map(float, re.findall(r'^peterrec_requests_total{.*route="/v1/tasks".*} (.*)$', text, re.MULTILINE)))

    before = count()
    for _ in range(20):
        ask(served, "GET", "/v1/tasks")
    assert count() == before + 20


@slow
def test_a_worker_that_is_killed_is_started_again(served: ServiceProcess) -> None:
    killed = children(served.process.pid)
    assert len(killed) == 2
    os.kill(killed[0], signal.SIGKILL)
    until(lambda: bool(served.log("worker ended")))
    for _ in range(20):
        assert versions(served)  # the other one answers
    until(lambda: len(children(served.process.pid)) == 2, 30)
    assert served.log("worker ended")[0]["status"] == -signal.SIGKILL


@slow
def test_no_worker_outlives_its_parent_and_what_was_acknowledged_is_there(artifacts: Path, tmp_path: Path) -> None:
    options = ["--workers", "2", "--bundle", f"age={artifacts / 'age'}"]
    with process(artifacts, tmp_path / "state", *options) as service:
        workers = children(service.process.pid)
        loaded = ask(service, "PUT", "/v1/bundles/age", {"path": "age2"}).json()["version"]
        ask(service, "POST", "/v1/events", {"events": [{"id": "1", "user": "anna", "item": "item-1"}]})
        service.process.kill()
        until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers), 30)
    with process(artifacts, tmp_path / "state", *options[2:]) as service:  # by one process
        assert versions(service) == {"age": loaded}
        assert ask(service, "GET", "/v1/users/anna").json()["count"] == 1
        assert ask(service, "DELETE", "/v1/bundles/age").status_code == 200
        assert service.stop() == 0
    with process(artifacts, tmp_path / "state", *options) as service:
        assert versions(service) == {}
        workers = children(service.process.pid)
        began = time.monotonic()
        assert service.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < 10
        assert not any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers)
        assert service.log("stopped")


@slow
def test_a_mistake_ends_all_workers(artifacts: Path, tmp_path: Path) -> None:
    options = ["--workers", "2", "--bundle", f"age={artifacts / 'foreign'}"]
    service = ServiceProcess(artifacts, tmp_path / "state", *options)
    assert service.join() == 2
    assert "was made for another backbone" in service.stderr_text
    service.process.stderr.close()


def mapped(pid: int, name: str) -> dict[str, int]:
    """Bytes of what a process has mapped of a file, by kind."""
    totals, counts = {"Rss": 0, "Pss": 0, "Private_Dirty": 0}, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        kind, _, value = line.partition(":")
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counts = line.endswith(name)
        elif counts and kind in totals:
            totals[kind] += int(value.split()[0]) * 1024
    return totals


def is_in_mapped_file(address: int, name: str) -> bool:
    """Whether this process has an address from a file, and not in memory of its own."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(text, 16) for text in line.split()[0].split("-"))
        if start <= address < end:
            return line.endswith(name)
    return False


@slow
def test_the_backbone_is_in_memory_once(artifacts: Path, tmp_path: Path) -> None:
    """A table of 26 MB: each worker has mapped all of it, together they have it once, and nobody wrote to it."""
    config = BackboneConfig(channels=32, dilations=(1,), tie_weights=True)
    pretrained = PretrainedBackbone(NextItemModel(Backbone(config, ITEMS)), tiny_catalogue(ITEMS), max_length=6)
    save_backbone(tmp_path / "base", pretrained)
    save_bundle(tmp_path / "age", tiny_bundle(pretrained))
    table = ITEMS * 32 * 4
    options = ["--workers", "2", "--bundle", f"age={tmp_path / 'age'}"]
    with process(tmp_path, tmp_path / "state", *options) as service:
        assert versions(service)
        maps = [mapped(pid, "model.safetensors") for pid in children(service.process.pid)]
    assert len(maps) == 2
    assert min(part["Rss"] for part in maps) > 0.9 * table
    assert sum(part["Pss"] for part in maps) < 1.2 * table
    assert max(part["Private_Dirty"] for part in maps) == 0


def test_a_mapped_backbone_is_the_same_and_its_file_is_not_written_to(tmp_path: Path) -> None:
    pretrained = tiny_pretrained()
    save_backbone(tmp_path / "base", pretrained)
    path = tmp_path / "base" / "model.safetensors"
    before, copy = path.read_bytes(), load_backbone(tmp_path / "base", mapped=True).network
    assert is_in_mapped_file(copy.backbone.embedding.weight.data_ptr(), "model.safetensors")
    for name, tensor in pretrained.network.state_dict().items():
        torch.testing.assert_close(copy.state_dict()[name], tensor, rtol=0, atol=0)
    with torch.no_grad():
        copy.backbone.embedding.weight.zero_()
    assert path.read_bytes() == before


def test_a_worker_refuses_a_damaged_backbone(tmp_path: Path) -> None:
    save_backbone(tmp_path / "base", tiny_pretrained())
    file = tmp_path / "base" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1  # still a number
    file.write_bytes(content)
    config = ServeConfig(state=str(tmp_path / "state"), workers=2)
    Path(config.state).mkdir()
    with pytest.raises(FingerprintError):
        load_model(tmp_path / "base", WorkerPlan(str(tmp_path / "base"), {}, config, None, new_counts(2)))
