"""The folder that Spark writes answers to, on this machine or at a URI: it is there when all of it is."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from peterrec.errors import ArtifactError, StorageError
from peterrec.storage import DESCRIPTIONS, check_output, new_folder, write_file

KIND = "table of answers"
DESCRIPTION = DESCRIPTIONS[KIND]


class AnswerFolder(NamedTuple):
    """A folder that is being written.

    Attributes:
        uri: for Spark.
        describe: writes its description.
    """

    uri: str
    describe: Callable[[dict[str, Any]], None]


def is_uri(place: str) -> bool:
    """Return whether a place is named by a scheme, such as file:, s3a: or hdfs:."""
    return re.match("[A-Za-z][A-Za-z0-9+.-]+:/", place) is not None


def check_folder(out: str, *, overwrite: bool) -> None:
    """Refuse a folder of this machine that may not be written, before Spark is started; errors as in `check_output`."""
    if not is_uri(out):
        check_output(Path(out), overwrite=overwrite, kind=KIND)


@contextlib.contextmanager
def new_answer_folder(session: Any, out: str, *, overwrite: bool) -> Iterator[AnswerFolder]:
    """Yield a folder that becomes `out` when the block ends well, and vanishes when it does not.

    At a URI it is made beside `out` and renamed by Hadoop's file system of that scheme, with its settings.

    Args:
        session: of Spark.
        out: a path of this machine, or a URI.
        overwrite: replace answers that are there.

    Raises:
        ArtifactError: `out` may not be replaced.
        StorageError: the place is not writable.
    """
    if not is_uri(out):
        with new_folder(Path(out), overwrite=overwrite, kind=KIND) as folder:
            yield AnswerFolder(
                f"file://{folder.resolve()}", lambda meta: write_file(folder / DESCRIPTION, _as_json(meta))
            )
        return
    hadoop, settings = session.sparkContext._jvm.org.apache.hadoop.fs, session.sparkContext._jsc.hadoopConfiguration()
    target, work = hadoop.Path(out), hadoop.Path(f"{out.rstrip('/')}-{secrets.token_hex(6)}.tmp")
    files = target.getFileSystem(settings)
    _check_target(files, hadoop, target, overwrite=overwrite)

    def describe(meta: dict[str, Any]) -> None:
        stream = files.create(hadoop.Path(work, DESCRIPTION))
        stream.write(_as_json(meta))
        stream.close()

    try:
        yield AnswerFolder(work.toString(), describe)
        if overwrite:
            files.delete(target, True)
        if not files.rename(work, target):
            raise StorageError("cannot be made", remedy="check that nobody else writes there", path=out)
    finally:
        files.delete(work, True)


def _check_target(files: Any, hadoop: Any, target: Any, *, overwrite: bool) -> None:
    if not files.exists(target):
        return
    if not overwrite:
        raise ArtifactError(
            "already exists", remedy="choose another folder, or pass --overwrite", path=target.toString()
        )
    if not files.exists(hadoop.Path(target, DESCRIPTION)):
        raise ArtifactError(
            f"is there and is not a {KIND}, so --overwrite does not replace it",
            remedy="choose another folder, or remove it",
            path=target.toString(),
        )


def _as_json(meta: dict[str, Any]) -> bytes:
    return json.dumps(meta, indent=2).encode()
