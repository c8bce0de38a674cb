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

CHECKED_AT_ONCE = 1 << 22  # values


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


def read_tensors(path: Path, *, finite: bool = True) -> dict[str, Tensor]:
    """Read tensors: the file is mapped, so that processes share what they only read of it.

    Args:
        path: the file.
        finite: check that every value is a number, for which all of the file is read.

    Raises:
        ArtifactError: the file is missing, cut short or not safetensors, or a value is not a number.
    """
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise ArtifactError("is missing", remedy="make the artifact again", path=path) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"is damaged ({error})", remedy="make the artifact again", path=path) from error
    if finite:
        check_finite(tensors, path, "make the artifact again")
    return tensors


def check_finite(tensors: Mapping[str, Tensor], path: Path, remedy: str) -> None:
    """Refuse tensors with values that are not finite numbers: every answer would be none.

    Raises:
        ArtifactError: with the name of such a tensor in the message.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        parts = torch.split(
            tensor.reshape(-1), CHECKED_AT_ONCE
        )  # what is computed of a whole table would be as large as it
        bad = sum(int((~part.isfinite()).sum()) for part in parts)
        if bad:
            raise ArtifactError(
                f"{bad:,} of the {tensor.numel():,} values of {name} are NaN or infinite", remedy=remedy, path=path
            )


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, *, mapped: bool = False) -> None:
    """Load tensors into a module that must have exactly these names and shapes.

    Args:
        module: whose values are replaced.
        tensors: by name, as `read_tensors` gives them.
        path: of their file.
        mapped: the module then has these very tensors, which are pages of the file, and not copies of them.

    Raises:
        ArtifactError: names or shapes differ.
    """
    try:
        module.load_state_dict(dict(tensors), assign=mapped)
    except RuntimeError as error:
        raise ArtifactError(
            f"its tensors do not fit its configuration ({error})", remedy="make the artifact again", path=path
        ) from error


def map_into(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Give a module these very tensors as parameters, whatever the shapes of those it has: pages of a file, no copies.

    A module on the meta device would do the same, for seconds and 70 MB of what torch imports for it.

    Raises:
        ArtifactError: names differ.
    """
    if set(tensors) != set(module.state_dict()):
        raise ArtifactError("its tensors do not fit its configuration", remedy="make the artifact again", path=path)
    for name, tensor in tensors.items():
        owner, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(owner), attribute, nn.Parameter(tensor, requires_grad=False))
