"""The documents say what is: settings, dependencies, links, the example."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import typer

import peterrec
from peterrec import config
from peterrec.cli.main import VERBS, app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which names what was, too
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
ENDINGS = {"csv", "json", "md", "npy", "parquet", "py", "safetensors", "sqlite", "yaml"}  # of files, not settings
OTHER_OPTIONS = {"--preload", "--seeds", "--sets", "--kind", "--memory-limit"}  # of gunicorn and of benchmarks
OPTIONS_OF_ALL_VERBS = {"--debug"}  # before the verb
SETTINGS_OF_VERBS: dict[str, type[config.Config]] = {
    "convert": config.AmazonConfig,
    "prepare": config.PrepareConfig,
    "pretrain": config.PretrainConfig,
    "adapt": config.AdaptConfig,
    "grow": config.GrowConfig,
    "migrate": config.MigrateConfig,
    "tune": config.TuneConfig,
    "evaluate": config.EvaluateConfig,
    "audit": config.AuditConfig,
    "run": config.RunConfig,
    "experiment": config.ExperimentConfig,
    "predict": config.PreprocessingConfig,
    "recommend": config.PreprocessingConfig,
    "embed": config.PreprocessingConfig,
    "drift": config.PreprocessingConfig,
    "serve": config.ServeConfig,
}
PREPARE: dict[str, Any] = {"events": {"paths": ["events.parquet"]}}
QUESTION = {"name": "a", "text": "a?", "methods": ["a"]}
REQUIRED: dict[type[config.Config], dict[str, Any]] = {
    config.PrepareConfig: PREPARE,
    config.RunConfig: {"prepare": PREPARE},
    config.ExperimentConfig: {
        "data": {"a": {"prepare": PREPARE}},
        "methods": {"a": {"baseline": "majority"}},
        "questions": [QUESTION],
    },
}


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


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_settings_that_a_page_names_exist(page: Path) -> None:
    groups = setting_groups()
    text = page.read_text()
    named = [
        match for code in inline_code(text) for match in re.findall(r"(?<![\w./-])([a-z_]+)\.([a-z_]+)\b(?!\()", code)
    ]
    unknown = [f"{group}.{key}" for group, key in named if group in groups and key not in groups[group] | ENDINGS]
    assert unknown == []


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_commands_have_options_that_exist(page: Path) -> None:
    text = page.read_text()
    wrong = []
    for verb, arguments in commands(text):
        wrong += [f"{verb} {option}" for option in options_in(arguments) if option not in options_of(verb)]
    options_of_verbs = {option for verb in VERBS for option in options_of(verb)}
    available = options_of_verbs | OPTIONS_OF_ALL_VERBS | OTHER_OPTIONS
    named = {code: re.split("[ =]", code)[0] for code in inline_code(text) if code.startswith("--")}
    wrong += [code for code, option in named.items() if option not in available]
    assert wrong == []


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_overrides_that_a_page_shows_are_valid(page: Path) -> None:
    text = page.read_text()
    for verb, arguments in commands(text):
        overrides = [value for name, value in pairwise(arguments) if name in ("--set", "-s")]
        if overrides:
            build(SETTINGS_OF_VERBS[verb], overrides)
    for code in inline_code(text):
        if code.startswith("--set ") and "KEY" not in code:
            assert any(builds(model, [shlex.split(code)[1]]) for model in SETTINGS_OF_VERBS.values()), code


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_file_of_settings_is_valid(path: Path) -> None:
    is_grid = path.parent.name == "experiments"
    config.load_config(config.ExperimentConfig if is_grid else config.RunConfig, path)


def setting_groups() -> dict[str, set[str]]:
    """Return the keys of all settings that are groups, by the name of the group."""
    models = [m for m in vars(config).values() if inspect.isclass(m) and issubclass(m, config.Config)]
    groups: dict[str, set[str]] = {}
    for model in models:
        for name, field in model.model_fields.items():
            for group in config_classes(field.annotation):
                kinds = config.PATCH_SETTINGS.values() if group is config.PatchConfig else [group]
                groups.setdefault(name, set()).update(key for kind in kinds for key in kind.model_fields)
    return groups


def config_classes(annotation: Any) -> Iterator[type[config.Config]]:
    if inspect.isclass(annotation) and issubclass(annotation, config.Config):
        yield annotation
    for argument in get_args(annotation):
        yield from config_classes(argument)


def inline_code(text: str) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", prose)]


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Return verb and arguments of each `peterrec VERB ...`, in blocks of code and within lines."""
    blocks = "\n".join(re.findall(r"^```.*?^```", text, flags=re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    lines = re.findall(r"(?:^|\| )peterrec (.+)$", blocks, flags=re.MULTILINE)
    lines += [code.removeprefix("peterrec ") for code in inline_code(text) if code.startswith("peterrec ")]
    words = [shlex.split(line, comments=True) for line in lines]
    return [(verb, arguments) for verb, *arguments in words if verb in VERBS]


def options_in(arguments: list[str]) -> list[str]:
    return [argument.partition("=")[0] for argument in arguments if re.match(r"--?[a-z]", argument)]


def options_of(verb: str) -> set[str]:
    command: Any = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    parameters = [*command.params, *(p for verb in getattr(command, "commands", {}).values() for p in verb.params)]
    options = {option for parameter in parameters for option in parameter.opts + parameter.secondary_opts}
    return options | {"--help", "-h"}


def build(model: type[config.Config], overrides: list[str]) -> config.Config:
    return config.load_config(model, None, overrides, **REQUIRED.get(model, {}))


def builds(model: type[config.Config], overrides: list[str]) -> bool:
    try:
        build(model, overrides)
    except peterrec.PeterRecError:
        return False
    return True


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


USE_OF_NEW_KINDS = """
from peterrec.config import AdaptConfig, BackboneConfig, load_config
from peterrec.nn.build import build_backbone
from peterrec.nn.patch import Patch
from peterrec.nn.readout import build_readout_module, represent

settings = load_config(AdaptConfig, None, ["patch.kind=gate", "readout=max"])
backbone = build_backbone(BackboneConfig(channels=8, dilations=(1,)), 5, seed=0)
patch = Patch(settings.patch, backbone.config)
vectors = represent(backbone, torch.tensor([[4, 5, 6], [0, 0, 0]]), patch, settings.readout)
print(vectors.shape, vectors.isfinite().all(), sum(parameter.numel() for parameter in patch.parameters()))
module = build_readout_module("gated", 8)
print(represent(backbone, torch.tensor([[4, 5, 6], [0, 0, 0]]), patch, "gated", module).shape)
"""


@pytest.mark.slow
def test_a_patch_kind_and_a_readout_are_added_as_the_page_shows() -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "model.md").read_text(), flags=re.MULTILINE | re.DOTALL
    )
    code = [block for block in blocks if "register_" in block]
    assert len(code) == 3
    process = subprocess.run(  # of its own: what is registered stays
        [sys.executable, "-c", "\n".join([*code, USE_OF_NEW_KINDS])], capture_output=True, text=True, check=False
    )
    assert process.stdout == "torch.Size([2, 8]) tensor(True) 16\ntorch.Size([2, 8])\n", process.stderr


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
    present = {
        f"{folder.relative_to(ROOT)}/": {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
        for folder in folders
    }
    assert named.keys() == present.keys()
    for folder, modules in present.items():
        assert modules <= named[folder], f"{folder} has modules that the map lacks"
        verbs = set(VERBS) | {"run", "predict"}
        assert named[folder] - modules <= verbs, f"the map names modules that {folder} lacks"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_a_heading_lead_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", page.read_text())
    for name, anchor in links:
        text = (page.parent / name if name else page).read_text()
        headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in anchors, f"{name}#{anchor}"
