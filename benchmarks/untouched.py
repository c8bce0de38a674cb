"""A finished grid on test users on whom no setting was ever chosen: python benchmarks/untouched.py runs/paper

The settings of configs/experiments/paper.yaml were chosen on train and valid users of a split of its own (salt
`seed-0`). Some of these users are test users in the splits of the grid. Here only those are judged who were test users
of that first split too: had the settings been fitted to the others, methods would stand in another order here.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from peterrec.config import SplitConfig
from peterrec.data.hashing import id_hash
from peterrec.data.splits import assign_parts
from peterrec.report.grid.cells import read_cell, read_users

TEST = 2  # what `assign_parts` calls test users


def means_of(folder: Path, metric: str, split: SplitConfig) -> tuple[float, float, int]:
    """A metric of a cell: on all test users, on the untouched ones; and how many these are."""
    users = read_users(folder)
    untouched = assign_parts(id_hash(users["user_id"].to_pylist()), split) == TEST
    gains, rows = users[metric].to_numpy(), users["rows"].to_numpy()
    return (
        float(gains.sum() / rows.sum()),
        float(gains[untouched].sum() / max(1, rows[untouched].sum())),
        int(untouched.sum()),
    )


def table(grid: Path, salt: str, share: float = 1.0, metric: str | None = None) -> list[str]:
    """Lines of Markdown: a method of a task a row, means over the seeds; of each task's primary metric by default."""
    values_by_key: dict[tuple[str, str, str], list[tuple[float, float, int]]] = defaultdict(list)
    for path in sorted(grid.glob("cells/*/*/*/*/cell.json")):
        cell = read_cell(path.parent)
        if cell.share == share:
            key = (f"{cell.data}/{cell.task}", cell.method, metric or cell.primary)
            values_by_key[key].append(means_of(path.parent, key[2], SplitConfig(salt=salt)))
    lines = [
        "| task | method | metric | all test users | untouched | untouched users a seed |",
        "|---|---|---|---|---|---|",
    ]
    for (task, method, name), values in values_by_key.items():
        whole_mean, part, users = np.mean(np.array(values), axis=0)
        digits = 3 if name == "accuracy" else 4
        lines.append(f"| {task} | {method} | {name} | {whole_mean:.{digits}f} | {part:.{digits}f} | {users:.0f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, help="folder that `peterrec experiment` wrote")
    parser.add_argument("--salt", default="seed-0", help="of the split that settings were chosen on")
    parser.add_argument("--share", type=float, default=1.0, help="of the labels")
    parser.add_argument("--metric", help="accuracy, log_loss, ...; the primary one if not given")
    arguments = parser.parse_args()
    print("\n".join(table(arguments.grid, arguments.salt, arguments.share, arguments.metric)))


if __name__ == "__main__":
    main()
