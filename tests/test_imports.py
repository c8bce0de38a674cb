"""Imports of the package: no circle of modules, not even one that only type checkers see."""

from __future__ import annotations

import grimp
import networkx as nx
import pytest

ROOT = "peterrec"


def circles(edges: list[tuple[str, str]]) -> list[list[str]]:
    """Return the groups of modules that import one another, directly or through others."""
    graph = nx.DiGraph(edges)
    return [sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1]


@pytest.fixture(scope="module")
def imports() -> list[tuple[str, str]]:
    graph = grimp.build_graph(ROOT, exclude_type_checking_imports=False)
    # What the package exports is imported when it is first used: that it names modules for type checkers is no circle.
    modules = graph.modules - {ROOT}
    return [(importer, name) for importer in modules for name in graph.find_modules_directly_imported_by(importer)]


def test_no_circle_of_modules(imports: list[tuple[str, str]]) -> None:
    assert circles([edge for edge in imports if edge[1] != ROOT]) == []
    assert len(imports) > 500


@pytest.mark.slow
def test_a_circle_is_seen() -> None:
    assert circles([("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]) == [["a", "b", "c"]]
