"""The list that `evaluate` judges is the list that `recommend` and the engine show, however long histories are."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asking.logs import write_models
from data.prepare.logs import prepare_log, write_csv
from peterrec.config import EvaluateConfig
from peterrec.data.corpus import Corpus
from peterrec.evaluation.bundles import evaluate
from peterrec.evaluation.matching import comparable
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.files import recommend
from peterrec.serving.requests import Question
from peterrec.serving.store.base import Event
from peterrec.serving.store.sqlite import SqliteStore
from peterrec.serving.users import Users

HEADER = ("user_id", "item_id", "timestamp", "domain")
TASK = {"name": "later", "kind": "ranking", "after": "30", "min_item_events": 1}


def rows(repeats: bool) -> list[tuple[Any, ...]]:
    """60 items; 30 events before time 30 and 4 after; nobody comes back to an item unless `repeats`."""
    dice, log = random.Random(0), []
    for user in range(80):
        items = [dice.randrange(60) for _ in range(34)] if repeats else dice.sample(range(60), 34)
        log += [(f"u{user}", f"i{item}", time, "shop") for time, item in enumerate(items)]
        log += [(f"u{user}", f"i{dice.randrange(60)}", 5, "noise")]
    return log


@dataclass(frozen=True)
class Prepared:
    """A log, its corpus, and a model with a bundle of its task."""

    log: list[tuple[Any, ...]]
    log_path: Path
    corpus: Corpus
    model: UserModel
    bundle: Path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Prepared]:
    """By whether users come back to items."""
    return {repeats: prepare_models(tmp_path_factory.mktemp("log"), repeats) for repeats in (False, True)}


def prepare_models(folder: Path, repeats: bool) -> Prepared:
    log = rows(repeats)
    source = {"before": "30", "max_history": 5, "exclude_domains": ["noise"], "min_item_events": 1}
    path = write_csv(folder / "log.csv", log, HEADER)
    corpus = prepare_log(path, folder / "corpus", events={"domain": "domain"}, source=source, tasks=[TASK])
    backbone, bundles = write_models(folder, corpus)
    model = UserModel.from_pretrained(backbone)
    model.load_bundle(bundles["later"])
    return Prepared(log, path, corpus, model, bundles["later"])


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("repeats", [False, True])
def test_the_metric_is_that_of_the_list(repeats: bool, prepared: dict[bool, Prepared]) -> None:
    case = prepared[repeats]
    task = case.corpus.task("later")
    assert task.exclude_seen is not repeats
    config = EvaluateConfig(baselines=False, bootstrap=10)
    metrics = evaluate(case.model, case.corpus, {"x": case.bundle}, config=config).methods[0].values
    table = recommend(case.model, case.bundle, str(case.log_path), k=60)
    lists: dict[str, list[str]] = {}
    for user, item in zip(table["user"].to_pylist(), table["item"].to_pylist(), strict=True):
        lists.setdefault(user, []).append(item)
    test, hits, total = task.part("test"), 0, 0
    assert test.targets is not None
    assert task.targets is not None
    for row, user in enumerate(test.user_ids.to_pylist()):
        targets = set(task.targets.decode(test.targets[row].astype(np.int64)))
        for target in targets:
            shown = [item for item in lists[user] if item == target or item not in targets]
            hits += target in shown[:5]
            total += 1
    assert metrics["hr@5"].value == pytest.approx(hits / total)


def test_the_service_leaves_out_what_the_offline_verb_leaves_out(
    tmp_path: Path, prepared: dict[bool, Prepared]
) -> None:
    case = prepared[False]
    offline = recommend(case.model, case.bundle, str(case.log_path), k=5)
    wanted: dict[str, list[str]] = {}
    for user, item in zip(offline["user"].to_pylist(), offline["item"].to_pylist(), strict=True):
        wanted.setdefault(user, []).append(item)
    users = Users(Engine(case.model), SqliteStore(tmp_path / "events.sqlite", 100))
    users.append(
        [Event(user, str(n), item, float(time), domain) for n, (user, item, time, domain) in enumerate(case.log)]
    )
    names = list(wanted)[:20]
    answers = users.run([users.prepare(user, Question(["later"], k=5)) for user in names])
    assert [answer.tasks["later"].items for answer in answers] == [wanted[user] for user in names]  # type: ignore[union-attr]


def test_a_task_has_the_rule_of_the_bundles_that_are_judged(prepared: dict[bool, Prepared]) -> None:
    corpus = prepared[False].corpus
    bundle, task = prepared[False].model.bundle("later"), corpus.task("later")
    assert comparable(corpus, task, [replace(bundle, exclude_seen=False)], {})[0].exclude_seen is False
    shared_task, notes = comparable(corpus, task, [bundle, replace(bundle, exclude_seen=False)], {})
    assert shared_task.exclude_seen is True
    assert "do not agree" in notes[0]
