"""The conclusions from the numbers of a grid, in plain sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from peterrec.config.experiment import ExperimentConfig, QuestionConfig
from peterrec.evaluation.intervals import Verdict
from peterrec.report.formatting import counted, digits_for, join, metric, number, p_value, plural, share, signed
from peterrec.report.grid import comparisons as comparing
from peterrec.report.grid.analysis import Grid, QuestionResults, label
from peterrec.report.grid.cells import suits, task_kinds
from peterrec.report.grid.comparisons import Comparison
from peterrec.report.grid.maps import TaskMap, map_sentence, task_maps

MANY_PAIRS = 4  # more of them are only counted in the one-line answer
VERDICTS: tuple[Verdict, ...] = ("better", "no clear difference", "worse")
OPPOSITE = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Answer:
    """The answer to a question.

    Attributes:
        results: its numbers.
        short: one line.
        sentences: all that follows.
        comparisons: that the question asks for.
        further: with constant baselines, with the best method, and of patches with baselines.
        maps: where a method is ahead of all its rivals, where the question shows that.
    """

    results: QuestionResults
    short: str
    sentences: list[str]
    comparisons: list[Comparison] = field(default_factory=list)
    further: list[Comparison] = field(default_factory=list)
    maps: list[TaskMap] = field(default_factory=list)


def conclude(grid: Grid) -> list[Answer]:
    """Return an answer to every question, in the order of the report."""
    questions = [QuestionResults(grid, question) for question in grid.config.questions]
    tasks = dict.fromkeys(task for results in questions for task in results.tasks)
    constants = {task: _against_constant(grid, task) for task in tasks}
    return [_answer(results, constants) for results in questions]


def _against_constant(grid: Grid, task: str) -> list[Comparison]:
    """Compare all methods of the grid, not those of one question: that nothing can be told is a large claim."""
    largest = max(key.share for key in grid.cells if key.task_path == task)
    question = QuestionConfig(name="all", text="", methods=tuple(grid.config.methods), label_fractions=(largest,))
    return comparing.against_constant(QuestionResults(grid, question), task)


def _answer(results: QuestionResults, constants: dict[str, list[Comparison]]) -> Answer:
    tasks, pairs = results.tasks, results.question.compare
    if not tasks:
        return Answer(results, "Not computed yet.", ["No cell of this question is there."])
    requested = comparing.question_comparisons(results)
    baselines = comparing.against_baselines(results)
    warnings = [line for task in tasks for line in _compare_with_constant(results, task, constants[task])]
    further = [comparison for task in tasks for comparison in constants[task]] + baselines
    if pairs:
        counts = _counts(results, requested, pairs)
        if len(warnings) == len(tasks):
            short = " ".join(warnings)
        elif len(counts) > MANY_PAIRS:
            short = f"{len(counts)} pairs of methods are compared; the first: {counts[0]}"
        else:
            short = " ".join(counts) or "Nothing to compare yet."
        sentences = [*counts, *_pairs(results, requested)]
    else:
        against_best = {task: comparing.against_best(results, task) for task in tasks}
        further += [comparison for comparisons in against_best.values() for comparison in comparisons]
        noise = [task for task in tasks if constants[task] and all(c.verdict != "better" for c in constants[task])]
        informative = [task for task in tasks if task not in noise]
        short = _best_short(results, informative, noise)
        sentences = [_best(results, task, against_best[task]) for task in informative]
    losses = [sentence_of(results, comparison) for comparison in baselines if comparison.verdict == "worse"]
    counts = _counts(results, baselines, [(comparison.method, comparison.reference) for comparison in baselines])
    maps = task_maps(results, requested) if "map" in results.question.sections else []
    on_maps = [map_sentence(results.config, task_map) for task_map in maps]
    clear = [map_sentence(results.config, task_map) for task_map in maps if task_map.has_clear_squares]
    short = " ".join(clear) or ("No square of any map is clear." if maps else short)
    sentences = [*on_maps, *warnings, *sentences, *counts, *losses, *_strata(results)]
    return Answer(results, short, sentences, requested, further, maps)


def _compare_with_constant(results: QuestionResults, task: str, comparisons: Sequence[Comparison]) -> list[str]:
    """Return a sentence on a task where no method is better than giving everybody the same answer; else none."""
    if not comparisons:
        return []
    config, primary = results.config, results.primary(task)
    claim = f"no method is better than {label(config, comparisons[0].reference)} by"
    by_metric = defaultdict(list)
    for c in comparisons:
        if c.verdict == "better":
            by_metric[c.metric].append(label(config, c.method))
    if not by_metric:
        metrics = " or ".join(metric(name) for name in dict.fromkeys(c.metric for c in comparisons))
        return [f"Nothing can be told about {_short_name(config, task)} from these histories: {claim} {metrics}."]
    if primary in by_metric:
        return []
    other_metrics = "; ".join(
        f"by {metric(name)}, {join(by_metric[name])} {'is' if len(by_metric[name]) == 1 else 'are'}"
        for name in results.metrics(task)
        if name in by_metric
    )
    return [f"On {task}, {claim} {metric(primary)}; {other_metrics}."]


def _short_name(config: ExperimentConfig, task_path: str) -> str:
    """Return the name of a task without its data set, unless another data set has a task of that name."""
    name = task_path.split("/")[1]
    return name if [path.split("/")[1] for path in task_kinds(config)].count(name) == 1 else task_path


def _counts(results: QuestionResults, comparisons: Sequence[Comparison], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Count for each pair the tasks with each verdict, on the primary metric and the largest share."""
    lines, config = [], results.config
    for pair in dict.fromkeys(pairs):
        verdicts = {c.task: c.verdict for c in _main(results, comparisons) if (c.method, c.reference) == pair}
        by_verdict = {verdict: [task for task in verdicts if verdicts[task] == verdict] for verdict in VERDICTS}
        parts = [counted({verdict: tasks for verdict, tasks in by_verdict.items() if tasks}, len(verdicts))]
        suited = [task for task in results.tasks if all(suits(config, name, task) for name in pair)]
        absent = [task for task in suited if task not in verdicts]
        if absent:
            parts.append(f"not compared on {join(absent)}, where no seed has both")
        if any(parts):
            lines.append(f"{_against(config, *pair)}: {'; '.join(filter(None, parts))}.")
    return lines


def _against(config: ExperimentConfig, method: str, reference: str) -> str:
    return f"{label(config, method)} against {label(config, reference)}"


def _main(results: QuestionResults, comparisons: Sequence[Comparison]) -> list[Comparison]:
    return [c for c in comparisons if c.share == results.largest and c.metric == results.primary(c.task)]


def _pairs(results: QuestionResults, comparisons: Sequence[Comparison]) -> list[str]:
    """Describe each pair, metrics that contradict its verdict, and last its verdicts with fewer labels."""
    lines, fewer_labels, config = [], [], results.config
    for comparison in _main(results, comparisons):
        task, method, reference = comparison.task, comparison.method, comparison.reference
        related = [c for c in comparisons if (c.task, c.method, c.reference) == (task, method, reference)]
        lines.append(sentence_of(results, comparison))
        opposite = OPPOSITE.get(comparison.verdict)
        names = [metric(c.metric) for c in related if c.verdict == opposite and c.share == comparison.share]
        if names:
            claim = f"{label(config, method)} is {opposite} than {label(config, reference)}"
            lines.append(f"By {join(names)} it is the other way round: there, {claim}.")
        by_verdict = defaultdict(list)
        for c in sorted(related, key=lambda c: c.share):
            if c.metric == comparison.metric and c.share < comparison.share:
                by_verdict[c.verdict].append(share(c.share))
        parts = [f"{verdict} at {join(by_verdict[verdict], limit=9)}" for verdict in VERDICTS if verdict in by_verdict]
        if parts:
            fewer_labels.append(
                f"With fewer labels on {task}, {_against(config, method, reference)}: {'; '.join(parts)}."
            )
    return lines + fewer_labels


def sentence_of(results: QuestionResults, comparison: Comparison) -> str:
    """Return a comparison as a sentence, with means over the seeds that both methods have.

    It ends with what the mean hides: seeds that are missing, and those with the contrary difference.
    """
    digits = digits_for(comparison.means)
    method, reference = (label(results.config, name) for name in (comparison.method, comparison.reference))
    value, reference_value = (number(mean, digits) for mean in comparison.means)
    first, second = f"{method} ({metric(comparison.metric)} {value})", f"{reference} ({reference_value})"
    clear = comparison.verdict != "no clear difference"
    between = f"there is no clear difference between {first} and {second}"
    claim = f"{first} is {comparison.verdict} than {second}" if clear else between
    low, high = signed(comparison.low, digits), signed(comparison.high, digits)
    limits = "no interval" if comparison.low is None else f"[{low}, {high}]"
    labels = "" if comparison.share == 1.0 else f" with {share(comparison.share)} of the labels"
    numbers = f"{signed(comparison.difference, digits)} {limits}, {p_value(comparison.p_adjusted)}"
    count, expected, notes = len(comparison.seeds), len(results.seeds), []
    if count < expected:
        notes.append(f"{count} of {plural(expected, 'seed')} only")
    contrary = sum(value * comparison.difference < 0 for value in comparison.by_seed.values())
    if contrary and clear:
        notes.append(f"the other way round with {contrary} of {plural(count, 'seed')}")
    seeds = f" ({'; '.join(notes)})" if notes else ""
    return f"On {comparison.task}{labels}, {claim}: {numbers}{seeds}."


def _best(results: QuestionResults, task: str, comparisons: Sequence[Comparison]) -> str:
    """Return a sentence that names the best method, and those that are not clearly worse."""
    config, name = results.config, comparing.best_method(results, task)
    if name is None:
        return f"On {task}, nothing is computed yet with {share(results.largest)} of the labels."
    mean = results.column(task)[name].mean
    best = f"{label(config, name)} has the best {metric(results.primary(task))} ({number(mean, digits_for([mean]))})"
    equal = join([label(config, c.method) for c in comparisons if c.verdict != "worse"], limit=12)
    runners_up = f"not clearly worse: {equal}" if equal else "all others are clearly worse"
    return f"On {task}, {best}; {runners_up if comparisons else 'there is no other method to compare it with'}."


def _best_short(results: QuestionResults, tasks: Sequence[str], noise: Sequence[str]) -> str:
    by_method = defaultdict(list)
    for task in tasks:
        name = comparing.best_method(results, task)
        if name is not None:
            by_method[label(results.config, name)].append(task)
    parts = []
    if by_method:
        parts.append(f"Best: {'; '.join(f'{name} on {join(won)}' for name, won in by_method.items())}.")
    if noise:
        parts.append(f"Nothing can be told about {join([_short_name(results.config, task) for task in noise])}.")
    return " ".join(parts) or "Not computed yet."


def _strata(results: QuestionResults) -> list[str]:
    """Describe one method by the number of the users' source events: the first patch, or else the first method."""
    lines, config = [], results.config
    for task in results.tasks if "events" in results.question.sections else ():
        methods = results.methods(task)
        patches = [name for name in methods if comparing.is_patch(config, name)]
        chosen = next(iter(patches or methods), "")
        values = {name: column[chosen] for name, column in results.by_stratum(task).items() if chosen in column}
        digits = digits_for([value.mean for value in values.values()])
        parts = [f"{number(value.mean, digits)} for {name} ({value.users})" for name, value in values.items()]
        if parts:
            subject = f"{metric(results.primary(task))} of {label(config, chosen)} by source events of the user"
            note = "users in brackets; described, not tested"
            lines.append(f"On {task}, {subject} ({note}): {', '.join(parts)}.")
    return lines
