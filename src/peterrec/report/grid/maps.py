"""Maps of a question: where a method is ahead of all its rivals, by events of the user and share of the labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from peterrec.config.data import TaskConfig
from peterrec.config.experiment import ExperimentConfig
from peterrec.evaluation.intervals import Verdict
from peterrec.evaluation.statistics import LOWER_IS_BETTER
from peterrec.report.formatting import join, metric, plural, share
from peterrec.report.grid.analysis import QuestionResults, label
from peterrec.report.grid.comparisons import Comparison


@dataclass(frozen=True)
class Square:
    """A method against all its rivals on one task and share of the labels.

    Attributes:
        first_events: of each user that are read; None: whole histories.
        share: of the labels.
        rival: the best of them, by the mean over the seeds.
        difference: method minus that rival.
        verdict: `better` than every rival, or `worse` than at least one.
    """

    first_events: int | None
    share: float
    rival: str
    difference: float
    verdict: Verdict

    @property
    def place(self) -> str:
        """The square in words."""
        return f"{events_phrase(self.first_events)} and {share(self.share)} of the labels"


@dataclass(frozen=True)
class TaskMap:
    """The squares of tasks that differ only in how many first events are read, of one method and metric."""

    task: str
    method: str
    metric: str
    squares: list[Square]

    @property
    def has_clear_squares(self) -> bool:
        """Whether there is any verdict."""
        return any(square.verdict != "no clear difference" for square in self.squares)


def events_phrase(first_events: int | None) -> str:
    """Return how much of a history is read: `5 events`, `whole histories`."""
    return "whole histories" if first_events is None else plural(first_events, "event")


def task_maps(results: QuestionResults, comparisons: Sequence[Comparison]) -> list[TaskMap]:
    """Return the maps of a question, by task, then by metric.

    Args:
        results: of the question.
        comparisons: that it asks for: the references of a method are its rivals.
    """
    groups: dict[tuple[str, str, str], dict[tuple[str, float], list[Comparison]]] = defaultdict(
        lambda: defaultdict(list)
    )
    families = _families(results)
    for comparison in comparisons:
        place = (families[comparison.task], comparison.method, comparison.metric)
        groups[place][comparison.task, comparison.share].append(comparison)
    order = {task: at for at, task in enumerate(dict.fromkeys(families.values()))}
    return [
        TaskMap(*place, [_square(results.config, compared) for compared in squares.values()])
        for place, squares in sorted(groups.items(), key=lambda item: order[item[0][0]])
    ]


def _families(results: QuestionResults) -> dict[str, str]:
    """Return the name that each task has on a map, the same for tasks that differ only in `first_events`."""
    members: dict[str, list[str]] = defaultdict(list)
    for path in results.tasks:
        alike = _task_config(results.config, path).model_copy(update={"name": "", "first_events": None})
        members[f"{path.split('/')[0]} {alike.model_dump_json()}"].append(path)
    return {path: _family_name(results.config, paths) for paths in members.values() for path in paths}


def _family_name(config: ExperimentConfig, paths: Sequence[str]) -> str:
    """Return the name of the task of whole histories, or that of another without its number of events."""
    events = {path: _task_config(config, path).first_events for path in paths}
    longest = next((path for path, first_events in events.items() if first_events is None), "")
    return longest or paths[0].removesuffix(str(events[paths[0]])).rstrip("-_.")


def _square(config: ExperimentConfig, compared: Sequence[Comparison]) -> Square:
    first, lower = compared[0], compared[0].metric in LOWER_IS_BETTER
    closest = (max if lower else min)(compared, key=lambda comparison: comparison.difference)
    verdicts = {comparison.verdict for comparison in compared}
    verdict: Verdict = "worse" if "worse" in verdicts else "better" if verdicts == {"better"} else "no clear difference"
    return Square(
        _task_config(config, first.task).first_events, first.share, closest.reference, closest.difference, verdict
    )


def _task_config(config: ExperimentConfig, path: str) -> TaskConfig:
    data, name = path.split("/")
    return next(task for task in config.data[data].prepare.tasks if task.name == name)


def map_sentence(config: ExperimentConfig, task_map: TaskMap) -> str:
    """Return in words in which squares a method is ahead of every rival, and in which it is behind one."""
    squares, name = task_map.squares, label(config, task_map.method)
    better = [square for square in squares if square.verdict == "better"]
    worse = [square for square in squares if square.verdict == "worse"]
    parts = [f"better than every rival in {len(better)} of {plural(len(squares), 'square')}{_places(better)}"]
    parts.append(f"worse than a rival in {len(worse)}{_places(worse)}")
    return f"On {task_map.task} by {metric(task_map.metric)}, {name} is {', '.join(parts)}."


def _places(squares: Sequence[Square]) -> str:
    """Return the places of squares by their share of the labels, in brackets."""
    ordered = sorted(squares, key=lambda square: (square.share, square.first_events or float("inf")))
    parts = []
    for part, row in groupby(ordered, key=lambda square: square.share):
        counts = [square.first_events for square in row]
        cut = join([str(count) for count in counts if count is not None], limit=12)
        names = [f"{cut} {'event' if cut == '1' else 'events'}"] if cut else []
        names += ["whole histories"] if None in counts else []
        parts.append(f"{share(part)} of the labels: {' and '.join(names)}")
    return f" ({'; '.join(parts)})" if parts else ""
