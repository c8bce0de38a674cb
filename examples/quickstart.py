"""From events to answers in one file, on data it makes itself. Runs in a minute on a laptop: python quickstart.py"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import peterrec
from peterrec.data.synthetic import synthetic


def main(folder: Path) -> None:
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("peterrec").setLevel(logging.INFO)  # say what is done; silent without
    data = synthetic(users=800, seed=0)  # your own events and users go here: DataFrames of any library, or paths
    events, users = data.events, data.users

    # 1. Events in, corpus out: source sequences, and two tasks to transfer to.
    corpus = peterrec.prepare(
        events, folder / "corpus", domain="domain", users=users, classify=["cluster"], rank={"shop": "target"}
    )

    # 2. Pre-train once, without any label.
    quiet = {"progress": False}
    small = {"channels": 32, "dilations": [1, 4]}
    model = peterrec.pretrain(corpus, folder / "backbone", epochs=5, backbone=small, runner=quiet)

    # 3. Adapt to each task: only a small patch and a head are trained.
    for task in corpus.task_names:
        model.add_bundle(peterrec.adapt(model, corpus, task, folder / "bundles" / task, epochs=5, runner=quiet))

    # 4. Ask any task about any user, as a DataFrame of events or as lists of your own item ids.
    model = peterrec.UserModel.from_pretrained(folder / "backbone")
    for task in corpus.task_names:
        model.load_bundle(folder / "bundles" / task)
    print(model.predict(events, "cluster").to_arrow().slice(0, 3).to_pylist())
    items = events.filter(events["domain"].to_numpy() == "source")["item_id"].to_pylist()
    histories = [items[:10], items[200:203]]
    print("clusters:", model.predict(histories, "cluster").labels)
    print("for the shop:", model.recommend(histories, "shop", k=3).items)
    print("vectors:", model.represent(histories).shape)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
