"""Fixtures and settings of all tests."""

from __future__ import annotations

import gc
import os
import signal
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

from log_lines import log_lines
from pairwise import FULL
from spark_session import spark_of_all_tests

__all__ = ["spark_of_all_tests"]

# Of huggingface_hub, which reads them when it is imported: no test asks the Hub itself, and tests/hub_server.py, which
# stands in for it, has no Xet storage.
os.environ |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

# Property tests run the same examples every time (CI must not depend on luck), without deadlines (shared machines).
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=40 if FULL else 15)
# Where it is known that a test fails (tests/paper_mutations.py): the first example that does is enough.
settings.register_profile("unshrunk", settings.get_profile("ci"), phases=[Phase.explicit, Phase.generate])
settings.load_profile("ci")

# A shell that starts the tests in the background lets them ignore Ctrl-C, and their children, which some tests stop so.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before slow ones are deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark cases of a test as slow, all but as many as its `quick_cases` says: evenly spread, the first among them."""
    cases: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("quick_cases"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for same_test in cases.values():
        (count,) = same_test[0].get_closest_marker("quick_cases").args  # type: ignore[union-attr]
        quick = {index * len(same_test) // count for index in range(count)}
        for index, item in enumerate(same_test):
            if index not in quick:
                item.add_marker(pytest.mark.slow)
    for item in items:
        if _is_of_spark(item):
            item.add_marker(pytest.mark.spark)
            item.add_marker(pytest.mark.xdist_group("spark"))  # one session, and not one in each process
            item.add_marker(pytest.mark.timeout(900))  # to start it and its first queries takes long on a busy machine
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"))  # of sockets of pyspark


def _is_of_spark(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    return "spark" in fixtures or ("_engine" in fixtures and item.config.getoption("--engine") == "spark")


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout, where there is one."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"the project's shared data is not at {SHARED}")
    return SHARED


@pytest.fixture
def last_epoch_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings keep their last epoch, also where the start was better: for tests of weights that were trained."""
    last = property(lambda curve: [curve.start, *curve.rows][-1])
    monkeypatch.setattr("peterrec.training.callbacks.Curve.best", last)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The lines that the library logs during the test, as `log_lines` gives them."""
    with log_lines() as lines:
        yield lines


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine", choices=["duckdb", "spark"], default="duckdb", help="what `prepare` runs on in tests/data/prepare"
    )


@pytest.fixture
def spark(spark_of_all_tests: Any) -> Iterator[Any]:
    """A session of Apache Spark on this machine, small and quick to start."""
    yield spark_of_all_tests
    with warnings.catch_warnings():  # before another test is blamed for them
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
