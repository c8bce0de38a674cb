"""The page about the paper names what exists, and what is broken by `make test-paper` stands in the source once."""

from __future__ import annotations

import ast

import pytest

from paper import MUTATIONS
from paper.document import ROOT, Row, row_of, rows
from paper.mutation import Mutation
from paper.worker import Outcome
from paper_mutations import Check

BREAKS = [(beginning, mutation) for beginning, mutations in MUTATIONS.items() for mutation in mutations]
every_row = pytest.mark.parametrize("row", rows(), ids=lambda row: row.statement[:40])


def test_every_row_is_broken_and_every_break_is_of_a_row() -> None:
    broken = {row_of(beginning) for beginning in MUTATIONS}
    assert [row.statement for row in rows() if row not in broken] == []
    assert len(broken) == len(MUTATIONS)
    assert len(rows()) > 25


@every_row
def test_the_tests_of_a_row_exist_and_some_run_without_the_authors_files(row: Row) -> None:
    assert row.runnable
    for name in row.tests:
        path, _, test = name.partition("::")
        assert f"def {test}(" in (ROOT / path).read_text(), name


@every_row
def test_the_code_of_a_row_exists(row: Row) -> None:
    assert row.files
    text = ""
    for name in row.code:
        if name.endswith(".py"):
            text = (ROOT / "src" / "peterrec" / name).read_text()
        else:
            assert all(part in text for part in name.split(".")), f"{name} of {row.statement}"


@pytest.mark.parametrize(("beginning", "mutation"), BREAKS, ids=[mutation.effect for _, mutation in BREAKS])
def test_what_is_broken_stands_in_the_source_once_and_in_code_that_the_row_names(
    beginning: str, mutation: Mutation
) -> None:
    ast.parse(mutation.source(ROOT))
    assert mutation.file in row_of(beginning).files


def test_with_nothing_broken_tests_must_pass_and_with_something_one_must_fail() -> None:
    row, mutation = rows()[0], next(iter(MUTATIONS.values()))[0]
    failed = {"tests/a.py::test": "assert 1 == 2"}
    assert Check(row, None).fault(Outcome(passed=3)) == ""
    assert Check(row, mutation).fault(Outcome(passed=2, failed=failed)) == ""
    for wrong in ({"passed": 0}, {"failed": failed}, {"skipped": ["a"]}, {"errors": ["a"]}):
        assert Check(row, None).fault(Outcome(**({"passed": 2} | wrong)))
    assert "SURVIVES 3" in Check(row, mutation).fault(Outcome(passed=3))
    assert "no test could" in Check(row, mutation).fault(Outcome(failed=failed, errors=["no collection"]))
    assert "mistake" in Check(row, mutation).fault(Outcome(failed={"a": "NameError: name 'PDA' is not defined"}))


def test_a_text_that_is_not_there_is_no_break() -> None:
    with pytest.raises(ValueError, match=r"stands 0 times in nn/conv.py, not once"):
        Mutation("nothing", "nn/conv.py", "what is not there", "").source(ROOT)
    with pytest.raises(ValueError, match="begin with 'Nothing', not one"):
        row_of("Nothing")
