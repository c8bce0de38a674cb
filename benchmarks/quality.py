"""Quality lost to speed: python benchmarks/quality.py

Pre-trains on MovieLens-1M and on Amazon kitchen with each setting that makes training faster or smaller, and prints
what held-out users (3 %, by a hash) say: the loss, and the last item ranked among the whole catalogue. Items are then
ranked with the finished networks in fp32 and in bf16 for a few thousand users. What is there is not done again.

Needs a folder with `ml-1m` and `amazon-kitchen-food` as Parquet tables (--data); skips what is absent. --tiny runs on
made-up users, whose numbers mean nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from large_log import write_large_log

import peterrec
from peterrec.data.sequences import Sequences
from peterrec.evaluation.validation import last_item_metrics, last_item_ranks

SETTINGS: dict[str, dict[str, Any]] = {
    "dense AdamW, fp32": {"table_updates": "dense"},
    "touched rows, fp32": {"table_updates": "rows"},
    "dense AdamW, bf16": {"table_updates": "dense", "runner": {"precision": "bf16-mixed"}},
}
EVENTS = {"ml-1m": ("ml-1m", None), "kitchen": ("amazon-kitchen-food", "kitchen")}
RANKED = 4_000  # users


def corpora(options: argparse.Namespace, out: Path) -> dict[str, peterrec.Corpus]:
    """Prepare what there is of the data sets."""
    if options.tiny:
        events = write_large_log(out / "events.parquet", events=8_000, users=400, items=60)
        return {"made-up": _prepared(events, out / "made-up")}
    folders = {}
    for name, (folder, domain) in EVENTS.items():
        path = options.data / folder / "events.parquet"
        if not path.exists():
            print(f"{name}: skipped, there is no {folder}/events.parquet in the folder of --data")
            continue
        table = pq.read_table(path)
        if domain is not None:
            table = table.filter(pc.equal(pc.cast(table["domain"], "string"), domain))
        (out / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(table, out / name / "events.parquet")
        folders[name] = _prepared(out / name / "events.parquet", out / name)
    return folders


def _prepared(events: Path, folder: Path) -> peterrec.Corpus:
    if (folder / "corpus").exists():
        return peterrec.Corpus.open(folder / "corpus")
    return peterrec.prepare(
        peterrec.PrepareConfig.model_validate({"events": {"paths": [str(events)]}}), folder / "corpus"
    )


def pretrained(corpus: peterrec.Corpus, folder: Path, settings: dict[str, Any], epochs: int) -> Path:
    """Pre-train, unless that was done before; returns the folder of the backbone."""
    if not folder.exists():
        runner = {"progress": False} | settings.get("runner", {})
        # Random items, which are trained: only then are there rows of them to touch.
        tree = (
            {"loss": "sampled", "epochs": epochs, "item_init": "random", "contrastive": {"weight": 0.0}}
            | settings
            | {"runner": runner}
        )
        peterrec.pretrain(corpus, folder, peterrec.PretrainConfig.model_validate(tree), resume=True)
    return folder


def ranked(backbone: Path, corpus: peterrec.Corpus, precision: str) -> dict[str, float]:
    """Rank each user's last item after the events before it, among the whole catalogue."""
    sequences = corpus.sequences
    rows = np.flatnonzero(sequences.lengths >= 2)
    rows = rows[:: max(1, len(rows) // RANKED)]
    sample = sequences.take(rows)
    last = np.asarray(sample.items)[sample.offsets[1:] - 1] - corpus.catalogue.first
    before = Sequences.from_rows([sample[i][:-1] for i in range(len(sample))])
    model = peterrec.UserModel.from_pretrained(backbone, precision=precision)
    ranks, start = [], 0
    for scores in model.score_batches(before):
        ranks.append(last_item_ranks(scores, last[start : start + len(scores)]))
        start += len(scores)
    return last_item_metrics(np.concatenate(ranks), 10)


def main() -> None:
    """Print a table for each data set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument(
        "--out", type=Path, help="where corpora and backbones are kept; a temporary folder if not given"
    )
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or Path(scratch)
        for name, corpus in corpora(options, out).items():
            epochs = 1 if options.tiny else options.epochs
            print(f"\n{name}: {len(corpus.catalogue):,} items, {epochs} epochs, seed 0\n")
            print("| training | valid loss | HR@10 | MRR@10 | HR@10 fp32 | bf16 | MRR@10 fp32 | bf16 |")
            print("|---|---|---|---|---|---|---|---|", flush=True)
            for setting, changes in SETTINGS.items():
                slug = "-".join(setting.replace(",", "").lower().split())
                folder = pretrained(corpus, out / name / slug, changes, epochs)
                training = peterrec.UserModel.from_pretrained(folder).pretrained.training
                cells = [setting, *(f"{training['metrics'][m]:.4f}" for m in ("valid_loss", "hr@10", "mrr@10"))]
                fp32, bf16 = (ranked(folder, corpus, precision) for precision in ("fp32", "bf16"))
                cells += [f"{metrics[m]:.4f}" for m in ("hr@10", "mrr@10") for metrics in (fp32, bf16)]
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
