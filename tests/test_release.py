"""What a release needs: one version in all files, workflows that call what exists and hold no secret."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import peterrec

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RELEASE = runpy.run_path(str(ROOT / ".ci" / "check_release.py"))
NAMING = ("src/peterrec/_version.py", "CITATION.cff", "CHANGELOG.md")
VERSION = peterrec.__version__


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copy the files that name the version, with a heading of it in the changelog."""
    for name in NAMING:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    replace(tmp_path / "CHANGELOG.md", "## [Unreleased]", f"## [Unreleased]\n\n## [{VERSION}] - 2026-12-01")
    return tmp_path


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def load(path: Path) -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load(path.read_text())
    return content


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def test_all_files_name_one_version() -> None:
    assert RELEASE["problems"](ROOT) == []
    assert RELEASE["package_version"]() == VERSION
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"] == ["version"]


def test_the_tag_of_the_version_is_released(copy: Path) -> None:
    assert RELEASE["problems"](copy, f"v{VERSION}") == []


@pytest.mark.parametrize("tag", ["v9.9.9", VERSION, f"v{VERSION}rc1"])
def test_another_tag_is_refused(copy: Path, tag: str) -> None:
    (problem,) = RELEASE["problems"](copy, tag)
    assert problem == f"the tag is {tag}, _version.py {VERSION}: the tag of that version is v{VERSION}"


@pytest.mark.parametrize(
    ("name", "old", "new", "problem"),
    [
        ("CITATION.cff", f"version: {VERSION}", "version: 9.9.9", "CITATION.cff has version 9.9.9"),
        ("CHANGELOG.md", f"## [{VERSION}] - 2026-12-01\n", "", "CHANGELOG.md has no heading"),
        ("CHANGELOG.md", "## [Unreleased]\n", "", "CHANGELOG.md does not begin with [Unreleased]"),
        ("CHANGELOG.md", f"[{VERSION}] -", f"[{VERSION}]\n\n## [9.9.9] -", "CHANGELOG.md has 9.9.9, which is later"),
    ],
)
def test_a_file_that_disagrees_is_named(copy: Path, name: str, old: str, new: str, problem: str) -> None:
    replace(copy / name, old, new)
    assert any(line.startswith(problem) for line in RELEASE["problems"](copy, f"v{VERSION}"))


def test_the_script_has_an_exit_status() -> None:
    script = ROOT / ".ci" / "check_release.py"
    process = subprocess.run([sys.executable, script, "v9.9.9"], capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "the tag is v9.9.9" in process.stdout


def test_the_workflows_are_there() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "docs.yml", "release.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_has_no_secret(path: Path) -> None:
    content = load(path)
    assert content["permissions"] == {"contents": "read"}
    assert "secrets." not in path.read_text()
    writers = {name: job["permissions"] for name, job in content["jobs"].items() if "permissions" in job}
    assert set(writers) <= {"publish"}
    assert all("timeout-minutes" in job for job in content["jobs"].values())
    for step in steps(path):
        assert ("uses" in step) != ("run" in step), step
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v\d+)", step.get("uses", "actions/x@v1")), step


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_what_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*)(?: [a-z-]+)*:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    commands = "\n".join(step.get("run", "") for step in steps(path))
    assert set(re.findall(r"^make ([a-z-]+)", commands, flags=re.MULTILINE)) <= targets
    for name in re.findall(r"(?:^|python )(\.ci/\S+)|(?:cp|' )([\w-]+/\S+\.\w+)", commands, flags=re.MULTILINE):
        assert (ROOT / "".join(name)).is_file(), name


def test_python_of_the_tests_is_that_of_the_classifiers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    classified = [line.split(" :: ")[-1] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)]
    matrix = load(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == classified


def test_only_a_tag_publishes_after_its_check() -> None:
    release = load(ROOT / ".github" / "workflows" / "release.yml")
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as true
    build, publish = release["jobs"]["build"]["steps"], release["jobs"]["publish"]
    runs = [step["run"] for step in build if "run" in step]
    assert runs == ['python .ci/check_release.py "$GITHUB_REF_NAME"', "make dist PYTHON=python"]
    assert (publish["needs"], publish["permissions"]) == ("build", {"id-token": "write"})


@pytest.mark.parametrize("page", ["README.md", "docs/install.md"])
def test_the_first_line_of_installation_works_today(page: str) -> None:
    """Until something is published, it installs the checkout; a release changes this test together with both pages."""
    commands = re.findall(r"pip install ['\"]?([^\s'\"`]+)", (ROOT / page).read_text())
    assert commands[0].startswith(".")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(commands[0].strip(".[]").split(",")) <= set(extras)
