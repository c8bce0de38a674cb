"""Numbers and phrases as the report writes them, and its two sentences."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from peterrec.report import formatting as wording
from peterrec.report.run.page import summary
from peterrec.report.run.record import RunRecord


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100 %"), (0.07, "7.00 %"), (0.01699, "1.70 %"), (0.3135, "31.4 %"), (0.00002, "< 0.01 %")],
)
def test_a_share_keeps_the_digits_that_count(share: float, text: str) -> None:
    assert wording.percent(share).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (41.2, "41 s"),
        (94.8, "1 min 35 s"),
        (119.7, "2 min 0 s"),
        (7_261, "2 h 1 min"),
    ],
)
def test_a_time_has_two_units(seconds: float, text: str) -> None:
    assert wording.duration(seconds).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("value", "text"), [(812, "812"), (9_999, "9,999"), (48_210, "48.2 k"), (1_134_592, "1.13 M"), (2.5e9, "2.50 G")]
)
def test_large_numbers_can_be_short(value: int, text: str) -> None:
    assert wording.compact(value).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("size", "text"), [(12, "12 bytes"), (2_321, "2.3 kB"), (5_412_000, "5.4 MB"), (3e9, "3.0 GB")]
)
def test_sizes_are_decimal(size: float, text: str) -> None:
    assert wording.size(size).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("accuracy", "accuracy"),
        ("macro_f1", "macro-F1"),
        ("mrr", "MRR"),
        ("hr@10", "HR@10"),
        ("ndcg@5 sampled-99", "NDCG@5, sampled"),
    ],
)
def test_metrics_have_their_usual_names(name: str, text: str) -> None:
    assert wording.metric(name) == text


def test_numbers_and_counts() -> None:
    assert (wording.count(1234), wording.count(13.5), wording.count(11.0)) == ("1,234", "13.5", "11")
    assert (wording.number(None), wording.signed(-0.5), wording.signed(0.25, 2)) == ("\u2013", "\u22120.500", "+0.25")
    assert (wording.plural(1, "class"), wording.plural(2, "class"), wording.plural(1200, "item")) == (
        "1 class",
        "2 classes",
        "1,200 items",
    )
    assert [wording.digits_for(values) for values in ([0.0712, 0.03], [0.1, 0.03], [])] == [4, 3, 3]


def test_bins_are_closed_but_for_the_last() -> None:
    assert wording.bins([0, 1, 3, 1000]) == [
        "0",
        "1\u20132",
        "3\u2013999",
        "1,000+",
    ]
    assert wording.bins([]) == []


@pytest.mark.parametrize(
    ("names", "text"),
    [([], ""), (["a"], "a"), (["a", "b", "c", "d"], "a, b, c and d"), (list("abcdef"), "a, b, c and 3 more")],
)
def test_names_make_a_phrase(names: list[str], text: str) -> None:
    assert wording.join(names) == text


def test_the_summary_has_the_numbers_and_hides_no_defeat(record: RunRecord) -> None:
    pretraining, tasks = (sentence.replace("\u00a0", " ") for sentence in summary(record))
    assert pretraining.startswith("A backbone of 1.13 M parameters learned in 6 epochs")
    assert "612,345 events of 30,265 users over 14,630 items" in pretraining
    best = record.backbone.curve.rows[4]["hr@10"]
    assert best is not None
    assert f"{100 * best:.1f} % of held-out users" in pretraining
    assert "patches of 1.61 % to 1.70 % of all parameters" in tasks
    assert tasks.endswith("better than every baseline on 1 of 3, new-department, and not on returns and age.")


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ("next item", "6 epochs to predict what comes next, from"),
        ("masked items and contrastive", "6 epochs to fill in what is hidden and to tell users apart, from"),
        ("contrastive", "6 epochs to tell users apart, from"),
    ],
)
def test_the_summary_says_what_was_learned(record: RunRecord, objective: str, words: str) -> None:
    backbone = record.backbone.model_copy(update={"objective": objective})
    pretraining, _ = summary(record.model_copy(update={"backbone": backbone}))
    assert words in pretraining.replace("\u00a0", " ")


def test_the_summary_of_other_outcomes(make_record: Callable[..., RunRecord]) -> None:
    returns, age, shop = make_record().tasks

    def summary_of(*tasks: object) -> str:
        return summary(make_record(tasks=list(tasks)))[1]

    assert summary_of() == "No task was prepared, so nothing was adapted or evaluated."
    assert summary_of(shop).endswith("every baseline on new-department.")
    assert summary_of(age).endswith("every baseline on none (age).")
    assert summary_of(returns, age).endswith("every baseline on none of them (returns and age).")
    models = age.evaluation.model_copy(update={"methods": age.evaluation.methods[:2], "comparisons": []})
    alone = age.model_copy(update={"evaluation": models})
    assert summary_of(alone).endswith("; there was no baseline to compare with.")
    assert summary_of(shop, alone).endswith("on new-department (1 task without a baseline).")
    heads = shop.evaluation.model_copy(update={"methods": shop.evaluation.methods[1:]})
    assert "the strategy head is" in summary_of(shop.model_copy(update={"evaluation": heads}))
