"""Parts of the description of a bundle: what is written, read and checked beside its tensors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from peterrec.data.reference import Reference
from peterrec.errors import ArtifactError
from peterrec.nn.backbone import UnsharedModules
from peterrec.storage import description_errors, read_json, short_hash

REFERENCE_FILE = "reference.json"


def dump_unshared(unshared: UnsharedModules | None) -> dict[str, Any] | None:
    """Return it as plain values, without `per_block` where blocks are whole: as before there was a choice."""
    if unshared is None:
        return None
    return {name: value for name, value in asdict(unshared).items() if (name, value) != ("per_block", 2)}


def check_fingerprint(part: str, actual: str, expected: str, path: Path) -> None:
    """Refuse a part of a bundle that is not the one that was saved.

    Raises:
        ArtifactError: its fingerprint is another.
    """
    if actual != expected:
        raise ArtifactError(
            f"the fingerprint of its {part} is not that of its adapter_config.json "
            f"({short_hash(actual)}, {short_hash(expected)})",
            remedy="a file of it was changed or mixed with another's: make the bundle again",
            path=path,
        )


def read_reference(path: Path) -> Reference | None:
    """Return what valid users were like; None where that was not kept; errors as those of `description_errors`."""
    if not path.exists():
        return None
    with description_errors(path):
        return Reference.from_json(read_json(path))


def check_sizes(meta: dict[str, Any], outputs: int) -> None:
    """Refuse numbers of a description that do not fit.

    Raises:
        ValueError: the outputs are not so many, or there is no number of events.
    """
    if meta["outputs"] != outputs:
        raise ValueError(f"outputs is {meta['outputs']}, and {outputs} are named")
    if type(meta["max_length"]) is not int or meta["max_length"] < 1:
        raise ValueError(f"max_length is {meta['max_length']!r}, no number of events")
