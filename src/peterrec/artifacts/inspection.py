"""The verb `inspect`: kind, sizes, fingerprints and metrics of an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peterrec.arguments import checked
from peterrec.errors import ArtifactError
from peterrec.storage import DESCRIPTIONS, check_format, read_json


@checked
def inspect(path: str | Path) -> dict[str, Any]:
    """Describe an artifact: kind, sizes, fingerprints, configuration, metrics, trainable share.

    Args:
        path: folder of a corpus, a backbone, a bundle or a benchmark.

    Returns:
        Plain values, in the order a person wants to read them; `bytes` is the size on disk.

    Raises:
        ArtifactError: not an artifact, or damaged.
        FormatVersionError: written in another format version.
    """
    path = Path(path)
    for kind, name in DESCRIPTIONS.items():
        if (path / name).exists():
            meta = read_json(path / name)
            check_format(meta, kind, path)
            if kind == "bundle":
                meta["metrics"] = read_json(path / "metrics.json")
            if "retired" in meta:
                meta["retired"] = len(meta["retired"])
            return {"path": str(path), **meta, "bytes": _size(path)}
    if path.name and path.with_name(path.name + ".training").exists():  # `.` and `/` have no name
        remedy = "run the pretrain or adapt that makes it again, with --resume"
        raise ArtifactError("is not finished: only its resume point is there", remedy=remedy, path=path)
    raise ArtifactError(
        "is no artifact of peterrec", remedy="name the folder of a corpus, a backbone or a bundle", path=path
    )


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
