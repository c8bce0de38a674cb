"""Wheel and sdist: what is in them, and that the wheel works where the sources are not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHECK = ROOT / ".ci" / "check_distribution.py"
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both as `make dist` does, elsewhere, and without asking an index."""
    pytest.importorskip("build", reason="pip install build hatchling")
    pytest.importorskip("hatchling", reason="pip install build hatchling")
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out, sources=True)
    return out


def run(*command: str | Path, cwd: Path, sources: bool = False) -> str:
    """Return what a command prints; without `sources`, it does not find the modules of this process."""
    environment = {name: value for name, value in os.environ.items() if sources or name != "PYTHONPATH"}
    process = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, f"{command}\n{process.stdout}{process.stderr}"
    return process.stdout


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, CHECK, folder], capture_output=True, text=True, check=False)


def test_wheel_and_sdist_hold_the_package_and_no_other_file(built: Path) -> None:
    process = check(built)
    assert (process.returncode, process.stderr) == (0, "")


def test_a_wheel_with_too_little_or_too_much_is_refused(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dist"
    shutil.copytree(built, folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    del files["peterrec/py.typed"]
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in (files | {"tests/test_model.py": b""}).items():
            archive.writestr(name, content)
    process = check(folder)
    assert process.returncode == 1
    assert f"{wheel.name} lacks peterrec/py.typed" in process.stderr
    assert f"{wheel.name} has tests/test_model.py, which does not belong there" in process.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_works_in_a_bare_environment(built: Path, tmp_path: Path) -> None:
    """Install it as a user does, with nothing else, and go from events to answers by the command line and in Python."""
    venv.create(tmp_path / "venv", with_pip=True)
    python, peterrec = (tmp_path / "venv" / "bin" / name for name in ("python", "peterrec"))
    (wheel,) = built.glob("*.whl")
    (torch,) = [line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch==")]
    for package in (torch, wheel):  # torch first and by exact version: some indexes then give the small CPU build
        run(python, "-m", "pip", "install", "--quiet", package, cwd=tmp_path)
    shutil.copy(ROOT / "examples" / "quickstart.py", tmp_path)
    assert "clusters:" in run(python, "quickstart.py", cwd=tmp_path)
    run(peterrec, "experiment", "--quick", "--out", "quick", cwd=tmp_path)
    assert "<html" in (tmp_path / "quick" / "report.html").read_text()
    place = run(python, "-c", "import peterrec; print(peterrec.__file__)", cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(tmp_path / "venv")
