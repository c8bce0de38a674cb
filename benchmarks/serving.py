"""Time saved by one trunk for many tasks, and by states event by event: python benchmarks/serving.py

All sides run in this process, in turns; medians over the rounds, and in brackets the spread of the ratios within single
rounds (10 .. 90 %). Weights are random, which cost the same as others.

- mixed: 256 users with one of 50 tasks each, in one batch, beside the trunk without patches and beside 50 batches of a
  task each; of the network alone, and of the engine with items looked up and answers named.
- every task: all 50 tasks of one user, beside a loop over the tasks; patches in all blocks, and in the last two.
- streaming: one more event of each user, with and without reading the answer at [TCL], beside computing the window of
  events again, by what the last position depends on and by every position.
- search: the best of many targets by a graph of neighbours, with the recall that it reports, beside scoring all.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read by torch: threads that spin slow each other down on few cores

import argparse
import json
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sides import in_turns  # the script beside this one
from torch import Tensor

from peterrec.artifacts.backbone_io import PretrainedBackbone
from peterrec.artifacts.bundle_io import Bundle
from peterrec.config import BackboneConfig, EngineConfig, PatchConfig
from peterrec.data.catalogue import Catalogue
from peterrec.model import UserModel
from peterrec.nn.backbone import Backbone
from peterrec.nn.bank import PatchBank
from peterrec.nn.heads import ClassificationHead
from peterrec.nn.matmul import onednn_matmul
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.patch import Patch
from peterrec.nn.readout import represent
from peterrec.nn.stream import Stream
from peterrec.nn.tokens import SPECIAL, append_token
from peterrec.process import tune_process
from peterrec.serving.engine import Engine
from peterrec.serving.index import ItemIndex, build_index
from peterrec.serving.requests import Question, Request

ITEMS = 20_000
CLASSES = ("a", "b", "c")
PARTS = ("mixed", "every_task", "streaming", "search")
Side = Callable[[], object]


def main() -> None:
    tune_process()  # as the command line does
    options = _options()
    out: dict[str, Any] = {"date": date.today().isoformat(), "machine": platform.machine(), "cores": os.cpu_count()}
    hardware = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"
    print(f"{out['date']}, {hardware} {torch.__version__}, seed 0, {options.rounds} rounds")
    print(f"d={options.channels}, dilations (1, 4) x 4, bottleneck d/8, {options.tasks} tasks\n")
    print("| side A | side B | A / B (10 .. 90 % of rounds) | asked |")
    print("|---|---|---|---|", flush=True)
    with torch.inference_mode(), onednn_matmul():
        parts = {"mixed": mixed, "every_task": every_task, "streaming": streaming, "search": search}
        chosen = [options.only] if options.only else PARTS
        rows = [row for name in chosen for row in parts[name](options)]
    print()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(out | {"rows": rows}, indent=1), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--rows", type=int, default=256, help="of the mixed batch")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--events", type=int, default=50)
    parser.add_argument("--users", type=int, default=1_024, help="of the states")
    parser.add_argument("--targets", type=int, default=100_000, help="of the search")
    parser.add_argument("--only", choices=PARTS, help="one of the comparisons")
    parser.add_argument("--without-compiler", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="sizes at which the numbers mean nothing, one round")
    parser.add_argument("--out", type=Path, default=Path("runs/speed/serving.json"))
    options = parser.parse_args()
    if options.tiny:
        options.rounds, options.channels, options.rows, options.tasks, options.users = 1, 16, 8, 4, 8
        options.without_compiler, options.targets = True, 500
    return options


# ---------------------------------------------------------------- the three comparisons


def mixed(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A batch of many tasks beside the trunk alone and beside a batch for each task."""
    backbone = trunk(options)
    patches = patches_of(backbone, options)
    bank = PatchBank(patches)
    tokens = items(options.rows, options.events)
    which = torch.arange(options.rows) % options.tasks
    task_rows = [torch.nonzero(which == task).flatten() for task in range(options.tasks)]
    sides: dict[str, Side] = {
        "mixed batch": lambda: represent(backbone, tokens, bank.rows(which)),
        "trunk without patches": lambda: represent(backbone, tokens),
        "one patch for all rows": lambda: represent(backbone, tokens, patches[0]),
        "a batch for each task": lambda: [
            represent(backbone, tokens[rows], patch) for rows, patch in zip(task_rows, patches, strict=True)
        ],
    }
    pairs = [
        ("mixed batch", "trunk without patches", "<= 1.2"),
        ("mixed batch", "one patch for all rows", ""),
        ("a batch for each task", "mixed batch", ">= 5"),
    ]
    if not options.without_compiler:
        fast = backbone.compiled(options.rows, [options.events + 1])
        sides["mixed batch, compiled"] = lambda: represent(fast, tokens, bank.rows(which))
        sides["trunk without patches, compiled"] = lambda: represent(fast, tokens)
        pairs += [
            ("mixed batch, compiled", "trunk without patches", "<= 1.2"),
            ("mixed batch, compiled", "trunk without patches, compiled", ""),
            ("a batch for each task", "mixed batch, compiled", ">= 5"),
        ]
    return report(sides, pairs, options) + mixed_by_engine(options, tokens, task_rows)


def mixed_by_engine(options: argparse.Namespace, tokens: Tensor, task_rows: list[Tensor]) -> list[dict[str, Any]]:
    """Compare the same rows as requests to an engine, with all that is around the network."""
    engine = engine_of(options)
    which = torch.arange(options.rows) % options.tasks
    histories = [[f"item-{i - SPECIAL}" for i in row] for row in tokens.tolist()]
    questions = [Question([f"task-{task}"]) for task in which.tolist()]
    requests = [Request(history, question) for history, question in zip(histories, questions, strict=True)]
    plain = [Request(request.items, Question(request.question.tasks, patched=False)) for request in requests]
    apart = [[requests[row] for row in rows.tolist()] for rows in task_rows]
    sides: dict[str, Side] = {
        "engine: mixed batch": lambda: engine.predict(requests),
        "engine: without patches": lambda: engine.predict(plain),
        "engine: a batch for each task": lambda: [engine.predict(batch) for batch in apart],
    }
    pairs = [
        ("engine: mixed batch", "engine: without patches", ""),
        ("engine: a batch for each task", "engine: mixed batch", ""),
    ]
    return report(sides, pairs, options)


def every_task(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All tasks of one user beside a loop over them."""
    lines = []
    history = [f"item-{i}" for i in range(options.events)]
    for blocks, target in ((None, ">= 18"), (2, ">= 40")):
        engine = engine_of(options, blocks=blocks)
        all_requests = [Request(history)]
        single = [[Request(history, Question([f"task-{task}"]))] for task in range(options.tasks)]
        blocks_text = "all blocks" if blocks is None else f"the last {blocks} blocks"
        sides: dict[str, Side] = {
            f"loop over tasks, patches in {blocks_text}": lambda e=engine, s=single: [
                e.predict(request) for request in s
            ],
            f"all tasks of one user, patches in {blocks_text}": lambda e=engine, r=all_requests: e.predict(r),
        }
        lines += report(sides, [(*sides, target)], options)  # type: ignore[list-item]
    return lines


def streaming(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One more event of each user beside computing its window again."""
    backbone, lines = trunk(options), []
    patches = patches_of(backbone, options)
    bank = PatchBank(patches)
    stream = Stream(backbone)
    print(f"| a state has {stream.positions} positions, {stream.bytes_per_state:,} bytes | | | |")
    for users in (options.users, 1):
        which = torch.arange(users) % options.tasks
        for name, patch in (("", None), (", a patch for each", bank.rows(which) if users > 1 else patches[0])):
            states, rows = stream.new(users, torch.device("cpu")), torch.arange(users)
            tokens = items(users, 200)
            stream.fill(states, rows, tokens, patch)
            event = tokens[:, 0]
            users_text = f"{users:,} users{name}" if users > 1 else f"one user{name}"
            sides: dict[str, Side] = {
                f"{users_text}: an event": lambda s=states, r=rows, e=event, p=patch: stream.push(s, r, e, p)
            }
            sides[f"{users_text}: an event and its answer"] = lambda s=states, r=rows, e=event, p=patch: (
                stream.push(s, r, e, p), stream.peek(s, r, patch=p),
            )  # fmt: skip
            pairs = []
            for length in (options.events, 200):
                window = tokens[:, :length]
                sides[f"window of {length} again"] = lambda w=window, p=patch: represent(backbone, w, p)
                sides[f"window of {length} again, every position"] = lambda w=window, p=patch: represent_all(
                    backbone, w, p
                )
                goal = {(True, options.events): ">= 20", (True, 200): ">= 70", (False, options.events): ">= 5"}
                for side in list(sides)[-2:]:
                    target = goal.get((users > 1, length), "") if not name else ""
                    pairs += [
                        (side, other_side, target if i == 0 else "") for i, other_side in enumerate(list(sides)[:2])
                    ]
            lines += report(sides, pairs, options)
    return lines


def search(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The ten best of many targets of one user: all of them scored, and by a graph of neighbours.

    The vectors lie around centres, as those of items that go together do, and where they lie anywhere.
    """
    table_lines = []
    generator = torch.Generator().manual_seed(0)
    for kind, spread in (("around centres", 0.5), ("anywhere", None)):
        centres = torch.randn(300, options.channels, generator=generator)

        def draw(n: int, c: Tensor = centres, s: float | None = spread) -> Tensor:
            noise = torch.randn(n, options.channels, generator=generator)
            return noise if s is None else c[torch.randint(300, (n,), generator=generator)] + s * noise

        weight, bias, users = draw(options.targets), torch.randn(options.targets, generator=generator), draw(64)
        config = EngineConfig(approximate_above=0, least_recall=0.0)
        graph, exact = build_index(weight, bias, config, lambda u=users: u), ItemIndex(weight, bias)
        print(f"| targets {kind}: recall {graph.describe()['recall']:.1%} | | | |", flush=True)
        sides: dict[str, Side] = {
            f"targets {kind}: all scored": lambda x=exact, u=users: [
                x.search(u[i : i + 1], 10, [[]]) for i in range(8)
            ],
            f"targets {kind}: by the graph": lambda x=graph, u=users: [
                x.search(u[i : i + 1], 10, [[]]) for i in range(8)
            ],
        }
        table_lines += report(sides, [(*sides, "")], options)  # type: ignore[list-item]
    return table_lines


# ---------------------------------------------------------------- parts


def trunk(options: argparse.Namespace) -> Backbone:
    config = BackboneConfig(channels=options.channels, dilations=(1, 4) * 4)
    return Backbone(config, ITEMS, seed=0).eval().requires_grad_(False)


def patches_of(backbone: Backbone, options: argparse.Namespace, blocks: int | None = None) -> list[Patch]:
    config = PatchConfig(bottleneck=options.channels // 8, init="random", blocks=blocks)
    patches = [Patch(config, backbone.config, torch.Generator().manual_seed(i)) for i in range(options.tasks)]
    return [patch.requires_grad_(False) for patch in patches]


def items(rows: int, length: int) -> Tensor:
    return torch.randint(SPECIAL, ITEMS + SPECIAL, (rows, length), generator=torch.Generator().manual_seed(0))


def represent_all(backbone: Backbone, tokens: Tensor, patch: Any) -> Tensor:
    longer, _ = append_token(tokens, 1)
    return backbone(longer, patch)[:, -1]


def engine_of(options: argparse.Namespace, blocks: int | None = None) -> Engine:
    """An engine with `tasks` bundles of random patches."""
    ids = pa.array([f"item-{i}" for i in range(ITEMS)])
    backbone = trunk(options)
    catalogue = Catalogue(ids, np.arange(ITEMS, 0, -1))
    pretrained = PretrainedBackbone(NextItemModel(backbone, seed=0), catalogue, 100, "skip", {})
    engine = Engine(UserModel(pretrained, "cpu"))
    for task, patch in enumerate(patches_of(backbone, options, blocks)):
        head = ClassificationHead(options.channels, len(CLASSES), torch.Generator().manual_seed(task))
        engine.add(
            Bundle(
                f"task-{task}", "classification", "patch", patch, patch.config, head, CLASSES, None, 100,
                pretrained.fingerprint, catalogue.fingerprint, 1, {},
            )
        )  # fmt: skip
    return engine


def report(
    sides: dict[str, Side], pairs: list[tuple[str, str, str]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Run all sides in turns and print the ratios of some."""
    seconds = in_turns(sides, options.rounds)
    rows = []
    for a, b, target in pairs:
        ratio = float(np.median(seconds[a]) / np.median(seconds[b]))
        low, high = np.quantile(np.array(seconds[a]) / np.array(seconds[b]), (0.1, 0.9)).tolist()
        print(f"| {a} | {b} | {ratio:.2f} ({low:.2f} .. {high:.2f}) | {target} |", flush=True)
        rows.append({"a": a, "b": b, "ratio": ratio, "low": low, "high": high, "asked": target})
    return rows


if __name__ == "__main__":
    main()
