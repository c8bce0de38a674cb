"""What the guides show runs as it stands, from top to bottom, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from peterrec.config import PrepareConfig, load_config

DOCS = Path(__file__).resolve().parents[1] / "docs"
GUIDES = ("quickstart", "growing", "own-data", "attributes", "cold-start")  # later ones use files of the first
COMMANDS = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-W", "error", "-c"]}


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """Return language and text of the blocks of code of a page."""
    text = (DOCS / f"{page}.md").read_text()
    fenced = re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [(language, code) for language, code in fenced if language in languages]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_guides_run(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    outputs = []
    for page in GUIDES:
        for language, code in blocks(page, *COMMANDS):
            process = subprocess.run(
                [*COMMANDS[language], code],
                cwd=tmp_path,
                env=os.environ | {"PATH": path},
                capture_output=True,
                text=True,
                check=False,
            )
            assert process.returncode == 0, f"{page}: {code}\n{process.stdout}{process.stderr}"
            outputs.append(process.stdout)
    assert any("['segment 2', 'segment 0'] [[" in output for output in outputs)  # what the two histories are about
    assert any(re.search(r"\[\['tea-2-\d', ", output) for output in outputs)


@pytest.mark.parametrize("page", GUIDES)
def test_settings_in_guides_are_valid(page: str, tmp_path: Path) -> None:
    for _, code in blocks(page, "yaml"):
        (tmp_path / "settings.yaml").write_text(code)
        load_config(PrepareConfig, tmp_path / "settings.yaml")
