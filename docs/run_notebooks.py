"""Run notebooks/*.py and keep them with outputs in notebooks/executed/: python docs/run_notebooks.py [NAME ...]"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

SOURCES = Path(__file__).resolve().parents[1] / "notebooks"
SECONDS = 1200  # of a cell, at most, where a machine is very busy


def run(source: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of its cells; it runs in a folder of its own.

    Raises:
        CellExecutionError: a cell fails.
    """
    notebook = jupytext.read(source)
    notebook.metadata["peterrec"] = {"source_sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
    with tempfile.TemporaryDirectory(prefix="peterrec-notebook-") as folder:
        place = {"metadata": {"path": folder}}
        sockets = {"transport": "ipc", "ip": f"{folder}/kernel"} if os.name == "posix" else {}  # no port for others
        client = NotebookClient(notebook, timeout=SECONDS, resources=place, config=Config({"KernelManager": sockets}))
        client.execute(env=os.environ | {"PETERREC_CACHE": str(Path(folder) / "cache")})
    return notebook


def main() -> None:
    """Run the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as quick-start; all if none is named")
    parser.add_argument("--out", type=Path, default=SOURCES / "executed")
    arguments = parser.parse_args()
    names = arguments.names or sorted(path.stem for path in SOURCES.glob("*.py"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        start = time.monotonic()
        notebook = run(SOURCES / f"{name}.py")
        nbformat.write(notebook, arguments.out / f"{name}.ipynb")
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
