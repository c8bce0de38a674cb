"""Every error says what happened, where, and what to do; scripts tell them apart by class and exit status."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path

import pytest

from peterrec import errors
from peterrec.errors import PeterRecError

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]


def test_the_message_has_place_fact_and_advice():
    error = PeterRecError("is missing", remedy="look elsewhere", path=Path("a/b"))
    assert str(error) == "a/b: is missing\n  What to do: look elsewhere"
    assert (error.message, error.remedy, error.path) == ("is missing", "look elsewhere", Path("a/b"))
    assert str(PeterRecError("no place, no advice")) == "no place, no advice"


@pytest.mark.parametrize("cls", CLASSES)
def test_one_tree_and_exit_statuses(cls):
    assert issubclass(cls, PeterRecError)
    at_fault = ("StorageError", "AnswerError", "ClusterError", "StoreError", "TrainingError")  # not the input
    expected = {"InterruptedRun": 130} | dict.fromkeys(at_fault, 1)
    assert cls("x").exit_code == expected.get(cls.__name__, 2), "2: a mistake in the input"


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        ("TaskError", "DataError"),
        ("UnknownItemsError", "DataError"),
        ("FormatVersionError", "ArtifactError"),
        ("FingerprintError", "ArtifactError"),
    ],
)
def test_catching_the_general_error_catches_the_special_one(child, parent):
    assert issubclass(getattr(errors, child), getattr(errors, parent))


def test_an_error_survives_the_way_between_processes():
    error = PeterRecError("is missing", remedy="look elsewhere", path="a/b")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__
