"""What follows from the numbers, in plain sentences, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peterrec.config.experiment import ExperimentConfig, QuestionConfig
from peterrec.evaluation.intervals import Verdict
from peterrec.report.formatting import (
    counted,
    digits_for,
    join,
    metric,
    number,
    p_value,
    plural,
    share,
    signed,
)
from peterrec.report.grid import comparisons as comparing
from peterrec.report.grid.analysis import Grid, Group, strata_names
from peterrec.report.grid.comparisons import Comparison

MANY_PAIRS = 4  # more of them are only counted in the one-line answer
VERDICTS: tuple[Verdict, ...] = ("better", "no clear difference", "worse")


@dataclass(frozen=True)
class Answer:
    """What is said to a question.

    Attributes:
        question: its settings.
        short: one line.
        sentences: all that follows.
        comparisons: that the question asks for.
        further: that tell about constant baselines, the best method, and baselines beside a patch.
    """

    question: QuestionConfig
    short: str
    sentences: list[str]
    comparisons: list[Comparison]
    further: list[Comparison]


def conclude(grid: Grid) -> list[Answer]:
    """Return an answer to every question, in the order of the report."""
    constants = {task: found for task in _tasks(grid) if (found := _constant(grid, task))}
    return [_answer(grid, question, constants) for question in grid.config.questions]


def label(config: ExperimentConfig, method: str) -> str:
    """Return the name of a method as the report shows it."""
    return config.methods[method].label or method


def _answer(grid: Grid, question: QuestionConfig, constants: dict[str, list[Comparison]]) -> Answer:
    tasks = grid.tasks(question)
    if not tasks:
        return Answer(question, "Not computed yet.", ["No cell of this question is there."], [], [])
    asked = comparing.asked(grid, question)
    beside = comparing.against_baselines(grid, question)
    told = {task: constants[task] for task in tasks if task in constants}
    nothing = [line for task, found in told.items() for line in _nothing(grid, task, found)]
    further = [*(one for found in told.values() for one in found), *beside]
    if question.compare:
        counts = _counts(grid, question, asked, question.compare)
        short = " ".join(nothing) if len(nothing) == len(tasks) else _short(counts)
        sentences = [*nothing, *counts, *_pairs(grid, question, asked)]
    else:
        found = {task: comparing.against_best(grid, question, task) for task in tasks}
        further += [one for comparisons in found.values() for one in comparisons]
        blank = [task for task in tasks if task in told and not any(one.verdict == "better" for one in told[task])]
        best = [_best(grid, question, task, comparisons) for task, comparisons in found.items() if task not in blank]
        short, sentences = _best_short(grid, question, tasks, blank), [*nothing, *best]
    return Answer(
        question, short, [*sentences, *_beside(grid, question, beside), *_strata(grid, question)], asked, further
    )


def _tasks(grid: Grid) -> list[str]:
    return list(dict.fromkeys(task for question in grid.config.questions for task in grid.tasks(question)))


def _constant(grid: Grid, task: str) -> list[Comparison]:
    """Compare all methods of the grid, not those of one question: that nothing can be told is a large claim."""
    largest = max(key.share for key in grid.cells if key.task_path == task)
    every = QuestionConfig(name="all", text="", methods=tuple(grid.config.methods), label_fractions=(largest,))
    return comparing.against_constant(grid, every, task)


def _nothing(grid: Grid, task: str, found: Sequence[Comparison]) -> list[str]:
    """Say where no method is better than giving everybody the same answer."""
    primary, rival = grid.primary(task), label(grid.config, found[0].rival)
    better = [one for one in found if one.verdict == "better"]
    if not better:
        what = _task_name(grid.config, task)
        metrics = " or ".join(metric(name) for name in dict.fromkeys(one.metric for one in found))
        told = f"no method is better than {rival} by {metrics}"
        return [f"Nothing can be told about {what} from these histories: {told}."]
    if any(one.metric == primary for one in better):
        return []
    names = {
        name: [label(grid.config, one.method) for one in better if one.metric == name] for name in grid.metrics(task)
    }
    other = "; ".join(f"by {metric(name)}, {_are(methods)}" for name, methods in names.items() if methods)
    return [f"On {task}, no method is better than {rival} by {metric(primary)}; {other}."]


def _are(names: Sequence[str]) -> str:
    return f"{join(names)} {'is' if len(names) == 1 else 'are'}"


def _task_name(config: ExperimentConfig, path: str) -> str:
    name = path.split("/")[1]
    every = [task.name for data in config.data.values() for task in data.prepare.tasks]
    return name if every.count(name) == 1 else path


def _counts(
    grid: Grid, question: QuestionConfig, found: Sequence[Comparison], pairs: Sequence[tuple[str, str]]
) -> list[str]:
    """Count for each pair the tasks with each verdict, on the primary metric and the largest share."""
    lines = []
    for method, rival in dict.fromkeys(pairs):
        mine = [one for one in _main(grid, question, found) if (one.method, one.rival) == (method, rival)]
        names = f"{label(grid.config, method)} against {label(grid.config, rival)}"
        groups = {verdict: [one.task for one in mine if one.verdict == verdict] for verdict in VERDICTS}
        told = counted({verdict: tasks for verdict, tasks in groups.items() if tasks}, len(mine))
        absent = [
            task
            for task in grid.tasks(question)
            if task not in [one.task for one in mine] and _is_asked(grid, task, method, rival)
        ]
        lost = f"not compared on {join(absent)}, where no seed has both" if absent else ""
        if told or lost:
            lines.append(f"{names}: {'; '.join(part for part in (told, lost) if part)}.")
    return lines


def _is_asked(grid: Grid, task: str, method: str, rival: str) -> bool:
    kind = comparing.kind_of(grid.config, task)
    return all(comparing.suits(grid.config, name, kind) for name in (method, rival))


def _main(grid: Grid, question: QuestionConfig, found: Sequence[Comparison]) -> list[Comparison]:
    largest = max(question.label_fractions)
    return [one for one in found if one.share == largest and one.metric == grid.primary(one.task)]


def _short(counts: Sequence[str]) -> str:
    if not counts:
        return "Nothing to compare yet."
    if len(counts) <= MANY_PAIRS:
        return " ".join(counts)
    return f"{len(counts)} pairs of methods are compared; the first: {counts[0]}"


def _pairs(grid: Grid, question: QuestionConfig, asked: Sequence[Comparison]) -> list[str]:
    main = _main(grid, question, asked)
    lines = [said for one in main for said in (compared(grid, question, one), *_contrary(grid, one, asked))]
    if len(set(question.label_fractions)) > 1:
        lines += [line for one in main for line in _fewer(grid, one, asked)]
    return lines


def compared(grid: Grid, question: QuestionConfig, one: Comparison) -> str:
    """Return a comparison as a sentence, with means over the seeds that both methods have."""
    names = (one.method, one.rival)
    means = [grid.mean(Group(one.task, name, one.share), one.metric, one.seeds) for name in names]
    digits = digits_for(means)
    first, second = (f"{label(grid.config, name)}" for name in names)
    mine, other = f"{first} ({metric(one.metric)} {number(means[0], digits)})", f"{second} ({number(means[1], digits)})"
    if one.verdict == "no clear difference":
        said = f"there is no clear difference between {mine} and {other}"
    else:
        said = f"{mine} is {one.verdict} than {other}"
    limits = "no interval" if one.low is None else f"[{signed(one.low, digits)}, {signed(one.high, digits)}]"
    where = f"On {one.task}" if one.share == 1.0 else f"On {one.task} with {share(one.share)} of the labels"
    numbers = f"{signed(one.difference, digits)} {limits}, {p_value(one.p_adjusted)}"
    return f"{where}, {said}: {numbers}{_seeds(grid, question, one)}."


def _seeds(grid: Grid, question: QuestionConfig, one: Comparison) -> str:
    """Say what the mean over seeds hides: seeds that are missing, and seeds that say the contrary."""
    notes = []
    if len(one.seeds) < len(grid.seeds(question)):
        notes.append(f"{len(one.seeds)} of {plural(len(grid.seeds(question)), 'seed')} only")
    against = sum(value * one.difference < 0 for value in one.by_seed)
    if against and one.verdict != "no clear difference":
        notes.append(f"the other way round with {against} of {plural(len(one.seeds), 'seed')}")
    return f" ({'; '.join(notes)})" if notes else ""


def _contrary(grid: Grid, one: Comparison, asked: Sequence[Comparison]) -> list[str]:
    """Say where another metric gives the opposite verdict."""
    key = (one.task, one.share, one.method, one.rival)
    opposite = {"better": "worse", "worse": "better"}.get(one.verdict)
    names = [
        metric(other.metric)
        for other in asked
        if (other.task, other.share, other.method, other.rival) == key and other.verdict == opposite
    ]
    method, rival = label(grid.config, one.method), label(grid.config, one.rival)
    return [f"By {join(names)} it is the other way round: there, {method} is {opposite} than {rival}."] if names else []


def _fewer(grid: Grid, one: Comparison, asked: Sequence[Comparison]) -> list[str]:
    key = (one.task, one.metric, one.method, one.rival)
    others = sorted(
        (c for c in asked if (c.task, c.metric, c.method, c.rival) == key and c.share < one.share),
        key=lambda c: c.share,
    )
    at = {verdict: [share(other.share) for other in others if other.verdict == verdict] for verdict in VERDICTS}
    told = [f"{verdict} at {join(found, most=9)}" for verdict, found in at.items() if found]
    method, rival = label(grid.config, one.method), label(grid.config, one.rival)
    return [f"With fewer labels on {one.task}, {method} against {rival}: {'; '.join(told)}."] if told else []


def _best(grid: Grid, question: QuestionConfig, task: str, found: Sequence[Comparison]) -> str:
    """Say which method is best and which are not clearly worse."""
    name = comparing.best_method(grid, question, task)
    if name is None:
        return f"On {task}, nothing is computed yet with {share(max(question.label_fractions))} of the labels."
    primary, largest = grid.primary(task), max(question.label_fractions)
    value = grid.measured(question, Group(task, name, largest), primary)
    values = [value.mean] if value is not None else []
    equal = [label(grid.config, one.method) for one in found if one.verdict != "worse"]
    reached = number(values[0], digits_for(values)) if values else number(None)
    said = f"On {task}, {label(grid.config, name)} has the best {metric(primary)} ({reached})"
    if not found:
        return f"{said}; there is no other method to compare it with."
    if not equal:
        return f"{said}; all others are clearly worse."
    return f"{said}; not clearly worse: {join(equal, most=12)}."


def _best_short(grid: Grid, question: QuestionConfig, tasks: Sequence[str], blank: Sequence[str]) -> str:
    names = {task: comparing.best_method(grid, question, task) for task in tasks if task not in blank}
    by_method: dict[str, list[str]] = {}
    for task, name in names.items():
        if name is not None:
            by_method.setdefault(name, []).append(task)
    told = [f"{label(grid.config, name)} on {join(mine)}" for name, mine in by_method.items()]
    nothing = [_task_name(grid.config, task) for task in blank]
    parts = [
        f"Best: {'; '.join(told)}." if told else "",
        f"Nothing can be told about {join(nothing)}." if nothing else "",
    ]
    return " ".join(part for part in parts if part) or "Not computed yet."


def _beside(grid: Grid, question: QuestionConfig, beside: Sequence[Comparison]) -> list[str]:
    """Say how the patch does against baselines and rivals of the same table, and in full where it loses."""
    pairs = [(one.method, one.rival) for one in beside]
    worse = [compared(grid, question, one) for one in beside if one.verdict == "worse"]
    return [*_counts(grid, question, beside, pairs), *worse]


def _strata(grid: Grid, question: QuestionConfig) -> list[str]:
    """Describe one method by the number of the users' source events: the first patch, or else the first method."""
    if "events" not in question.sections:
        return []
    lines = []
    for task in grid.tasks(question):
        methods = grid.methods(question, task, max(question.label_fractions))
        chosen = next((name for name in methods if comparing.is_patch(grid.config, name)), next(iter(methods), None))
        if chosen is None:
            continue
        group = Group(task, chosen, max(question.label_fractions))
        values = {name: one for name in strata_names(grid.config) if (one := grid.stratum(question, group, name))}
        digits = digits_for([one.mean for one in values.values()])
        told = [f"{number(one.mean, digits)} for {name} ({one.users})" for name, one in values.items()]
        if told:
            head = (
                f"On {task}, {metric(grid.primary(task))} of {label(grid.config, chosen)} by source events of the user"
            )
            lines.append(f"{head} (users in brackets; described, not tested): {', '.join(told)}.")
    return lines
