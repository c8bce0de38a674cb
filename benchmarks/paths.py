"""Quick paths beside the plain ones that they replaced, in turns in this process: python benchmarks/paths.py

- dropout: a forward and backward pass of the blocks with what is dropped drawn, beside `F.dropout`.
- bf16: user representations with bfloat16 between the blocks, beside fp32 there; and the rounding errors of both.
- best: the best ten of many scores by groups, beside `topk`; and making these scores.
- taps: a forward and backward pass over short histories without the taps of convolutions that see padding only.

And what takes the time of answers in bf16: more than products, so that fewer bits would gain little.

`--only TEXT` runs some; `--tiny` at sizes at which the numbers mean nothing.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read by torch: threads that spin slow each other down on few cores

import argparse
import platform
from collections.abc import Callable
from datetime import date
from unittest.mock import patch

import torch
import torch.nn.functional as F
from sides import in_turns  # the script beside this one
from torch import Tensor
from torch.profiler import profile

from peterrec.config import BackboneConfig
from peterrec.nn import backbone as backbone_module
from peterrec.nn import execution
from peterrec.nn.backbone import Backbone
from peterrec.nn.build import build_backbone
from peterrec.nn.heads import grouped_topk, item_scores
from peterrec.nn.matmul import onednn_matmul
from peterrec.nn.precision import arithmetic
from peterrec.nn.readout import represent
from peterrec.nn.receptive_field import ConvGeometry
from peterrec.process import tune_process

CPU = torch.device("cpu")


def main() -> None:
    tune_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    hardware = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(
        f"{date.today()}, {hardware}, seed 0\n\n| path | beside | times as fast (10 .. 90 % of rounds) |\n|---|---|---|"
    )
    torch.manual_seed(0)
    rounds = 1 if options.tiny else options.rounds
    for name, (plain, quick) in pairs(tiny=options.tiny).items():
        if options.only in name:
            seconds = in_turns({"plain": plain[1], "quick": quick[1]}, rounds)
            times = torch.tensor([seconds["plain"], seconds["quick"]])
            low, high = (times[0] / times[1]).quantile(torch.tensor([0.1, 0.9])).tolist()
            ratio = float(times[0].median() / times[1].median())
            print(f"| {name}: {quick[0]} | {plain[0]} | {ratio:.2f} ({low:.2f} .. {high:.2f}) |", flush=True)
    print(f"\nbf16: {rounding_errors(tiny=options.tiny)}")
    print(f"bf16: {largest_shares(tiny=options.tiny)} of the time")


def pairs(*, tiny: bool) -> dict[str, tuple[tuple[str, Callable[[], object]], tuple[str, Callable[[], object]]]]:
    """Return the plain and the quick action of each path, each with what it is called."""
    rows, items = (4, 500) if tiny else (256, 20_000)
    actions = {}
    for channels in (8,) if tiny else (64, 256):
        network = build_backbone(BackboneConfig(channels=channels, dilations=(1, 4) * 4), items, seed=0)
        for events in (20,) if tiny else (50, 200):
            tokens = torch.randint(4, items + 4, (rows, events))
            size = f"d={channels}, {events} events"
            actions[f"bf16, {size}"] = (
                ("fp32 between blocks", lambda network=network, tokens=tokens: wide(network, tokens)),
                ("bfloat16 between blocks", lambda network=network, tokens=tokens: in_bf16(network, tokens)),
            )
            half = tokens[: max(1, rows // 2)]
            actions[f"dropout, {size}"] = (
                ("F.dropout", lambda network=network, half=half: with_torch_dropout(network, half)),
                ("drawing what is dropped", lambda network=network, half=half: step(network, half)),
            )
    for count in (500,) if tiny else (20_000, 1_000_000):
        vectors, weight, bias = torch.randn(rows, 64), torch.randn(count, 64), torch.randn(count)
        scores = item_scores(vectors, weight, bias)
        actions[f"best 10 of {count:,}"] = (
            ("topk", lambda scores=scores: scores.topk(10, dim=1)),
            ("by groups", lambda scores=scores: grouped_topk(scores, 10)),
        )
    for events in (8, 16):
        short = torch.randint(4, items + 4, (max(1, rows // 2), events))
        actions[f"taps, d={channels}, {events} events"] = (
            ("all taps", lambda network=network, short=short: with_all_taps(network, short)),
            ("without those on padding", lambda network=network, short=short: step(network, short)),
        )
    return actions


def largest_shares(*, tiny: bool) -> str:
    """Return in words what takes most of the time of representations in bf16."""
    network = build_backbone(BackboneConfig(channels=8 if tiny else 64, dilations=(1, 4) * 4), 1_000, seed=0)
    tokens = torch.randint(4, 1_004, (4 if tiny else 256, 50))
    in_bf16(network, tokens)
    with profile() as observed:
        in_bf16(network, tokens)
    times = {event.key.removeprefix("aten::"): event.self_cpu_time_total for event in observed.key_averages()}
    largest = sorted(times, key=lambda name: -times[name])[:5]
    return ", ".join(f"{name} {times[name] / sum(times.values()):.0%}" for name in largest)


def rounding_errors(*, tiny: bool) -> str:
    """Return in words how far representations in bf16 are from those in fp32."""
    network = build_backbone(BackboneConfig(channels=8 if tiny else 64, dilations=(1, 4) * 4), 1_000, seed=0)
    tokens = torch.randint(4, 1_004, (4 if tiny else 256, 50))
    with torch.inference_mode():
        exact = represent(network, tokens)
    errors = [float((run(network, tokens) - exact).square().mean().sqrt() / exact.std()) for run in (in_bf16, wide)]
    return f"rounding errors {errors[0]:.2%} of the deviation (rms), with fp32 between blocks {errors[1]:.2%}"


def in_bf16(network: Backbone, tokens: Tensor) -> Tensor:
    with torch.inference_mode(), arithmetic("bf16", CPU), onednn_matmul():
        return represent(network, tokens)


def wide(network: Backbone, tokens: Tensor) -> Tensor:
    with patch.object(backbone_module, "to_autocast_dtype", lambda x: x):
        return in_bf16(network, tokens)


def step(network: Backbone, tokens: Tensor) -> None:
    trained = network.dropping_out(0.1)
    trained.train()
    trained(tokens).sum().backward()


def with_torch_dropout(network: Backbone, tokens: Tensor) -> None:
    with (
        patch.object(backbone_module, "residual_dropout", torch_dropout),
        patch.object(execution, "residual_dropout", torch_dropout),
    ):
        step(network, tokens)


def with_all_taps(network: Backbone, tokens: Tensor) -> None:
    with patch.object(ConvGeometry, "taps_on_inputs", lambda geometry, taps, inputs: (slice(None), geometry.pad)):
        step(network, tokens)


def torch_dropout(out: Tensor, residual: Tensor | None, fraction: float) -> Tensor:
    return F.dropout(out, fraction) if residual is None else residual + F.dropout(out - residual, fraction)


if __name__ == "__main__":
    main()
