"""Parts of a backbone that follow from the content of items: item_content.json and .safetensors in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from peterrec.artifacts.tensors import fingerprint, names_fingerprint, read_tensors, write_tensors
from peterrec.data.content_encoder import ContentEncoder
from peterrec.errors import FingerprintError
from peterrec.storage import description_errors, read_json, write_json

FILE = "item_content"


@dataclass(frozen=True)
class LearnedContent:
    """Part of what a network has for an item that follows from the item's content.

    Attributes:
        encoder: from a table of items to numbers.
        projections: by table of the network (`embedding`, `output` where items are not scored with their embeddings,
            `bias`): (F + 1, C) or (F + 1,) weights of these numbers, and of a 1.
    """

    encoder: ContentEncoder
    projections: dict[str, Tensor]

    def rows(self, features: Float[np.ndarray, "items F"]) -> dict[str, Tensor]:
        """Return what the content of items says of their rows in each table."""
        numbers = with_constant(features)
        return {name: numbers @ projection for name, projection in self.projections.items()}

    @property
    def fingerprint(self) -> str:
        """sha256 of all of it."""
        return fingerprint(self._tensors(), names_fingerprint([repr(self.encoder.state()[0])]))

    def _tensors(self) -> dict[str, Tensor]:
        arrays = {f"encoder.{name}": torch.from_numpy(array) for name, array in self.encoder.state()[1].items()}
        return arrays | {f"projection.{name}": tensor for name, tensor in self.projections.items()}

    def write(self, folder: Path) -> None:
        """Write both files."""
        write_json(folder / f"{FILE}.json", {"columns": self.encoder.state()[0]})
        write_tensors(folder / f"{FILE}.safetensors", self._tensors())

    @classmethod
    def read(cls, folder: Path, stated: str) -> LearnedContent:
        """Read both files.

        Raises:
            ArtifactError: one is missing or damaged.
            FingerprintError: they are not those that were written.
        """
        path = folder / f"{FILE}.json"
        with description_errors(path):
            columns = read_json(path)["columns"]
            tensors = read_tensors(folder / f"{FILE}.safetensors")
            arrays = {name: tensor.numpy() for name, tensor in _under("encoder.", tensors).items()}
            learned = cls(ContentEncoder.from_state(columns, arrays), _under("projection.", tensors))
            if learned.fingerprint == stated:
                return learned
        raise FingerprintError(
            f"{FILE}.json and {FILE}.safetensors are not those of its config.json",
            remedy="a file of it was changed or mixed with another's: make the backbone again",
            path=folder,
        )


def with_constant(features: Float[np.ndarray, "items F"]) -> Float[Tensor, "items F+1"]:
    """Return the numbers of items with a column of 1 after them."""
    return torch.from_numpy(np.column_stack([features, np.ones(len(features))])).float()


def _under(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
