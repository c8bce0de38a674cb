"""Names and docstrings that say nothing: names of `VAGUE`, and docstrings that begin with a question."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A word stands here because it says of a value only that it exists, or how the author came to it, never what it is. A
# reader must then find the line that assigned it. The right-hand side says what to ask instead.
VAGUE = {
    "one": "one what: user, row, bundle?",
    "found": "what was found: matches, paths, target_positions?",
    "own": "whose, and what of it: task_layers, trained_modules?",
    "of": "a preposition",
    "told": "what was said: message, summary?",
    "said": "what was said: message, answer?",
    "asked": "what was asked for: requested_names, question?",
    "given": "every argument is given",
    "known": "known items, users, columns?",
    "kept": "what was kept: valid_rows, retained_events?",
    "seen": "seen_items, visited?",
    "some": "how many, of what?",
    "every": "all of what?",
    "each": "each what?",
    "other": "the other what?",
    "others": "the other what?",
    "what": "a name should answer that",
    "where": "path, mask, place?",
    "why": "reason",
    "who": "user, caller, holder?",
    "how": "method, form?",
    "left": "remaining items, left side of a join?",
    "rest": "of what?",
    "beside": "a preposition",
    "made": "what was made?",
    "done": "finished_units, completed?",
    "more": "more of what?",
    "most": "maximum of what?",
    "whole": "the whole what?",
    "same": "as what?",
    "both": "pair of what?",
    "there": "a place without a name",
    "here": "a place without a name",
    "again": "second_run, repeated?",
    "gone": "removed, closed?",
    "thing": "anything is one",
    "things": "anything is one",
    "stuff": "anything is",
}  # fmt: skip

# Fields of the JSON that the service answers with: clients and `serving/page` read them, so they stay as they are.
JSON_FIELDS = {
    ("src/peterrec/serving/http/replies.py", "known"),  # `events[].known`: whether the catalogue has the item
    ("src/peterrec/serving/requests.py", "of"),  # `of`: the class or item that is explained
}


def definitions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the name and the line of all that the code gives a name to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def vague_names(source: str) -> list[tuple[str, int]]:
    """Return the names of `VAGUE` that a source defines, with their lines."""
    return [(name, line) for name, line in definitions(ast.parse(source)) if name.strip("_").lower() in VAGUE]


def questions(source: str) -> list[tuple[str, int]]:
    """Return the docstrings that begin with the word `What`, with the lines of what they describe.

    Such a docstring asks the reader to find out what the thing is; it should begin with that: `Settings of ...`.
    """
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    texts = [(ast.get_docstring(node) or "", getattr(node, "lineno", 1)) for node in nodes]
    return [(text.partition("\n")[0], line) for text, line in texts if text.startswith(("What ", "What\n"))]


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks", "examples", "docs"])
def test_no_name_says_nothing(folder: str) -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {name} ({VAGUE[name.strip('_').lower()]})"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, line in vague_names(path.read_text())
        if (path.relative_to(ROOT).as_posix(), name) not in JSON_FIELDS
    ]
    assert not faults, "name these by what they hold or do:\n" + "\n".join(faults)


@pytest.mark.parametrize(
    "source",
    ["found = 1", "def f(own): ...", "def _told(): ...", "class Own: ...", "self.kept = 2", "for one in (): ..."],
)
def test_a_vague_name_is_seen(source: str) -> None:
    assert len(vague_names(source)) == 1


def test_docstrings_begin_with_what_the_thing_is() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for text, line in questions(path.read_text())
    ]
    assert not faults, "begin with a noun, or for a function with a verb:\n" + "\n".join(faults)


@pytest.mark.parametrize(
    "source",
    ['"""What it is."""', 'class A:\n    """What it is."""', 'async def f():\n    """What\n    it is."""'],
)
def test_a_docstring_that_asks_is_seen(source: str) -> None:
    assert len(questions(source)) == 1
