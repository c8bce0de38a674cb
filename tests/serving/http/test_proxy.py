"""The sample configuration of a proxy with the real nginx, and the service behind it: slow and hostile clients."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .in_process import until
from .in_thread import PREDICT, ServerThread, answer, read, request, serve_in_thread

SAMPLE = Path(__file__).parents[3] / "deploy" / "nginx.conf"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
OPENSSL = shutil.which("openssl")
SECONDS = 1  # what the sample gives for heads and bodies, cut short
PER_ADDRESS = 32
LAST = "Connection: close\r\n"

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="needs nginx (apt-get install nginx-light)"),
    pytest.mark.skipif(OPENSSL is None, reason="needs openssl, for a certificate"),
]


class Proxy:
    """nginx by the sample configuration, with other ports, paths and shorter times."""

    def __init__(self, folder: Path, service: tuple[str, int]) -> None:
        self.port = free_port()
        self.certificate = folder / "certificate.pem"
        make_certificate(folder)
        self.configuration = folder / "nginx.conf"
        self.configuration.write_text(adapt(SAMPLE.read_text(), folder, self.port, service))
        command = [str(NGINX), "-c", str(self.configuration), "-p", str(folder)]
        self.test = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=20, check=False)
        self.log = (folder / "nginx.log").open("w+")
        self.process = subprocess.Popen([*command, "-g", "daemon off; master_process off;"], stderr=self.log)
        until(self.listens)

    def listens(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False

    def connect(self, *, tls: bool = True) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        if not tls:
            return plain
        context = ssl.create_default_context(cafile=str(self.certificate))
        return context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=True)

    def ask(self, sent: bytes) -> tuple[int, dict[str, Any]]:
        with self.connect() as client:
            with contextlib.suppress(OSError):
                client.sendall(sent)
            return answer(client)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def make_certificate(folder: Path) -> None:
    command = [str(OPENSSL), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def adapt(sample: str, folder: Path, port: int, service: tuple[str, int]) -> str:
    """Return the sample with what is of a machine replaced; everything that is replaced has to be there."""
    replacements = {
        "127.0.0.1:8000": f"127.0.0.1:{service[1]}",
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/ssl/peterrec": str(folder),
        "/run/": f"{folder}/",
        "client_header_timeout 10s": f"client_header_timeout {SECONDS}s",
        "client_body_timeout 10s": f"client_body_timeout {SECONDS}s",
        "send_timeout 10s": f"send_timeout {SECONDS}s",
        "keepalive_timeout 30s": f"keepalive_timeout {SECONDS}s",
    }
    for old, new in replacements.items():
        assert old in sample, old
        sample = sample.replace(old, new)
    return sample


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    with serve_in_thread(tmp_path_factory.mktemp("site"), body_seconds=30.0) as server_thread:
        yield server_thread


@pytest.fixture(scope="module")
def proxy(serving: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    nginx = Proxy(tmp_path_factory.mktemp("nginx"), serving.address)
    try:
        yield nginx
    finally:
        nginx.close()


def seconds_until_closed(client: socket.socket) -> float:
    began = time.monotonic()
    read(client)
    return time.monotonic() - began


def request_lines(serving: ServerThread) -> int:
    return sum(line["event"] == "request" for line in serving.site.log())


def test_the_sample_is_valid_and_fits_the_service(proxy: Proxy, serving: ServerThread) -> None:
    assert proxy.test.returncode == 0, proxy.test.stderr
    limits, sample = serving.site.service.limits, SAMPLE.read_text()

    def number(setting: str) -> int:
        match = re.search(rf"^\s*{setting} (\d+)", sample, re.MULTILINE)
        assert match, setting
        return int(match[1])

    assert number("client_max_body_size") == limits.body_bytes
    assert number("large_client_header_buffers 4") * 1024 * 4 < limits.head_bytes
    assert number("limit_conn all") < limits.connections
    assert number("limit_conn per_address") == PER_ADDRESS
    assert number("proxy_read_timeout") > limits.answer_seconds


def test_answers_come_through(proxy: Proxy) -> None:
    assert proxy.ask(request("POST", "/v1/predict", PREDICT, LAST))[0] == 200
    status, reply = proxy.ask(request("GET", "/v1/users/a%2Fb", headers=LAST))
    assert (status, reply["error"]["code"]) == (404, "unknown_user")
    assert proxy.ask(request("GET", "/metrics", headers=LAST))[0] == 404


def test_plain_http_is_refused(proxy: Proxy) -> None:
    with proxy.connect(tls=False) as client:
        client.sendall(request("GET", "/healthz", headers=LAST))
        assert answer(client)[0] == 400


@pytest.mark.parametrize("start", [b"", b"G", b"GET / HTTP/1.1\r\nHost: lo"], ids=range(3))
def test_a_head_that_does_not_arrive(proxy: Proxy, start: bytes) -> None:
    with proxy.connect() as client:
        if start:
            client.sendall(start)
        assert seconds_until_closed(client) < SECONDS + 5


def test_a_head_that_dribbles(proxy: Proxy, serving: ServerThread) -> None:
    answered, began = request_lines(serving), time.monotonic()
    with proxy.connect() as client, contextlib.suppress(OSError):
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        for _ in range(1_000):
            client.sendall(b"X: y\r\n")
            time.sleep(0.02)
    assert time.monotonic() - began < SECONDS + 5
    assert request_lines(serving) == answered


def test_a_body_that_does_not_arrive_or_dribbles_never_reaches_the_service(proxy: Proxy, serving: ServerThread) -> None:
    answered = request_lines(serving)
    with proxy.connect() as slow, proxy.connect() as stuck:
        stuck.sendall(request("POST", "/v1/predict", PREDICT)[:-5])
        sent = request("POST", "/v1/predict", PREDICT, LAST)
        slow.sendall(sent[:-20])
        for place in range(len(sent) - 20, len(sent)):
            time.sleep(SECONDS / 10)
            assert request_lines(serving) == answered
            slow.sendall(sent[place : place + 1])
        assert answer(slow)[0] == 200
        assert seconds_until_closed(stuck) < SECONDS + 5


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n" + "X: y\r\n" * 10_000 + "\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nX: " + "y" * 100_000 + "\r\n\r\n", 431),
        ("GET /" + "x" * 10_000 + " HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000001\r\n\r\n", 413),
    ],
    ids=["many-headers", "long-header", "long-address", "long-body"],
)
def test_heads_and_bodies_that_are_too_long(proxy: Proxy, head: str, status: int) -> None:
    found_status, reply = proxy.ask(head.encode())
    assert (found_status, reply["error"]["code"]) == (status, "refused")


def test_a_body_in_chunks_without_end(proxy: Proxy) -> None:
    head = request("POST", "/v1/predict", headers="Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n")
    with proxy.connect() as client:
        with contextlib.suppress(OSError):
            client.sendall(head)
            for _ in range(100):
                client.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")
        received = b""
        with contextlib.suppress(OSError):
            received = read(client)
        assert received[:12] in (b"HTTP/1.1 413", b"")  # closed while it is sent: the answer may be lost


@pytest.mark.parametrize("name", ["Upgrade", "UPGRADE"])
def test_a_post_that_asks_for_an_upgrade(proxy: Proxy, name: str) -> None:
    headers = f"Connection: Upgrade, HTTP2-Settings\r\n{name}: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    with proxy.connect() as client:
        client.sendall(request("POST", "/v1/predict", PREDICT, headers) + request("GET", "/healthz", headers=LAST))
        assert read(client).count(b"HTTP/1.1 200") == 2


def test_http_1_0(proxy: Proxy) -> None:
    with proxy.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert answer(client) == (200, {"status": "ok"})
    chunks = "POST /v1/predict HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert proxy.ask(chunks.encode() + request("GET", "/healthz"))[0] == 400


def test_two_ends_of_a_body(proxy: Proxy) -> None:
    headers = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"
    assert proxy.ask(request("POST", "/v1/predict", headers=headers) + b"0\r\n\r\n")[0] == 400


def test_who_leaves_is_not_worked_for(proxy: Proxy, serving: ServerThread) -> None:
    site = serving.site
    site.users.may_run.clear()
    runs, closed_before = len(site.users.runs), [line.get("status") for line in site.log()].count(499)
    with proxy.connect() as first:
        first.sendall(request("POST", "/v1/predict", PREDICT))
        until(lambda: len(site.users.runs) == runs + 1)
        with proxy.connect() as second:
            second.sendall(request("POST", "/v1/predict", PREDICT))
            until(lambda: site.service._answers.queued_rows == 1)
        until(lambda: site.service._answers.queued_rows == 0)
    until(lambda: [line.get("status") for line in site.log()].count(499) == closed_before + 2)
    site.users.may_run.set()
    assert proxy.ask(request("POST", "/v1/predict", PREDICT, LAST))[0] == 200


def test_too_many_connections_of_an_address(proxy: Proxy, serving: ServerThread) -> None:
    site = serving.site
    site.users.may_run.clear()
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(proxy.connect()) for _ in range(PER_ADDRESS)]
        for client in held:
            client.sendall(request("POST", "/v1/predict", PREDICT, LAST))
        until(lambda: site.service._answers.queued_rows + site.users.runs[-1] >= PER_ADDRESS)
        status, reply = proxy.ask(request("GET", "/healthz", headers=LAST))
        assert (status, reply["error"]["code"]) == (503, "refused")
        site.users.may_run.set()
        assert {answer(client)[0] for client in held} == {200}
    assert proxy.ask(request("GET", "/healthz", headers=LAST))[0] == 200


def test_idle_connections_are_closed(proxy: Proxy) -> None:
    with proxy.connect() as client:
        client.sendall(request("GET", "/healthz"))
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        assert seconds_until_closed(client) < SECONDS + 5
