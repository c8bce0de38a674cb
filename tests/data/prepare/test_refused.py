"""Input that cannot be used: one clear error that names the file and what to do, and nothing is written."""

from __future__ import annotations

import gzip
import math
import random
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.prepare.logs import COLUMNS, SMALL, prepare_log, settings, tree, write_csv, write_parquet
from pairwise import FULL
from peterrec.config import EventsConfig
from peterrec.data.prepare import preparation as run_module
from peterrec.data.prepare import prepare
from peterrec.errors import ArtifactError, ConfigError, DataError, PeterRecError
from whole_histories import read_event_histories

HEADER = "user_id,item_id,timestamp\n"
GOOD = HEADER + "a,x,1\na,y,2\n"


def raw(data: bytes | str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data if isinstance(data, bytes) else data.encode()) and None


def parquet(rows: list[tuple[Any, ...]], columns: tuple[str, ...] = COLUMNS, **types: Any) -> Callable[[Path], None]:
    return lambda path: write_parquet(path, rows, columns, **types) and None


def cut(write: Callable[[Path], None], share: float) -> Callable[[Path], None]:
    def write_less(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return write_less


LONG = HEADER + "".join(f"{n},{n * 7919 % 1000},{n}\n" for n in range(5000))
PACKED = gzip.compress(LONG.encode(), mtime=0)
CASES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a packed file cut short": ("a.csv.gz", raw(PACKED[:15_000]), "ended before the end"),
    "a packed file that is not": ("a.csv.gz", raw(GOOD), "Not a gzipped file"),
    "a packed file with a wrong byte": ("a.csv.gz", raw(PACKED[:9000] + b"???" + PACKED[9003:]), "cannot be read"),
    "Parquet cut short": ("a.parquet", cut(parquet(SMALL), 0.8), "cannot be read as Parquet"),
    "Parquet that is not": ("a.parquet", raw(GOOD), "cannot be read as Parquet"),
    "Parquet of nothing": ("a.parquet", raw(""), "cannot be read as Parquet"),
    "a line cut short": ("a.csv", raw(GOOD + "a,z"), "Line: 4"),
    "a line too long": ("a.csv", raw(GOOD + "a,z,3,4\n"), "Line: 4"),
    "an open quote": ("a.csv", raw(GOOD + 'a,"z,3\na,z,4\n'), "Line: 4"),
    "not UTF-8": ("a.csv", raw((GOOD + "a,é,3\n").encode("latin-1")), "not utf-8"),
    "a header that is not UTF-8": ("a.csv", raw("é,item_id,timestamp\n".encode("latin-1")), "not UTF-8"),
    "UTF-16": ("a.csv", raw(GOOD.encode("utf-16")), "not UTF-8"),
    "an empty file": ("a.csv", raw(""), "is empty"),
    "a blank line": ("a.csv", raw("\n"), "is empty"),
    "only a header": ("a.csv", raw(HEADER), "there are no events"),
    "Parquet without rows": ("a.parquet", parquet([], **dict.fromkeys(COLUMNS, pa.int64())), "there are no events"),
    "missing columns": ("a.csv", raw("user_id,what,when\na,x,1\n"), "the columns 'item_id', 'timestamp'; it has"),
    "a missing column of Parquet": ("a.parquet", parquet([(1, 2)], COLUMNS[:2]), "the column 'timestamp'; it has"),
    "a column twice": ("a.csv", raw("user_id,item_id,item_id,timestamp\na,x,y,1\n"), "the column 'item_id' twice"),
    "a column of Parquet twice": ("a.parquet", parquet([(1, 2, 3, 4)], ("Item_id", *COLUMNS)), "'item_id' twice"),
    "a name that is taken": ("a.parquet", parquet([(1, 2, 3, 4)], ("peterrec_file", *COLUMNS)), "is taken"),
    "bool ids": ("a.parquet", parquet([(1, True, 3)]), "'item_id' is of type bool"),
    "list ids": ("a.parquet", parquet([([1], 2, 3)]), "'user_id' is of type list"),
    "float ids": ("a.parquet", parquet([(1, 2.0, 3)]), "'item_id' is of type double"),
    "bool times": ("a.parquet", parquet([(1, 2, True)]), "'timestamp' is of type bool"),
    "infinite times": ("a.parquet", parquet([(1, 2, t) for t in (1.0, math.inf, math.nan)]), "2 without a readable"),
    "infinite times in text": ("a.csv", raw(GOOD + "a,x,inf\na,x,nan\na,x,-1e999\n"), "3 without a readable, finite"),
    "a time that is too early": ("a.parquet", parquet([(1, 2, -(2**31))], timestamp=pa.date32()), "1 row cannot"),
    "times nobody can read": ("a.csv", raw(HEADER + "a,x,soon\na,y,later\n"), "neither numbers nor dates"),
    "one time nobody can read": ("a.csv", raw(GOOD + "a,x,soon\n"), "1 row cannot be used: 1 without a readable"),
    "missing ids": ("a.csv", raw(GOOD + ",x,1\n,y,2\na,,3\n"), "3 rows cannot be used: 2 without a user id"),
    "missing ids of Parquet": ("a.parquet", parquet([("a", "x", 1), (None, "", None)]), "1 without an item id"),
    "another kind of file": ("a.json", raw("{}"), "of a kind that is not read"),
}  # fmt: skip


@pytest.mark.quick_cases(5)
@pytest.mark.parametrize("case", CASES)
def test_a_bad_file_is_named_and_nothing_is_written(tmp_path: Path, case: str) -> None:
    name, write, message = CASES[case]
    path, out = tmp_path / name, tmp_path / "home" / "out"
    out.parent.mkdir()
    (out.parent / "sibling").write_text("stays")
    write(path)
    before = tree(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        prepare(settings(path), out)
    assert str(path) in str(caught.value)
    assert caught.value.remedy
    assert tree(tmp_path) == before
    good = write_csv(tmp_path / "0.csv", [(1, 2, 3)] if "Parquet" in case else [("a", "x", 3)])
    if "there are no events" not in message:  # among others, an empty one does no harm
        with pytest.raises(DataError) as caught:
            read_event_histories(EventsConfig(paths=(str(good), str(path))))
        assert str(path) in str(caught.value)


def test_what_was_at_the_output_stays_when_the_new_one_fails(tmp_path: Path) -> None:
    out = prepare_log(write_parquet(tmp_path / "good.parquet", SMALL), tmp_path / "out").path
    before = tree(out)
    with pytest.raises(ArtifactError, match="already exists"):
        prepare(settings(tmp_path / "good.parquet"), out)
    with pytest.raises(DataError):
        prepare_log(write_csv(tmp_path / "bad.csv", [("a", "", 3)]), out)
    assert tree(out) == before
    assert {path.name for path in tmp_path.iterdir()} == {"good.parquet", "bad.csv", "out"}


@pytest.mark.slow
def test_overwriting_spares_what_is_no_corpus_and_the_input(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "mine" / "good.parquet", SMALL)
    for out in (path, path.parent):
        with pytest.raises(ArtifactError, match="is not a corpus"):
            prepare_log(path, out)
    corpus = prepare_log(path, tmp_path / "out")
    inside = write_parquet(corpus.path / "good.parquet", SMALL)
    with pytest.raises(ArtifactError, match=r"holds .*good\.parquet, which is read"):
        prepare_log(inside, corpus.path)
    assert inside.exists()
    (tmp_path / "empty").mkdir()
    assert prepare_log(path, tmp_path / "empty").manifest["users"] == 8
    overwritten = prepare_log(path, corpus.path, catalogue=str(corpus.path))  # its own catalogue may be used again
    assert overwritten.manifest["fingerprint"] == corpus.manifest["fingerprint"]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["no.parquet"], "there is no such file"),
        (["no*.parquet"], "there is no such file"),
        (["."], "no file in this folder can be read"),
        (["x" * 300], "File name too long"),
    ],
)
def test_paths_that_lead_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        read_event_histories(EventsConfig(paths=tuple(paths)))
    assert paths[0] in str(caught.value)
    with pytest.raises(DataError, match=message):
        prepare(settings([Path(paths[0])]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_invalid_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    bad = [("", "a", 1), ("u0", "", 2), ("u1", "a", "soon"), ("", "", ""), ("u2", "b", "nan"), ("u2", "b", "-inf")]
    write_csv(tmp_path / "in" / "a.csv", [*SMALL, *bad], end="\r\n")
    types = {"user_id": pa.string(), "item_id": pa.string(), "timestamp": pa.float64()}
    write_parquet(tmp_path / "in" / "b.parquet", [(None, "a", 1.0), ("u0", "a", math.nan), ("u0", "a", 5.0)], **types)
    corpus = prepare_log(tmp_path / "in", tmp_path / "out", events={"invalid_rows": "drop"})
    first, second = corpus.manifest["steps"][:2]
    assert (first["events"], second["events"], second["dropped"]) == (len(SMALL) + 9, len(SMALL) + 1, 8)
    words = [("a", "x", word) for word in ("2001-02-02", "infinity", "-infinity", "epoch", "2001-02-01", "now")]
    path = write_csv(tmp_path / "words.csv", words)
    assert read_event_histories(EventsConfig(invalid_rows="drop", paths=(str(path),)))[:2] == (["a"], [["x", "x"]])
    dates = [("a", "x", "31/01/2001"), ("a", "y", "31/02/2001"), ("a", "z", ""), ("a", "w", "30/01/2001")]
    path = write_csv(tmp_path / "dates.csv", dates)
    wanted: dict[str, Any] = {"paths": (str(path),), "time_format": "%d/%m/%Y"}
    assert read_event_histories(EventsConfig(invalid_rows="drop", **wanted))[:2] == (["a"], [["w", "x"]])
    with pytest.raises(DataError, match="2 rows cannot be used") as caught:
        read_event_histories(EventsConfig(**wanted))
    assert "%d/%m/%Y" in caught.value.remedy


@pytest.mark.slow
def test_rows_of_very_many_bad_files_are_all_counted(tmp_path: Path) -> None:
    for number in range(1100):
        (tmp_path / f"{number}.csv").write_text(f"{HEADER}a,x,1\n,x,{number}\n")
    corpus = prepare_log(tmp_path, tmp_path / "out", events={"invalid_rows": "drop"})
    assert [step["events"] for step in corpus.manifest["steps"][:2]] == [2200, 1100]


@pytest.mark.parametrize("wrong", ["%Q", "%d %"])
def test_a_time_format_that_is_none(tmp_path: Path, wrong: str) -> None:
    path = write_csv(tmp_path / "a.csv", [("a", "x", "1/2/2001")])
    with pytest.raises(DataError) as caught:
        read_event_histories(EventsConfig(paths=(str(path),), time_format=wrong))
    assert "time_format" in caught.value.remedy or wrong in caught.value.remedy


@pytest.mark.slow
def test_ids_that_are_integers_in_one_file_and_text_in_another(tmp_path: Path) -> None:
    integer_ids, text_ids = (
        write_csv(tmp_path / "a.csv", [("u", 7, 1)]),
        write_csv(tmp_path / "b.csv", [("u", "007", 2)]),
    )
    paths = (str(integer_ids), str(text_ids))
    with pytest.raises(DataError, match=r"b\.csv: item ids are text here but integers in .*a\.csv") as caught:
        read_event_histories(EventsConfig(paths=paths))
    assert "--ids text" in caught.value.remedy
    assert read_event_histories(EventsConfig(paths=paths, ids="text"))[:2] == (["u"], [["7", "007"]])
    with pytest.raises(DataError, match="1 without an integer user id"):
        read_event_histories(EventsConfig(paths=paths, ids="integer"))
    assert read_event_histories(EventsConfig(paths=paths, ids="integer", user="timestamp"))[1] == [[7], [7]]
    times = write_csv(tmp_path / "c.csv", [("u", "x", "2001-01-01")])
    with pytest.raises(DataError, match=r"of kind integer here but time in .*c\.csv"):
        read_event_histories(EventsConfig(paths=(str(text_ids), str(times)), ids="text"))


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_any_damage_to_parquet_is_an_error_of_the_project_or_none(tmp_path: Path, compression: str) -> None:
    path, dice = tmp_path / "a.parquet", random.Random(compression)
    rows = {"user_id": [f"u{n % 7}" for n in range(300)], "item_id": ["abc"[n % 3] for n in range(300)]}
    pq.write_table(pa.table(rows | {"timestamp": range(300)}), path, compression=compression)
    intact, messages = path.read_bytes(), list[str]()
    rounds = 30 if FULL else 10
    for _ in range(rounds):
        data = bytearray(intact)
        for _ in range(dice.choice([1, 5, 30])):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(data)
        try:
            read_event_histories(EventsConfig(paths=(str(path),)))
        except PeterRecError as error:
            messages.append(str(error))
    assert len(messages) > rounds // 3
    assert [message for message in messages if not message.startswith(f"{path}: ")] == []


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(
    ("time", "bound", "message"),
    [
        (5, "2001-02-01", "a number such as"),
        (5, "nan", "a number such as"),
        (5, "9" * 400, "a number such as"),
        (date(2001, 2, 3), "978307200.5", "a date or time such as 2001-02-28"),
        (date(2001, 2, 3), "next week", "a date or time such as 2001-02-28"),
        (date(2001, 2, 3), "0001-01-01T00:00+14:00", "a date or time such as 2001-02-28"),
    ],
)
@pytest.mark.parametrize("setting", ["after", "before"])
def test_a_bound_of_the_wrong_kind(tmp_path: Path, setting: str, time: Any, bound: str, message: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", [(user, "x", time) for user in range(9)])
    with pytest.raises(ConfigError, match=rf"source\.{setting} is") as caught:
        prepare(settings(path, source={setting: bound}), tmp_path / "out")
    assert message in caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_domains_that_are_not_there(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [(*row, "shop") for row in SMALL], (*COLUMNS, "where"))
    with pytest.raises(ConfigError, match=r"source\.domains names domains, but the events have none") as config_error:
        prepare_log(path, tmp_path / "out", source={"domains": ["shop"]})
    assert "events.domain" in config_error.value.remedy
    with pytest.raises(DataError, match="no events of the source domains") as caught:
        prepare_log(path, tmp_path / "out", events={"domain": "where"}, source={"domains": ["shopp"]})
    assert "'shop'" in caught.value.remedy


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"min_item_events": 99}, "no item has 99 events"),
        ({"min_item_events": 1, "min_user_events": 50}, "no user has 50 source events"),
        ({"after": "100000"}, "no event is left: there are no events from 100000 on"),
        ({"before": "-1"}, "no event is left: there are no events before -1"),
    ],
)
def test_nothing_left(tmp_path: Path, source: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepare_log(write_parquet(tmp_path / "a.parquet", SMALL), tmp_path / "out", source=source)
    assert "source" in caught.value.remedy
    assert {path.name for path in tmp_path.iterdir()} == {"a.parquet"}


def test_a_task_that_fails_at_the_end_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", SMALL)
    monkeypatch.setattr(run_module, "write_task", lambda *_: (_ for _ in ()).throw(DataError("late")))
    task = {"name": "t", "kind": "classification", "labels": {"path": str(path), "label": "item_id"}}
    labels = write_csv(tmp_path / "l.csv", [(f"u{n}", n % 2) for n in range(8)], ("user_id", "item_id"))
    task["labels"] = {"path": str(labels), "label": "item_id"}
    with pytest.raises(DataError, match="late"):
        prepare_log(path, tmp_path / "out", tasks=[task])
    assert {path.name for path in tmp_path.iterdir()} == {"a.parquet", "l.csv"}
