"""The Dockerfile: what it copies is there and sent, it starts a command line that exists, its health check works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from serving.http.test_deploy import check_command

ROOT = Path(__file__).parents[3]
Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [(name, value.strip()) for name, value in (line.split(maxsplit=1) for line in text.splitlines() if line)]


def values(name: str) -> list[str]:
    return [value for key, value in instructions() if key == name]


def environment() -> dict[str, str]:
    return dict(value.split("=", 1) for value in values("ENV"))


def health_command() -> list[str]:
    (check,) = values("HEALTHCHECK")
    command: list[str] = json.loads(check.partition(" CMD ")[2])
    return [sys.executable, *command[1:]]


def test_its_instructions_are_those_of_docker() -> None:
    instruction_names = {
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "ARG",
        "USER",
        "VOLUME",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "STOPSIGNAL",
        "CMD",
    }
    assert {name for name, _ in instructions()} == instruction_names
    assert values("FROM") == ["python:3.11-slim AS build", "python:3.11-slim"]


def test_what_it_copies_is_there_and_is_sent_to_the_builder() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = [word for value in values("COPY") if "--from" not in value for word in value.split()[:-1]]
    assert set(sources) == sent
    assert all((ROOT / source).exists() for source in sources)


def test_it_has_what_the_build_of_the_wheel_reads() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    (included,) = re.findall(r"^only-include = \[(.*)\]", pyproject, flags=re.MULTILINE)
    needed = {*re.findall(r'"([^"]+)"', included), "pyproject.toml", "README.md", "LICENSE"}
    copied = " ".join(values("COPY")).split()
    assert {name.split("/")[0] for name in needed} <= set(copied)


def test_it_starts_the_service_as_another_user_than_root() -> None:
    (start,), (port,) = values("CMD"), values("EXPOSE")
    options = check_command(json.loads(start))
    assert (options["host"], str(options["port"])) == ("0.0.0.0", port)
    assert options["keys"] is not None  # without, it would listen on a loopback address only
    names = [name for name, _ in instructions()]
    assert values("USER") == ["1000"]
    assert names.index("USER") < names.index("CMD")
    (folders,) = [value for value in values("RUN") if "install -d -o 1000" in value]
    assert {options["state"], options["bundle_root"]} <= set(folders.split())
    assert json.loads(values("VOLUME")[0]) == [options["state"]]


@pytest.fixture
def answering() -> Callable[[int], HTTPServer]:
    """Return a function that starts a server which answers with a status at /healthz, and with 404 elsewhere."""
    servers = []

    def start(status: int) -> HTTPServer:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/healthz" else 404)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_asks_the_port_of_the_service(answering, status: int, healthy: bool) -> None:
    assert environment() == {"PORT": values("EXPOSE")[0]}
    port = str(answering(status).server_port)
    process = subprocess.run(health_command(), env={"PORT": port}, capture_output=True, check=False)
    assert (process.returncode == 0) is healthy


def test_the_replicas_of_the_compose_file_tell_their_port() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    replicas = [service for name, service in services.items() if "replica" in name]
    assert all((ROOT / "deploy" / service["build"] / "Dockerfile").is_file() for service in replicas)
    ports = [check_command(service["command"].split())["port"] for service in replicas]
    assert [service["environment"]["PORT"] for service in replicas] == [str(port) for port in ports]
