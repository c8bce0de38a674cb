"""Filter summary of a preparation: the lines printed, the manifest, the shape of the data, the input files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from data.prepare.logs import COLUMNS, SMALL, assert_steps_add_up, prepare_log, settings, write_csv, write_parquet
from peterrec.config import PrepareConfig, SourceConfig, load_config
from peterrec.data.corpus import Corpus
from peterrec.data.prepare import input_files, prepare
from peterrec.data.synthetic import synthetic
from peterrec.errors import ConfigError, DataError

ALL = (*COLUMNS, "where")
ROWS = [(f"u{user}", item, 10 * place + 5, "shop") for user in range(30) for place, item in enumerate("abcca")]
ROWS += [(f"u{user}", item, 90, "food") for user in range(20) for item in "xy"]
ROWS += [("u1", "rare", 3, "shop"), ("u2", "a", 1, "53"), ("u3", "a", -5, "shop"), ("u4", "a", 85, "shop")]
ROWS += [("u5", "", 5, "shop"), ("few", "a", 5, "shop")]
SOURCE = {
    "domains": ["shop", "food"], "exclude_domains": ["food"], "after": 0, "before": 80, "min_item_events": 2,
    "min_user_events": 2, "max_history": 3, "repeats": "drop",
}  # fmt: skip


def everything(folder: Path, report: Any = None) -> Corpus:
    path = write_csv(folder / "log.csv", ROWS, ALL)
    users = write_csv(folder / "users.csv", [(f"u{n}", "ab"[n % 2]) for n in range(40)], ("user_id", "group"))
    tasks = [
        {"name": "group", "kind": "classification", "labels": {"path": str(users), "label": "group"}},
        {"name": "buys", "kind": "ranking", "domains": ["food"]},
    ]
    events = {"domain": "where", "invalid_rows": "drop"}
    return prepare(settings(path, events=events, source=SOURCE, tasks=tasks), folder / "out", report=report)


@pytest.mark.slow
def test_the_account_says_what_was_kept_and_dropped_and_why(tmp_path: Path) -> None:
    lines: list[str] = []
    corpus = everything(tmp_path, lines.append)
    assert_steps_add_up(corpus)
    assert lines[:2] == ["reading 2 files", "151 source events of 31 users; cutting sequences"]
    assert lines[2:11] == [
        "196 rows of the input",
        "195 rows that can be used (1 dropped: a value is missing or unreadable)",
        "194 events of the source domains (1 dropped: of another domain)",
        "154 events outside excluded domains (40 dropped: domain food is excluded)",
        "153 events from 0 on (1 dropped: earlier)",
        "152 events before 80 (1 dropped: later)",
        "151 events of items in the catalogue (1 dropped: the item has fewer than 2 events)",
        "90 events of the sequences (61 dropped: more than the last 3 events of a user, or a repeat of the event "
        "before, or the user has fewer than 2 events)",
        "corpus: 30 users, 90 events, 3 items",
    ]
    assert lines[11:14] == [
        "task group: 40 users in the table",
        "task group: 40 with a label",
        "task group: 30 with source events (10 dropped: no source event, such as 'u30')",
    ]
    assert lines[14].endswith(" test users; a: 50.0 %, b: 50.0 %")
    assert lines[15] == "task buys: 20 users with target events"
    assert lines[-2].endswith(" test users; 40 targets out of 2 items")
    assert lines[-1].startswith("warning: task group: all 5 valid users have the label 'b'")


def test_unknown_items_that_are_kept_are_told(tmp_path: Path) -> None:
    lines: list[str] = []
    path = write_parquet(tmp_path / "a.parquet", SMALL)
    config = settings(path, source={"min_item_events": 2, "rare_items": "unk"})
    assert_steps_add_up(prepare(config, tmp_path / "out", report=lines.append))
    assert "41 events of all items (1 of them as [UNK]: the item has fewer than 2 events)" in lines


@pytest.mark.slow
def test_the_manifest_says_what_the_corpus_is(tmp_path: Path) -> None:
    corpus = everything(tmp_path)
    manifest = json.loads((corpus.path / "manifest.json").read_text())
    assert manifest["kind"] == "corpus"
    assert (manifest["users"], manifest["events"], manifest["items"]) == (30, 90, 3)
    assert manifest["catalogue_fingerprint"] == corpus.catalogue.fingerprint
    shape = manifest["shape"]
    assert shape["history_length"] == {"edges": [1, 2, 3], "users": [0, 0, 30]}
    assert shape["item_events"] == {"edges": [1, 2, 3, 5, 10, 20], "items": [0, 0, 0, 0, 0, 3]}
    assert (shape["median_history"], shape["first"], shape["last"]) == (3.0, "5", "45")
    assert shape["top_share"] == {"1": pytest.approx(1 / 3), "10": pytest.approx(1 / 3)}
    written_config = load_config(PrepareConfig, corpus.path / "config.yaml")
    assert written_config.model_dump(mode="json") == manifest["config"]
    assert {path.name for path in corpus.path.iterdir()} == {
        "cache", "catalogue.parquet", "config.yaml", "manifest.json", "sequences", "tasks"
    }  # fmt: skip
    assert corpus.user_hashes.dtype == np.uint64
    second = prepare(written_config, tmp_path / "again")
    assert second.manifest["fingerprint"] == manifest["fingerprint"]


@pytest.mark.parametrize(("day", "first", "last"), [("2001-02-03", "2001-02-03 00:00:00", "2001-02-03 00:00:00")])
def test_times_are_told_as_times(tmp_path: Path, day: str, first: str, last: str) -> None:
    corpus = prepare_log(write_csv(tmp_path / "a.csv", [(n, "a", day) for n in range(9)]), tmp_path / "out")
    assert (corpus.manifest["shape"]["first"], corpus.manifest["shape"]["last"]) == (first, last)


def test_years_that_python_does_not_know(tmp_path: Path) -> None:
    import pyarrow as pa

    rows = [(n, "a", 10**7) for n in range(9)]  # days: the year 29349
    path = write_parquet(tmp_path / "a.parquet", rows, timestamp=pa.date32())
    assert prepare_log(path, tmp_path / "out").manifest["shape"]["last"].startswith("29349-")


@pytest.mark.slow
def test_the_identity_of_the_input_changes_with_any_file(tmp_path: Path) -> None:
    everything(tmp_path)
    config = load_config(PrepareConfig, tmp_path / "out" / "config.yaml")

    def identities() -> list[dict[str, Any]]:
        return [file.identity() for file in input_files(config)]

    before = identities()
    assert before == json.loads((tmp_path / "out" / "manifest.json").read_text())["inputs"] == identities()
    assert [Path(str(file_identity["path"])).name for file_identity in before] == ["log.csv", "users.csv"]
    for name in ("log.csv", "users.csv"):
        path = tmp_path / name
        stat = path.stat()
        path.write_bytes(path.read_bytes() + b"u6,a\n")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert identities() != before
        path.write_bytes(path.read_bytes()[:-5])
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert identities() == before
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        assert identities() != before
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (tmp_path / "users.csv").unlink()
    with pytest.raises(DataError, match="there is no such file"):
        identities()


YAML = """
events: {paths: [LOG], user: 1, separator: '\\t', domain: where}
source:
  domains: [53, 1.5]
  exclude_domains: [7]
  after: 2001-02-01
  before: 2001-03-01 12:30:00
  min_item_events: 1
split: {train: 0.5, valid: 0.25, test: 0.25}
"""


@pytest.mark.slow
def test_yaml_may_leave_quotes_out(tmp_path: Path) -> None:
    rows = [(f"u{n}", f"2001-02-{n + 1:02}", "a", domain) for n in range(28) for domain in ("53", "7", "x")]
    write_csv(tmp_path / "log.tsv", rows, ("1", "timestamp", "item_id", "where"), separator="\t")
    (tmp_path / "c.yaml").write_text(YAML.replace("LOG", str(tmp_path / "log.tsv")).replace("user: 1", "user: '1'"))
    config = load_config(
        PrepareConfig, tmp_path / "c.yaml", ["source.exclude_domains=[7,9]", "source.after=2001-02-03"]
    )
    assert config.source.domains == ("53", "1.5")
    assert config.source.exclude_domains == ("7", "9")
    assert (config.source.after, config.source.before) == ("2001-02-03", "2001-03-01T12:30:00")
    assert config.events.separator == "\t"
    assert prepare(config, tmp_path / "out").manifest["users"] == 26
    zone = yaml.safe_load("before: 2001-02-01T12:00:00+02:00")["before"]
    assert SourceConfig(before=zone).before in ("2001-02-01T12:00:00+02:00", "2001-02-01T10:00:00")
    assert SourceConfig(before=978307200).before == "978307200"  # type: ignore[arg-type]


@pytest.mark.parametrize("separator", ["", '"', "\n", "-----", ',"'])
def test_what_is_no_separator(separator: str) -> None:
    with pytest.raises(ConfigError, match="a separator is 1 to 4 characters"):
        settings(Path("a.csv"), events={"separator": separator})


@pytest.mark.slow
def test_synthetic_data_make_a_corpus_with_every_kind_of_task(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    data = synthetic(users=200)
    pq.write_table(data.events, tmp_path / "events.parquet")
    pq.write_table(data.users, tmp_path / "users.parquet")
    labels = {"path": str(tmp_path / "users.parquet"), "label": "cluster"}
    tasks = [
        {"name": "cluster", "kind": "classification", "labels": labels},
        {"name": "soon", "kind": "classification", "activity": {"after": 1_100_000_000, "before": 1_100_040_000}},
        {"name": "shop", "kind": "ranking", "domains": ["target"], "history": "before-first-target"},
    ]
    source = {"domains": ["source"], "before": 1_100_000_000}
    config = settings(tmp_path / "events.parquet", events={"domain": "domain"}, source=source, tasks=tasks, split={})
    corpus = prepare(config, tmp_path / "out")
    assert corpus.task_names == ["cluster", "soon", "shop"]
    assert_steps_add_up(corpus)
