"""Clients that leave, and the end of the server."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from peterrec.errors import ConfigError
from peterrec.serving.http import server
from peterrec.serving.http.server import bind

from .in_process import FakeSite, until
from .in_thread import PREDICT, ServerThread, answer, read, request, serve_in_thread


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[ServerThread]:
    with serve_in_thread(tmp_path) as server_thread:
        yield server_thread


def test_who_leaves_is_not_worked_for(serving: ServerThread) -> None:
    site = serving.site
    site.users.may_run.clear()
    with serving.connect() as first:
        first.sendall(request("POST", "/v1/predict", PREDICT))
        until(lambda: len(site.users.runs) == 1)
        with serving.connect() as second:
            second.sendall(request("POST", "/v1/predict", PREDICT))
            until(lambda: site.service._answers.queued_rows == 1)
        until(lambda: site.service._answers.queued_rows == 0)
    until(lambda: [line.get("status") for line in site.log()].count(499) == 2)
    site.users.may_run.set()
    assert serving.ask("POST", "/v1/predict", PREDICT)[0] == 200
    assert site.users.runs == [1, 1]
    assert not [line for line in site.log() if line["level"] == "error"]


def test_what_is_in_flight_at_the_end_is_finished(tmp_path: Path) -> None:
    with serve_in_thread(tmp_path) as serving:
        check_the_end(serving, serving.site)


def check_the_end(serving: ServerThread, site: FakeSite) -> None:
    site.users.may_run.clear()
    with serving.connect() as client, serving.connect() as idle:
        client.sendall(request("POST", "/v1/predict", PREDICT))
        until(lambda: len(site.users.runs) == 1)
        serving.server.handle_exit(15, None)
        assert site.service.stopping
        assert read(idle) == b""
        until(lambda: refuses(serving))
        assert not site.store.closed
        site.users.may_run.set()
        assert answer(client)[0] == 200
    serving.thread.join(10)
    assert site.store.closed
    assert [line["event"] for line in site.log()][-2:] == ["request", "stopped"]


def test_the_patience_at_the_end_has_an_end(tmp_path: Path) -> None:
    with serve_in_thread(tmp_path, shutdown_seconds=1) as serving:
        site = serving.site
        site.users.may_run.clear()
        with serving.connect() as client:
            client.sendall(request("POST", "/v1/predict", PREDICT))
            until(lambda: len(site.users.runs) == 1)
            serving.server.handle_exit(15, None)
            status, reply = answer(client)
            assert (status, reply["error"]["code"]) == (503, "stopping")


@pytest.mark.parametrize("hanging", [False, True])
def test_a_thread_that_hangs_does_not_keep_the_process(
    site: FakeSite, hanging: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(server, "redirect_server_logs", lambda log: None)
    monkeypatch.setattr(server, "open_files_for_connections", lambda service: 10)
    monkeypatch.setattr(server.Server, "run", lambda self, sockets: None)
    monkeypatch.setattr("os._exit", ends.append)
    monkeypatch.setattr(site.service, "hanging", hanging, raising=False)
    server.run(site.service, serving_nowhere(), lambda: None)
    assert ends == [0] * hanging


def serving_nowhere() -> socket.socket:
    with bind("127.0.0.1", 0) as listener:
        return listener


def test_a_second_signal_ends_it_at_once(site: FakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[int] = []
    monkeypatch.setattr("os._exit", ends.append)
    http_server = server.Server(site.service, 10, lambda: None)
    http_server.handle_exit(15, None)
    assert not ends
    http_server.handle_exit(2, None)
    assert ends == [130]


def test_a_second_sighup_changes_nothing(site: FakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that closes sends two."""
    ends: list[int] = []
    monkeypatch.setattr("os._exit", ends.append)
    http_server = server.Server(site.service, 10, lambda: None)
    for _ in range(2):
        http_server.handle_exit(signal.SIGHUP, None)
    assert http_server.should_exit
    assert not ends


def refuses(serving: ServerThread) -> bool:
    try:
        serving.connect().close()
    except OSError:
        return True
    return False


def test_an_address_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1 port"):
            bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
        bind("192.0.2.1", 0)

    def nowhere(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    with pytest.raises(ConfigError, match="there is no address"):
        bind("nowhere.invalid", 0)
