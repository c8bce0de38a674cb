"""The same events given twice: a path that is named twice, files with equal content, files that look alike."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from peterrec.data.prepare.files import FILE, InputFile, all_files, is_packed
from peterrec.errors import DataError

CHUNK = 1 << 22


def repeated_path_warnings(paths: Sequence[str]) -> list[str]:
    """Return a warning if files are named more than once, by whatever path, glob, folder or link."""
    counts = Counter(path.resolve() for path in all_files(paths))
    twice = [str(path) for path, count in counts.items() if count > 1]
    if not twice:
        return []
    others_named = f" and {len(twice) - 1:,} more" if len(twice) > 1 else ""
    return [f"{twice[0]}{others_named}: named more than once, read once"]


def refuse_equal_files(files: Sequence[InputFile]) -> None:
    """Refuse files with equal content, packed or not. Only files of equal size or name are read.

    Raises:
        DataError: two files hold the same rows, so that every event would count twice.
    """
    first: dict[str, Path] = {}
    for file in _candidates(files):
        digest = _digest(file)
        if digest is not None and first.setdefault(digest, file.path) is not file.path:
            raise DataError(
                f"has the same content as {first[digest]}: every event would count twice",
                remedy="leave one of the two out",
                path=file.path,
            )


def _candidates(files: Sequence[InputFile]) -> list[InputFile]:
    """Return the files that share their size, unpacked, or their name, but for .gz, with another file."""
    keys_of_files = [_keys(file) for file in files]
    counts = Counter(key for keys_of_file in keys_of_files for key in keys_of_file)
    return [
        file for file, file_keys in zip(files, keys_of_files, strict=True) if any(counts[key] > 1 for key in file_keys)
    ]


def _keys(file: InputFile) -> list[Hashable]:
    size, path = file.path.stat().st_size, file.path
    if not is_packed(path):
        return [(file.kind, size), path]
    with path.open("rb") as packed:  # gzip ends with the unpacked size of its last part, modulo 2**32
        packed.seek(max(0, size - 4))
        return [(file.kind, int.from_bytes(packed.read(4), "little")), path.with_name(path.name[: -len(".gz")])]


def _digest(file: InputFile) -> str | None:
    """Return the sha256 of the unpacked content; None if it has no rows, or cannot be read (a later step says so)."""
    if file.kind == "parquet" and not pq.read_metadata(file.path).num_rows:
        return None
    digest = hashlib.sha256()
    try:
        with gzip.open(file.path) if is_packed(file.path) else file.path.open("rb") as content:
            if file.kind == "csv" and file.header:
                digest.update(content.readline())
            empty = True
            while chunk := content.read(CHUNK):
                digest.update(chunk)
                empty = empty and not chunk.strip()
    except (OSError, EOFError, zlib.error):
        return None
    return None if empty else digest.hexdigest()


def similar_file_warnings(events: Any) -> list[str]:
    """Return a warning for files that hold equally many events between the same bounds, such as one log in two forms.

    Args:
        events: user, item, time and `FILE` of every event.
    """
    extremes = {
        f"{end}_{name}": getattr(events[name], end)() for name in ("user", "item", "time") for end in ("min", "max")
    }
    ranges = events.group_by(FILE).aggregate(events=events.count(), **extremes)
    texts = ranges.select(FILE, "events", **{name: ranges[name].cast("string") for name in extremes})
    alike: dict[tuple[Any, ...], list[str]] = {}
    for row in texts.order_by(FILE).to_pyarrow().to_pylist():
        path = row.pop(FILE)
        alike.setdefault(tuple(row.values()), []).append(path)
    return [
        f"{', '.join(paths[:-1])} and {paths[-1]} hold {extent[0]:,} events each, of the same first and last user, "
        "item and time: if they are the same log, every event counts twice; leave one out"
        for extent, paths in alike.items()
        if len(paths) > 1
    ]
