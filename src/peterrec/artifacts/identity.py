"""Identity of a backbone: which bundles are its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from peterrec.errors import FingerprintError
from peterrec.storage import short_hash


class BackboneIdentity(NamedTuple):
    """Identity of a backbone: which bundles are its own.

    Attributes:
        fingerprint: of its tensors and how they are used.
        catalogue_fingerprint: of its items.
        items: how many it has.
        grown_from: the backbones that it was before items were added to it, oldest first. For the items that they have
            it says what they say, so their bundles are its own too.
    """

    fingerprint: str
    catalogue_fingerprint: str
    items: int
    grown_from: tuple[BackboneIdentity, ...] = ()

    @property
    def root(self) -> BackboneIdentity:
        """The oldest backbone that it was grown from; itself where it was not."""
        return self.grown_from[0] if self.grown_from else self

    def owner(self, backbone: str, catalogue: str, path: Path | None = None) -> BackboneIdentity:
        """Return which of these backbones a bundle was made for.

        Args:
            backbone: fingerprint of its backbone, as the bundle names it.
            catalogue: fingerprint of its catalogue.
            path: of the bundle, for the message.

        Raises:
            FingerprintError: for none of them; with the fingerprints in the message.
        """
        for identity in (self, *self.grown_from):
            if (identity.fingerprint, identity.catalogue_fingerprint) == (backbone, catalogue):
                return identity
        part, expected, actual = (
            ("backbone", backbone, self.fingerprint)
            if backbone != self.fingerprint
            else ("catalogue", catalogue, self.catalogue_fingerprint)
        )
        raise FingerprintError(
            f"was made for another {part} than this one ({short_hash(expected)}, {short_hash(actual)})",
            remedy="load it on the backbone it was adapted from, or adapt the task to this one",
            path=path,
        )


def dump_identity(identity: BackboneIdentity) -> dict[str, Any]:
    """Return a backbone without those it was grown from as plain values."""
    return {
        "fingerprint": identity.fingerprint,
        "catalogue_fingerprint": identity.catalogue_fingerprint,
        "items": identity.items,
    }


def load_identity(meta: dict[str, Any]) -> BackboneIdentity:
    """Return the identity that the config.json of a backbone states, without a look at its tensors."""
    grown_from = tuple(load_identity(ancestor) for ancestor in meta.get("grown_from", ()))
    return BackboneIdentity(meta["fingerprint"], meta["catalogue_fingerprint"], int(meta["items"]), grown_from)
