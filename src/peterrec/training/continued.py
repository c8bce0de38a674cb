"""Pre-training that goes on from a backbone, with a later log."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from peterrec.artifacts.backbone_io import PretrainedBackbone
from peterrec.artifacts.hub import artifact_folder
from peterrec.artifacts.identity import dump_identity
from peterrec.config import PretrainConfig
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import IntArray
from peterrec.errors import ConfigError, FingerprintError
from peterrec.model import UserModel
from peterrec.nn.next_item import NextItemModel
from peterrec.training.new_items import event_counts, event_features, with_items


@dataclass(frozen=True)
class Start:
    """A backbone that a pre-training begins with.

    Attributes:
        pretrained: the backbone.
        fingerprint: of its tensors.
    """

    pretrained: PretrainedBackbone
    fingerprint: str

    @classmethod
    def at(cls, backbone: str | Path | UserModel, corpus: Corpus) -> Self:
        """Open a backbone, and check that items of a corpus have its indices.

        Raises:
            FingerprintError: they have not, or features of events are others.
            ArtifactError: it is missing or damaged.
        """
        if not isinstance(backbone, UserModel):
            backbone = UserModel.from_pretrained(artifact_folder(backbone, "backbone"))
        pretrained = backbone.pretrained
        if corpus.catalogue.first_items(len(pretrained.catalogue)).fingerprint != pretrained.catalogue.fingerprint:
            raise FingerprintError(
                "its catalogue does not begin with that of the backbone to go on from",
                remedy="prepare it with `prepare --catalogue BACKBONE`, and --extend-catalogue for new items",
                path=corpus.path,
            )
        pretrained.check_event_features(corpus)
        return cls(pretrained, backbone.fingerprint)

    @property
    def origin(self) -> dict[str, Any]:
        """Metadata of the next backbone that tell of it: its fingerprint, and those of all before."""
        lineage = (*self.pretrained.lineage, self.pretrained.identity)
        return {"continued_from": self.fingerprint, "lineage": [dump_identity(identity) for identity in lineage]}

    def continued(self, config: PretrainConfig) -> PretrainConfig:
        """Return settings with the network of this backbone.

        Raises:
            ConfigError: they name another network.
        """
        backbone = self.pretrained.network.backbone.config
        if "backbone" in config.model_fields_set and config.backbone != backbone:
            raise ConfigError(
                "backbone is not that of the backbone to go on from", remedy="leave it out, or pre-train from nothing"
            )
        return config.model_copy(update={"backbone": backbone})

    def network(self, corpus: Corpus, config: PretrainConfig, rows: IntArray) -> NextItemModel:
        """Return a copy of the network, with the items that a corpus has more.

        Args:
            corpus: to train on.
            config: of the training.
            rows: users that may be looked at.
        """
        old, items = len(self.pretrained.catalogue), len(corpus.catalogue)
        network = copy.deepcopy(self.pretrained.network).cpu()
        if items > old:
            features = event_features(corpus.sequences, rows, items, config.seed)
            weights = np.sqrt(event_counts(corpus.sequences, rows, items)[:old])
            network = with_items(self.pretrained, corpus.catalogue, features, weights).network
        network.requires_grad_(True)
        network.backbone.embedding.requires_grad_(config.trains_item_embeddings)
        return network
