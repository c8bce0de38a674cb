"""The server on a real socket, without a proxy: slow bodies, pipelines, upgrades, what is no HTTP, many connections."""

from __future__ import annotations

import contextlib
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from peterrec.serving.http import server
from peterrec.serving.http.server import MIN_CONNECTIONS, OTHER_FILES, open_files_for_connections

from .in_process import FakeSite, until
from .in_thread import PREDICT, ServerThread, answer, read, request, serve_in_thread

SECONDS = 0.5  # for bodies to arrive, of a hasty service
LAST = "Connection: close\r\n"
JSON = "Content-Type: application/json\r\n"


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[ServerThread]:
    with serve_in_thread(tmp_path, body_seconds=SECONDS) as server_thread:
        yield server_thread


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    with serve_in_thread(tmp_path_factory.mktemp("site"), head_bytes=2_000) as server_thread:
        yield server_thread


def chunked(body: bytes, headers: str = "", *, size: int = 7) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return request("POST", "/v1/predict", headers=f"{JSON}Transfer-Encoding: chunked\r\n{headers}") + coded


def statuses(received: bytes) -> list[int]:
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


# ---------------------------------------------------------------- bodies


def test_a_body_that_does_not_arrive(hasty: ServerThread) -> None:
    with hasty.connect() as client:
        client.sendall(request("POST", "/v1/predict", PREDICT)[:-5])
        status, reply = answer(client)
        assert (status, reply["error"]["code"]) == (408, "too_slow")
        assert reply["error"]["message"].startswith("the body did not arrive")


def test_a_request_in_time_is_not_cut_off_while_it_is_answered(hasty: ServerThread) -> None:
    hasty.site.users.may_run.clear()
    with hasty.connect() as client:
        client.sendall(request("POST", "/v1/predict", PREDICT, LAST))
        time.sleep(3 * SECONDS)
        hasty.site.users.may_run.set()
        assert answer(client)[0] == 200


def test_bodies_in_chunks_and_bodies_that_are_announced(serving: ServerThread) -> None:
    with serving.connect() as client:
        client.sendall(chunked(PREDICT, LAST))
        assert answer(client)[0] == 200
    with serving.connect() as client:
        headers = f"{JSON}{LAST}Content-Length: 5000000\r\nExpect: 100-continue\r\n"
        client.sendall(request("POST", "/v1/predict", headers=headers))
        assert answer(client)[0] == 413


@pytest.mark.parametrize("step", [1, 100_000], ids=["byte-by-byte", "at-once"])
def test_a_body_survives_an_upgrade_that_is_not_made(serving: ServerThread, step: int) -> None:
    headers = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    with serving.connect() as client:
        sent = request("POST", "/v1/predict", PREDICT, headers) + request("GET", "/healthz", headers=LAST)
        for i in range(0, len(sent), step):
            client.sendall(sent[i : i + step])
        assert statuses(read(client)) == [200, 200]


# ---------------------------------------------------------------- several requests of a connection


def test_requests_one_after_the_other_and_at_once(serving: ServerThread) -> None:
    with serving.connect() as client:
        for _ in range(3):
            client.sendall(request("GET", "/healthz"))
            received = b""
            while not received.endswith(b'{"status":"ok"}'):
                received += client.recv(65536)
        client.sendall(request("POST", "/v1/predict", PREDICT) * 3 + request("GET", "/healthz", headers=LAST))
        assert statuses(read(client)) == [200] * 4


def test_head_is_get_without_the_body(serving: ServerThread) -> None:
    with serving.connect() as client:
        client.sendall(request("HEAD", "/healthz") + request("GET", "/healthz", headers=LAST))
        first, second, body = read(client).split(b"\r\n\r\n")
        assert b"content-length: 15" in first
        assert second.startswith(b"HTTP/1.1 200 OK")
        assert body == b'{"status":"ok"}'


# ---------------------------------------------------------------- what is no request

HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n",  # TLS
        b"GET /v1/us\xe9rs" + HEAD + b"\r\n",
        b"GET /" + HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /" + HEAD + b"X: " + b"y" * 300_000,  # a head that does not end
    ],
    ids=range(6),
)
def test_what_is_no_http(serving: ServerThread, sent: bytes) -> None:
    with serving.connect() as client:
        with contextlib.suppress(OSError):
            client.sendall(sent)
        received = read(client)
        assert statuses(received) in ([400], []), received  # closed while it is sent: the answer may be lost
    assert serving.ask("GET", "/healthz")[0] == 200


def test_nothing_behind_connect_is_a_request(serving: ServerThread) -> None:
    with serving.connect() as client:
        client.settimeout(1)
        client.sendall(b"CONNECT / HTTP/1.1\r\nHost: localhost\r\n\r\n" + request("GET", "/healthz", headers=LAST))
        received = b""
        with contextlib.suppress(TimeoutError):
            while part := client.recv(65536):
                received += part
        assert 400 <= statuses(received)[0] < 500


def test_an_old_client_without_a_host_is_refused_where_there_are_no_keys(serving: ServerThread) -> None:
    with serving.connect() as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        status, reply = answer(client)
        assert (status, reply["error"]["code"]) == (403, "forbidden")


# ---------------------------------------------------------------- how many


@pytest.mark.parametrize(
    ("files", "connections", "fitting"),
    [
        (10_000, 2_000, 2_000),
        (1_024, 2_000, 1_024 - OTHER_FILES),
        (64, 2_000, MIN_CONNECTIONS),
        (1_024, 10, 10),
        (resource.RLIM_INFINITY, 2_000, 2_000),
    ],
)
def test_connections_follow_from_the_files_that_may_be_open(
    tmp_path: Path, files: int, connections: int, fitting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = FakeSite(tmp_path, limits={"connections": connections})
    monkeypatch.setattr(server.resource, "getrlimit", lambda _: (files, files))
    monkeypatch.setattr(server.resource, "setrlimit", lambda *_: None)
    assert open_files_for_connections(site.service) == fitting
    assert [line["event"] for line in site.log()] == ["few files"] * (fitting < connections)


def test_past_the_connections_the_answer_is_503(tmp_path: Path) -> None:
    with serve_in_thread(tmp_path, connections=3) as serving, contextlib.ExitStack() as stack:
        held = [stack.enter_context(serving.connect()) for _ in range(3)]
        until(lambda: len(serving.server.server_state.connections) == 3)
        with serving.connect() as client:
            client.sendall(request("GET", "/healthz", headers=LAST))
            assert read(client).startswith(b"HTTP/1.1 503")
        held[0].close()
        until(lambda: len(serving.server.server_state.connections) == 2)
        assert json.dumps(serving.ask("GET", "/healthz")) == '[200, {"status": "ok"}]'
