"""The verdict on a bundle by what is clear, and histories as a backbone of fewer items reads them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from builders import tiny_catalogue, tiny_pretrained
from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import UNK, Sequences
from peterrec.evaluation.intervals import Verdict
from peterrec.evaluation.migration_results import Version
from peterrec.evaluation.results import Comparison
from peterrec.migration.judge import decide_migration, largest_loss, read_by
from peterrec.model import UserModel

LEVEL = "no clear difference"


def pair(method: Version, reference: Version, verdict: Verdict) -> Comparison:
    return Comparison(
        method=method, reference=reference, metric="m", difference=0.0, low=0.0, high=0.0, verdict=verdict
    )


@pytest.mark.parametrize(
    ("unchanged", "refitted", "anew", "expected"),
    [
        # kept against before, refitted against kept, anew against refitted
        (LEVEL, None, None, "keep"),
        ("better", None, None, "keep"),
        ("worse", None, None, "refit"),
        (LEVEL, LEVEL, None, "keep"),
        (LEVEL, "better", None, "refit"),
        ("better", "better", LEVEL, "refit"),
        ("worse", LEVEL, "worse", "refit"),
        (LEVEL, LEVEL, "better", "anew"),
        ("better", "worse", "worse", "keep"),
    ],
)
def test_the_verdict_follows_what_is_clear(
    unchanged: Verdict, refitted: Verdict | None, anew: Verdict | None, expected: str
) -> None:
    comparisons = [pair("kept", "before", unchanged)]
    comparisons += [] if refitted is None else [pair("refitted", "kept", refitted)]
    comparisons += [] if anew is None else [pair("anew", "refitted", anew)]
    assert decide_migration(comparisons) == expected
    assert decide_migration(comparisons, may_keep=False) == ("refit" if expected == "keep" else expected)


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("log_loss", -0.1, 0.3, 0.3), ("mrr@5", -0.1, 0.3, 0.1), ("log_loss", -0.3, -0.1, None),
        ("mrr@5", 0.1, 0.3, None), ("mrr@5", None, None, None),
    ],
)  # fmt: skip
def test_what_may_be_lost_is_the_worse_end_of_the_interval(
    metric: str, low: float | None, high: float | None, expected: float | None
) -> None:
    comparison = pair("kept", "before", LEVEL).model_copy(update={"low": low, "high": high})
    assert largest_loss([comparison], metric) == expected


def test_made_anew_beside_nothing_but_the_kept_one() -> None:
    comparisons = [pair("kept", "before", LEVEL), pair("anew", "kept", "better")]
    assert decide_migration(comparisons) == "anew"


@pytest.mark.parametrize(("unknown", "expected"), [("skip", [[4, 5], [], [15]]), ("unk", [[4, UNK, 5], [UNK], [15]])])
def test_a_backbone_of_fewer_items_reads_the_others_as_it_was_taught(unknown: str, expected: list[list[int]]) -> None:
    model = UserModel(tiny_pretrained(tiny_catalogue(12), unknown=unknown), "cpu")
    sequences = Sequences.from_rows([[4, 16, 5], [17], [15]])
    users = TaskPart(pa.array(["a", "b", "c"]), sequences, labels=np.zeros(3, dtype=np.int64))
    read = read_by(model, users)
    assert [read.sequences[row].tolist() for row in range(3)] == expected
    larger = UserModel(tiny_pretrained(tiny_catalogue(14), unknown=unknown), "cpu")
    assert read_by(larger, users) is users
