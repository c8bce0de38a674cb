"""How fast we are beside what people would use instead, and as a share of what the machine can do.

    python benchmarks/peers/install.py && python benchmarks/speed.py

Sides take turns, each in a process of its own; see `sides.py`. The table goes to stdout and, with all times, to --out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch
from limits import Limits
from rows import Line, Run
from sides import FOLDER, SPIN, TUNED

MODULES = ("rows_users", "rows_training")
SCALING = "rows_scaling"
COLUMNS = ("row", "side A", "side B", "A / B (10 .. 90 % of rounds)", "share of the limit of B", "asked of B")
NOTES = """\
Times are medians over the rounds. A / B is the ratio of the medians and, in brackets, the spread of the ratios within
single rounds. The share of the limit is the work over time and over the best matrix product in the same precision
on this machine: by the work of all positions of the window, and where only the last position is asked for also by
the work of the positions it depends on. Padding to a round width counts as time, not as work.
Our sides keep freed memory (mallopt: M_MMAP_THRESHOLD and M_TRIM_THRESHOLD at 1 GiB); peers do not, unless a row says
"with our process settings". GOMP_SPINCOUNT=1000 is set for all: without it a busy neighbour on the other core slows
every side down many times."""


def main() -> None:
    options = _options()
    run = Run(options)
    limits = _limits(options)
    try:
        lines = list(_lines(run, (*MODULES, SCALING) if options.scaling else MODULES))
    finally:
        run.close()
    if not options.tiny:
        limits = limits.best(_limits(options))  # again: the machine may have been busy the first time
    head = _head(limits, options)
    text = "\n".join([*head, "", *_table(lines, limits), "", NOTES])
    print(text)
    _write(options.out, text, lines, limits, head)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="groups of rows whose names hold this")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=3, help="of a side in each round")
    parser.add_argument("--tiny", action="store_true", help="sizes at which the numbers mean nothing, one round")
    parser.add_argument("--compile", action="store_true", help="run our sides compiled")
    parser.add_argument("--scaling", action="store_true", help="also how our cost grows with channels, events, items")
    parser.add_argument("--without", nargs="*", default=[], choices=["recbole", "plain"], help="sides to leave out")
    parser.add_argument("--out", type=Path, default=Path("runs/speed/results.json"))
    options = parser.parse_args()
    if options.tiny:
        options.rounds = options.repeats = 1
    return options


def _lines(run: Run, modules: tuple[str, ...]) -> Iterator[Line]:
    for name in modules:
        for line in importlib.import_module(name).lines(run):
            print(" | ".join(line.cells(None)), file=sys.stderr, flush=True)  # a long run shows what it has so far
            yield line


def _limits(options: argparse.Namespace) -> Limits:
    """Measure in a process with the settings of our sides."""
    command = [sys.executable, str(FOLDER / "limits.py"), "--json", *(["--tiny"] if options.tiny else [])]
    completed = subprocess.run(command, env=os.environ | SPIN | TUNED, check=True, capture_output=True, text=True)
    return Limits(**json.loads(completed.stdout))


def _head(limits: Limits, options: argparse.Namespace) -> list[str]:
    description = f"{options.rounds} rounds of {options.repeats}" + (", our sides compiled" if options.compile else "")
    return [
        f"{date.today()}, {_processor()}, {os.cpu_count()} cores, torch {torch.__version__}, {description}",
        str(limits),
    ]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in _read(info).splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _table(lines: list[Line], limits: Limits) -> list[str]:
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(line.cells(limits) for line in lines)]
    return ["| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in row) + " |" for row in rows]


def _write(out: Path, text: str, lines: list[Line], limits: Limits, head: list[str]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    tree: dict[str, Any] = {"machine": head[0], "limits": asdict(limits), "rows": [asdict(line) for line in lines]}
    out.write_text(json.dumps(tree, indent=1) + "\n")
    out.with_suffix(".md").write_text(text + "\n")


if __name__ == "__main__":
    main()
