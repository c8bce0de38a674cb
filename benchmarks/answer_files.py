"""What the verbs `embed` and `recommend` need for more and more users: python benchmarks/answer_files.py

Users have 20 events each of 1,000 items, in a file of Parquet (events, users mixed) or of JSON lines (a user a line).
The backbone is small and has learned nothing, so that what is measured is all around the network. Each size runs in a
process of its own, whose peak resident memory the operating system reports. It is bounded if it does not grow with the
users.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch: threads of a busy machine wait for each other

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from large_log import write_large_log  # the scripts beside this one
from prepare import in_own_process, peak_memory

EVENTS, ITEMS, CHANNELS = 20, 1_000, 16


def main() -> None:
    """Print a row for each source, verb and number of users."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--verbs", nargs="+", choices=["embed", "recommend"], default=["embed", "recommend"])
    parser.add_argument("--sources", nargs="+", choices=["parquet", "jsonl"], default=["parquet", "jsonl"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="a size at which the numbers mean nothing")
    options = parser.parse_args()
    users = [200, 400] if options.tiny else options.users
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, seed {options.seed}\n")
    print(
        "| verb | from | users | seconds | peak memory (MiB) | with the model alone (MiB) |\n|---|---|---|---|---|---|"
    )
    for number in users:
        with tempfile.TemporaryDirectory() as folder:
            for kind in options.sources:
                source = in_own_process(write_source, Path(folder), kind, number, options.seed)
                for verb in options.verbs:
                    measured = in_own_process(answer, verb, source, Path(folder) / "answers.parquet")
                    cells = f"{measured['seconds']:.1f} | {measured['peak']:.0f} | {measured['start']:.0f}"
                    print(f"| {verb} | {kind} | {number:,} | {cells} |", flush=True)


def write_source(folder: Path, kind: str, users: int, seed: int) -> Path:
    """Write the histories of some users."""
    import numpy as np

    if kind == "parquet":
        return write_large_log(folder / "log.parquet", users * EVENTS, users, ITEMS, seed)
    rng, path = np.random.default_rng(seed), folder / "histories.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for user in range(users):
            lines.write(json.dumps({"user": f"user {user}", "items": rng.integers(1, ITEMS, EVENTS).tolist()}) + "\n")
    return path


def answer(verb: str, source: Path, out: Path) -> dict[str, Any]:
    """Answer about all users; seconds and peak memory."""
    import peterrec

    model = small_model()
    start, seconds = peak_memory(), time.perf_counter()
    if verb == "embed":
        peterrec.embed(model, source, out)
    else:
        peterrec.recommend(model, None, source, out, k=5)
    return {"seconds": time.perf_counter() - seconds, "peak": peak_memory(), "start": start}


def small_model() -> Any:
    """Return a small model that has learned nothing."""
    import numpy as np
    import pyarrow as pa

    import peterrec
    from peterrec.artifacts.backbone_io import PretrainedBackbone
    from peterrec.data.catalogue import Catalogue
    from peterrec.nn.build import build_backbone
    from peterrec.nn.next_item import NextItemModel

    config = peterrec.BackboneConfig(channels=CHANNELS, dilations=(1,))
    network = NextItemModel(build_backbone(config, ITEMS))
    catalogue = Catalogue(pa.array(np.arange(1, ITEMS + 1)), np.ones(ITEMS, dtype=np.int64))
    return peterrec.UserModel(PretrainedBackbone(network, catalogue, EVENTS), device="cpu")


if __name__ == "__main__":
    main()
