"""Break the code of each statement of docs/paper.md, in one way at a time, and demand that a test of its row fails.

    python tests/paper_mutations.py [--jobs 2] [WORDS ...]

With words, only rows that have one of them in their statement. Nothing in the checkout is changed: the breaks are made
in copies. First all tests of a row must pass, and none be skipped, with nothing broken. `make test-paper` does it all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from paper import MUTATIONS
from paper.document import Row, row_of, rows
from paper.mutation import Mutation
from paper.worker import MISTYPED, Outcome, Workplace


class Check(NamedTuple):
    """The tests of a row, with one break or with none."""

    row: Row
    mutation: Mutation | None

    def fault(self, outcome: Outcome) -> str:
        """The fault of the outcome; empty if it is as it should be."""
        if self.mutation is None:
            reasons = [*outcome.failed, *(f"skipped: {test}" for test in outcome.skipped), *outcome.errors]
            return "" if outcome.sound else f"not sound with nothing broken: {', '.join(reasons) or 'no test ran'}"
        if outcome.errors:
            return f"no test could say so: {outcome.errors[0]}"
        if not outcome.failed:
            return f"SURVIVES {outcome.passed} tests"
        mistyped = [reason for reason in outcome.failed.values() if reason.startswith(MISTYPED)]
        return f"is no break but a mistake in it: {mistyped[0]}" if mistyped else ""


def checks(words: list[str]) -> Iterator[Check]:
    """Yield all checks of the rows that are asked for, in their order."""
    mutations_by_row = {row_of(beginning): mutations for beginning, mutations in MUTATIONS.items()}
    for row in rows():
        if not words or any(word.lower() in row.statement.lower() for word in words):
            if row not in mutations_by_row:
                raise ValueError(f"nothing breaks the row {row.statement!r}: add a mutation to tests/paper")
            yield Check(row, None)
            yield from (Check(row, mutation) for mutation in mutations_by_row[row])


def main(words: list[str], jobs: int) -> int:
    """Run the checks and say what was found; returns how many are not as they should be."""
    started, faults, breaks = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory(prefix="paper-") as folder:
        places: SimpleQueue[Workplace] = SimpleQueue()
        for number in range(jobs):
            places.put(Workplace(Path(folder, str(number))))

        def run(check: Check) -> Outcome:
            place = places.get()
            try:
                return place.run(check.row.runnable, check.mutation)
            finally:
                places.put(place)

        chosen = list(checks(words))
        with ThreadPoolExecutor(jobs) as pool:
            for check, outcome in zip(chosen, pool.map(run, chosen), strict=True):
                fault = check.fault(outcome)
                faults += bool(fault)
                breaks += check.mutation is not None
                print(line_of(check, outcome, fault), flush=True)
                if fault:
                    print(outcome.output)
    seconds = time.monotonic() - started
    print(f"\n{breaks} breaks of {len({check.row for check in chosen})} rows, {faults} faults, {seconds:.0f} s")
    return faults


def line_of(check: Check, outcome: Outcome, fault: str) -> str:
    """Return the line that is printed of a check."""
    if check.mutation is None:
        return f"\n{check.row.statement}\n  {fault or f'{outcome.passed} tests pass'}"
    if fault:
        return f"  - {check.mutation.effect}: {fault}"
    test, reason = next(iter(outcome.failed.items()))
    error = reason.partition(":")[0]
    ending = "" if error.startswith("assert") or error in ("AssertionError", "Failed") else f" ({error})"
    return f"  - {check.mutation.effect}: caught by {test.split('::', 1)[1].split('[')[0]}{ending}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="of the statements to check")
    parser.add_argument("--jobs", type=int, default=2, help="rows tested at a time")
    arguments = parser.parse_args()
    sys.exit(bool(main(arguments.words, arguments.jobs)))
