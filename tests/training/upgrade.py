"""A backbone with bundles, and what comes later: new items, a new target, and a backbone that was continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from peterrec.config import AdaptConfig
from peterrec.data.corpus import Corpus
from peterrec.data.prepare import prepare
from peterrec.data.synthetic import synthetic
from peterrec.model import UserModel
from peterrec.training.adapt import adapt
from peterrec.training.pretrain import pretrain
from training.small import CHANNELS, LEARNS, QUIET, pretrain_config

TASKS = ("cluster", "target", "spend")
SPLIT = {"train": 0.5, "valid": 0.3, "test": 0.2}
NEW_TARGET = "t0003"


def bundle_config(**settings: Any) -> AdaptConfig:
    """Settings that learn the tasks in three short epochs, from heads that know nothing."""
    defaults: dict[str, Any] = {"patch": {"bottleneck": 4}, "max_length": 30, "epochs": 3, "head_init": "random"}
    defaults |= {"runner": QUIET, "selection": "valid"}
    return AdaptConfig(**(defaults | LEARNS | settings))


def corpus_of(folder: Path, events: pa.Table, users: pa.Table, **settings: Any) -> Corpus:
    """Tasks `cluster` (classification), `spend` (regression) and `target` (ranking)."""
    return prepare(
        events, folder, users=users, classify=["cluster"], regress=["spend"], rank=["target"], domain="domain",
        **({"source": {"domains": ["source"], "min_item_events": 1}, "split": SPLIT} | settings),
    )  # fmt: skip


class Upgrade:
    """Artifacts of before and after, in a folder.

    Attributes:
        corpus, backbone: of before.
        bundles: of the tasks, on that backbone.
        later_corpus: of the same users, with new items and a new target.
        later_backbone: continued from `backbone` with it.
    """

    def __init__(self, folder: Path, users: int = 360) -> None:
        data = synthetic(users=users, items=40, targets=12, mean_events=10, seed=4)
        clusters = np.array([int(name[1:]) for name in data.users["cluster"].to_pylist()])
        spend = 2.0 + 3.0 * clusters + np.random.default_rng(0).normal(0, 0.5, len(clusters))
        self.users, self.events = data.users.append_column("spend", pa.array(spend)), data.events
        is_new = pc.or_(pc.ends_with(self.events["item_id"], "7"), pc.equal(self.events["item_id"], NEW_TARGET))
        self.corpus = corpus_of(folder / "corpus", self.events.filter(pc.invert(is_new)), self.users)
        self.backbone = folder / "backbone"
        pretrain(self.corpus, self.backbone, pretrain_config(backbone=CHANNELS, epochs=4, **LEARNS))
        self.bundles = {task: folder / "bundles" / task for task in TASKS}
        for task, path in self.bundles.items():
            adapt(self.backbone, self.corpus, task, path, bundle_config())
        extended = {"catalogue": str(self.backbone), "extend_catalogue": True}
        self.later_corpus = corpus_of(folder / "later", self.events, self.users, **extended)
        self.later_backbone = folder / "backbone-2"
        pretrain(
            self.later_corpus, self.later_backbone, pretrain_config(backbone=CHANNELS, epochs=2, **LEARNS),
            initial=self.backbone,
        )  # fmt: skip

    def models(self) -> tuple[UserModel, UserModel]:
        """The backbones of before and after."""
        paths = (self.backbone, self.later_backbone)
        before, after = (UserModel.from_pretrained(path, "cpu") for path in paths)
        return before, after
