"""The conclusions from the numbers of a grid, in plain sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peterrec.config.experiment import ExperimentConfig, QuestionConfig
from peterrec.evaluation.intervals import Verdict
from peterrec.report.formatting import counted, digits_for, join, metric, number, p_value, plural, share, signed
from peterrec.report.grid import comparisons as comparing
from peterrec.report.grid.analysis import Grid, Group, strata_names
from peterrec.report.grid.cells import kind_of, suits, task_paths
from peterrec.report.grid.comparisons import Comparison

MANY_PAIRS = 4  # more of them are only counted in the one-line answer
VERDICTS: tuple[Verdict, ...] = ("better", "no clear difference", "worse")


@dataclass(frozen=True)
class Answer:
    """The answer to a question.

    Attributes:
        question: its settings.
        short: one line.
        sentences: all that follows.
        comparisons: that the question asks for.
        further: with constant baselines, with the best method, and of patches with baselines.
    """

    question: QuestionConfig
    short: str
    sentences: list[str]
    comparisons: list[Comparison]
    further: list[Comparison]


def conclude(grid: Grid) -> list[Answer]:
    """Return an answer to every question, in the order of the report."""
    tasks = dict.fromkeys(task for question in grid.config.questions for task in grid.tasks(question))
    constants = {task: _against_constant(grid, task) for task in tasks}
    return [_answer(grid, question, constants) for question in grid.config.questions]


def label(config: ExperimentConfig, method: str) -> str:
    """Return the name of a method as the report shows it."""
    return config.methods[method].label or method


def _against_constant(grid: Grid, task: str) -> list[Comparison]:
    """Compare all methods of the grid, not those of one question: that nothing can be told is a large claim."""
    largest = max(key.share for key in grid.cells if key.task_path == task)
    question = QuestionConfig(name="all", text="", methods=tuple(grid.config.methods), label_fractions=(largest,))
    return comparing.against_constant(grid, question, task)


def _answer(grid: Grid, question: QuestionConfig, constants: Mapping[str, list[Comparison]]) -> Answer:
    tasks = grid.tasks(question)
    if not tasks:
        return Answer(question, "Not computed yet.", ["No cell of this question is there."], [], [])
    requested = comparing.question_comparisons(grid, question)
    baselines = comparing.against_baselines(grid, question)
    warnings = [line for task in tasks for line in _compare_with_constant(grid, task, constants[task])]
    further = [comparison for task in tasks for comparison in constants[task]] + baselines
    if question.compare:
        counts = _counts(grid, question, requested, question.compare)
        short = " ".join(warnings) if len(warnings) == len(tasks) else _short(counts)
        sentences = [*counts, *_pairs(grid, question, requested)]
    else:
        against_best = {task: comparing.against_best(grid, question, task) for task in tasks}
        further += [comparison for comparisons in against_best.values() for comparison in comparisons]
        noise = [task for task in tasks if constants[task] and not _better(constants[task])]
        informative = [task for task in tasks if task not in noise]
        short = _best_short(grid, question, informative, noise)
        sentences = [_best(grid, question, task, against_best[task]) for task in informative]
    losses = [sentence_of(grid, question, comparison) for comparison in baselines if comparison.verdict == "worse"]
    pairs = [(comparison.method, comparison.reference) for comparison in baselines]
    sentences = [*warnings, *sentences, *_counts(grid, question, baselines, pairs), *losses, *_strata(grid, question)]
    return Answer(question, short, sentences, requested, further)


def _better(comparisons: Sequence[Comparison]) -> list[Comparison]:
    return [comparison for comparison in comparisons if comparison.verdict == "better"]


def _compare_with_constant(grid: Grid, task: str, comparisons: Sequence[Comparison]) -> list[str]:
    """Return a sentence on a task where no method is better than giving everybody the same answer; else none."""
    if not comparisons:
        return []
    primary, reference, better = grid.primary(task), label(grid.config, comparisons[0].reference), _better(comparisons)
    if not better:
        metrics = " or ".join(metric(name) for name in dict.fromkeys(c.metric for c in comparisons))
        reason = f"no method is better than {reference} by {metrics}"
        return [f"Nothing can be told about {_short_name(grid.config, task)} from these histories: {reason}."]
    by_metric = defaultdict(list)
    for comparison in better:
        by_metric[comparison.metric].append(label(grid.config, comparison.method))
    if primary in by_metric:
        return []
    other_metrics = "; ".join(
        f"by {metric(name)}, {join(by_metric[name])} {'is' if len(by_metric[name]) == 1 else 'are'}"
        for name in grid.metrics(task)
        if name in by_metric
    )
    return [f"On {task}, no method is better than {reference} by {metric(primary)}; {other_metrics}."]


def _short_name(config: ExperimentConfig, task_path: str) -> str:
    """Return the name of a task without its data set, unless another data set has a task of that name."""
    name = task_path.split("/")[1]
    return name if [path.split("/")[1] for path in task_paths(config)].count(name) == 1 else task_path


def _counts(
    grid: Grid, question: QuestionConfig, comparisons: Sequence[Comparison], pairs: Sequence[tuple[str, str]]
) -> list[str]:
    """Count for each pair the tasks with each verdict, on the primary metric and the largest share."""
    lines = []
    for pair in dict.fromkeys(pairs):
        by_task = {c.task: c for c in _main(grid, question, comparisons) if (c.method, c.reference) == pair}
        groups = {
            verdict: [task for task, comparison in by_task.items() if comparison.verdict == verdict]
            for verdict in VERDICTS
        }
        counts = counted({verdict: tasks for verdict, tasks in groups.items() if tasks}, len(by_task))
        absent = [
            task
            for task in grid.tasks(question)
            if task not in by_task and all(suits(grid.config, name, kind_of(grid.config, task)) for name in pair)
        ]
        lost = f"not compared on {join(absent)}, where no seed has both" if absent else ""
        if counts or lost:
            names = " against ".join(label(grid.config, name) for name in pair)
            lines.append(f"{names}: {'; '.join(part for part in (counts, lost) if part)}.")
    return lines


def _main(grid: Grid, question: QuestionConfig, comparisons: Sequence[Comparison]) -> list[Comparison]:
    largest = max(question.label_fractions)
    return [c for c in comparisons if c.share == largest and c.metric == grid.primary(c.task)]


def _short(counts: Sequence[str]) -> str:
    if not counts:
        return "Nothing to compare yet."
    if len(counts) <= MANY_PAIRS:
        return " ".join(counts)
    return f"{len(counts)} pairs of methods are compared; the first: {counts[0]}"


def _pairs(grid: Grid, question: QuestionConfig, comparisons: Sequence[Comparison]) -> list[str]:
    main = _main(grid, question, comparisons)
    lines = [
        line
        for comparison in main
        for line in (sentence_of(grid, question, comparison), *_opposite(grid, comparison, comparisons))
    ]
    return lines + [line for comparison in main for line in _fewer_labels(grid, comparison, comparisons)]


def sentence_of(grid: Grid, question: QuestionConfig, comparison: Comparison) -> str:
    """Return a comparison as a sentence, with means over the seeds that both methods have."""
    task, name, part = comparison.task, comparison.metric, comparison.share
    methods = (comparison.method, comparison.reference)
    means = [grid.mean(Group(task, method, part), name, comparison.seeds) for method in methods]
    digits = digits_for(means)
    method, reference = (label(grid.config, method) for method in methods)
    first, second = f"{method} ({metric(name)} {number(means[0], digits)})", f"{reference} ({number(means[1], digits)})"
    if comparison.verdict == "no clear difference":
        claim = f"there is no clear difference between {first} and {second}"
    else:
        claim = f"{first} is {comparison.verdict} than {second}"
    low, high = signed(comparison.low, digits), signed(comparison.high, digits)
    limits = "no interval" if comparison.low is None else f"[{low}, {high}]"
    place = f"On {task}" if part == 1.0 else f"On {task} with {share(part)} of the labels"
    numbers = f"{signed(comparison.difference, digits)} {limits}, {p_value(comparison.p_adjusted)}"
    return f"{place}, {claim}: {numbers}{_seed_notes(grid, question, comparison)}."


def _seed_notes(grid: Grid, question: QuestionConfig, comparison: Comparison) -> str:
    """Return notes on seeds that the mean hides: those that are missing, and those with the contrary difference."""
    count, notes = len(comparison.seeds), []
    if count < len(grid.seeds(question)):
        notes.append(f"{count} of {plural(len(grid.seeds(question)), 'seed')} only")
    contrary = sum(value * comparison.difference < 0 for value in comparison.by_seed)
    if contrary and comparison.verdict != "no clear difference":
        notes.append(f"the other way round with {contrary} of {plural(count, 'seed')}")
    return f" ({'; '.join(notes)})" if notes else ""


def _opposite(grid: Grid, comparison: Comparison, comparisons: Sequence[Comparison]) -> list[str]:
    """Return a sentence on a verdict that another metric contradicts; else none."""
    opposite = {"better": "worse", "worse": "better"}.get(comparison.verdict)
    names = [
        metric(c.metric)
        for c in comparisons
        if c.verdict == opposite and _key(c) == _key(comparison) and c.share == comparison.share
    ]
    method, reference = label(grid.config, comparison.method), label(grid.config, comparison.reference)
    return (
        [f"By {join(names)} it is the other way round: there, {method} is {opposite} than {reference}."]
        if names
        else []
    )


def _key(comparison: Comparison) -> tuple[str, str, str]:
    return comparison.task, comparison.method, comparison.reference


def _fewer_labels(grid: Grid, comparison: Comparison, comparisons: Sequence[Comparison]) -> list[str]:
    by_verdict = defaultdict(list)
    for c in sorted(comparisons, key=lambda c: c.share):
        if _key(c) == _key(comparison) and c.metric == comparison.metric and c.share < comparison.share:
            by_verdict[c.verdict].append(share(c.share))
    parts = [f"{verdict} at {join(by_verdict[verdict], limit=9)}" for verdict in VERDICTS if by_verdict[verdict]]
    names = f"{label(grid.config, comparison.method)} against {label(grid.config, comparison.reference)}"
    return [f"With fewer labels on {comparison.task}, {names}: {'; '.join(parts)}."] if parts else []


def _best(grid: Grid, question: QuestionConfig, task: str, comparisons: Sequence[Comparison]) -> str:
    """Return a sentence that names the best method, and those that are not clearly worse."""
    name, largest = comparing.best_method(grid, question, task), max(question.label_fractions)
    value = grid.measured(question, Group(task, name, largest), grid.primary(task)) if name is not None else None
    if name is None or value is None:
        return f"On {task}, nothing is computed yet with {share(largest)} of the labels."
    equal = [label(grid.config, c.method) for c in comparisons if c.verdict != "worse"]
    reached = number(value.mean, digits_for([value.mean]))
    claim = f"On {task}, {label(grid.config, name)} has the best {metric(grid.primary(task))} ({reached})"
    if not comparisons:
        return f"{claim}; there is no other method to compare it with."
    return f"{claim}; {f'not clearly worse: {join(equal, limit=12)}' if equal else 'all others are clearly worse'}."


def _best_short(grid: Grid, question: QuestionConfig, tasks: Sequence[str], noise: Sequence[str]) -> str:
    by_method = defaultdict(list)
    for task in tasks:
        name = comparing.best_method(grid, question, task)
        if name is not None:
            by_method[label(grid.config, name)].append(task)
    best = "; ".join(f"{name} on {join(won)}" for name, won in by_method.items())
    nothing = join([_short_name(grid.config, task) for task in noise])
    parts = [f"Best: {best}." if best else "", f"Nothing can be told about {nothing}." if nothing else ""]
    return " ".join(part for part in parts if part) or "Not computed yet."


def _strata(grid: Grid, question: QuestionConfig) -> list[str]:
    """Describe one method by the number of the users' source events: the first patch, or else the first method."""
    lines, largest = [], max(question.label_fractions)
    for task in grid.tasks(question) if "events" in question.sections else ():
        methods = grid.methods(question, task, largest)
        patches = [name for name in methods if comparing.is_patch(grid.config, name)]
        for chosen in (patches or methods)[:1]:
            group = Group(task, chosen, largest)
            values = {name: v for name in strata_names(grid.config) if (v := grid.stratum(question, group, name))}
            digits = digits_for([value.mean for value in values.values()])
            parts = [f"{number(value.mean, digits)} for {name} ({value.users})" for name, value in values.items()]
            subject = f"{metric(grid.primary(task))} of {label(grid.config, chosen)} by source events of the user"
            if parts:
                note = "users in brackets; described, not tested"
                lines.append(f"On {task}, {subject} ({note}): {', '.join(parts)}.")
    return lines
