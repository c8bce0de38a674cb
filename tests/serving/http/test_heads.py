"""Heads of requests on a real socket: upgrades, sizes, what stands behind them, and who says that it sends no more."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import pytest

from .running import PREDICT, Running, answer, read, request, running
from .site import until

LAST = "Connection: close\r\n"
JSON = "Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("site"), head_bytes=2_000) as found:
        yield found


def chunked(body: bytes, *, more: str = "", size: int = 7, trailer: bytes = b"") -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailer + b"\r\n"
    return request("POST", "/v1/predict", more=f"{JSON}Transfer-Encoding: chunked\r\n{more}") + coded


def answers(found: bytes) -> list[int]:
    return [int(part[:3]) for part in found.split(b"HTTP/1.1 ")[1:]]


# ---------------------------------------------------------------- upgrades


@pytest.mark.parametrize("name", ["Upgrade", "upgrade", "UPGRADE"])
@pytest.mark.parametrize("step", [1, 100_000], ids=["byte-by-byte", "at-once"])
def test_a_body_survives_an_upgrade_that_is_not_made(serving: Running, name: str, step: int) -> None:
    more = f"Connection: Upgrade, HTTP2-Settings\r\n{name}: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    with serving.connect() as client:
        sent = request("POST", "/v1/predict", PREDICT, more) + request("GET", "/healthz", more=LAST)
        for i in range(0, len(sent), step):
            client.sendall(sent[i : i + step])
        assert answers(read(client)) == [200, 200]
    with serving.connect() as client:
        client.sendall(chunked(PREDICT, more=more.replace("Connection: ", "Connection: close, ")))
        assert answer(client)[0] == 200


def test_what_looks_like_an_upgrade_in_a_body_is_left_alone(serving: Running) -> None:
    event = {"id": "x\nUpgrade:", "user": "a\r\nUpgrade: h2c", "item": "i"}
    body = json.dumps({"events": [event]}).replace("\\r\\n", "\r\n")  # a line end in a text is no JSON
    assert serving.ask("POST", "/v1/events", body.encode())[0] == 400
    padded = b"\r\n\r\nUpgrade: h2c\r\n\r\n" + PREDICT
    with serving.connect() as client:
        client.sendall(request("POST", "/v1/predict", padded, LAST))
        status, found = answer(client)
        assert (status, found["error"]["code"]) == (400, "malformed_json")


def test_nothing_behind_connect_is_a_request(serving: Running) -> None:
    for target in ("localhost:1", "/"):
        with serving.connect() as client:
            client.sendall(
                f"CONNECT {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() + request("GET", "/healthz")
            )
            found = answers(read(client))
            assert len(found) == 1, target
            assert 400 <= found[0] < 500, target


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("step", [100, 100_000], ids=["slowly", "at-once"])
@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n" + "X: y\r\n" * 400 + "\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nX: " + "y" * 100_000 + "\r\n\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n" + "X" * 100_000, 431),
        ("GET /" + "x" * 2_000 + " HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        ("GET /?" + "x" * 100_000, 414),
    ],
    ids=range(5),
)
def test_a_head_that_is_too_long(serving: Running, head: str, status: int, step: int) -> None:
    with serving.connect() as client:
        with contextlib.suppress(OSError):
            for i in range(0, len(head), step):
                client.sendall(head[i : i + step].encode())
        found, body = answer(client)
        assert (found, body["error"]["code"]) == (status, "too_large")
        assert "2,000 bytes" in body["error"]["message"]


def test_a_head_as_long_as_it_may_be(serving: Running) -> None:
    head = request("GET", "/healthz", more=LAST)
    fill = 2_000 - len(head) - len(b"X: \r\n")
    for more, status in ((0, 200), (1, 431)):
        with serving.connect() as client:
            client.sendall(request("GET", "/healthz", more=f"{LAST}X: {'y' * (fill + more)}\r\n"))
            assert answer(client)[0] == status


def test_no_more_of_a_head_is_kept(serving: Running) -> None:
    with serving.connect() as client, contextlib.suppress(OSError):
        client.sendall(b"GET / HTTP/1.1\r\n")
        until(lambda: len(serving.server.server_state.connections) == 1)
        protocol = next(iter(serving.server.server_state.connections))
        for _ in range(400):
            client.sendall(b"X: " + b"y" * 10_000 + b"\r\n")
            assert len(protocol._head) <= 2_001  # type: ignore[union-attr]
    until(lambda: not serving.server.server_state.connections)


@pytest.mark.parametrize("behind", [b"X: " + b"y" * 5_000, b"X: y\r\n" * 1_000], ids=["one", "many"])
def test_what_is_behind_a_body_in_chunks_is_bounded(serving: Running, behind: bytes) -> None:
    with serving.connect() as client:
        client.sendall(chunked(PREDICT)[:-2])
        time.sleep(0.05)
        with contextlib.suppress(OSError):
            client.sendall(behind)
        assert answer(client)[0] == 431
    with serving.connect() as client:
        client.sendall(chunked(PREDICT, more=LAST, trailer=b"X: y\r\nHost: evil.example\r\n"))
        assert answer(client)[0] == 200


def test_a_body_in_small_chunks_is_no_head(serving: Running) -> None:
    with serving.connect() as client:
        sent = chunked(PREDICT + b" " * 5_000, more=LAST, size=1)
        for i in range(0, len(sent), 3_000):  # each more than a head may have
            client.sendall(sent[i : i + 3_000])
            time.sleep(0.01)
        assert answer(client)[0] == 200


def test_two_hosts(serving: Running) -> None:
    with serving.connect() as client:
        client.sendall(request("GET", "/healthz", more=f"Host: evil.example\r\n{LAST}"))
        assert answer(client)[0] == 400


# ---------------------------------------------------------------- several requests


def test_bodies_of_requests_at_once(serving: Running) -> None:
    one = request("POST", "/v1/predict", PREDICT)
    for step in (50, 100_000):
        with serving.connect() as client:
            sent = one * 3 + request("GET", "/healthz") + b"\r\n" + one + request("GET", "/none", more=LAST)
            for i in range(0, len(sent), step):
                client.sendall(sent[i : i + step])
            assert answers(read(client)) == [200] * 5 + [404]


def test_many_requests_at_once(serving: Running) -> None:
    with serving.connect() as client:
        client.sendall(b"\r\n" * 3_000 + request("GET", "/healthz") * 200 + request("GET", "/healthz", more=LAST))
        assert answers(read(client)) == [200] * 201


def test_chunks_and_then_another_request(serving: Running) -> None:
    with serving.connect() as client:
        for _ in range(2):
            client.sendall(chunked(PREDICT))
            found = b""
            while not found.endswith(b"}"):
                found += client.recv(65536)
            assert answers(found) == [200]
        # Sent together, the second is not answered, and the connection's end says so.
        client.sendall(chunked(PREDICT) + request("GET", "/healthz"))
        assert answers(read(client)) == [200]


def test_nonsense_behind_a_request_does_not_take_its_answer(serving: Running) -> None:
    serving.site.users.going.clear()
    with serving.connect() as client:
        client.sendall(request("POST", "/v1/predict", PREDICT) + b"hello\r\n\r\n")
        time.sleep(0.05)
        serving.site.users.going.set()
        assert answers(read(client)) == [200]


# ---------------------------------------------------------------- who sends no more


@pytest.mark.parametrize("seconds", [0.0, 0.4], ids=["quick", "slow"])
@pytest.mark.parametrize("count", [1, 2])
def test_who_sends_no_more_is_answered(serving: Running, seconds: float, count: int) -> None:
    serving.site.users.going.clear()
    with serving.connect() as client:
        client.sendall(request("POST", "/v1/predict", PREDICT) * count)
        client.shutdown(socket.SHUT_WR)
        time.sleep(seconds)
        serving.site.users.going.set()
        found = answers(read(client))
        assert [status for status in found if status != 100] == [200] * count
        assert seconds or 100 not in found
    until(lambda: not serving.server.server_state.connections)


def test_who_sends_no_more_of_half_a_request_is_gone(serving: Running) -> None:
    for sent in (request("POST", "/v1/predict", PREDICT)[:-1], b"GET / HT", b""):
        with serving.connect() as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            assert read(client) == b""
