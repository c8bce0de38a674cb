"""The data sets of `next_item.py`: each prepared once by peterrec, and exported for all sides.

A folder has `events.csv` (user_id, item_id, order, part: train or valid; `prepare` made the order, which has no ties),
`questions.json` (of each user who is asked about: the items before the target, oldest first), `targets.json` (the
target of each, which no side reads), `catalogue.json` (the items of the train events, which all sides rank) and
`meta.json`. Ids are texts. All events of a user count, where `prepare` by default keeps the last 200: published numbers
are of all.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import peterrec
from peterrec.data.splits import uniform

HELD_OUT = 0.1  # of the users, where these are split
SALT = "next-item benchmark"
LONGEST = 1_000_000  # events of a user: all of them, for every side


@dataclass(frozen=True)
class DataSet:
    """A log and how it is split.

    Attributes:
        folder: in the folder of `--data`.
        split: leave-one-out: of each user the last event is the target and the one before it is for validation; users:
            a tenth of them, by a hash, is not in training, and the target is the last event of these.
        kind: `movies` or `shop`, for which the sides have settings.
        events: further settings of `prepare`'s events.
        source: further settings of `prepare`'s source.
        missing: how to get it, where anybody can.
    """

    folder: str
    split: Literal["leave-one-out", "users"]
    kind: str
    events: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    missing: str = ""


KITCHEN: dict[str, Any] = {"events": {"domain": "domain"}, "source": {"domains": ["kitchen"]}}
FETCHED = Path("runs/data")  # where `peterrec fetch` puts what anybody can get
DATA_SETS = {
    "ml-1m-loo": DataSet("ml-1m", "leave-one-out", "movies", missing=": peterrec fetch ml-1m"),
    "ml-1m-users": DataSet("ml-1m", "users", "movies", missing=": peterrec fetch ml-1m"),
    "kitchen-loo": DataSet("amazon-kitchen-food", "leave-one-out", "shop", **KITCHEN),
    "ta-feng-loo": DataSet("ta-feng", "leave-one-out", "shop", missing=": peterrec fetch ta-feng"),
}
TINY = {
    "made-up-loo": DataSet("made-up", "leave-one-out", "movies"),
    "made-up-users": DataSet("made-up", "users", "shop"),
}


def write_tiny(data: Path, users: int = 400, items: int = 60, length: int = 20) -> None:
    """Write the log of `TINY`: after an item comes mostly the next number, so that what is learned shows."""
    rng = np.random.default_rng(0)
    steps = np.where(rng.random((users, length)) < 0.8, 1, rng.integers(1, items, (users, length)))
    table = {
        "user_id": np.repeat(np.arange(users), length),
        "item_id": (steps.cumsum(axis=1) + rng.integers(0, items, (users, 1))).ravel() % items,
        "timestamp": np.tile(np.arange(length), users),
    }
    (data / "made-up").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), data / "made-up" / "events.parquet")


def exported(data_set: DataSet, data: Path, out: Path, users: int) -> str | None:
    """Export a data set to `out / "data"` unless it is there; return why that is not possible, or None.

    Raises:
        SystemExit: what is there has another number of users.
    """
    folder, tables = out / "data", [place / data_set.folder / "events.parquet" for place in (data, FETCHED)]
    if (folder / "meta.json").exists():
        if json.loads((folder / "meta.json").read_text())["most_questions"] != users:
            raise SystemExit(f"{folder} was made with another --users: remove it, or take another --out")
        return None
    log = next((table for table in tables if table.exists()), None)
    if log is None:
        return f"there is no {data_set.folder}/events.parquet in the folder of --data{data_set.missing}"
    corpus = _corpus(data_set, log, out.parent / "corpora" / data_set.folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, corpus, data_set.split, users)
    return None


def _corpus(data_set: DataSet, log: Path, folder: Path) -> peterrec.Corpus:
    if folder.exists():
        return peterrec.Corpus.open(folder)
    tree = {
        "events": {"paths": [str(log)]} | data_set.events,
        # Two events beside the target: one to learn from, one to validate on.
        "source": {"min_item_events": 1, "min_user_events": 3, "max_history": LONGEST} | data_set.source,
    }
    return peterrec.prepare(peterrec.PrepareConfig.model_validate(tree), folder)


def _write(folder: Path, corpus: peterrec.Corpus, split: str, users: int) -> None:
    user_ids = pq.read_table(corpus.path / "sequences", columns=["user_id"])["user_id"].to_pylist()
    ids = np.array([str(item) for item in corpus.catalogue.ids.to_pylist()], dtype=object)
    sequences, first = corpus.sequences, corpus.catalogue.first
    held_out = uniform(corpus.user_hashes, SALT) < HELD_OUT if split == "users" else np.zeros(len(user_ids), dtype=bool)
    questions = np.flatnonzero(held_out) if split == "users" else np.arange(len(user_ids))
    questions = questions[np.unique(np.linspace(0, len(questions) - 1, min(users, len(questions))).astype(int))]
    target_events = 0 if split == "users" else 1  # of users of training

    def training_events() -> Iterator[tuple[str, str, int, str]]:
        for row in np.flatnonzero(~held_out):
            items = ids[sequences[int(row)] - first]
            last = len(items) - target_events - 1
            for order, item in enumerate(items[: last + 1]):
                yield user_ids[row], item, order, "valid" if order == last else "train"

    events = list(training_events())
    with (folder / "events.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("user_id", "item_id", "order", "part"), *events])
    catalogue = sorted({item for _, item, _, part in events if part == "train"})
    (folder / "catalogue.json").write_text(json.dumps(catalogue))
    sampled = [ids[sequences[int(row)] - first].tolist() for row in questions]
    (folder / "questions.json").write_text(json.dumps([items[:-1] for items in sampled]))
    (folder / "targets.json").write_text(json.dumps([items[-1] for items in sampled]))
    digest = hashlib.sha256()
    for name in ("events.csv", "questions.json", "targets.json"):
        digest.update((folder / name).read_bytes())
    meta = {
        "most_questions": users, "questions": len(sampled), "users": int((~held_out).sum()),
        "fingerprint": digest.hexdigest(),
    }  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(meta))  # last: what has it is whole
