"""From events to answers in one file, on data it makes itself. Runs in a minute on a laptop: python quickstart.py"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

import peterrec
from peterrec.data.synthetic import synthetic


def main(folder: Path) -> None:
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("peterrec").setLevel(logging.INFO)  # say what is done; silent without
    data = synthetic(users=800, seed=0)  # your own events and users go here
    pq.write_table(data.events, folder / "events.parquet")
    pq.write_table(data.users, folder / "users.parquet")

    # 1. Events in, corpus out: source sequences, and two tasks to transfer to.
    corpus = peterrec.prepare(
        peterrec.PrepareConfig(
            events=peterrec.EventsConfig(paths=(str(folder / "events.parquet"),), domain="domain"),
            source=peterrec.SourceConfig(domains=("source",)),
            tasks=(
                peterrec.ClassificationTaskConfig(
                    name="cluster", labels=peterrec.LabelsConfig(path=str(folder / "users.parquet"), label="cluster")
                ),
                peterrec.RankingTaskConfig(name="shop", domains=("target",)),
            ),
        ),
        folder / "corpus",
    )

    # 2. Pre-train once, without any label.
    quiet = peterrec.RunnerConfig(progress=False)
    small = peterrec.BackboneConfig(channels=32, dilations=(1, 4))
    pretraining = peterrec.PretrainConfig(backbone=small, epochs=5, runner=quiet)
    model = peterrec.pretrain(corpus, folder / "backbone", pretraining)

    # 3. Adapt to each task: only a small patch and a head are trained.
    settings = peterrec.AdaptConfig(epochs=5, runner=quiet)
    for task in corpus.task_names:
        peterrec.adapt(model, corpus, task, folder / "bundles" / task, settings)

    # 4. Ask any task about any user, with your own item ids.
    model = peterrec.UserModel.from_pretrained(folder / "backbone")
    model.load_bundle(folder / "bundles" / "cluster")
    model.load_bundle(folder / "bundles" / "shop")
    items = data.events.filter(data.events["domain"].to_numpy() == "source")["item_id"].to_pylist()
    histories = [items[:10], items[200:203]]
    answers = model.predict(histories, bundle="cluster")
    print("clusters:", answers.labels, answers.probabilities.max(axis=1).round(2))
    print("for the shop:", model.recommend(histories, bundle="shop", k=3).items)
    print("vectors:", model.represent(histories).shape)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
