"""Faults of a machine around real processes: few open files, signals, a Redis server that dies, several services."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from serving.store.servers import DURABLE, RedisServer

from .in_own_process import ServiceProcess, process, write_artifacts
from .in_process import until

THEIRS = (b"the-user", b"the-event", b"item-11")  # an item that nobody else has


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifacts(tmp_path_factory.mktemp("artifacts"))


def in_files(*folders: Path) -> dict[str, list[bytes]]:
    """Texts of the erased user that are still in files, by file."""
    texts_by_file: dict[str, list[bytes]] = {}
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        texts = [text for text in THEIRS if text in path.read_bytes()]
        if texts:
            texts_by_file[str(path)] = texts
    return texts_by_file


def post(served: ServiceProcess, user: str, *items: str) -> None:
    prefix = "the-event" if user == "the-user" else "e"
    events = [{"id": f"{prefix}-{item}", "user": user, "item": item} for item in items]
    assert served.post("/v1/events", {"events": events}).status_code == 200


def gauge(served: ServiceProcess, name: str) -> float:
    lines = served.client.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"peterrec_{name} ")))


def pending(served: ServiceProcess) -> int:
    answer = served.client.get("/v1/erasures")
    return answer.json()["pending"] if answer.status_code == 200 else -1


@pytest.mark.slow
def test_connections_past_the_open_files_are_refused_and_others_answered(artifacts: Path, tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with process(artifacts, tmp_path / "state", open_files=256) as served, contextlib.ExitStack() as stack:
        assert resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)[1] == 256 < hard
        (few,) = served.log("few files")
        address = served.address.removeprefix("http://").split(":")
        for _ in range(400):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection((address[0], int(address[1])), timeout=5))
        time.sleep(2)
        lines = len(served.lines)
        with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=served.address, timeout=5) as client:
            assert client.get("/healthz").status_code == 503  # there is no room, and that is said
        stack.close()
        until(lambda: served.client.get("/healthz").status_code == 200)
        assert few["connections"] <= 128
        assert lines < 100, "it wrote without end"


@pytest.mark.slow
def test_sighup_finishes_what_is_in_flight(artifacts: Path, tmp_path: Path) -> None:
    body = b'{"requests": [{"items": ["item-1"], "tasks": ["age"]}]}'
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    with process(artifacts, tmp_path / "state", "--bundle", f"age={artifacts / 'age'}") as served:
        host, port = served.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as client:
            client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:5])
            time.sleep(0.3)
            served.process.send_signal(signal.SIGHUP)
            until(lambda: bool(served.log("stopping")))
            client.sendall(body[5:])
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        assert served.join() == 0
        assert served.log("stopped")


@pytest.mark.slow
def test_sighup_is_ignored_under_nohup(artifacts: Path, tmp_path: Path) -> None:
    options = ["--bundle", f"age={artifacts / 'age'}"]
    with process(artifacts, tmp_path / "state", *options, hangup=signal.SIG_IGN) as served:
        served.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        post(served, "the-user", "item-1")
        assert not served.log("stopping")
        assert served.stop() == 0


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("fault", ["kill of the server", "kill of the service", "killed rewrite"])
def test_an_erasure_in_redis_comes_to_its_end_whatever_dies(artifacts: Path, tmp_path: Path, fault: str) -> None:
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis", **DURABLE, rdbcompression="no", **{"rdb-key-save-delay": "600000"})
    options = ["--store", server.url, "--bundle", f"age={artifacts / 'age'}"]
    try:
        with process(artifacts, tmp_path / "state", *options) as served:
            post(served, "the-user", "item-11", "item-1")
            post(served, "other", "item-2")
            assert in_files(server.folder)
            erased = served.client.delete("/v1/users/the-user").json()
            assert erased == {"erased": 2, "complete": False}
            assert pending(served) == 1
            until(lambda: gauge(served, "erasures_pending") == 1)
            if fault == "kill of the server":
                server.kill()
                server.start()
            elif fault == "killed rewrite":
                running = children(server.process.pid)
                assert running
                for child in running:  # as by the kernel, when memory is short
                    os.kill(child, signal.SIGKILL)
            else:
                served.stop(signal.SIGKILL)
        with process(artifacts, tmp_path / "state", *options) as served:
            until(lambda: pending(served) == 0, 60)
            assert in_files(server.folder, tmp_path / "state") == {}
            assert served.client.get("/v1/users/other").json()["count"] == 1
            until(lambda: gauge(served, "erasures_pending") == 0)
            assert not any(text.decode() in served.stderr_text for text in THEIRS)
    finally:
        server.kill()


def children(process_id: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]


@pytest.mark.slow
def test_what_one_service_erased_leaves_the_others_within_seconds(artifacts: Path, tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis", **DURABLE)
    options = ["--store", server.url, "--bundle", f"age={artifacts / 'age'}"]
    try:
        with (
            process(artifacts, tmp_path / "a", *options) as first,
            process(artifacts, tmp_path / "b", *options) as second,
        ):
            for user in ("the-user", "other"):
                post(first, user, "item-11", "item-1")
                second.post(f"/v1/users/{user}/predict", {"tasks": "*"})
            assert (gauge(second, "users_histories"), gauge(second, "users_states")) == (2, 2)
            first.client.delete("/v1/users/the-user")
            until(lambda: (gauge(second, "users_histories"), gauge(second, "users_states")) == (1, 1))
            assert second.client.get("/v1/users/the-user").status_code == 404
    finally:
        server.kill()


@pytest.mark.slow
def test_no_byte_of_an_erased_user_is_left_in_any_file_of_a_service(artifacts: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with process(artifacts, state, "--bundle", f"age={artifacts / 'age'}") as served:
        stop = threading.Event()

        def load() -> None:
            with httpx.Client(base_url=served.address, timeout=20) as client:
                for i in range(10_000):
                    if stop.is_set():
                        return
                    event = {"id": f"e{i}", "user": f"u{i % 40}", "item": "item-3"}
                    client.post("/v1/events", json={"events": [event]})

        loading = threading.Thread(target=load)
        loading.start()
        for _ in range(3):
            post(served, "the-user", *["item-11"], *(f"item-{i}" for i in range(10)))
            assert served.post("/v1/users/the-user/predict", {"tasks": "*"}).json()["events"] == 11
            assert in_files(state)
            assert served.client.delete("/v1/users/the-user").json() == {"erased": 11, "complete": True}
            assert in_files(state) == {}
        stop.set()
        loading.join()
        assert not any(text.decode() in served.stderr_text for text in THEIRS)
    assert in_files(state) == {}
