"""The documents say what is: settings, dependencies, links, the example."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import peterrec
from peterrec import config
from peterrec.cli.main import VERBS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_settings_is_made_from_the_models() -> None:
    page = load(ROOT / "docs" / "make_configuration.py").page()
    assert (ROOT / "docs" / "configuration.md").read_text() == page, "run: python docs/make_configuration.py"


def test_every_setting_says_what_it_is() -> None:
    models = [m for m in vars(config).values() if inspect.isclass(m) and issubclass(m, config.Config)]
    silent = [f"{m.__name__}.{name}" for m in models for name, field in m.model_fields.items() if not field.description]
    assert len(models) > 15
    assert silent == []


def test_every_dependency_has_its_reason_and_its_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[\[<>=! ]", line)[0].lower() for line in project["dependencies"]}
    reasons = (ROOT / "docs" / "dependencies.md").read_text().lower()
    pins = {line.split("==")[0].lower().replace("_", "-") for line in constraints()}
    assert names - set(re.findall(r"[a-z][a-z0-9-]+", reasons)) == set()
    assert names - pins == set()


def constraints() -> list[str]:
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r'src="([^":]+)"', text)
    for link in links:
        assert (page.parent / link).exists(), link
    for name in re.findall(r"`((?:src|docs|configs|examples|benchmarks|tests)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_verbs_that_exist(page: Path) -> None:
    for verb in re.findall(r"(?:^|`)peterrec ([a-z-]+)", page.read_text(), flags=re.MULTILINE):
        assert verb in VERBS


def test_the_public_surface_is_there_and_documented() -> None:
    for name in peterrec.__all__:
        value = getattr(peterrec, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name
    assert {
        "prepare",
        "pretrain",
        "adapt",
        "evaluate",
        "predict",
        "recommend",
        "embed",
        "inspect",
        "fetch",
        "run",
        "experiment",
    } <= {*peterrec.__all__}
    assert "UserModel" in dir(peterrec)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = peterrec.nonsense


@pytest.mark.slow
def test_the_quickstart_runs() -> None:
    completed = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:peterrec", str(ROOT / "examples" / "quickstart.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.count("trainable params:") == 2
    assert re.search(r"clusters: \['c\d', 'c\d'\]", completed.stdout)
    assert "vectors: (2, 32)" in completed.stdout


def test_the_map_of_the_code_has_every_module_and_no_other() -> None:
    """Each entry of CONTRIBUTING.md names a folder and its modules in backticks."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    entries = re.findall(r"^- `(src/peterrec/[\w/]*)`:(.*?)(?=^- `|^$)", text, flags=re.MULTILINE | re.DOTALL)
    named = {folder: set(re.findall(r"`([a-z_0-9]+)`", modules)) for folder, modules in entries}
    folders = {path.parent for path in (ROOT / "src" / "peterrec").rglob("*.py")}
    there = {
        f"{folder.relative_to(ROOT)}/": {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
        for folder in folders
    }
    assert named.keys() == there.keys()
    for folder, modules in there.items():
        assert modules <= named[folder], f"{folder} has modules that the map lacks"
        verbs = set(VERBS) | {"run", "predict"}
        assert named[folder] - modules <= verbs, f"the map names modules that {folder} lacks"
