"""A launcher such as torchrun starts a verb several times: what is no training is refused before it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import Job
from peterrec.cli.main import execute
from peterrec.errors import ConfigError
from peterrec.storage import new_folder


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)


def test_verbs_that_write_are_refused(
    job: Job, torchrun: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in job.root.rglob("*")}
    out = ["--out", str(tmp_path / "out"), "--overwrite"]
    for arguments in (
        ["prepare", job.events, *out],
        ["adapt", job.backbone, job.corpus, "cluster", *out],
        ["evaluate", job.backbone, job.corpus, job.bundle("cluster")],
        ["predict", job.backbone, job.bundle("cluster"), job.events, "--out", str(tmp_path / "out.csv")],
        ["experiment", "--quick", "--out", str(tmp_path / "grid")],
    ):
        assert execute(arguments) == 2
        assert "2 processes were started to work together" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in job.root.rglob("*")} == before


def test_no_folder_is_made(torchrun: None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without torchrun"), new_folder(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []
