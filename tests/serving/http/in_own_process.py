"""`peterrec serve` as a process of its own, with tiny artifacts."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from forked import ForkedCommand
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle

from .in_process import until


def write_artifacts(folder: Path) -> Path:
    """A backbone `base`; bundles `age`, `age2`, `shop`; `foreign`, of another backbone; `corrupt`, cut short."""
    pretrained = tiny_pretrained()
    save_backbone(folder / "base", pretrained)
    save_bundle(folder / "age", tiny_bundle(pretrained))
    save_bundle(folder / "age2", tiny_bundle(pretrained, seed=7))
    save_bundle(folder / "shop", tiny_bundle(pretrained, targets=tiny_catalogue(5, first=0)))
    save_bundle(folder / "foreign", tiny_bundle(tiny_pretrained(seed=5)))
    save_bundle(folder / "corrupt", tiny_bundle(pretrained))
    tensors = folder / "corrupt" / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    return folder


class ServiceProcess:
    """A running service."""

    def __init__(
        self,
        artifacts: Path,
        state: Path,
        *options: str,
        largest_file: int | None = None,
        open_files: int | None = None,
        hangup: signal.Handlers = signal.SIG_DFL,
        environment: Mapping[str, str] | None = None,
        backbone: str = "base",
    ) -> None:
        # Past the limit of a file's size writing is an error (Python ignores the signal): what a full disk does.
        limits = {"RLIMIT_FSIZE": largest_file, "RLIMIT_NOFILE": open_files}
        arguments = ["serve", str(artifacts / backbone), "--port", "0"]
        arguments += ["--state", str(state), "--bundle-root", str(artifacts), *options]
        self.process = ForkedCommand(
            arguments,
            limits={name: size for name, size in limits.items() if size is not None},
            hangup=hangup,
            environment=environment,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        until(lambda: self.process.poll() is not None or bool(self.log("started")), 60)
        started = self.log("started")
        self.address = started[0]["address"] if started else ""
        self.example = shlex.split(started[0]["example"]) if started else []  # as a shell would take it
        self.client = httpx.Client(base_url=self.address, timeout=20)

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line)

    @property
    def stderr_text(self) -> str:
        return "".join(self.lines)

    def log(self, event: str) -> list[dict[str, Any]]:
        return [parsed for line in self.lines if line[:1] == "{" and (parsed := json.loads(line))["event"] == event]

    def post(self, path: str, body: object) -> httpx.Response:
        return self.client.post(path, json=body)

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.join()

    def join(self) -> int:
        status = self.process.wait(30)
        self._reader.join(10)
        self.client.close()
        return status


@contextlib.contextmanager
def process(artifacts: Path, state: Path, *options: str, **settings: Any) -> Iterator[ServiceProcess]:
    service = ServiceProcess(artifacts, state, *options, **settings)
    try:
        assert service.address, service.stderr_text
        yield service
    finally:
        if service.process.poll() is None:
            service.process.kill()
        service.join()
        service.process.stderr.close()
