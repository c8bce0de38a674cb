"""The names that `peterrec` exports: each is documented in one form, and importing them needs no POSIX."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import peterrec
from peterrec.config import Config

POSIX = ("fcntl", "grp", "pwd", "resource", "termios")
ENTRY = re.compile(r"^    (\w+(?:, \w+)*):", re.MULTILINE)


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


def section(text: str, title: str) -> str | None:
    """Return the indented lines below a title, None without it."""
    match = re.search(rf"^{title}:\n((?:    .*\n|\n)*)", text + "\n", re.MULTILINE)
    return None if match is None else match[1]


def faults(function: Any) -> list[str]:
    """Return the sections that the docstring of a function lacks, and differences of `Args` from its parameters."""
    text, signature = inspect.getdoc(function) or "", inspect.signature(function)
    parameters = set(signature.parameters) - {"self"}
    documented = {name for names in ENTRY.findall(section(text, "Args") or "") for name in names.split(", ")}
    differences = [f"Args lacks {name}" for name in sorted(parameters - documented)]
    differences += [f"Args has {name}, which is no parameter" for name in sorted(documented - parameters)]
    if signature.return_annotation not in (None, "None", inspect.Signature.empty) and not section(text, "Returns"):
        differences.append("lacks Returns")
    return differences


@pytest.mark.parametrize("name", sorted(CALLABLES))
def test_arguments_and_returns_are_documented(name: str) -> None:
    assert faults(CALLABLES[name]) == []


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_classes_are_documented(name: str) -> None:
    text = inspect.getdoc(CLASSES[name]) or ""
    assert text.splitlines()[0].endswith((".", "?", ":"))
    if issubclass(CLASSES[name], Config):
        fields = CLASSES[name].model_fields.items()
        assert [field for field, info in fields if not info.description] == []


@pytest.mark.slow
def test_importing_needs_no_posix() -> None:
    code = f"""
import sys
for module in {POSIX}:
    sys.modules[module] = None
import peterrec, typer
from peterrec.cli.main import VERBS, app
assert set(typer.main.get_command(app).commands) == set(VERBS)
for name in peterrec.__all__:
    getattr(peterrec, name)
"""
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
