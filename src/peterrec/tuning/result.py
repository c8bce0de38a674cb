"""The result of a search: its trials, the best settings, and what mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from peterrec.config import AdaptConfig, PretrainConfig
from peterrec.display import Tabular, shown
from peterrec.report.formatting import duration


@dataclass(frozen=True)
class TuneTrial:
    """A trial of a search.

    Attributes:
        number: from 0.
        state: `finished`; `pruned`: stopped because trials before it were better; `diverged`: its loss was not finite.
        value: of the metric at the chosen epoch; of a pruned trial its best until then; None of one that diverged.
        settings: what varied, by dotted name with the verb before it.
        epochs: how many it trained.
        seconds: how long it took.
        places: of its artifacts, by kind, in the folder of the search.
    """

    number: int
    state: Literal["finished", "pruned", "diverged"]
    value: float | None
    settings: Mapping[str, Any]
    epochs: int
    seconds: float
    places: Mapping[str, str]


@dataclass(frozen=True, repr=False)
class TuneResult(Tabular):
    """Trials of a search, and the best of them.

    Attributes:
        path: folder of the search.
        subject: what was searched for, in words.
        monitor: the metric of valid users that trials are compared by.
        mode: `min` or `max` of it.
        trials: in their order.
        best: the finished trial with the best value.
        adapt: settings of `adapt` of the best trial; None without a task.
        pretrain: settings of `pretrain` of the best trial; None with a given backbone.
        importance: share of each setting in how the metric varied, the largest first; {} of fewer than 4 trials.
    """

    path: Path
    subject: str
    monitor: str
    mode: str
    trials: Sequence[TuneTrial]
    best: TuneTrial
    adapt: AdaptConfig | None
    pretrain: PretrainConfig | None
    importance: Mapping[str, float]

    def to_arrow(self) -> pa.Table:
        """Return the trials as a table.

        Returns:
            `trial`, `state`, the metric, a text column for each setting that varied, `epochs` and `seconds`.
        """
        columns: dict[str, Any] = {
            "trial": [trial.number for trial in self.trials],
            "state": [trial.state for trial in self.trials],
            self.monitor: pa.array([trial.value for trial in self.trials], pa.float64()),
        }
        for name in self.best.settings:
            columns[name] = [str(trial.settings[name]) for trial in self.trials]
        columns["epochs"] = [trial.epochs for trial in self.trials]
        columns["seconds"] = [trial.seconds for trial in self.trials]
        return pa.table(columns)

    def to_markdown(self) -> str:
        """Return the tables of trials and of what mattered as text.

        Returns:
            Markdown, the best trial in bold.
        """
        lines = [f"# Search for settings of {self.subject}", "", *self._summary(), "", "## Trials", ""]
        names = list(self.best.settings)
        lines += _table_head(["trial", self.monitor, *names, "epochs", "time", ""])
        order = sorted(self.trials, key=lambda trial: (trial.state != "finished", self._loss(trial), trial.number))
        lines += [self._row(trial, names) for trial in order]
        lines += ["", "## What mattered", ""]
        if not self.importance:
            return "\n".join([*lines, "Too few finished trials to say.", ""])
        lines += [
            f"Share of each setting in how {self.monitor} varied over the finished trials (fANOVA). With few trials it "
            "is a rough guess.",
            "",
            *_table_head(["setting", "share"]),
            *(f"| {name} | {share:.0%} |" for name, share in self.importance.items()),
            "",
        ]
        return "\n".join(lines)

    def _loss(self, trial: TuneTrial) -> float:
        if trial.value is None:
            return float("inf")
        return trial.value if self.mode == "min" else -trial.value

    def _summary(self) -> list[str]:
        counts = [
            f"{sum(trial.state == state for trial in self.trials)} {state}"
            for state in ("finished", "pruned", "diverged")
        ]
        return [
            f"{len(self.trials)} trials ({', '.join(counts)}). The best is trial {self.best.number}: {self.monitor} "
            f"{self.best.value:.4f} of the users who choose epochs ({'lower' if self.mode == 'min' else 'higher'} is "
            "better). They chose the settings, too, so it flatters them; test users were not read: `evaluate` says "
            "what the best is worth.",
        ]

    def _row(self, trial: TuneTrial, names: Sequence[str]) -> str:
        value = "" if trial.value is None else f"{trial.value:.4f}"
        cells = [str(trial.number), value, *(shown(trial.settings[name]) for name in names)]
        mark = "**" if trial.number == self.best.number else ""
        cells = [f"{mark}{cell}{mark}" if cell else "" for cell in cells]
        note = "best" if mark else "" if trial.state == "finished" else trial.state
        cells += [str(trial.epochs), duration(trial.seconds), note]
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    def __repr__(self) -> str:
        return (
            f"TuneResult({str(self.path)!r}: {len(self.trials)} trials, best {self.monitor} {self.best.value:.4f} of "
            f"trial {self.best.number})"
        )


def _table_head(names: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
