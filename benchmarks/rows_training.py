"""Rows of training: pre-training steps, the same loss as RecBole, time for each target, adapting a patch."""

from __future__ import annotations

from collections.abc import Iterator

import work
from rows import Group, Line, Pair, Run, Spec
from rows_users import TargetRatios, ours, pairs_with
from worker import Sizes

TARGETS = 100_000


def lines(run: Run) -> Iterator[Line]:
    for group in (
        step(64, (0.60, 0.45)),
        step(256, (0.88, 0.75)),
        same_loss(),
        targets(),
        contrastive(100),
        contrastive(10),
        adapting(),
    ):
        yield from run.measure(group)


def step(channels: int, target_ratio: TargetRatios) -> Group:
    sizes = Sizes(channels=channels, loss="sampled")
    return Group(
        f"pre-training step, sampled softmax, d={channels}", sizes, ours("pretrain", work.pretrain, target_ratio)
    )  # fmt: skip


def same_loss() -> Group:
    off = {"anomaly": "off"}
    peers = (
        Spec("RecBole, as shipped (anomaly mode on)", "recbole", "train"),
        Spec("RecBole, anomaly mode off", "recbole", "train", off),
        Spec("RecBole, anomaly mode off, with our process settings", "recbole", "train", off, tuned=True),
    )
    target_ratio: tuple[TargetRatios, ...] = ((None, None), (1.7, None), (1.3, None))
    return Group(
        "training step with RecBole's loss (last item, full softmax)",
        Sizes(loss="full", last_only=True),
        (*peers, *ours("pretrain", work.pretrain)),
        tuple(pair for peer, ratio in zip(peers, target_ratio, strict=True) for pair in pairs_with(peer.label, ratio)),
    )


def targets() -> Group:
    peer = Spec("RecBole, as shipped, one target for each row", "recbole", "train", units=_last_of_each)
    sides = tuple(
        Spec(
            f"ours, every position, {loss} softmax, {precision}", "ours", "pretrain",
            {"loss": loss, "precision": precision}, tuned=True, work=work.pretrain, units=_every_position,
        )
        for loss in ("full", "sampled")
        for precision in ("fp32", "bf16")
    )  # fmt: skip
    ratios = (14, 14, 50, 50)
    pairs = tuple(Pair(peer.label, side.label, ratio) for side, ratio in zip(sides, ratios, strict=True))
    return Group(f"{TARGETS:,} supervised targets", Sizes(), (peer, *sides), pairs)


def _last_of_each(sizes: Sizes) -> float:
    return sizes.batch / TARGETS


def _every_position(sizes: Sizes) -> float:
    return sizes.batch * sizes.events / TARGETS


def contrastive(events: int) -> Group:
    alone = "next items"
    with_contrast = Spec("next items and contrastive", "ours", "pretrain", {"contrastive_users": 64}, tuned=True)
    return Group(
        f"contrastive pre-training, 64 users beside 64 windows of {events} events, batches drawn in the step",
        Sizes(dilations=(1, 4) * 2, events=events, batch=64, loss="sampled", draw=True),
        (with_contrast, Spec(alone, "ours", "pretrain", tuned=True)),
        (Pair(with_contrast.label, alone),),
    )


def adapting() -> Group:
    plain = "plain form (Tenrec)"
    return Group(
        "step of adapting a patch, 10 classes",
        Sizes(),
        (
            Spec(plain, "plain", "adapt"),
            Spec("ours, strategy all, fp32", "ours", "adapt", {"strategy": "all"}, tuned=True),
            *ours("adapt", work.adapt, (0.45, None)),
        ),
        (*pairs_with(plain, (2.5, 3.5)), Pair("ours, strategy all, fp32", "ours, fp32", 1 / 0.7)),
    )
