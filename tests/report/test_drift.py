"""The page of `drift`: what has shifted comes first, names are escaped, every quantity has its bars and its words."""

from __future__ import annotations

import numpy as np

from peterrec.data.reference import Distribution
from peterrec.evaluation.stability import compare
from peterrec.report.drift import render_drift
from peterrec.watching.result import DriftReport, PeriodMetric
from report.html_page import Page

DRAWS = np.random.default_rng(0)


def report(*, shift: float = 1.0) -> DriftReport:
    before = {"known events": DRAWS.normal(size=400), "class": ["<b>yes", "no & never"] * 200}
    now = {"known events": DRAWS.normal(size=300) + shift, "class": ["<b>yes", "no & never"] * 150}
    quantities = compare({name: Distribution.from_values(values) for name, values in before.items()}, now, 0.01)
    periods = (PeriodMetric("2026-W48", "accuracy", 120, 0.75, 0.67, 0.82),)
    facts = ("<task>", 300, 5_000, 0.125, 3, 400, "valid users", 0.01)
    return DriftReport(*facts, tuple(quantities), ("unknown items",), periods)


def test_what_has_shifted_is_said_and_shown_first() -> None:
    result = report()
    assert result.shifted == ["known events"]
    text = render_drift(result.to_json())
    page = Page(text)
    assert not page.mistakes
    assert "known events is not what it was: 300 users, compared with 400 (valid users)" in page.text
    assert "Not judged, because the reference does not have it: unknown items." in page.text
    assert "2026-W48" in page.text
    assert text.index("has shifted; index") < text.index("as before; index")
    assert text.count("<svg") == 6  # a drawing and two marks of its legend, for each quantity
    assert "<b>yes" not in text
    assert "&lt;task&gt;" in text


def test_nothing_may_have_shifted() -> None:
    result = report(shift=0.0)
    assert result.shifted == []
    assert (
        "Nothing has shifted: 300 users are like the 400 of the reference" in Page(render_drift(result.to_json())).text
    )
