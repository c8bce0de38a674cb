"""Put what we are compared with into virtual environments of its own: python benchmarks/peers/install.py

Where a library cannot be had, this says why and succeeds: `speed.py` and `next_item.py` then leave out its rows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / "runs" / "peers"


@dataclass(frozen=True)
class Peer:
    """How a library is installed.

    Attributes:
        package: with its version.
        needed: what is installed before it.
        options: of pip, for the package itself.
        check: an import that fails where something is missing.
    """

    package: str
    needed: tuple[str, ...]
    options: tuple[str, ...]
    check: str


PEERS = {
    # Without what it depends on: that would be ray, which has no build for newer versions of Python, and more that only
    # its tuning and its reports use. These are what its models and its trainer ask for, in the versions RecBole 1.2.1
    # wants; it fills in missing values in a way that pandas 3 has given up.
    "recbole": Peer(
        "recbole==1.2.1",
        (
            "numpy<2", "pandas<3", "scipy", "scikit-learn", "pyyaml", "tqdm", "tensorboard", "texttable",
            "colorlog==4.7.2", "colorama==0.4.4",
        ),
        ("--no-deps",),
        "from recbole.model.sequential_recommender.nextitnet import NextItNet; from recbole.config import Config; "
        "from recbole.data import data_preparation; from recbole.utils import get_trainer; import recbole.trainer",
    ),
    "rectools": Peer("rectools[torch]==0.19.0", (), (), "from rectools.models import BERT4RecModel, SASRecModel"),
}  # fmt: skip


def python_of(peer: str, home: Path = HOME) -> Path:
    """Return the interpreter of a peer's virtual environment, whether it exists or not."""
    return home / peer / "bin" / "python"


def missing(peer: str, home: Path = HOME) -> str | None:
    """Return why a peer cannot be run, or None if it can."""
    reason = _reason_file(peer, home)
    if reason.exists():
        return reason.read_text().strip()
    return None if python_of(peer, home).exists() else "not installed: python benchmarks/peers/install.py"


def install(peer: str, home: Path = HOME) -> str | None:
    """Install a peer unless it is there; return why that failed, or None."""
    library, python = PEERS[peer], python_of(peer, home)
    if python.exists() and _run([str(python), "-c", library.check]) is None:
        _reason_file(peer, home).unlink(missing_ok=True)
        return None
    home.mkdir(parents=True, exist_ok=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    steps = [
        [sys.executable, "-m", "venv", str(python.parents[1])],
        # First and by exact version: some package indexes then give the small CPU build. The same torch on all sides.
        [*pip, _our_torch()],
        *([[*pip, *library.needed]] if library.needed else []),
        [*pip, *library.options, library.package],
        [str(python), "-c", library.check],
    ]
    for step in steps:
        reason = _run(step)
        if reason is not None:
            _reason_file(peer, home).write_text(f"{library.package} could not be installed: {reason}\n")
            return reason
    _reason_file(peer, home).unlink(missing_ok=True)
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
    parser.add_argument("--only", choices=list(PEERS), help="of the libraries")
    options = parser.parse_args()
    for peer in PEERS if options.only is None else (options.only,):
        reason = install(peer, options.home.resolve())
        package = PEERS[peer].package
        print(f"{package} is in {options.home}" if reason is None else f"rows of {peer} will be skipped: {reason}")


if __name__ == "__main__":
    main()
