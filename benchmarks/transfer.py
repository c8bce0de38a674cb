"""Entries of ours in the transfer benchmark (docs/benchmark.md): a patch and a head, beside what is cheap.

    peterrec fetch ml-1m && python benchmarks/transfer.py

Rivals are pipelines of scikit-learn over the benchmark's own files: class shares; TF-IDF and logistic regression; 64
factors of TF-IDF, of the whole histories of train users, and logistic regression. Their C is chosen by the log-loss of
the valid users. Next items: popularity among train users. What was made in --work is not made again.

In the tables, a rival of our first column is marked where it is clearly better (+) or clearly worse (-) by the first
metric: Holm's p below 0.05 over all pairs of the row.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline

import peterrec

SPLIT = {"train": 0.65, "valid": 0.08, "test": 0.27, "salt": "peterrec-benchmark-1"}
QUIET = {"progress": False}
REGULARISATIONS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
SHOWN = {"classification": ("log_loss", "accuracy"), "ranking": ("ndcg@10", "hr@10")}
Users = dict[Any, list[str]]


def main() -> None:
    """Build, enter and score; print the tables."""
    peterrec.tune_process()
    options = _options()
    bench, work = options.work / "bench", options.work
    if not bench.exists():
        peterrec.build_benchmark(bench, options.data)
    tasks = json.loads((bench / "benchmark.json").read_text())["tasks"]
    tasks = [task for task in tasks if not options.only or options.only in task["name"]]
    backbone = _pretrained(bench, work)
    for task in tasks:
        scores = work / "scores" / task["name"]
        scores.mkdir(parents=True, exist_ok=True)
        enter = _enter_classes if task["kind"] == "classification" else _enter_items
        enter(bench, task, backbone, scores)
        print(task["name"], flush=True)
    lines = _heading(bench)
    for kind, metrics in SHOWN.items():
        lines += _table(bench, work, [task for task in tasks if task["kind"] == kind], metrics)
    text = "\n".join(lines)
    (work / "transfer.md").write_text(text + "\n")
    print(text)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/ml-1m"), help="folder that `fetch ml-1m` wrote")
    parser.add_argument("--work", type=Path, default=Path("runs/transfer"), help="folder of all that is made")
    parser.add_argument("--only", default="", help="a part of the names of tasks")
    return parser.parse_args()


def _pretrained(bench: Path, work: Path) -> Path:
    if not (work / "backbone").exists():
        corpus = _corpus(bench, work / "corpus", "gender", 100, 5)
        peterrec.pretrain(corpus, work / "backbone", runner=QUIET, resume=True)
    return work / "backbone"


def _corpus(bench: Path, out: Path, label: str, percent: int, first: int) -> peterrec.Corpus:
    if out.exists():
        return peterrec.Corpus.open(out)
    labels = {"path": str(bench / f"labels-{percent}.parquet"), "label": label}
    return peterrec.prepare(
        [bench / "events.parquet", bench / "histories" / "valid-first-20.parquet"],
        out,
        order="position",
        tasks=[{"kind": "classification", "name": label, "labels": labels, "first_events": first}],
        new_users={"parts": ["valid", "test"]},
        split=SPLIT,
    )


def _enter_classes(bench: Path, task: dict[str, Any], backbone: Path, scores: Path) -> None:
    label, percent, first = task["label"], task["label_percent"], task["first_events"]
    corpus = _corpus(bench, scores.parent.parent / "corpora" / task["name"], label, percent, first)
    for strategy in ("patch", "head"):
        if not (scores / f"{strategy}.parquet").exists():
            bundle = scores.parent.parent / "bundles" / task["name"] / strategy
            if not bundle.exists():
                peterrec.adapt(backbone, corpus, label, bundle, strategy=strategy, runner=QUIET, resume=True)
            peterrec.predict_benchmark(bench, task["name"], backbone, scores / f"{strategy}.parquet", bundle=bundle)
    labels = pq.read_table(bench / f"labels-{percent}.parquet").to_pylist()
    of_part = {
        part: {row["user_id"]: row[label] for row in labels if row["part"] == part and row[label] is not None}
        for part in ("train", "valid")
    }
    questions = _histories(bench / "histories" / f"test-first-{first}.parquet")
    cut = {part: _histories(bench / "histories" / f"{part}-first-{first}.parquet") for part in of_part}
    shares = np.asarray([list(of_part["train"].values()).count(name) for name in task["classes"]], dtype=float)
    _write(scores / "class shares.parquet", questions, task, np.tile(shares / shares.sum(), (len(questions), 1)))
    whole_histories = [" ".join(items) for items in _histories(bench / "events.parquet").values()]
    for name, features in {
        "tf-idf + logistic regression": _tfidf,
        "64 factors + logistic regression": lambda: make_pipeline(_tfidf(), TruncatedSVD(64, random_state=0)),
    }.items():
        model = _chosen(features().fit(whole_histories), cut, of_part, task["classes"])
        _write(scores / f"{name}.parquet", questions, task, model(list(questions.values())))


def _tfidf() -> TfidfVectorizer:
    return TfidfVectorizer(analyzer=str.split, sublinear_tf=True)


def _chosen(
    features: Any, read: dict[str, Users], of_part: dict[str, dict[Any, str]], classes: Sequence[str]
) -> Callable[[list[list[str]]], Any]:
    """Fit logistic regressions on the train users, and return the one whose log-loss on the valid users is lowest."""
    x = {
        part: features.transform([" ".join(read[part].get(user, [])) for user in users])
        for part, users in of_part.items()
    }
    y = {part: list(users.values()) for part, users in of_part.items()}
    models = [LogisticRegression(C=c, max_iter=2_000).fit(x["train"], y["train"]) for c in REGULARISATIONS]

    def probabilities(model: LogisticRegression, rows: Any) -> Any:
        out = np.full((rows.shape[0], len(classes)), 1e-7)  # a class that no train user has
        out[:, [classes.index(name) for name in model.classes_]] = model.predict_proba(rows)
        return out / out.sum(axis=1, keepdims=True)

    def valid_loss(model: LogisticRegression) -> float:
        in_order = probabilities(model, x["valid"])[:, np.argsort(classes)]
        return float(log_loss(y["valid"], in_order, labels=sorted(classes)))

    best = min(models, key=valid_loss)
    return lambda histories: probabilities(best, features.transform([" ".join(items) for items in histories]))


def _enter_items(bench: Path, task: dict[str, Any], backbone: Path, scores: Path) -> None:
    if not (scores / "pre-trained.parquet").exists():
        peterrec.predict_benchmark(bench, task["name"], backbone, scores / "pre-trained.parquet")
    catalogue = pq.read_table(bench / "items.parquet").sort_by(
        [("train_events", "descending"), ("item_id", "ascending")]
    )
    popular = catalogue["item_id"].to_pylist()
    questions = _histories(bench / "histories" / f"test-first-{task['first_events']}.parquet", as_text=False)
    best = [[item for item in popular[:40] if item not in set(items)][:10] for items in questions.values()]
    pq.write_table(pa.table({"user_id": list(questions), "items": best}), scores / "popularity.parquet")


def _histories(path: Path, *, as_text: bool = True) -> dict[Any, list[Any]]:
    table = pq.read_table(path, columns=["user_id", "position", "item_id"]).sort_by(
        [("user_id", "ascending"), ("position", "ascending")]
    )
    out: dict[Any, list[Any]] = {}
    for user, item in zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True):
        out.setdefault(user, []).append(str(item) if as_text else item)
    return out


def _write(path: Path, questions: Users, task: dict[str, Any], probabilities: Any) -> None:
    columns = {name: probabilities[:, place] for place, name in enumerate(task["classes"])}
    pq.write_table(pa.table({"user_id": list(questions)} | columns), path)


def _heading(bench: Path) -> list[str]:
    facts = json.loads((bench / "benchmark.json").read_text())
    return [
        f"{date.today()}, {platform.processor() or platform.machine()}, torch on a CPU, seed 0; benchmark version "
        f"{facts['version']}, fingerprint `{facts['fingerprint'][:16]}`"
    ]


def _table(bench: Path, work: Path, tasks: list[dict[str, Any]], metrics: Sequence[str]) -> list[str]:
    if not tasks:
        return []
    rows, methods = [], []
    for task in tasks:
        files = sorted((work / "scores" / task["name"]).glob("*.parquet"))
        files.sort(key=lambda file: file.stem not in ("patch", "pre-trained"))
        result = peterrec.score_benchmark(bench, task["name"], files, work / "scores" / task["name"] / "result.json")
        methods = [method.name for method in result.methods]
        values = {method.name: method.values for method in result.methods}
        marks = {name: "" for name in methods}
        for pair in result.comparisons:
            if pair.metric == metrics[0] and methods[0] in (pair.method, pair.reference):
                rival_is_method = pair.reference == methods[0]
                rival = pair.method if rival_is_method else pair.reference
                signs = {"better": "+" if rival_is_method else "-", "worse": "-" if rival_is_method else "+"}
                marks[rival] = f" ({signs[pair.verdict]})" if pair.verdict in signs else ""
        cells = [" / ".join(f"{values[name][metric].value:.4f}" for metric in metrics) for name in methods]
        rows.append([task["name"], *(cell + marks[name] for cell, name in zip(cells, methods, strict=True))])
    head = [f"{' / '.join(metrics)}", *methods]
    return ["", *("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))]


if __name__ == "__main__":
    main()
