"""A copy of the checkout in which the source may be broken, and tests that run there in a process of their own.

Each process is forked from a server that has imported torch and the like, but nothing of the project: to import those
takes longer than most of the tests.
"""

from __future__ import annotations

import compileall
import contextlib
import gc
import io
import multiprocessing
import os
import py_compile
import shutil
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from paper.document import ROOT
from paper.mutation import Mutation

LIMIT = 300  # seconds, for the tests of one row
PRELOAD = [
    "duckdb", "hypothesis.internal.conjecture.engine", "hypothesis.strategies", "ibis", "jaxtyping",
    "lightning.pytorch", "numpy", "pyarrow.parquet", "pydantic", "pytest", "safetensors.torch", "scipy.sparse",
    "sklearn.metrics", "torch",
]  # fmt: skip
PLUGINS = ["timeout", "hypothesispytest"]  # to load all that are installed takes seconds
MISTYPED = ("NameError", "SyntaxError", "ImportError", "ModuleNotFoundError")  # what a break must not be caught by

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(PRELOAD)


@dataclass(eq=False)  # pytest hashes its plugins
class Outcome:
    """What tests did.

    Attributes:
        passed: how many passed.
        failed: ids of those that failed, with the first line of why.
        skipped: ids of those that were skipped.
        errors: what went wrong outside of tests: collection, fixtures, the process itself.
        output: what pytest printed.
    """

    passed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    output: str = ""

    @property
    def sound(self) -> bool:
        """Whether tests ran, and all of them passed."""
        return self.passed > 0 and not (self.failed or self.skipped or self.errors)

    def pytest_collectreport(self, report: Any) -> None:
        """Note what cannot be collected."""
        if report.failed:
            self.errors.append(f"{report.nodeid}: {report.longreprtext}")

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note a test's end."""
        if report.skipped:
            self.skipped.append(report.nodeid)
        elif report.failed and report.when == "call":
            crash = getattr(report.longrepr, "reprcrash", None)
            self.failed[report.nodeid] = "" if crash is None else crash.message.partition("\n")[0]
        elif report.failed:
            self.errors.append(f"{report.nodeid} ({report.when}): {report.longreprtext}")
        elif report.when == "call":
            self.passed += 1


class Workplace:
    """A copy of source and tests, with nothing beside it.

    Args:
        folder: where it is made; it must not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        shutil.copy(ROOT / "pyproject.toml", folder)
        for part in ("src", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        # By the content of a source, not by its time: a break of the same second and length must be noticed.
        compileall.compile_dir(folder / "src", quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)

    def run(self, tests: list[str], mutation: Mutation | None = None) -> Outcome:
        """Run tests, with the source broken if a mutation is given; then only up to the first failure."""
        if mutation is None:
            return self._run(tests, stop=False)
        path = mutation.path(self.folder)
        before = path.read_text()
        path.write_text(mutation.source(self.folder))
        try:
            return self._run(tests, stop=True)
        finally:
            path.write_text(before)

    def _run(self, tests: list[str], *, stop: bool) -> Outcome:
        receiver, sender = FORK.Pipe(duplex=False)
        process = FORK.Process(target=run_pytest, args=(self.folder, tests, stop, sender))
        process.start()
        sender.close()
        try:
            if not receiver.poll(LIMIT):
                return Outcome(errors=[f"no end after {LIMIT} seconds"])
            outcome: Outcome = receiver.recv()
        except EOFError:
            return Outcome(errors=["the process died"])
        finally:
            process.kill()
            process.join()
        return outcome


def run_pytest(folder: Path, tests: list[str], stop: bool, sender: Connection) -> None:
    """Run tests in this process, which must not have imported the project yet, and send the outcome."""
    gc.freeze()  # pytest collects garbage often, and what the server imported is none
    os.chdir(folder)
    source = str(folder / "src")
    sys.path.insert(0, source)
    os.environ["PYTHONPATH"] = source  # of processes that tests start
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    outcome, output = Outcome(), io.StringIO()
    plugins = [option for name in ("no:cacheprovider", *PLUGINS) for option in ("-p", name)]
    quick = ["-m", "not slow"]  # what `make test` runs must notice
    options = ["-q", *quick, *plugins, "--hypothesis-profile", "unshrunk", *(["-x"] if stop else [])]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        status = pytest.main([*options, *tests], plugins=[outcome])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        outcome.errors.append(f"pytest ended with {status!r}")
    package = sys.modules.get("peterrec")
    if package is not None and not str(package.__file__).startswith(source):
        outcome.errors.append(f"what was tested is {package.__file__}")
    outcome.output = output.getvalue()
    sender.send(outcome)
