"""Time gained by computing the trunk below the changed blocks once for each user: python benchmarks/cache.py

A classification task of generated users is adapted with every variant, with the cache and without, in turns. An epoch
is what the curve says it is: its steps, the validation at its end, and the resume point of the epoch before. Of two
epochs the second counts; the cache is filled before the first, for the linear probe that heads start from. Each variant
is trained once more before anything is counted.

The backbone has random weights, which cost the same as others.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read by torch: threads that spin slow each other down on few cores

import argparse
import json
import platform
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from peterrec.artifacts.backbone_io import PretrainedBackbone
from peterrec.config import AdaptConfig, BackboneConfig
from peterrec.data.catalogue import Catalogue
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import FIRST_ITEM
from peterrec.model import UserModel
from peterrec.nn.backbone import Backbone
from peterrec.nn.next_item import NextItemModel
from peterrec.process import tune_process
from peterrec.storage import FORMAT_VERSION
from peterrec.training.adapt import adapt

VARIANTS: dict[str, dict[str, Any]] = {
    "head": {"strategy": "head"},
    "patch.blocks=1": {"patch": {"blocks": 1}},
    "patch.blocks=2": {"patch": {"blocks": 2}},
}
CACHES = ("auto", "off")
VALID_SHARE = 0.04  # 3 of the 73 % that are trained on and validated by default
CLASSES = 10


def main() -> None:
    tune_process()  # as the command line does
    options = _options()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch {torch.__version__}"
    )
    print(f"{options.users:,} labelled users of {options.events} events, d={options.channels}, ", end="")
    print(f"8 blocks, batches of {options.batch_size}, medians of {options.rounds} rounds\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder) / "corpus", options)
        model = random_model(corpus, options)
        seconds = in_turns(model, corpus, Path(folder) / "bundle", options)
    print("| variant | an epoch without the cache (s) | with it (s) | ratio |")
    print("|---|---|---|---|")
    for variant in VARIANTS:
        without, cached = ([epoch[1] for epoch in seconds[variant, cache]] for cache in ("off", "auto"))
        ratio = median(slow / quick for slow, quick in zip(without, cached, strict=True))
        print(f"| {variant} | {median(without):.3f} | {median(cached):.4f} | {ratio:.1f} |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20_000, help="labelled, to train on and to validate")
    parser.add_argument("--events", type=int, default=50, help="of each user")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="sizes at which the numbers mean nothing")
    options = parser.parse_args()
    if options.tiny:
        options.users, options.events, options.items, options.channels, options.rounds = 200, 6, 20, 16, 1
    return options


def in_turns(
    model: UserModel, corpus: Corpus, out: Path, options: argparse.Namespace
) -> dict[tuple[str, str], list[list[float]]]:
    """Return the seconds of both epochs, of every round, by variant and cache."""
    times: dict[tuple[str, str], list[list[float]]] = {}
    for number in range(options.rounds + 1):
        for variant, settings in VARIANTS.items():
            for cache in CACHES:
                seconds = epochs(model, corpus, out, settings | {"cache": cache}, options)
                if number > 0:
                    times.setdefault((variant, cache), []).append(seconds)
    return times


def epochs(
    model: UserModel, corpus: Corpus, out: Path, settings: dict[str, Any], options: argparse.Namespace
) -> list[float]:
    """Adapt for two epochs; the seconds of each."""
    runner = {"accelerator": "cpu", "progress": False}
    fixed = {"max_length": options.events, "batch_size": options.batch_size, "epochs": 2, "seed": options.seed}
    fixed |= {"readout": "token", "selection": "valid"}
    config = AdaptConfig.model_validate(fixed | settings | {"runner": runner})
    bundle = adapt(model, corpus, "job", out, config, overwrite=True)
    return [row["seconds"] for row in bundle.metrics["curve"]]


def random_model(corpus: Corpus, options: argparse.Namespace) -> UserModel:
    backbone = Backbone(
        BackboneConfig(channels=options.channels, dilations=(1, 4) * 4), options.items, seed=options.seed
    )
    return UserModel(PretrainedBackbone(NextItemModel(backbone), corpus.catalogue, options.events), "cpu")


def write_corpus(folder: Path, options: argparse.Namespace) -> Corpus:
    """Write what adapting reads of a corpus: manifest, catalogue and the task `job`."""
    task = folder / "tasks" / "job"
    task.mkdir(parents=True)
    rng = np.random.default_rng(options.seed)
    valid = max(1, round(VALID_SHARE * options.users))
    for part, users in {"train": options.users - valid, "valid": valid}.items():
        items = FIRST_ITEM + options.items * rng.random(users * options.events) ** 3  # some are frequent
        columns = {
            "user_id": pa.array([f"{part}-{user}" for user in range(users)]),
            "sequence": pa.ListArray.from_arrays(np.arange(users + 1) * options.events, items.astype(np.int32)),
            "label": pa.array(rng.integers(0, CLASSES, users)),
        }
        pq.write_table(pa.table(columns), task / f"{part}.parquet")
    names = [f"class {number}" for number in range(CLASSES)]
    (task / "task.json").write_text(json.dumps({"kind": "classification", "class_names": names}))
    catalogue = Catalogue(pa.array(range(options.items)), np.arange(options.items, 0, -1))
    catalogue.write(folder / "catalogue.parquet")
    manifest = {
        "kind": "corpus",
        "format_version": FORMAT_VERSION,
        "fingerprint": "generated",
        "catalogue_fingerprint": catalogue.fingerprint,
        "users": options.users,
        "rare_items": "drop",
        "tasks": [{"name": "job", "kind": "classification"}],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Corpus.open(folder)


if __name__ == "__main__":
    main()
