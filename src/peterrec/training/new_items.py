"""Embeddings of items that a backbone does not have yet, and the backbone with them."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from peterrec.artifacts.backbone_io import PretrainedBackbone
from peterrec.data.catalogue import Catalogue
from peterrec.data.sequences import FIRST_ITEM, IntArray, Sequences
from peterrec.nn.build import build_backbone
from peterrec.nn.next_item import NextItemModel
from peterrec.training.co_occurrence import item_factors

logger = logging.getLogger(__name__)

FACTORS = 64
MAX_ITEMS = 200_000  # old items that the regression is fitted on: the most frequent ones
PENALTIES = np.logspace(-2, 6, 17)

Array = Float[np.ndarray, "..."]


def with_items(
    pretrained: PretrainedBackbone,
    catalogue: Catalogue,
    features: Array,
    weights: Float[np.ndarray, " old"],
    content: Array | None = None,
) -> PretrainedBackbone:
    """Return a backbone with the items that a catalogue has more; nothing else of it is changed.

    What the network has for an item (its embedding; vector and bias that it is scored with) is predicted by a ridge
    regression on what is known of the item, fitted on old ones. Of a backbone that learned what content says
    (`PretrainedBackbone.content`), that is taken as it learned it, and what is more than that is predicted.

    Args:
        pretrained: the backbone.
        catalogue: that begins with the backbone's.
        features: (items, features) of every item of the catalogue.
        weights: of the backbone's items in the regression; those of weight 0 are left out.
        content: (items, F) of every item of the catalogue, as the encoder of `pretrained.content` gives it.
    """
    network = pretrained.network
    tables = {"embedding": network.backbone.embedding.weight[FIRST_ITEM:], "output": network.output_table()[0]}
    if network.head is None:
        del tables["output"]
    outputs = torch.cat([*tables.values(), network.output_table()[1].unsqueeze(1)], dim=1).detach().cpu().double()
    learned = np.zeros((len(features), outputs.shape[1]))
    if content is not None and pretrained.content is not None:
        rows = pretrained.content.rows(content)
        learned = torch.cat([*(rows[name] for name in tables), rows["bias"].unsqueeze(1)], dim=1).double().numpy()
    old = len(outputs)
    residual = predicted_outputs(features, outputs.numpy() - learned[:old], weights)
    new = torch.from_numpy(learned[old:] + residual).float()
    vectors = torch.split(new[:, :-1], [table.shape[1] for table in tables.values()], dim=1)
    grown = _with_rows(network, dict(zip(tables, vectors, strict=True)), new[:, -1])
    lineage = (*pretrained.grown_from, pretrained.identity._replace(grown_from=()))
    return replace(pretrained, network=grown, catalogue=catalogue, grown_from=lineage)


def event_features(sequences: Sequences, rows: IntArray, items: int, seed: int) -> Array:
    """Return (items, features) of every item by its users: factors, and the logarithm of its events.

    Args:
        sequences: histories.
        rows: users that may be looked at.
        items: of the catalogue.
        seed: of the factorisation.
    """
    factors = item_factors(sequences, rows, items, FACTORS, seed)
    return np.asarray(
        StandardScaler().fit_transform(np.column_stack([factors, np.log1p(event_counts(sequences, rows, items))]))
    )


def event_counts(sequences: Sequences, rows: IntArray, items: int) -> IntArray:
    """Return how many events of some users each item has; (items,)."""
    return np.bincount(sequences.take(rows).items, minlength=FIRST_ITEM + items)[FIRST_ITEM:]


def predicted_outputs(features: Array, outputs: Array, weights: Float[np.ndarray, " old"]) -> Array:
    """Return what items past those of `outputs` would have; their mean where nothing is known of any old item.

    Without a feature it is zeros.

    Args:
        features: (items, features) of every item.
        outputs: (old, n) of the first items.
        weights: (old,) in the regression; items of weight 0 are left out.
    """
    old = len(outputs)
    if not features.shape[1]:
        return np.zeros((len(features) - old, outputs.shape[1]))
    fitted = np.argsort(-weights, kind="stable")[: min(MAX_ITEMS, int((weights > 0).sum()))]
    if len(fitted) < 2:
        logger.warning("no old item is known by what new ones are: they get the mean of what old ones have")
        return np.repeat(outputs.mean(axis=0, keepdims=True), len(features) - old, axis=0)
    ridge = RidgeCV(PENALTIES, alpha_per_target=True)
    ridge.fit(features[fitted], outputs[fitted], sample_weight=weights[fitted])
    return np.asarray(ridge.predict(features[old:]))


def _with_rows(network: NextItemModel, tables: dict[str, Tensor], bias: Tensor) -> NextItemModel:
    """Return a network of its own with these rows after those of a network."""
    items = network.backbone.items + len(bias)
    added = {"backbone.embedding.weight": tables["embedding"], "bias": bias}
    if network.head is not None:
        added = {"backbone.embedding.weight": tables["embedding"], "head.weight": tables["output"], "head.bias": bias}
    state = {
        name: torch.cat([tensor, added[name].to(tensor)]) if name in added else tensor.clone()
        for name, tensor in network.state_dict().items()
    }
    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are replaced
        grown = NextItemModel(
            build_backbone(network.backbone.config, items, feature_sizes=network.backbone.feature_sizes)
        )
    grown.load_state_dict(state)
    return grown
