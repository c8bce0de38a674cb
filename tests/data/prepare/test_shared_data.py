"""Real logs, where they are: what `prepare` counts is what pyarrow counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data.prepare.logs import assert_account_adds_up, sequences_of, train_and_valid
from data.prepare.oracle import tie_of
from peterrec.config import PrepareConfig, build_config
from peterrec.data.corpus import Corpus
from peterrec.data.prepare import prepare

pytestmark = [pytest.mark.shared, pytest.mark.slow]


def corpus_of(out: Path, events: dict[str, Any], **values: Any) -> Corpus:
    return prepare(build_config(PrepareConfig, {"events": events} | values), out)


def frequent(table: pa.Table, least: int) -> pa.Table:
    counts = table.group_by("item_id").aggregate([("item_id", "count")])
    items = counts.filter(pc.greater_equal(counts["item_id_count"], least))["item_id"]
    return table.filter(pc.is_in(table["item_id"], items.combine_chunks()))


def test_movielens(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "ml-1m"
    labels = {name: {"path": str(folder / "users.parquet"), "label": name} for name in ("gender", "age", "occupation")}
    tasks = [{"kind": "classification", "name": name, "labels": one} for name, one in labels.items()]
    corpus = corpus_of(tmp_path / "out", {"paths": [str(folder / "events.parquet")]}, tasks=tasks)
    assert_account_adds_up(corpus)
    kept = frequent(pq.read_table(folder / "events.parquet"), 5)
    lengths = Counter(kept["user_id"].to_pylist())
    assert corpus.manifest["items"] == len(pc.unique(kept["item_id"]))
    assert corpus.manifest["users"] == len(lengths) == 6040
    assert corpus.manifest["events"] == sum(min(length, 200) for length in lengths.values())
    users, items, times = (kept[name].to_pylist() for name in ("user_id", "item_id", "timestamp"))
    found = sequences_of(corpus)
    for user in (1, 777, 4169, 6040):
        rows = [row for row, of in enumerate(users) if of == user]
        rows.sort(key=lambda row: (times[row], tie_of(str(users[row]), times[row], items[row])))
        assert corpus.catalogue.decode(np.array(found[str(user)])) == [items[row] for row in rows][-200:]
    assert corpus.manifest["ties"]["fraction"] == pytest.approx(0.77, abs=0.01)
    table = pq.read_table(folder / "users.parquet")
    for name in labels:
        classes = corpus.task(name).class_names
        assert list(classes) == [str(value) for value in sorted(pc.unique(table[name]).to_pylist())]
        wanted = dict(zip(map(str, table["user_id"].to_pylist()), map(str, table[name].to_pylist()), strict=True))
        parts = train_and_valid(corpus, name)
        assert {user: classes[label] for part in parts.values() for user, (_, label) in part.items()} == wanted
        assert len(parts["train"]) / 6040 == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(
    ("name", "source", "target", "least"), [("kitchen-food", "kitchen", "food", 5), ("toy-game", "toy", "game", 2)]
)
def test_amazon(shared: Path, tmp_path: Path, name: str, source: str, target: str, least: int) -> None:
    path = shared / "data" / f"amazon-{name}" / "events.parquet"
    corpus = corpus_of(
        tmp_path / "out",
        {"paths": [str(path)], "domain": "domain"},
        source={"exclude_domains": [target], "min_item_events": least},
        tasks=[{"kind": "ranking", "name": target, "domains": [target]}],
    )
    assert_account_adds_up(corpus)
    table = pq.read_table(path)
    kept = frequent(table.filter(pc.equal(table["domain"], source)), least)
    assert corpus.manifest["steps"][-2]["events"] == len(kept)
    assert corpus.manifest["users"] == len(pc.unique(kept["user_id"]))
    known = table.filter(
        pc.and_(pc.equal(table["domain"], target), pc.is_in(table["user_id"], kept["user_id"].combine_chunks()))
    )
    pairs = set(zip(known["user_id"].to_pylist(), known["item_id"].to_pylist(), strict=True))
    users_of = Counter(item for _, item in pairs)
    good = {item for item, users in users_of.items() if users >= 5}
    task = corpus.manifest["tasks"][0]
    assert task["targets"] == len(good)
    assert task["pairs"] == sum(item in good for _, item in pairs)
    assert sum(task["users"].values()) == len({user for user, item in pairs if item in good})
