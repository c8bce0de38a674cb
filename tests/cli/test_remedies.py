"""Every remedy in the source names options and settings that the verbs have which raise it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

import peterrec
from peterrec import config
from peterrec.cli.main import VERBS, app
from peterrec.evaluation.baselines import BASELINES

SOURCE = Path(peterrec.__file__).parent
READERS = ("prepare", "predict", "recommend", "embed")
# The verbs that raise what a module (the longest prefix) says. `run` and `experiment` take all settings from a file and
# pass the errors of the others on: there, it is the setting beside the option that counts.
RAISED_BY = {
    "cli/adapt.py": ("adapt",),
    "cli/answer.py": ("predict", "recommend", "embed"),
    "cli/experiment.py": ("experiment",),
    "cli/prepare.py": ("prepare",),
    "config/loading.py": ("run", "experiment", "prepare", "pretrain", "adapt", "evaluate", "serve"),
    "storage.py": ("run", "fetch", "convert", "prepare", "pretrain", "adapt"),
    "artifacts/inspection.py": ("pretrain", "adapt"),
    "process.py": ("pretrain", "adapt"),
    "data/batching.py": ("pretrain", "adapt"),
    "data/histories.py": ("predict", "recommend", "embed"),
    "data/history_lines.py": ("predict", "recommend", "embed"),
    "data/prepare/": ("prepare",),
    "data/prepare/columns.py": READERS,
    "data/prepare/events.py": READERS,
    "data/prepare/files.py": READERS,
    "data/prepare/event_histories.py": ("predict", "recommend", "embed"),
    "data/sources/": ("fetch", "convert"),
    "data/sources/ml_1m.py": ("fetch",),
    "data/sources/ta_feng.py": ("fetch",),
    "data/sources/amazon.py": ("convert",),
    "data/sources/amazon_files.py": ("convert",),
    "data/sources/authors.py": ("convert",),
    "data/sources/recbole.py": ("convert",),
    "data/sources/tenrec.py": ("convert",),
    "experiments/grid/": ("experiment",),
    "experiments/pipeline.py": ("run",),
    "experiments/neural_baselines/": ("experiment",),
    "nn/": ("pretrain", "adapt"),
    "serving/": ("serve",),
    "spark/": ("predict", "recommend", "embed"),
    "training/": ("pretrain", "adapt"),
    "tuning/": ("tune",),
}
NO_OPTIONS = {"--no-deps", "--debug"}  # of pip; of every verb
VERB_FROM_CONTEXT = {("config/loading.py", "--out"), ("config/loading.py", "--config"), ("storage.py", "--resume")}
NO_SETTINGS = {"backbone.embedding.weight", "patch.task_items.table"}  # tensors
SETTINGS = {
    "convert": (config.AmazonConfig,),
    "prepare": (config.PrepareConfig,),
    "pretrain": (config.PretrainConfig,),
    "adapt": (config.AdaptConfig,),
    "evaluate": (config.EvaluateConfig,),
    "run": (config.RunConfig,),
    "experiment": (config.ExperimentConfig,),
    "serve": (config.ServeConfig,),
    "tune": (config.RunConfig, config.AdaptConfig),  # what it searches
}
CROSSING = {"training/": ("pretrain", "adapt", "prepare")}  # verbs that a remedy may send its reader back to


def options_of(verb: str) -> set[str]:
    command: Any = typer.main.get_command(app)
    return {option for parameter in command.commands[verb].params for option in parameter.opts}


def verbs_of(module: str) -> tuple[str, ...]:
    fitting = [prefix for prefix in RAISED_BY if module.startswith(prefix)]
    return RAISED_BY[max(fitting, key=len)] if fitting else ()


def remedies() -> Iterator[tuple[str, str]]:
    """Yield the module and the text of every remedy, with ... for what is put in at run time."""
    for path in sorted(SOURCE.rglob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        module_path = path.relative_to(SOURCE).as_posix()
        for node in ast.walk(module):
            values: list[ast.expr] = []
            if isinstance(node, ast.keyword) and node.arg == "remedy":
                values = [node.value]
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                values = [node.value] if name == "remedy" or name.isupper() else []
            for value in values:
                if text := "".join(texts(value)):
                    yield module_path, text


def texts(value: ast.AST) -> Iterator[str]:
    for node in ast.walk(value):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield f"{node.value} "


@pytest.mark.slow
def test_every_option_is_one_of_each_verb_that_raises_the_remedy() -> None:
    wrong, checked = [], 0
    for module, text in remedies():
        for match in re.finditer(r"(?<![\w-])--[a-z][a-z-]*", text):
            checked += 1
            option, words = match[0], re.findall(r"`(?:peterrec )?\w+|\w+ (?:it with )?$", text[: match.start()])
            named = [word for word in re.findall(r"\w+", " ".join(words)) if word in VERBS]
            verbs = (named[-1],) if named else verbs_of(module)  # "prepare --catalogue" is of prepare
            if option in NO_OPTIONS or (module, option) in VERB_FROM_CONTEXT:
                continue
            if not verbs or any(option not in options_of(verb) for verb in verbs):
                wrong.append((module, option, text))
    assert wrong == []
    assert checked > 25


def has_setting(model: type[BaseModel], path: list[str]) -> bool:
    field = model.model_fields.get(path[0])
    if field is None:
        return False
    inner = [kind for kind in (field.annotation, *flat(field.annotation)) if isinstance(kind, type)]
    models = [kind for kind in inner if issubclass(kind, BaseModel)]
    return len(path) == 1 or any(has_setting(kind, path[1:]) for kind in models)


def flat(annotation: Any) -> Iterator[Any]:
    for argument in get_args(annotation):
        yield argument
        yield from flat(argument)


def top_level_sections() -> set[str]:
    """Names of settings that hold settings, which is what a dotted path in a remedy starts with."""
    models = [model for group in SETTINGS.values() for model in group]
    return {
        name
        for model in models
        for name, field in model.model_fields.items()
        if any(
            isinstance(kind, type) and issubclass(kind, BaseModel)
            for kind in (field.annotation, *flat(field.annotation))
        )
    } | {*SETTINGS}


@pytest.mark.slow
def test_every_setting_is_one_of_a_verb_that_raises_the_remedy() -> None:
    wrong, checked = [], 0
    sections = "|".join(sorted(top_level_sections()))
    for module, text in remedies():
        for setting in set(re.findall(rf"(?<![\w./])(?:{sections})\.[a-z_]+(?:\.[a-z_]+)*", text)):
            if setting.endswith((".json", ".sqlite")) or setting in NO_SETTINGS:  # a file, a tensor
                continue
            checked += 1
            prefix = next((prefix for prefix in CROSSING if module.startswith(prefix)), None)
            verbs = CROSSING[prefix] if prefix else verbs_of(module)
            models = [model for verb in verbs for model in SETTINGS.get(verb, ())]
            models += [b.settings for b in BASELINES.values()] if "neural_baselines" in module else []
            if not any(has_setting(model, setting.split(".")) for model in models):
                wrong.append((module, setting, text))
    assert wrong == []
    assert checked > 10


@pytest.mark.quick_cases(6)
@pytest.mark.parametrize("option", ["--columns", "--ids", "--domain", "--invalid-rows"])
@pytest.mark.parametrize("verb", READERS)
def test_what_reads_events_has_the_options_of_prepare(verb: str, option: str) -> None:
    assert option in options_of(verb)
