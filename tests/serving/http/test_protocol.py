"""The server on a real socket: slow clients, what is no HTTP, too many connections."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from peterrec.serving.http.server import LEAST_SPARE, Room
from peterrec.serving.store.base import Event

from .running import PREDICT, Running, answer, read, request, running
from .site import until

SECONDS = 0.5  # for headers and bodies to arrive, of a hasty service


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path, body_seconds=SECONDS) as found:
        yield found


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as found:
        yield found


# ---------------------------------------------------------------- slow clients


@pytest.mark.parametrize("start", [b"", b"G", b"GET / HTTP/1.1\r\nHost: lo", b"\r\n"], ids=range(4))
def test_headers_that_do_not_arrive(hasty: Running, start: bytes) -> None:
    with hasty.connect() as client:
        began = time.monotonic()
        if start:
            client.sendall(start)
        status, found = answer(client)
        assert (status, found["error"]["code"]) == (408, "too_slow")
        assert SECONDS * 0.9 <= time.monotonic() - began < 15


def test_headers_that_dribble(hasty: Running) -> None:
    with hasty.connect() as client:
        began = time.monotonic()
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        with contextlib.suppress(OSError):
            for _ in range(1_000):
                client.sendall(b"X: y\r\n")
                time.sleep(0.02)
        assert time.monotonic() - began < 15


def test_a_second_request_that_does_not_arrive(hasty: Running) -> None:
    with hasty.connect() as client:
        client.sendall(request("GET", "/healthz"))
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        for start in (b"\r\n", b"\r\n", b"GET "):
            client.sendall(start)
        began = time.monotonic()
        assert answer(client)[0] == 408
        assert time.monotonic() - began < 15


def test_a_body_that_does_not_arrive(hasty: Running) -> None:
    with hasty.connect() as client:
        client.sendall(request("POST", "/v1/predict", PREDICT)[:-5])
        status, found = answer(client)
        assert (status, found["error"]["code"]) == (408, "too_slow")
        assert found["error"]["message"].startswith("the body did not arrive")


def test_a_request_in_time_is_not_cut_off_while_it_is_answered(hasty: Running) -> None:
    hasty.site.users.going.clear()
    with hasty.connect() as client:
        client.sendall(request("POST", "/v1/predict", PREDICT, "Connection: close\r\n"))
        time.sleep(3 * SECONDS)
        hasty.site.users.going.set()
        assert answer(client)[0] == 200


def test_who_does_not_read_is_cut_off(hasty: Running) -> None:
    events = [Event("u", f"{i:0>250}", f"{i:0>250}", 1.0) for i in range(20_000)]
    hasty.site.store.append(events)
    connections = hasty.server.server_state.connections
    with hasty.connect() as client:
        client.sendall(request("GET", "/v1/users/u"))
        until(lambda: len(connections) == 1)
        until(lambda: not connections, 10)


# ---------------------------------------------------------------- what is sent


def test_requests_one_after_the_other_and_at_once(serving: Running) -> None:
    with serving.connect() as client:
        for _ in range(3):
            client.sendall(request("GET", "/healthz"))
            found = b""
            while not found.endswith(b'{"status":"ok"}'):
                found += client.recv(65536)
        client.sendall(request("GET", "/healthz") * 2 + request("GET", "/healthz", more="Connection: close\r\n"))
        assert read(client).count(b"HTTP/1.1 200 OK") == 3


HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"


def test_head_is_get_without_the_body(serving: Running) -> None:
    with serving.connect() as client:
        client.sendall(request("HEAD", "/healthz") + request("GET", "/healthz", more="Connection: close\r\n"))
        first, second, body = read(client).split(b"\r\n\r\n")
        assert b"content-length: 15" in first
        assert second.startswith(b"HTTP/1.1 200 OK")
        assert body == b'{"status":"ok"}'


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET /v1/us\xe9rs" + HEAD + b"\r\n",
        b"GET /" + HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/predict" + HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ],
    ids=range(6),
)
def test_what_is_no_http(serving: Running, sent: bytes) -> None:
    with serving.connect() as client:
        client.sendall(sent)
        status, found = answer(client)
        assert 400 <= status < 500
        assert set(found["error"]) == {"code", "message", "remedy"}


@pytest.mark.parametrize(
    "line", ["Transfer-Encoding: chunked", "A: b\r\ntransfer-encoding : chunked", "TRANSFER-ENCODING: identity"]
)
def test_old_http_in_chunks_is_refused(serving: Running, line: str) -> None:
    """Its end may be seen elsewhere by a proxy: what follows must not be taken for a request."""
    head = f"POST /v1/predict HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n{line}\r\n\r\n"
    with serving.connect() as client:
        client.sendall(head.encode() + b"0\r\n\r\n" + request("GET", "/healthz"))
        found = read(client)
    assert found.count(b"HTTP/1.1 ") == 1
    assert found.startswith(b"HTTP/1.1 400")
    assert b"HTTP/1.0 has no Transfer-Encoding" in found


def test_bodies_in_chunks_and_bodies_that_are_announced(serving: Running) -> None:
    kind = "Content-Type: application/json\r\nConnection: close\r\n"
    with serving.connect() as client:
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (PREDICT[:9], PREDICT[9:])) + b"0\r\n\r\n"
        client.sendall(request("POST", "/v1/predict", more=f"{kind}Transfer-Encoding: chunked\r\n") + chunks)
        assert answer(client)[0] == 200
    with serving.connect() as client:
        client.sendall(
            request("POST", "/v1/predict", more=f"{kind}Content-Length: 5000000\r\nExpect: 100-continue\r\n")
        )
        assert answer(client)[0] == 413


def test_an_old_client_without_a_host_is_refused_where_there_are_no_keys(serving: Running) -> None:
    with serving.connect() as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert answer(client)[0] == 403


def test_an_upgrade_is_not_made(serving: Running) -> None:
    with serving.connect() as client:
        client.sendall(
            request(
                "GET", "/healthz", more="Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            )
        )
        assert client.recv(65536).startswith(b"HTTP/1.1 200")


# ---------------------------------------------------------------- how many


@pytest.mark.parametrize(
    ("files", "connections", "expected"),
    [
        (10_000, 2_000, (2_000, 500, 2_048)),
        (1_024, 2_000, (448, 112, 336)),
        (256, 2_000, (64, 16, 48)),
        (64, 2_000, (8, 2, 6)),
        (1_024, 10, (10, 112, 774)),
    ],
)
def test_connections_follow_from_the_files_that_may_be_open(
    files: int, connections: int, expected: tuple[int, int, int]
) -> None:
    room = Room.among(files, connections)
    assert (room.connections, room.refused, room.backlog) == expected
    assert sum(expected) <= max(files, LEAST_SPARE)


def test_past_the_connections_the_answer_is_503(tmp_path: Path) -> None:
    with running(tmp_path, connections=3) as serving, contextlib.ExitStack() as stack:
        held = [stack.enter_context(serving.connect()) for _ in range(3)]
        until(lambda: len(serving.server.server_state.connections) == 3)
        status, found = serving.ask("GET", "/healthz")
        assert (status, found["error"]["code"]) == (503, "too_many_connections")
        held[0].close()
        until(lambda: len(serving.server.server_state.connections) == 2)
        assert serving.ask("GET", "/healthz")[0] == 200
