"""Public data sets and public formats: each fetched by name, or converted, into a folder of Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from peterrec.arguments import checked, did_you_mean
from peterrec.config import AmazonConfig
from peterrec.data.sources.authors import open_authors
from peterrec.data.sources.base import Fill, Report, SourceTables
from peterrec.data.sources.ml_1m import fetch_ml_1m
from peterrec.data.sources.output_folder import TableWriter, check_place, holds_data_set, may_replace
from peterrec.data.sources.recbole import open_recbole
from peterrec.data.sources.ta_feng import fetch_ta_feng
from peterrec.data.sources.tenrec import open_tenrec
from peterrec.errors import ConfigError, DataError, FetchError
from peterrec.storage import new_folder, sha256_file

SOURCES: dict[str, Callable[[Path | None, Report], SourceTables]] = {"ml-1m": fetch_ml_1m, "ta-feng": fetch_ta_feng}
Open = Callable[[Sequence[Path], str | None, Report], Fill]

FORMATS: dict[str, Open] = {
    "peterrec": open_authors,
    "recbole": open_recbole,
    "tenrec": open_tenrec,
}
"""Each looks at the head of the files, refuses what it can refuse by then, and returns how to read them."""
AMAZON = "amazon"  # the format with settings, whose files have a domain each
FORMAT_NAMES = sorted([AMAZON, *FORMATS])


@checked
def fetch(
    name: str,
    out: str | Path,
    *,
    source_file: str | Path | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> Path:
    """Fetch a public data set into a folder: `events`, `users` and `items.parquet`, and `source.json`.

    A folder that already holds this data set is used as it is.

    Args:
        name: `ml-1m` (MovieLens 1M) or `ta-feng` (Ta Feng).
        out: the folder; it appears only when everything is in it.
        source_file: read this file instead of downloading.
        overwrite: fetch again, and replace what a former fetch wrote to `out`.
        report: called with one sentence at a time about what is done and found.

    Returns:
        The folder `out`; its `events.parquet` has the columns `user_id`, `item_id` and `timestamp`, one row per event.

    Raises:
        FetchError: no such data set, or it could not be downloaded, or it is not the expected file.
        DataError: the file is not in the format of the data set.
        ArtifactError: `out` holds something else.
        StorageError: the disk is full or the place is not writable.
    """
    report = report or _ignore
    out = Path(out)
    if name not in SOURCES:
        raise FetchError(
            f"no public data set is called {name!r}{did_you_mean(name, SOURCES)}",
            remedy=f"choose one of: {', '.join(sorted(SOURCES))}",
        )
    if may_replace(out) and not overwrite and holds_data_set(out, name):
        report(f"{out} already holds {name}; it is used as it is (--overwrite fetches it again)")
        return out
    replace = check_place(out, f"already exists and is not the data set {name}", overwrite=overwrite)
    tables = SOURCES[name](Path(source_file) if source_file is not None else None, report)
    for note in tables.notes:
        report(note)
    algorithm, _, digest = tables.digest.partition(":")
    with new_folder(out, overwrite=replace) as folder, TableWriter(folder) as writer:
        writer.write(tables.events)
        writer.finish(tables.users, tables.items, {"name": name, algorithm: digest}, tables.notes)
    report(f"{out} holds {writer.summary()}")
    return out


@checked
def convert(
    format: str,
    paths: Sequence[str | Path] | str | Path,
    out: str | Path,
    *,
    targets: str | None = None,
    config: AmazonConfig | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> Path:
    """Turn files of a public format into a folder as `fetch` writes it, which `prepare` then reads.

    Args:
        format: `amazon` (public dumps of reviews), `peterrec` (files of the paper's authors), `recbole` (atomic files)
            or `tenrec`.
        paths: the files; docs/data.md says which for each format. Those of `amazon` are `DOMAIN=FILE`.
        out: the folder; it appears only when everything is in it.
        targets: what the targets in task files of the format `peterrec` are, `items` or `labels`; for nothing else.
        config: which reviews of the format `amazon` become events; for nothing else. None: all of them.
        overwrite: replace what a former `fetch` or `convert` wrote to `out`.
        report: called with one sentence at a time about what is done and found.

    Returns:
        The folder `out`; its `events.parquet` has the columns `user_id`, `item_id` and `timestamp`, one row per event.

    Raises:
        ConfigError: no such format, or `targets` or `config` is missing, wrong or out of place.
        DataError: a file is missing or not in the format; the message names it, and the line where there is one.
        ArtifactError: `out` is there and may not be replaced.
        StorageError: the disk is full or the place is not writable.
    """
    report = report or _ignore
    out = Path(out)
    if format not in FORMAT_NAMES:
        problem = f"no format is called {format!r}{did_you_mean(format, FORMAT_NAMES)}"
        raise ConfigError(problem, remedy=f"choose one of: {', '.join(FORMAT_NAMES)}")
    if config is not None and format != AMAZON:
        raise ConfigError(f"the format {format} has no settings", remedy=f"leave them out: they are for {AMAZON}")
    paths = [paths] if isinstance(paths, str | Path) else paths
    if format == AMAZON:
        open_files, paths = _amazon(paths, config or AmazonConfig(), out)
    else:
        open_files = FORMATS[format]
    files = _inputs(paths, out)
    ours = may_replace(out)
    complaint = "already exists" if ours else "already exists and is not a folder that fetch or convert wrote"
    replace = check_place(out, complaint, overwrite=overwrite)
    fill = open_files(files, targets, report)
    with new_folder(out, overwrite=replace) as folder, TableWriter(folder) as writer:
        converted = fill(writer.write)
        origin = [_identity(file) for file in converted.files]
        writer.finish(converted.users, converted.items, {"name": format, "files": origin}, converted.notes)
    for note in converted.notes:
        report(note)
    report(f"{out} holds {writer.summary()}")
    return out


def _amazon(paths: Sequence[str | Path], config: AmazonConfig, out: Path) -> tuple[Open, list[str]]:
    """Return how to open files of Amazon, and their paths."""
    from peterrec.data.sources.amazon import open_amazon, split_domains  # noqa: PLC0415 - the engine takes a second

    domains, files = split_domains(paths)
    return partial(open_amazon, domains=domains, config=config, scratch=out.absolute().parent), files


def _ignore(_: str) -> None:
    pass


def _inputs(paths: Sequence[str | Path], out: Path) -> list[Path]:
    """Check that every path is there, once, and not in the folder that may be replaced."""
    distinct: dict[Path, Path] = {}
    if not paths:
        raise DataError("there are no files to convert", remedy="name at least one file")
    for path in map(Path, paths):
        if not path.exists():
            raise DataError("there is no such file", remedy="check the path", path=path)
        if path.resolve() in distinct:
            raise DataError("is named twice", remedy="name each file once: its events would count twice", path=path)
        if path.resolve().is_relative_to(out.resolve()):
            raise DataError("lies in the folder that is to be written", remedy="choose another --out", path=path)
        distinct[path.resolve()] = path
    return list(distinct.values())


def _identity(file: Path) -> dict[str, str | int]:
    return {"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_file(file)}
