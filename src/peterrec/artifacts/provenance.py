"""The origin of the users of a task, as it is kept with a bundle."""

from __future__ import annotations

from typing import Any

from peterrec.config import PreprocessingConfig, SplitConfig, dump_optional, load_optional
from peterrec.data.corpus import Provenance


def dump_provenance(provenance: Provenance | None) -> dict[str, Any] | None:
    """Return the origin as plain values; None for none."""
    if provenance is None:
        return None
    return {
        "corpus_fingerprint": provenance.corpus_fingerprint,
        "split": dump_optional(provenance.split),
        "preprocessing": dump_optional(provenance.preprocessing),
    }


def load_provenance(tree: dict[str, Any] | None) -> Provenance | None:
    """Return what `dump_provenance` was given; errors as those of `build_config`."""
    if tree is None:
        return None
    return Provenance(
        tree["corpus_fingerprint"],
        load_optional(SplitConfig, tree["split"]),
        load_optional(PreprocessingConfig, tree["preprocessing"]),
    )
