"""All that only a GPU can show, in absolute numbers: `bash benchmarks/gpu.sh`, which runs the tests marked `gpu` first.

    python benchmarks/gpu.py --seconds 540 --data FOLDER    # of events.parquet of ml-1m, as `peterrec fetch` leaves it

Every section runs in a process of its own and has some of the seconds: one that runs out of them is ended, one that
fails says so, and the next one begins. Each row is printed, and written to --out, when it is there. With --device cpu
--tiny the script itself is tried: times then mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

Row = dict[str, Any]
FOLDER = Path(__file__).parent
LAST_WORDS = 300  # characters of an error


@dataclass(frozen=True)
class Section:
    """A part of the measurements.

    Attributes:
        name: by which it is asked for.
        title: of its table.
        share: of the seconds of all.
        columns: of its table, which its rows have; "share" is added here.
    """

    name: str
    title: str
    share: float
    columns: tuple[str, ...]


SECTIONS = (
    Section("limit", "Best matrix products, and copies of memory", 0.05, ("what", "shape", "rate", "note")),
    Section(
        "users", "User representations, 8 blocks; the receptive field is the work", 0.36,
        ("d", "events", "form", "batch", "users/s", "users/s on the device", "TFLOP/s", "share", "GiB", "note"),
    ),
    Section(
        "training", "Pre-training, sampled softmax, 2,048 negatives, 50 events", 0.30,
        ("d", "items", "tables", "form", "batch", "steps/s", "events/s", "TFLOP/s", "share", "GiB", "note"),
    ),
    Section(
        "ranking", "Top 10 of all items, 50 events", 0.06,
        ("d", "items", "form", "batch", "users/s", "TFLOP/s", "share", "GiB", "note"),
    ),
    Section(
        "adapting", "A step of adapting, 10 classes, 50 events: a patch beside all weights", 0.06,
        ("d", "form", "batch", "patch, steps/s", "all, steps/s", "time of a patch / of all", "GiB", "note"),
    ),
    Section(
        "ml-1m", "MovieLens-1M, d=256, until it is not getting better", 0.17,
        ("d", "form", "seconds", "epochs", "best epoch", "valid loss", "HR@10", "MRR@10", "stopped by", "note"),
    ),
)  # fmt: skip


@dataclass
class Results:
    """What was measured so far, kept in a file.

    Attributes:
        out: the file.
        head: date and settings.
        machine: device and versions, as the first section says.
        limits: operations a second, by kind of arithmetic.
        sections: rows of each, and how it ended.
    """

    out: Path
    head: str
    machine: str = ""
    limits: dict[str, float] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)

    def take(self, section: Section, answer: Row) -> None:
        """Print and keep what a section says."""
        if "machine" in answer:
            if not self.machine:
                self.machine = answer["machine"]
                print(f"{self.machine}\n", flush=True)
            return
        if not self.sections[section.name]["rows"]:
            print("| " + " | ".join(section.columns) + " |\n|" + "---|" * len(section.columns), flush=True)
        if "limit" in answer and "flops" in answer:
            self.limits[answer["limit"]] = max(answer["flops"], self.limits.get(answer["limit"], 0.0))
        elif "flops" in answer:
            answer |= {"TFLOP/s": answer["flops"] / 1e12, "share": self._share(answer)}
        self.sections[section.name]["rows"].append(answer)
        print("| " + " | ".join(_cell(answer.get(column, "")) for column in section.columns) + " |", flush=True)
        self.write()

    def _share(self, row: Row) -> str:
        limit = self.limits.get(row["arithmetic"])
        return "" if limit is None else f"{100 * row['flops'] / limit:.0f} % of {row['arithmetic']}"

    def end(self, section: Section, seconds: float, outcome: str) -> None:
        """Say how a section ended."""
        self.sections[section.name] |= {"seconds": round(seconds, 1), "end": outcome}
        print(f"\n{section.name}: {outcome}, {seconds:.0f} s\n", flush=True)
        self.write()

    def write(self) -> None:
        """Write all, whole or not at all."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        tree = {"head": self.head, "machine": self.machine, "limits": self.limits, "sections": self.sections}
        temporary = self.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(tree, indent=1) + "\n")
        temporary.replace(self.out)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 10 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "/").replace("\n", " ")


def main() -> None:
    options = _options()
    head = f"{date.today()}, device {options.device}, at most {options.seconds:.0f} s"
    if options.tiny or options.device == "cpu":
        head += "; TIMES MEAN NOTHING: only that the script runs is tried"
    print(head, flush=True)
    results, start = Results(options.out, head), time.monotonic()
    chosen = [section for section in SECTIONS if options.sections is None or section.name in options.sections]
    shares = sum(section.share for section in chosen)
    for section in chosen:
        remaining = options.seconds - (time.monotonic() - start)
        budget = remaining * section.share / shares  # what earlier ones left over is there for later ones
        shares -= section.share
        run(section, budget, options, results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda; or cpu, to try the script")
    parser.add_argument("--seconds", type=float, default=540.0, help="of all sections together")
    parser.add_argument("--sections", nargs="+", choices=[section.name for section in SECTIONS], help="these alone")
    parser.add_argument(
        "--data", type=Path, help="folder of events.parquet of ml-1m; without it that section is left out"
    )
    parser.add_argument("--tiny", action="store_true", help="sizes at which the numbers mean nothing")
    parser.add_argument("--compile", action="store_true", help="compile with --tiny, too, which takes a minute")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu/results.json"))
    return parser.parse_args()


def run(section: Section, budget: float, options: argparse.Namespace, results: Results) -> None:
    """Run a section in a process of its own, for at most so many seconds."""
    print(f"## {section.title}\n", flush=True)
    results.sections[section.name] = {"rows": []}
    settings = {"device": options.device, "tiny": options.tiny, "compile": options.compile or not options.tiny}
    settings |= {"seconds": budget, "data": None if options.data is None else str(options.data.resolve())}
    command = [sys.executable, str(FOLDER / "gpu_sections.py"), section.name, json.dumps(settings)]
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        ended = threading.Event()
        timer = threading.Timer(budget, lambda: (ended.set(), process.kill()))
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                results.take(section, json.loads(line))
            status = process.wait()
        finally:
            timer.cancel()
            process.kill()
        results.end(section, time.monotonic() - start, _end(status, out_of_time=ended.is_set(), errors=errors))


def _end(status: int, *, out_of_time: bool, errors: Any) -> str:
    if out_of_time:
        return "ended, its seconds were used up"
    if status == 0:
        return "done"
    errors.seek(0)
    lines = [line for line in errors.read().splitlines() if line.strip()]
    return f"FAILED with status {status}: {lines[-1][:LAST_WORDS] if lines else 'without a word'}"


if __name__ == "__main__":
    main()
