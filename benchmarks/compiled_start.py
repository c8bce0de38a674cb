"""What compiling costs at the start, first and later: python benchmarks/compiled_start.py

Each row is a process of its own that answers 256 users: as it is; compiled, with nothing compiled before; and compiled
once more, with what torch kept in `TORCHINDUCTOR_CACHE_DIR`. The seconds are of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from statistics import median

from sides import FOLDER, SPIN, TUNED
from worker import Sizes, tune

REPEATS = 20


def main() -> None:
    options = _options()
    if options.form:
        print(json.dumps(answer(options)))
        return
    print("| precision | form | the first answers (s) | later ones (ms) |")
    print("|---|---|---|---|")
    for precision in ("fp32", "bf16"):
        with tempfile.TemporaryDirectory() as cache_folder:
            for form in ("as it is", "compiled, first start", "compiled, second start"):
                seconds = _in_a_process(form, precision, cache_folder, tiny=options.tiny)
                print(f"| {precision} | {form} | {seconds[0]:.1f} | {seconds[1] * 1e3:.1f} |", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="sizes at which the numbers mean nothing")
    parser.add_argument("--form", help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_a_process(form: str, precision: str, folder: str, *, tiny: bool) -> tuple[float, float]:
    command = [sys.executable, __file__, "--form", form, "--precision", precision, *(["--tiny"] if tiny else [])]
    env = os.environ | SPIN | TUNED | {"TORCHINDUCTOR_CACHE_DIR": folder, "PYTHONPATH": str(FOLDER)}
    printed = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    first, later = json.loads(printed.splitlines()[-1])
    return first, later


def answer(options: argparse.Namespace) -> tuple[float, float]:
    """Return how long the first answers take, with all that comes before, and later ones."""
    tune()
    from ours_side import represent

    sizes = Sizes(precision=options.precision, compile=options.form != "as it is")
    if options.tiny:
        sizes = Sizes(channels=16, events=8, batch=4, items=50, precision=sizes.precision, compile=sizes.compile)
    seconds = []
    start = time.perf_counter()
    job = represent(sizes)
    for _ in range(1 + REPEATS):
        job()
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    return seconds[0], median(seconds[1:])


if __name__ == "__main__":
    main()
