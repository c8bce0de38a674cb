"""The notebooks run from top to bottom, offline, and each shows a figure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.py"))
QUICK = {"quick-start"}  # the others take half a minute and more


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NOTEBOOKS]
)
def test_a_notebook_runs_and_shows_figures(name: str, tmp_path: Path) -> None:
    for package in ("ipykernel", "jupytext", "nbclient", "pandas"):
        pytest.importorskip(package)
    import nbformat

    process = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "run_notebooks.py"), name, "--out", str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # tests run beside each other
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    notebook = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs), "a figure is shown"
    complaints = [output["text"] for output in outputs if output.get("name") == "stderr"]
    assert complaints == [], "nothing is warned of"


def test_every_notebook_is_in_the_navigation() -> None:
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=yaml.BaseLoader)
    assert sorted(re.findall(r"notebooks/([\w-]+)\.md", yaml.dump(settings["nav"]))) == NOTEBOOKS
