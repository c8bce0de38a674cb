"""Trainings that one process does, and two do together: run as a script, which each rank runs.

python -m training.trained_by_ranks CORPUS BACKBONE OUT DEVICES NAME...
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.pretrain import pretrain
from training.small import QUIET, adapt_config, pretrain_config

TWO_STEPS = {"batch_size": 46, "epochs": 1}  # of the tiny corpus
ROWS = {"loss": "sampled", "negatives": 9, "table_updates": "rows"}
UNTIED = {"channels": 8, "dilations": (1, 2), "tie_weights": False}
PRETRAIN: dict[str, dict[str, Any]] = {
    "full": {"item_init": "co-occurrence"},
    "sampled": {"loss": "sampled", "negatives": 9, "masking": {"mask_fraction": 0.3}},
    "rows": {**ROWS, "contrastive": {"weight": 0.3}},
    "rows, untied": {**ROWS, "backbone": UNTIED},
    "masked": {"backbone": {"kind": "noncausal", "channels": 8, "dilations": (1, 2)}, "valid_fraction": 0.2},
    "transformer": {"backbone": {"architecture": "transformer", "channels": 8, "dilations": None, "kernel_size": None}},
    "views": {"prediction_weight": 0, "contrastive": {"weight": 1.0, "users": 5}},
    "few": {"batch_size": 92, "loss": "sampled", "negatives": 9},
    "dropout": {"dropout": 0.3, "contrastive": {"weight": 0.5}, "epochs": 2},
    "probe": {"probe": {"tasks": ["cluster"]}, "monitor": "probe", "batch_size": 40},
}
ADAPT: dict[str, tuple[list[str], dict[str, Any]]] = {
    "patch": (["shop"], {"head_init": "linear-probe", "readout": "both"}),
    "head": (["cluster"], {"strategy": "head", "class_weights": "balanced", "label_smoothing": 0.1}),
    "all": (["shop"], {"strategy": "all", "ranking_loss": "bce", "event_dropout": 0.2}),
    "last1": (["shop"], {"strategy": "last1", "ranking_loss": "bpr", "batch_size": 45}),
    "folds": (["cluster"], {"selection": "cross-validation", "folds": 3}),
    "joint": (["cluster", "shop"], {"strategy": "joint", "readout": "attention"}),
}


def train(name: str, corpus: str, backbone: str, out: Path, devices: int) -> None:
    runner = QUIET.model_copy(update={"devices": devices})
    if name in PRETRAIN:
        pretrain(corpus, out, pretrain_config(**({"runner": runner} | TWO_STEPS | PRETRAIN[name])))
        return
    tasks, settings = ADAPT[name]
    config = adapt_config(**({"runner": runner} | TWO_STEPS | settings))
    if config.strategy == "joint":
        adapt_jointly(backbone, corpus, tasks, out, config)
    else:
        adapt(backbone, corpus, tasks[0], out, config)


if __name__ == "__main__":
    corpus, backbone, out, devices, *names = sys.argv[1:]
    for name in names:
        train(name, corpus, backbone, Path(out) / name, int(devices))
