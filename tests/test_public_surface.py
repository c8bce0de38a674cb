"""The names that `peterrec` exports: each is documented in one form, and importing them needs no POSIX."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import peterrec
from peterrec.config import Config

# Documented in prose so far. The set shall become empty.
UNDOCUMENTED: set[str] = {
    "Corpus.open",
    "Corpus.provenance",
    "Corpus.task",
    "Engine.activate",
    "Engine.add",
    "Engine.answer",
    "Engine.bounds",
    "Engine.drop",
    "Engine.load",
    "Engine.predict",
    "Engine.prepare",
    "Engine.read",
    "Engine.represent",
    "Engine.roll_back",
    "Engine.save",
    "Engine.stage",
    "Engine.stage_roll_back",
    "Engine.stage_versions",
    "Engine.tasks",
    "Engine.versions",
    "Users.append",
    "Users.erase",
    "Users.explain",
    "Users.fetch",
    "Users.follow_erasures",
    "Users.prepare",
    "Users.read",
    "Users.run",
    "Users.stats",
    "Users.vectors",
    "adapt",
    "adapt_jointly",
    "embed",
    "evaluate",
    "prepare",
    "pretrain",
    "LimitsConfig",
    "Question",
}
POSIX = ("fcntl", "grp", "pwd", "resource", "termios")
# These lock or limit by means of POSIX at import. The set shall become {"serve"}.
NEEDS_POSIX = {"experiment", "serve"}


def callables() -> Iterator[tuple[str, Any]]:
    """Yield exported functions, and public methods of exported classes."""
    for name in peterrec.__all__:
        exported = getattr(peterrec, name)
        if inspect.isfunction(exported):
            yield name, exported
        elif inspect.isclass(exported):
            for method in dir(exported):
                member = getattr(exported, method, None)
                ours = str(getattr(member, "__module__", "")).startswith("peterrec.") and method[0] != "_"
                if ours and (inspect.isfunction(member) or inspect.ismethod(member)):
                    yield f"{name}.{method}", member


CALLABLES = dict(callables())
CLASSES = {name: getattr(peterrec, name) for name in peterrec.__all__ if inspect.isclass(getattr(peterrec, name))}


def lacks(function: Any) -> list[str]:
    """Return the sections that the docstring of a function should have and does not."""
    text, signature = inspect.getdoc(function) or "", inspect.signature(function)
    sections = ["Args:"] if set(signature.parameters) - {"self"} else []
    if signature.return_annotation not in (None, "None", inspect.Signature.empty):
        sections.append("Returns:")
    return [section for section in sections if section not in text]


@pytest.mark.parametrize("name", sorted(set(CALLABLES) - UNDOCUMENTED))
def test_arguments_and_returns_are_documented(name: str) -> None:
    assert lacks(CALLABLES[name]) == []


def test_what_is_documented_by_now_is_no_exception() -> None:
    assert {name for name in UNDOCUMENTED & set(CALLABLES) if not lacks(CALLABLES[name])} == set()


@pytest.mark.parametrize("name", sorted(set(CLASSES) - UNDOCUMENTED))
def test_classes_are_documented(name: str) -> None:
    text = inspect.getdoc(CLASSES[name]) or ""
    assert text.splitlines()[0].endswith((".", "?", ":"))
    assert not text.startswith("What "), "say what it is"
    if issubclass(CLASSES[name], Config):
        fields = CLASSES[name].model_fields.items()
        assert [field for field, info in fields if not info.description] == []


def test_importing_needs_no_posix() -> None:
    names = sorted(set(peterrec.__all__) - NEEDS_POSIX)
    code = f"""
import sys
for module in {POSIX}:
    sys.modules[module] = None
import peterrec, typer
from peterrec.cli.main import VERBS, app
assert set(typer.main.get_command(app).commands) == set(VERBS)
for name in {names}:
    getattr(peterrec, name)
"""
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
