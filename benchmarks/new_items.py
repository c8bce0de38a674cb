"""Items that came after pre-training: a backbone that grew beside one that was trained again from nothing.

    python benchmarks/new_items.py --out runs/new-items

A tenth of the items, by a hash of their ids, are new: the first backbone never saw their events. Then it grows by all
events, with and without training; others are trained again on all of them. A tenth of the users are in no training;
asked for is the last event of each, after the ones before: among all items, and new ones among new ones alone.
Another (`continued`) is the first one trained further on all events, for as many epochs at most.
Where there is a table of items, others learn what it says of them, and grow by that.
`--seeds` draws other items and other weights. What is there is not done again. --tiny runs on made-up users.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

import peterrec
from peterrec import EventsConfig, PrepareConfig, PretrainConfig, SourceConfig, UserModel
from peterrec.data.arrow_arrays import single_array
from peterrec.data.batching import inference_batches
from peterrec.data.catalogue import Catalogue
from peterrec.data.hashing import id_hash
from peterrec.data.splits import uniform
from peterrec.data.synthetic import synthetic

TENTH = 0.1
K = 10
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """What one seed is asked: histories of users and the item after each, which is new or was there.

    Attributes:
        folder: of its files.
        items: titles of items and what else is said of them, if there is a table.
        histories: item ids, oldest first.
        targets: the next item of each.
        is_new: whether that is a new one.
    """

    folder: Path
    items: pa.Table | None
    histories: list[list[str]]
    targets: list[str]
    is_new: npt.NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/amazon-kitchen-food/events.parquet"))
    parser.add_argument("--domain", default="kitchen", help="of the events; empty: all of them")
    parser.add_argument("--items", type=Path, help="table of them; items.parquet beside the events, if not given")
    parser.add_argument("--out", type=Path, default=Path("runs/new-items"))
    parser.add_argument("--epochs", type=int, default=6, help="of pre-training, at most")
    parser.add_argument("--users", type=float, default=1.0, help="share of the users, by a hash of their ids")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    print(f"{date.today()}, torch {torch.__version__}, {torch.get_num_threads()} threads, {options.epochs} epochs")
    if not options.tiny and not options.data.is_file():
        raise SystemExit(f"skipped: {options.data} is not there")
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        events = synthetic(users=400).events if options.tiny else pq.read_table(options.data)
        domain = "source" if options.tiny else options.domain
        items = options.items or options.data.with_name("items.parquet")
        titles = pq.read_table(items) if items.is_file() and not options.tiny else None
        events = events.filter(pc.equal(events["domain"], domain)) if domain else events
        users = id_hash(pc.cast(events["user_id"], pa.string()).to_pylist())
        events = events.filter(pa.array(uniform(users, "new-items-share") < options.users))
        case = make_case(events, titles, options.out / f"seed-{seed}", seed)
        report(case, methods(case, seed, options.epochs))


def make_case(events: pa.Table, titles: pa.Table | None, folder: Path, seed: int) -> Case:
    """Write the events of before and of later, without test users, and return what these are asked."""
    folder.mkdir(parents=True, exist_ok=True)
    items, users = (pc.cast(events[name], pa.string()) for name in ("item_id", "user_id"))
    events = events.set_column(events.schema.get_field_index("item_id"), "item_id", items)
    is_new = uniform(id_hash(items.to_pylist()), f"new-items-{seed}") < TENTH
    is_test = uniform(id_hash(users.to_pylist()), f"new-items-users-{seed}") < TENTH
    pq.write_table(events.filter(pa.array(~is_test & ~is_new)), folder / "before.parquet")
    pq.write_table(events.filter(pa.array(~is_test)), folder / "later.parquet")
    test = events.filter(pa.array(is_test)).sort_by([("user_id", "ascending"), ("timestamp", "ascending")])
    rows = test.group_by("user_id", use_threads=False).aggregate([("item_id", "list")])["item_id_list"].to_pylist()
    new = set(np.array(items.to_pylist(), dtype=object)[is_new].tolist())
    rows = [row for row in rows if len(row) > 1]
    targets = [row[-1] for row in rows]
    if titles is not None:
        titles = titles.select([name for name in titles.column_names if name not in ("asin", "domain")])
        titles = titles.filter(pc.is_in(titles["item_id"].cast(pa.string()), single_array(items)))
    return Case(folder, titles, [row[:-1] for row in rows], targets, np.array([target in new for target in targets]))


def methods(case: Case, seed: int, epochs: int) -> dict[str, tuple[UserModel, float]]:
    """Return the models with the seconds that each took, the preparation of events not counted."""
    settings = PretrainConfig(epochs=epochs, seed=seed, contrastive={"weight": 0})  # next items are what is asked
    before, anew = prepared(case.folder, "before"), prepared(case.folder, "later")
    tables = {"": None} | ({} if case.items is None else {", content": case.items})
    models: dict[str, tuple[UserModel, float]] = {}
    for end, items in tables.items():
        for name, corpus in (("before", before), ("from nothing", anew)):
            models[name + end] = timed(
                case.folder / (name + end),
                lambda out, corpus=corpus, items=items: peterrec.pretrain(corpus, out, settings, items=items),
            )
    later = prepared(case.folder, "later", case.folder / "before")
    for name, (start, log, table, epochs_at_most) in growths(later, case.items).items():
        run = {"items": table, "epochs": epochs_at_most, "seed": seed}
        models[name] = timed(
            case.folder / name,
            lambda out, start=models[start][0], log=log, run=run: peterrec.grow(start, log, out, **run),
        )
    start = models["before"][0]
    models["continued"] = timed(
        case.folder / "continued", lambda out: peterrec.pretrain(later, out, settings, initial=start)
    )
    return models


def growths(later: Path, items: pa.Table | None) -> dict[str, tuple[str, Path | None, pa.Table | None, int]]:
    """Return ways to grow: from which backbone, by which corpus and table of items, and epochs at most."""
    trained = peterrec.GrowConfig().epochs
    ways: dict[str, tuple[str, Path | None, pa.Table | None, int]] = {
        "grown, predicted": ("before", later, None, 0),
        "grown, trained": ("before", later, None, trained),
    }
    if items is not None:
        for name, start in (("content", "before"), ("learned content", "before, content")):
            ways |= {
                f"{name} alone": (start, None, items, 0),
                f"{name}, predicted": (start, later, items, 0),
                f"{name}, trained": (start, later, items, trained),
            }
    return ways


def prepared(folder: Path, name: str, catalogue: Path | None = None) -> Path:
    out = folder / f"corpus-{name}{'' if catalogue is None else '-extended'}"
    if not out.exists():
        extended = {} if catalogue is None else {"catalogue": str(catalogue), "extend_catalogue": True}
        events = EventsConfig(paths=(str(folder / f"{name}.parquet"),))
        peterrec.prepare(PrepareConfig(events=events, source=SourceConfig(min_item_events=3), **extended), out)
    return out


def timed(out: Path, make: Callable[[Path], UserModel]) -> tuple[UserModel, float]:
    seconds = out.with_name(f"{out.name}.seconds")
    if not out.exists():
        start = time.perf_counter()
        make(out)
        seconds.write_text(f"{time.perf_counter() - start:.1f}")
    return UserModel.from_pretrained(out), float(seconds.read_text())


def report(case: Case, models: dict[str, tuple[UserModel, float]]) -> None:
    """Print a table: rows are the models, columns what is asked."""
    catalogue, old = models["grown, trained"][0].catalogue, len(models["before"][0].catalogue)
    places = np.array(catalogue.find(case.targets)) - catalogue.first
    scored = places >= 0
    columns = {
        "old items": (scored & ~case.is_new, 0),
        "new items": (scored & case.is_new, 0),
        "new among new": (scored & case.is_new, old),
    }
    print(f"\n{case.folder}: {old:,} items before, {len(catalogue) - old:,} new")
    print(
        f"{f'HR@{K}':26} {'seconds':>8} "
        + " ".join(f"{f'{name} ({rows.sum():,})':>24}" for name, (rows, _) in columns.items())
    )
    popular = np.tile(catalogue.counts.astype(np.float32), (len(places), 1))
    tables = {"popularity": (popular, 0.0)}
    tables |= {name: (scores(model, case, catalogue), seconds) for name, (model, seconds) in models.items()}
    if case.items is not None:
        tables["titles, nearest"] = (title_scores(case, catalogue), 0.0)
    for name, (values, seconds) in tables.items():
        cells = [hit_rate(values[rows][:, first:], places[rows] - first) for rows, first in columns.values()]
        print(f"{name:26} {seconds:8.0f} " + " ".join(f"{cell:>24}" for cell in cells))


def scores(model: UserModel, case: Case, catalogue: Catalogue) -> Scores:
    """Return what the model says of every item of a catalogue after each history; minus infinity of unknown ones."""
    tokens = model.encode(case.histories, require_known=False).sequences
    known_scores = np.empty((len(tokens), len(model.catalogue)), dtype=np.float32)
    weight, bias = model.network.output_table()
    with torch.inference_mode():
        for rows, batch in inference_batches(tokens, 256, model.pretrained.max_length):
            known_scores[rows] = (model.network.represent(torch.from_numpy(batch)) @ weight.T + bias).numpy()
    values = np.full((len(tokens), len(catalogue)), -np.inf, dtype=np.float32)
    places = np.array(catalogue.find(model.catalogue.ids.to_pylist())) - catalogue.first
    values[:, places[places >= 0]] = known_scores[:, places >= 0]
    return values


def title_scores(case: Case, catalogue: Catalogue) -> Scores:
    """Return the cosine of the TF-IDF row of every item's title and the mean row of a history's."""
    assert case.items is not None
    ids = case.items["item_id"].cast(pa.string()).to_pylist()
    titles = dict(zip(ids, case.items["title"].to_pylist(), strict=True))
    texts = [titles.get(str(item)) or "" for item in catalogue.ids.to_pylist()]
    rows = normalize(TfidfVectorizer(sublinear_tf=True).fit_transform(texts))
    indices = [np.array(catalogue.find(history), dtype=np.int64) - catalogue.first for history in case.histories]
    users, places = np.repeat(np.arange(len(indices)), [len(row) for row in indices]), np.concatenate(indices)
    is_known = places >= 0
    bag = csr_matrix(
        (np.ones(is_known.sum()), (users[is_known], places[is_known])), shape=(len(indices), len(catalogue))
    )
    return np.asarray(((bag @ rows) @ rows.T).toarray(), dtype=np.float32)


def hit_rate(values: Scores, targets: npt.NDArray[np.int64]) -> str:
    """Return the share of targets among the first K of their rows, with half the width of its 95 % interval."""
    target_scores = values[np.arange(len(targets)), targets][:, None]
    ties = (values == target_scores).sum(axis=1) - 1  # at their expected place
    hits = ((values > target_scores).sum(axis=1) + ties / 2 < K) & np.isfinite(target_scores[:, 0])
    return f"{hits.mean():.4f} +- {1.96 * hits.std() / len(hits) ** 0.5:.4f}"


if __name__ == "__main__":
    main()
