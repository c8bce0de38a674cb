"""Next-item quality beside other libraries, with the same data and the same seconds of training.

    python benchmarks/peers/install.py && python benchmarks/next_item.py --budget 300

All sides learn from the same train events (`next_item_data.py`), are asked about the same users and rank the same
catalogue; each has the settings that its library recommends (`next_item.yaml`), its own way of validating, and a
process in its own virtual environment. A side answers with ten items for each user, once of all items and once of those
that do not stand in the user's history; metrics are computed here, for all alike: a target that is not among the ten
counts 0. Intervals (95 %) are of a bootstrap over users, and so are the paired differences to the side --reference.

What is there is not done again: OUT/DATA-SET/SIDE.json. Data sets that are absent and libraries that are not installed
are skipped. --tiny runs on made-up users, where the numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from next_item_data import DATA_SETS, TINY, DataSet, exported, write_tiny
from next_item_job import TOP
from peers.install import HOME, missing, python_of
from sides import FOLDER, SPIN

from peterrec import PretrainConfig
from peterrec.evaluation.intervals import Estimate, Interval, Resamples, bootstrap, paired_difference
from peterrec.evaluation.metrics import hit_rate, mrr, ndcg

WORKERS = {
    "ours": FOLDER / "next_item_ours.py",
    "floors": FOLDER / "next_item_floors.py",
    "rectools": FOLDER / "peers" / "rectools_next_item.py",
    "recbole": FOLDER / "peers" / "recbole_next_item.py",
}
PEERS = ("rectools", "recbole")
METRICS = {"HR@10": hit_rate, "NDCG@10": ndcg, "MRR@10": mrr}
RANKINGS = {"all_items": "items of the history left in", "unseen_items": "items of the history left out"}
COMPARED = "NDCG@10"
TRAINING = ("trained (s)", "epochs", "stopped by", "parameters", "notes")
RESAMPLES = 2_000
Tree = dict[str, Any]


def main() -> None:
    options = _options()
    sides = read_sides(options)
    chosen = options.sides or list(sides)
    data_sets = TINY if options.tiny else DATA_SETS
    unknown = {*chosen} - {*sides} | {*(options.datasets or ())} - {*data_sets}
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; sides: {', '.join(sides)}; {', '.join(data_sets)}")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.tiny:
        options.data = options.out / "tiny-data"
        write_tiny(options.data)
    print(head(options))
    for name in options.datasets or data_sets:
        reason = exported(data_sets[name], options.data, options.out / name, options.users)
        if reason is not None:
            print(f"\n{name}: skipped, {reason}", flush=True)
            continue
        results = dict(run_sides(name, data_sets[name], {side: sides[side] for side in chosen}, options))
        for line in report(name, options.out / name / "data", results, options.reference):
            print(line, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = partial(str.split, sep=",")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder of the data sets, before runs/data"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/next-item"), help="folder of exports and results")
    parser.add_argument("--peers", type=Path, default=HOME, help="folder of the libraries' virtual environments")
    parser.add_argument("--datasets", type=names, help=f"with commas between; all of {', '.join(DATA_SETS)} by default")
    parser.add_argument("--sides", type=names, help="with commas between; all of next_item.yaml by default")
    parser.add_argument("--variants", type=Path, help="YAML or JSON: NAME: settings of pretrain; adds sides ours-NAME")
    parser.add_argument("--reference", default="ours-causal", help="side that the differences are to")
    parser.add_argument("--budget", type=float, help="seconds of training of each side, 300 by default")
    parser.add_argument("--users", type=int, default=3_000, help="asked about, at most, evenly over all")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each side; sides run one by one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="made-up users and two seconds of training")
    options = parser.parse_args()
    if options.budget is None:
        options.budget = 2.0 if options.tiny else 300.0
    options.out, options.peers = options.out.resolve(), options.peers.resolve()
    return options


def read_sides(options: argparse.Namespace) -> dict[str, Tree]:
    """Return the sides by name: `worker`, `model`, `settings`, and settings by the kind of data."""
    sides: dict[str, Tree] = yaml.safe_load((FOLDER / "next_item.yaml").read_text())
    if options.variants is not None:
        for name, settings in yaml.safe_load(options.variants.read_text()).items():
            sides[f"ours-{name}"] = {"worker": "ours", "model": "ours", "settings": settings or {}}
    return sides


def run_sides(
    data_set: str, source: DataSet, sides: Mapping[str, Tree], options: argparse.Namespace
) -> Iterator[tuple[str, Tree | str]]:
    """Yield each side's result, or why it has none; runs what has none yet."""
    folder = options.out / data_set
    fingerprint = json.loads((folder / "data" / "meta.json").read_text())["fingerprint"]
    for name, side in sides.items():
        identity = identity_of(side, source.kind, fingerprint, options)
        path = folder / f"{name}.json"
        if not path.exists():
            reason = missing(side["worker"], options.peers) if side["worker"] in PEERS else None
            failure = f"skipped, {reason}" if reason is not None else run(name, side, identity, path, options)
            if failure is not None:
                yield name, failure
                continue
        result: Tree = json.loads(path.read_text())
        if result["identity"] != identity:
            names = sorted(key for key in identity if result["identity"].get(key) != identity[key])
            raise SystemExit(f"{path} is of other {', '.join(names)}: remove it, or take another --out")
        check(name, result, folder / "data")
        yield name, result


def identity_of(side: Tree, kind: str, fingerprint: str, options: argparse.Namespace) -> Tree:
    """Return all that a result depends on; of our sides with every default, for these may change."""
    settings = side["settings"] | side.get(kind, {})
    free_epochs = side["worker"] == "ours" and "epochs" not in settings
    if side["worker"] == "ours":
        settings = {"runner": {"progress": False}} | settings
        settings = PretrainConfig.model_validate(settings).model_dump(mode="json")
    return {
        "model": side["model"], "settings": settings, "free_epochs": free_epochs, "budget": options.budget,
        "threads": options.threads, "seed": options.seed, "data": fingerprint,
    }  # fmt: skip


def run(name: str, side: Tree, identity: Tree, out: Path, options: argparse.Namespace) -> str | None:
    """Run a side in its own process, its output in OUT/DATA-SET/SIDE.log; return why it failed, or None."""
    print(f"running {out.parent.name} {name}", file=sys.stderr, flush=True)
    keys = ("model", "settings", "free_epochs", "budget", "seed")
    job = {key: identity[key] for key in keys} | {"identity": identity, "out": str(out)}
    job["data"] = str(out.parent / "data")
    python = str(python_of(side["worker"], options.peers)) if side["worker"] in PEERS else sys.executable
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(options.threads))
    ours = os.environ.get("PYTHONPATH", "").split(os.pathsep) if side["worker"] not in PEERS else []
    places = [str(FOLDER), *(str(Path(place).resolve()) for place in ours if place)]
    env = os.environ | SPIN | counts | {"PYTHONPATH": os.pathsep.join(places)}
    log = out.with_suffix(".log")
    with tempfile.TemporaryDirectory() as folder, log.open("w") as file:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job))
        command = [python, str(WORKERS[side["worker"]]), str(path)]
        process = subprocess.run(command, env=env, cwd=folder, stdout=file, stderr=subprocess.STDOUT, check=False)
    if process.returncode == 0 and out.exists():
        return None
    lines = log.read_text().strip().splitlines() or [f"status {process.returncode}"]
    return f"failed: {lines[-1]} (see {log.name})"


def check(name: str, result: Tree, data: Path) -> None:
    """Refuse answers that do not answer what was asked.

    Raises:
        SystemExit: other items than the catalogue's, those of a history, one twice, or another number of answers.
    """
    histories, catalogue = (json.loads((data / file).read_text()) for file in ("questions.json", "catalogue.json"))
    candidates = set(catalogue)
    for ranking in RANKINGS:
        for items, history in zip(result[ranking], histories, strict=True):
            excluded = set(history) if ranking == "unseen_items" else set()
            valid = set(items) <= candidates and not set(items) & excluded
            if len(items) > TOP or len(set(items)) < len(items) or not valid:
                raise SystemExit(f"{name} answers {items}: not {TOP} different items that were asked for")


def ranks(ranking: Sequence[Sequence[str]], targets: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the place of each target in its list of ten, from 1; infinity where it is not in it."""
    places = np.full(len(targets), np.inf)
    for row, (items, target) in enumerate(zip(ranking, targets, strict=True)):
        if target in items:
            places[row] = items.index(target) + 1
    return places


def estimates(results: Mapping[str, Tree], ranking: str, targets: Sequence[str]) -> dict[tuple[str, str], Estimate]:
    """Return each side's metrics on the same resamples of users, by side and metric."""
    statistics = {}
    for name, result in results.items():
        places = ranks(result[ranking], targets)
        for metric, gain in METRICS.items():
            statistics[name, metric] = partial(_weighted_mean, gain(places, TOP))
    return bootstrap(statistics, Resamples(len(targets), RESAMPLES, seed=0))


def _weighted_mean(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(weights @ values / weights.sum(axis=1))


def report(data_set: str, data: Path, results: Mapping[str, Tree | str], reference: str) -> Iterator[str]:
    """Yield the lines of the tables of a data set."""
    targets = json.loads((data / "targets.json").read_text())
    meta = json.loads((data / "meta.json").read_text())
    answers = {name: result for name, result in results.items() if not isinstance(result, str)}
    yield f"\n## {data_set}: {meta['users']:,} users of training, {len(targets):,} users asked about"
    for ranking, title in RANKINGS.items() if answers else ():
        by_side = estimates(answers, ranking, targets)
        columns = [*METRICS, f"{COMPARED} minus {reference}", *TRAINING]
        yield f"\n{title}\n"
        yield f"| side | {' | '.join(columns)} |"
        yield "|---" * (len(columns) + 1) + "|"
        for name, result in answers.items():
            cells = [_cell(by_side[name, metric].interval()) for metric in METRICS]
            if reference in answers and name != reference:
                cells.append(_cell(paired_difference(by_side[name, COMPARED], by_side[reference, COMPARED]), "+.4f"))
            else:
                cells.append("")
            cells += [f"{result['seconds']:,.0f}", f"{result['epochs']:.1f}", result["stopped_by"]]
            cells += [f"{result['parameters']:,}", result["notes"]]
            yield f"| {name} | {' | '.join(cells)} |"
    for name, result in results.items():
        if isinstance(result, str):
            yield f"\n{data_set} {name}: {result}"


def _cell(interval: Interval, form: str = ".4f") -> str:
    return f"{interval.value:{form}} ({interval.low:{form}} .. {interval.high:{form}})"


def head(options: argparse.Namespace) -> str:
    info = Path("/proc/cpuinfo")
    models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    machine = models[0] if models else platform.machine()
    return (
        f"{date.today()}, {machine}, {options.threads} threads, {options.budget:g} s of training for each side, "
        f"seed {options.seed}"
    )


if __name__ == "__main__":
    main()
