"""The comparisons in plain English: the methods that each model beats, does not beat, and loses to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peterrec.evaluation.intervals import Verdict
from peterrec.evaluation.results import Comparison, MethodResult

WORDS: dict[Verdict, str] = {
    "better": "better than",
    "no clear difference": "not clearly different from",
    "worse": "worse than",
}


def describe(
    methods: Sequence[MethodResult], comparisons: Sequence[Comparison], primary: str, notes: Sequence[str] = ()
) -> str:
    """Return a few sentences: one for each model and metric compared, one for baselines unbeaten, then the notes."""
    values = {method.name: method.values for method in methods}
    families = {method.name: method.family for method in methods}
    parts: list[str] = []
    for name in (method.name for method in methods if method.family == "model"):
        method_comparisons = [comparison for comparison in comparisons if comparison.method == name]
        metrics = list(dict.fromkeys(comparison.metric for comparison in method_comparisons)) or [primary]
        for metric in metrics:
            metric_comparisons = [comparison for comparison in method_comparisons if comparison.metric == metric]
            numbers = {method_name: values[method_name][metric].value for method_name in values}
            parts.append(_ranking(name, metric, metric_comparisons, numbers))
            unbeaten = [
                comparison.reference
                for comparison in metric_comparisons
                if families[comparison.reference] == "baseline" and comparison.verdict != "better"
            ]
            if unbeaten:
                parts.append(f"So {name} does not beat {_join(unbeaten)} on {metric}.")
    parts.extend(f"{note[0].upper()}{note[1:]}." for note in notes)
    return " ".join(parts)


def _ranking(name: str, metric: str, comparisons: Sequence[Comparison], numbers: Mapping[str, float]) -> str:
    clauses = []
    for verdict, words in WORDS.items():
        references = [
            f"{comparison.reference} ({numbers[comparison.reference]:.3f})"
            for comparison in comparisons
            if comparison.verdict == verdict
        ]
        if references:
            clauses.append(f"{words} {_join(references)}")
    if not clauses:
        return f"On {metric}, {name} is {numbers[name]:.3f}; there is nothing to compare it with."
    return f"On {metric}, {name} ({numbers[name]:.3f}) is {_join(clauses, comma=True)}."


def _join(names: Sequence[str], *, comma: bool = False) -> str:
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])}{',' if comma else ''} and {names[-1]}"
