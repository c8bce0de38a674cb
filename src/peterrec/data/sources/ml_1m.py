"""MovieLens 1M: a million ratings of films, with sex, age and occupation of the users."""

from __future__ import annotations

import hashlib
import io
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa

from peterrec.data.sources.base import Report, SourceTables
from peterrec.errors import DataError, FetchError

URL = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
MD5 = "c4d9eecfca2ab87c1945afe126590906"  # published beside the file
FILES = ("ratings.dat", "users.dat", "movies.dat")
LICENCE = "MovieLens 1M may be used for research only and not be redistributed; see the README of GroupLens"
BY_HAND = f"download {URL} in another way and pass it with --from FILE"


def fetch_ml_1m(source_file: Path | None, report: Report) -> SourceTables:
    """Get MovieLens 1M from GroupLens, or from a file.

    Args:
        source_file: the zip or the unpacked folder; None downloads the zip (6 MB).
        report: called with one sentence at a time.

    Raises:
        FetchError: the zip cannot be downloaded, or the download is not the expected file.
        DataError: a file is not in the format of MovieLens 1M.
    """
    report(LICENCE)
    if source_file is not None:
        return read_ml_1m(source_file)
    report(f"downloading {URL} (6 MB)")
    data = _download()
    digest = _md5(data)
    if digest != MD5:
        remedy = "the download is damaged or was changed: try again, or " + BY_HAND
        raise FetchError(f"the download has md5 {digest}, not {MD5} as GroupLens publishes", remedy=remedy, path=URL)
    return _tables(_unzip(data, URL), digest, URL)


def read_ml_1m(path: Path) -> SourceTables:
    """Read MovieLens 1M from its zip or the unpacked folder.

    `timestamp` is in seconds since 1970; `age` and `occupation` are the codes of the data set, as text.

    Raises:
        FetchError: there is no such file, or it lacks one of the three files.
        DataError: a file is not in the format of MovieLens 1M.
    """
    try:
        if path.is_dir():
            files = {name: (path / name).read_bytes() for name in FILES}
            digest = _md5(b"".join(files.values()))
        else:
            data = path.read_bytes()
            files, digest = _unzip(data, path), _md5(data)
    except OSError as error:
        place = error.filename or path
        raise FetchError(f"cannot be read ({error.strerror})", remedy="check the path", path=place) from error
    return _tables(files, digest, path)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _download() -> bytes:
    try:
        with urllib.request.urlopen(URL, timeout=60) as response:
            data: bytes = response.read()
    except (OSError, urllib.error.URLError) as error:
        raise FetchError(f"could not be downloaded ({error})", remedy=BY_HAND, path=URL) from error
    return data


def _unzip(data: bytes, path: str | Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = {name.rsplit("/", 1)[-1]: name for name in archive.namelist() if "__MACOSX" not in name}
            if missing := [name for name in FILES if name not in names]:
                raise FetchError(f"does not hold {', '.join(missing)}", remedy=BY_HAND, path=path)
            return {name: archive.read(names[name]) for name in FILES}
    except (zipfile.BadZipFile, zlib.error) as error:
        raise FetchError(f"is not a zip file, or is damaged ({error})", remedy=BY_HAND, path=path) from error


def _tables(files: dict[str, bytes], digest: str, path: str | Path) -> SourceTables:
    ratings = _numbers(_fields(files, "ratings.dat", 4, path), "ratings.dat", range(4), path)
    users = _numbers(_fields(files, "users.dat", 5, path), "users.dat", range(1), path)
    movies = _numbers(_fields(files, "movies.dat", 3, path), "movies.dat", range(1), path)
    events = {"user_id": ratings[0], "item_id": ratings[1], "timestamp": ratings[3], "rating": ratings[2]}
    comparison = "as GroupLens publishes" if digest == MD5 else f"not the {MD5} of the zip that GroupLens publishes"
    notes = (f"the origin has md5 {digest}, {comparison}",)
    return SourceTables(
        events=pa.table(events),
        users=pa.table(dict(zip(("user_id", "gender", "age", "occupation"), users, strict=False))),
        items=pa.table(dict(zip(("item_id", "title", "genres"), movies, strict=True))),
        digest=f"md5:{digest}",
        notes=notes,
    )


def _fields(files: dict[str, bytes], name: str, count: int, path: str | Path) -> list[list[str]]:
    """Return the lines of a file, each as `count` texts; latin-1 makes a letter of any byte."""
    rows = []
    for number, line in enumerate(files[name].decode("latin-1").replace("\r\n", "\n").split("\n"), start=1):
        row = line.split("::")
        if len(row) == count:
            rows.append(row)
        elif line:
            raise _format_error(name, f"line {number} has {len(row)} fields instead of {count}", path)
    if not rows:
        raise _format_error(name, "there are no lines", path)
    return rows


def _numbers(rows: list[list[str]], name: str, columns: range, path: str | Path) -> list[pa.Array]:
    """Turn rows into columns, of int64 where said and of text elsewhere."""
    arrays = []
    for column, texts in enumerate(zip(*rows, strict=True)):
        try:
            arrays.append(pa.array([int(text) for text in texts], pa.int64()) if column in columns else pa.array(texts))
        except (ValueError, OverflowError) as error:
            raise _format_error(name, f"field {column + 1} is not a whole number everywhere ({error})", path) from error
    return arrays


def _format_error(name: str, problem: str, path: str | Path) -> DataError:
    return DataError(
        f"{name}: {problem}", remedy="pass the zip or folder of MovieLens 1M as GroupLens made it", path=path
    )
