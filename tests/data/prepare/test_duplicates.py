"""The same events given twice: told where they are read once, refused where every event would count twice."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.prepare.logs import COLUMNS, SMALL, prepare_log, sequences_of, settings, write_csv, write_parquet
from peterrec.data.prepare import prepare
from peterrec.errors import DataError
from whole_histories import read_event_histories

EMPTY = {"user_id": pa.string(), "item_id": pa.string(), "timestamp": pa.int64()}


def warnings_of(folder: Path, *paths: Path) -> list[str]:
    lines: list[str] = []
    corpus = prepare(settings(paths), folder / "out", overwrite=True, report=lines.append)
    warnings: list[str] = corpus.manifest["warnings"]
    assert [line for line in lines if line.startswith("warning: ")] == [f"warning: {line}" for line in warnings]
    return warnings


@pytest.mark.slow
def test_a_file_that_is_named_twice_is_read_once_and_told(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "in" / "log.csv", SMALL)
    (tmp_path / "in" / "link.csv").symlink_to("log.csv")
    once = sequences_of(prepare_log(log, tmp_path / "once"))
    assert warnings_of(tmp_path, log) == []
    for paths in ([log, log], [log, tmp_path / "in"], [tmp_path / "in" / "*.csv"]):
        assert warnings_of(tmp_path, *paths) == [f"{log.resolve()}: named more than once, read once"]
        assert sequences_of(prepare_log(paths, tmp_path / "out")) == once


def packed(path: Path, *, members: int = 1) -> Path:
    data, copy = path.read_bytes(), path.with_name(f"{path.name}.gz")
    step = len(data) // members + 1
    copy.write_bytes(b"".join(gzip.compress(data[start : start + step]) for start in range(0, len(data), step)))
    return copy


def copied(path: Path) -> Path:
    return Path(shutil.copy(path, path.with_name(f"copy of {path.name}")))


def linked(path: Path) -> Path:
    os.link(path, path.with_name(f"hard {path.name}"))
    return path.with_name(f"hard {path.name}")


def packed_elsewhere(path: Path) -> Path:
    return packed(path).rename(path.with_name("z.csv.gz"))


def packed_in_parts(path: Path) -> Path:
    return packed(path, members=3)


@pytest.mark.parametrize("make", [packed, packed_elsewhere, packed_in_parts, copied, linked])
def test_files_of_equal_content_are_refused(tmp_path: Path, make: Any) -> None:
    log = write_csv(tmp_path / "in" / "log.csv", SMALL)
    write_csv(tmp_path / "in" / "other.csv", [("u9", "a", 5)])
    make(log)
    with pytest.raises(DataError, match="has the same content as") as caught:
        prepare_log(log.parent, tmp_path / "out")
    assert "leave one of the two out" in caught.value.remedy
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="every event would count twice"):
        read_event_histories(settings(log.parent).events)


def test_parquet_files_of_equal_content_are_refused(tmp_path: Path) -> None:
    copied(write_parquet(tmp_path / "in" / "log.parquet", SMALL))
    with pytest.raises(DataError, match="every event would count twice"):
        prepare_log(tmp_path / "in", tmp_path / "out")


def test_files_without_rows_and_files_of_one_size_or_name_are_no_duplicates(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_csv(tmp_path / "in" / f"{name}.csv", [])
        write_parquet(tmp_path / "in" / f"{name}.parquet", [], **EMPTY)
    write_csv(tmp_path / "in" / "x.csv", SMALL)
    write_csv(tmp_path / "in" / "y.csv", [(f"v{user[1:]}", item, time) for user, item, time in SMALL])
    write_csv(tmp_path / "in" / "x.csv.gz", [("w1", "a", 5), ("w2", "b", 5)])
    assert warnings_of(tmp_path, tmp_path / "in") == []


@pytest.mark.slow
def test_one_log_in_two_forms_is_told(tmp_path: Path) -> None:
    first = write_csv(tmp_path / "in" / "a.csv", SMALL, separator=";")
    second = write_csv(tmp_path / "in" / "b.tsv", sorted(SMALL), separator="\t")
    third = write_parquet(tmp_path / "in" / "c.parquet", SMALL)
    write_csv(tmp_path / "in" / "d.csv", [(user, item, time + 1) for user, item, time in SMALL])
    (warning,) = warnings_of(tmp_path, tmp_path / "in")
    assert warning.startswith(f"{first}, {second} and {third} hold {len(SMALL)} events each")
    headerless = write_csv(tmp_path / "one" / "a.csv", SMALL[:1], None)
    copied(headerless)
    with pytest.raises(DataError, match="every event would count twice"):
        prepare_log(headerless.parent, tmp_path / "out", events={"columns": COLUMNS})
