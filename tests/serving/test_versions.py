"""The history of a bundle's versions, against a simple model of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peterrec.serving.versions import VersionHistory

A = VersionHistory(("a",))


def test_a_roll_back_withdraws_what_answered_after() -> None:
    history = A.load("b").load("c")
    assert history.roll_back() == VersionHistory(("a", "b"), ("c",))
    assert history.roll_back("a") == VersionHistory(("a",), ("b", "c"))
    assert history.roll_back("a").roll_back("c") == VersionHistory(("a", "c"), ("b",))
    assert history.roll_back("c") == history
    for version in (None, "z"):
        with pytest.raises(LookupError):
            A.roll_back(version)


def test_what_is_loaded_again_answered_last() -> None:
    assert A.load("b").load("a") == VersionHistory(("b", "a"))
    assert A.load("b").load("b") == A.load("b")
    assert A.load("b").roll_back().load("b") == A.load("b")


def test_withdrawn_versions_are_given_up_first() -> None:
    history = VersionHistory(("a", "b"), ("c", "d"))
    assert history.newest(3) == VersionHistory(("a", "b"), ("d",))
    assert history.newest(1) == VersionHistory(("b",))
    assert history.only(["b", "c"]) == VersionHistory(("b",), ("c",))


class Operators:
    """The same, as operators see it: what answered, and in which order."""

    def __init__(self) -> None:
        self.path, self.withdrawn = ["a"], set[str]()

    def load(self, version: str) -> None:
        self.path = [earlier for earlier in self.path if earlier != version] + [version]
        self.withdrawn.discard(version)

    def roll_back(self) -> bool:
        if len(self.path) == 1:
            return False
        self.withdrawn.add(self.path.pop())
        return True


@given(st.lists(st.one_of(st.none(), st.sampled_from("abcd"))))
def test_any_changes_are_as_operators_mean_them(steps: list[str | None]) -> None:
    history, expected = A, Operators()
    for version in steps:
        if version is not None:
            history = history.load(version)
            expected.load(version)
        elif expected.roll_back():
            history = history.roll_back()
        else:
            with pytest.raises(LookupError):
                history.roll_back()
        assert history.answered == tuple(expected.path)
        assert set(history.withdrawn) == expected.withdrawn
