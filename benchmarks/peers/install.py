"""Put what we are compared with into virtual environments of its own: python benchmarks/peers/install.py

Where RecBole cannot be had, this says why and succeeds: `speed.py` then leaves out its rows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / "runs" / "peers"
# Without what it depends on: that would be ray, which has no build for newer versions of Python, and more that only its
# tuning and its reports use. These are what the import of NextItNet asks for, in the versions RecBole 1.2.1 wants.
RECBOLE = "recbole==1.2.1"
NEEDED = ("numpy<2", "pandas", "tensorboard", "texttable", "colorlog==4.7.2", "colorama==0.4.4")
IMPORT = "from recbole.model.sequential_recommender.nextitnet import NextItNet"


def python_of(peer: str, home: Path = HOME) -> Path:
    """Return the interpreter of a peer's virtual environment, whether it exists or not."""
    return home / peer / "bin" / "python"


def missing(peer: str, home: Path = HOME) -> str | None:
    """Return why a peer cannot be run, or None if it can."""
    reason = _reason_file(peer, home)
    if reason.exists():
        return reason.read_text().strip()
    return None if python_of(peer, home).exists() else "not installed: python benchmarks/peers/install.py"


def install_recbole(home: Path = HOME) -> str | None:
    """Install RecBole unless it is there; return why that failed, or None."""
    python = python_of("recbole", home)
    if python.exists() and _run([str(python), "-c", IMPORT]) is None:
        _reason_file("recbole", home).unlink(missing_ok=True)
        return None
    home.mkdir(parents=True, exist_ok=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    steps = [
        [sys.executable, "-m", "venv", str(python.parents[1])],
        # First and by exact version: some package indexes then give the small CPU build. The same torch on all sides.
        [*pip, _our_torch()],
        [*pip, *NEEDED],
        [*pip, "--no-deps", RECBOLE],
        [str(python), "-c", IMPORT],
    ]
    for step in steps:
        reason = _run(step)
        if reason is not None:
            _reason_file("recbole", home).write_text(f"{RECBOLE} could not be installed: {reason}\n")
            return reason
    _reason_file("recbole", home).unlink(missing_ok=True)
    return None


def _our_torch() -> str:
    pins = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    return next(pin for pin in pins if pin.startswith("torch=="))


def _reason_file(peer: str, home: Path) -> Path:
    return home / f"{peer}-missing.txt"


def _run(command: list[str]) -> str | None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    completed = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if completed.returncode == 0:
        return None
    lines = (completed.stderr or completed.stdout).strip().splitlines() or [f"status {completed.returncode}"]
    # An error line of pip, if there is one: what follows it are hints.
    return next((line for line in lines if line.startswith("ERROR")), lines[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=HOME, help="folder of the virtual environments")
    options = parser.parse_args()
    reason = install_recbole(options.home.resolve())
    print(f"{RECBOLE} is in {options.home}" if reason is None else f"RecBole's rows will be skipped: {reason}")


if __name__ == "__main__":
    main()
