"""Operations on a process, with faults in between, and its state after a kill and a move."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders import tiny_bundle, tiny_pretrained
from peterrec.artifacts.bundle_io import save_bundle

from .in_own_process import ServiceProcess, process, write_artifacts


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_artifacts(tmp_path_factory.mktemp("artifacts"))
    save_bundle(folder / "age3", tiny_bundle(tiny_pretrained(), seed=8))
    return folder


@contextlib.contextmanager
def full_disk(served: ServiceProcess) -> Iterator[None]:
    """Every write of the process fails, as on a full disk."""
    soft, hard = resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (0, hard))
    yield
    resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (soft, hard))


def answering(served: ServiceProcess) -> str:
    answer = served.post("/v1/predict", {"requests": [{"items": ["item-1"], "tasks": ["age"]}]})
    return answer.json()["answers"][0]["tasks"]["age"]["version"]


def load(served: ServiceProcess, name: str) -> str:
    answer = served.client.put("/v1/bundles/age", json={"path": name})
    assert answer.status_code == 200, answer.text
    assert answering(served) == answer.json()["version"]
    return answer.json()["version"]


@pytest.mark.slow
def test_a_load_that_fails_changes_nothing_and_what_was_withdrawn_stays_so(artifacts: Path, tmp_path: Path) -> None:
    state, options = tmp_path / "state", ["--bundle", f"age={artifacts / 'age'}"]
    with process(artifacts, state, *options) as served:
        first = answering(served)
        second = load(served, "age2")
        assert served.post("/v1/bundles/age/rollback", {}).json()["version"] == first
        before = served.client.get("/v1/bundles").json()
        with full_disk(served):
            refused = served.client.put("/v1/bundles/age", json={"path": "age3"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_unavailable")
        assert served.client.get("/v1/bundles").json() == before
        assert answering(served) == first
        third = load(served, "age3")
        assert served.post("/v1/bundles/age/rollback", {}).json()["version"] == first
        load(served, "age3")
        served.stop(signal.SIGKILL)
    moved = state.rename(tmp_path / "moved")
    with process(artifacts, moved, *options) as served:
        assert answering(served) == third
        assert served.post("/v1/bundles/age/rollback", {}).json()["version"] == first
        listed = served.client.get("/v1/bundles/age").json()["versions"]
        assert {version["version"] for version in listed if version["withdrawn"]} == {second, third}
        load(served, "age2")
        assert served.client.put("/v1/bundles/other", json={"path": "age3"}).status_code == 200
        served.stop(signal.SIGKILL)
    (moved / "bundles" / "age" / second / "adapter_model.safetensors").write_bytes(b"")
    with process(artifacts, moved, *options) as served:
        ready = served.client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "degraded", "failed": ["age"]})
        (failed,) = served.log("bundle failed")
        assert failed["path"].startswith(os.fspath(moved / "bundles" / "age" / second))
        answer = served.post("/v1/predict", {"requests": [{"items": [], "tasks": ["age"]}]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "bundle_failed")
        listed = served.client.get("/v1/bundles").json()
        assert [version["name"] for version in listed["versions"]] == ["other"]
        assert [version["version"] for version in listed["failed"]] == [second]
        assert "peterrec_bundles_failed 1" in served.client.get("/metrics").text
        load(served, "age2")
        assert served.client.get("/readyz").json() == {"status": "ok", "failed": []}
