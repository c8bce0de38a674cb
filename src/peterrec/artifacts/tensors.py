"""Tensors on disk (safetensors) and their fingerprint."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from peterrec.errors import ArtifactError


def fingerprint(tensors: Mapping[str, Tensor], use: str = "") -> str:
    """Return the sha256 (hexadecimal) of names, types, shapes and bytes of all tensors, whatever their order.

    Args:
        tensors: by name.
        use: how they are used, where the same tensors may be used in several ways.
    """
    digest = hashlib.sha256(use.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def names_fingerprint(names: Iterable[str]) -> str:
    """Return the sha256 (hexadecimal) of names in their order."""
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors; the caller writes into a `storage.new_folder`, which makes it atomic.

    Raises:
        ArtifactError: a value is not a number; nothing is written.
        OSError: the disk is full or the place is not writable.
    """
    check_finite(tensors, path, "train again, with a lower learning rate or in full precision")
    path.touch()
    mode = path.stat().st_mode  # as the umask has it; safetensors would leave the file to its owner alone
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        system = re.search(r"os error (\d+)", str(error))  # safetensors hides the system's error in its own
        if system is None:
            raise
        raise OSError(int(system[1]), str(error), str(path)) from error
    path.chmod(mode)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors.

    Raises:
        ArtifactError: the file is missing, cut short or not safetensors, or a value is not a number.
    """
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise ArtifactError("is missing", remedy="make the artifact again", path=path) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"is damaged ({error})", remedy="make the artifact again", path=path) from error
    check_finite(tensors, path, "make the artifact again")
    return tensors


def check_finite(tensors: Mapping[str, Tensor], path: Path, remedy: str) -> None:
    """Refuse tensors with values that are not finite numbers: every answer would be none.

    Raises:
        ArtifactError: with the name of such a tensor in the message.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            raise ArtifactError(
                f"{bad:,} of the {tensor.numel():,} values of {name} are NaN or infinite", remedy=remedy, path=path
            )


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors into a module that must have exactly these names and shapes.

    Raises:
        ArtifactError: names or shapes differ.
    """
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ArtifactError(
            f"its tensors do not fit its configuration ({error})", remedy="make the artifact again", path=path
        ) from error
