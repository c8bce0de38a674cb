"""Converting public formats: what is the same for all of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peterrec.data.sources import AMAZON, FORMAT_NAMES, convert, fetch
from peterrec.data.sources.text_tables import Distinct
from peterrec.errors import ArtifactError, ConfigError, DataError
from peterrec.storage import read_json, sha256_file


def save(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    return save(tmp_path / "pre.csv", "5,6\n7\n")


def test_convert_writes_the_folder_that_fetch_writes(tmp_path: Path, sample: Path) -> None:
    lines: list[str] = []
    out = convert("peterrec", [str(sample)], str(tmp_path / "deep" / "out"), report=lines.append)
    assert out == tmp_path / "deep" / "out"
    assert {path.name for path in out.iterdir()} == {"events.parquet", "users.parquet", "items.parquet", "source.json"}
    marker = read_json(out / "source.json")
    assert (marker["kind"], marker["name"]) == ("source", "peterrec")
    assert marker["files"] == [{"name": "pre.csv", "bytes": 6, "sha256": sha256_file(sample)}]
    assert marker["rows"] == {"events": 3, "users": 2, "items": 3}
    assert marker["rows"] == {t: len(pq.read_table(out / f"{t}.parquet")) for t in ("events", "users", "items")}
    assert set(marker["notes"]) <= set(lines)
    assert lines[-1] == f"{out} holds 3 events of 2 users with 3 items"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_one_path_needs_no_list(tmp_path: Path, sample: Path) -> None:
    assert len(pq.read_table(convert("peterrec", sample, tmp_path / "a") / "events.parquet")) == 3
    assert len(pq.read_table(convert("peterrec", str(sample), tmp_path / "b") / "events.parquet")) == 3


def test_an_unknown_format_lists_the_formats(tmp_path: Path, sample: Path) -> None:
    with pytest.raises(ConfigError, match="no format is called 'yelp'") as caught:
        convert("yelp", [sample], tmp_path / "out")
    assert "amazon, peterrec, recbole, tenrec" in caught.value.remedy


def test_only_what_was_written_here_is_replaced(tmp_path: Path, sample: Path) -> None:
    out = convert("peterrec", [sample], tmp_path / "out")
    longer = save(tmp_path / "longer.csv", "5,6\n7\n8\n")
    with pytest.raises(ArtifactError, match=": already exists\n") as caught:
        convert("peterrec", [longer], out)
    assert "--overwrite" in caught.value.remedy
    convert("peterrec", [longer], out, overwrite=True)
    assert read_json(out / "source.json")["rows"]["users"] == 3
    mine = tmp_path / "mine"
    mine.mkdir()
    convert("peterrec", [sample], mine)  # an empty folder is free
    thesis = tmp_path / "work"
    thesis.mkdir()
    save(thesis / "thesis.txt", "years")
    for target in (thesis, longer):
        with pytest.raises(ArtifactError, match="is not a folder that fetch or convert wrote") as caught:
            convert("peterrec", [sample], target, overwrite=True)
        assert "--overwrite" not in caught.value.remedy
    assert (thesis / "thesis.txt").read_text() == "years"


def test_fetch_and_convert_replace_each_other_only_when_told(tmp_path: Path, sample: Path) -> None:
    out = convert("peterrec", [sample], tmp_path / "out")
    with pytest.raises(ArtifactError, match="already exists and is not the data set ml-1m"):
        fetch("ml-1m", out, source_file=tmp_path / "not-looked-at")
    assert read_json(out / "source.json")["name"] == "peterrec"


def test_a_failed_conversion_leaves_what_was_there(tmp_path: Path, sample: Path) -> None:
    out = convert("peterrec", [sample], tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    bad = save(tmp_path / "bad.csv", "5,6\nseven\n")
    for target in (out, tmp_path / "new"):
        with pytest.raises(DataError, match="line 2"):
            convert("peterrec", [bad], target, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"out", "pre.csv", "bad.csv"}


def test_files_that_cannot_be_the_input(tmp_path: Path, sample: Path) -> None:
    out = convert("peterrec", [sample], tmp_path / "out")
    inside = save(out / "pre.csv", "5,6\n")
    cases: list[tuple[list[Path], str]] = [
        ([], "there are no files to convert"),
        ([sample, tmp_path / "no.csv"], r"no\.csv: there is no such file"),
        ([sample, tmp_path / "." / "out" / ".." / "pre.csv"], r"pre\.csv: is named twice"),
        ([inside], "lies in the folder that is to be written"),
    ]
    for paths, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            convert("peterrec", paths, out, overwrite=True)
        assert caught.value.remedy
    assert inside.read_text() == "5,6\n"


@pytest.mark.parametrize("format_", ["recbole", "tenrec"])
def test_targets_are_for_the_format_with_task_files(tmp_path: Path, sample: Path, format_: str) -> None:
    with pytest.raises(ConfigError, match="no task files"):
        convert(format_, [sample], tmp_path / "out", targets="items")


BAD_FILES = {
    "empty": b"",
    "blank": b"\n\n",
    "binary": b"\xff\xfe1\x00,\x002\x00\n\x00",
    "packed.csv.gz": gzip.compress(b"user_id,item_id\n1,2\n")[:-6],
    "html.csv.gz": b"<html>\n</html>\n",
}


@pytest.mark.parametrize("format_", FORMAT_NAMES)
@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_no_format_can_read(tmp_path: Path, format_: str, name: str) -> None:
    ending = ".inter" if format_ == "recbole" else ".csv" if "." not in name else ""
    path = save(tmp_path / (name + ending), BAD_FILES[name])
    with pytest.raises(DataError) as caught:
        convert(format_, [f"kitchen={path}" if format_ == AMAZON else path], tmp_path / "out")
    assert caught.value.path == path
    assert caught.value.remedy
    assert [path_left.name for path_left in tmp_path.iterdir()] == [path.name]


def test_distinct_keeps_the_first_of_each_in_order_however_it_comes() -> None:
    distinct = Distinct(pa.schema([("a", pa.int64())]))
    distinct._limit = 3  # gathered again and again, as with many rows
    for values in ([9, 1, 9], [5], [], [1, 7, 2, 9], [0, 5]):
        distinct.add(pa.table({"a": pa.array(values, pa.int64())}))
    assert distinct.table()["a"].to_pylist() == [9, 1, 5, 7, 2, 0]


@pytest.mark.slow
def test_distinct_keeps_the_order_of_many_pieces_at_once() -> None:
    values = np.random.default_rng(0).integers(0, 300_000, 1_000_000)
    pieces = pa.chunked_array(np.array_split(values, 50))
    distinct = Distinct(pa.schema([("a", pa.int64())]))
    distinct.add(pa.table({"a": pieces[:500_000]}))
    distinct.add(pa.table({"a": pieces[500_000:]}))
    distinct_values = distinct.table()["a"].to_numpy()
    _, first = np.unique(values, return_index=True)
    assert np.array_equal(distinct_values, values[np.sort(first)])
