"""Making the backbone that a configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence

from peterrec.config import BackboneConfig
from peterrec.nn.backbone import Backbone
from peterrec.nn.transformer import TransformerBackbone


def build_backbone(config: BackboneConfig, items: int, *, seed: int = 0, feature_sizes: Sequence[int] = ()) -> Backbone:
    """Return a fresh backbone of the architecture that is asked for; arguments as in `Backbone`."""
    architecture = TransformerBackbone if config.architecture == "transformer" else Backbone
    return architecture(config, items, seed=seed, feature_sizes=feature_sizes)
