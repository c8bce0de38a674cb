"""Independent float64 NumPy forms of what the project computes, with loops, written from the formulas alone.

They read named weights and settings, and call nothing of the project for the maths.
"""

from __future__ import annotations

from oracles.losses import (
    oracle_bce,
    oracle_bpr,
    oracle_candidate_softmax,
    oracle_full_softmax,
    oracle_log_expected,
    oracle_sampled_softmax,
)
from oracles.network import (
    ConvSublayerAt,
    oracle_activation,
    oracle_attention,
    oracle_backbone,
    oracle_conv,
    oracle_conv_sublayer,
    oracle_norm,
    oracle_patch_names,
    oracle_represent,
    weights_of,
)

__all__ = [
    "ConvSublayerAt",
    "oracle_activation",
    "oracle_attention",
    "oracle_backbone",
    "oracle_bce",
    "oracle_bpr",
    "oracle_candidate_softmax",
    "oracle_conv",
    "oracle_conv_sublayer",
    "oracle_full_softmax",
    "oracle_log_expected",
    "oracle_norm",
    "oracle_patch_names",
    "oracle_represent",
    "oracle_sampled_softmax",
    "weights_of",
]
