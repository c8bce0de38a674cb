"""Features of events in a corpus: by hand, alike of every form of a log, and those of a catalogue in use."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import tiny_pretrained
from data.prepare.logs import prepare_log, write_csv, write_parquet
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.cli.main import execute
from peterrec.config import EventFeatureConfig
from peterrec.data.corpus import Corpus
from peterrec.data.event_features import EventFeatureEncoder
from peterrec.data.prepare import prepare
from peterrec.data.preprocessing import encoder_of
from peterrec.errors import ConfigError, DataError

HEADER = ("user_id", "item_id", "timestamp", "type", "amount")
FEATURES = ["type", "amount:log-bins", "time:gap,hour,weekday"]
T0 = 1_600_000_000


def some_events(seed: int = 0) -> list[tuple[Any, ...]]:
    """Events of 30 users, some of one item at one time that differ in their type alone, and values that are missing."""
    draw, rows = random.Random(seed), []
    for user in range(30):
        for _ in range(draw.randrange(4, 12)):
            type_ = draw.choice(["view", "view", "buy", None])
            amount = draw.choice([None, 0, 3, 250])
            rows.append((f"u{user}", f"i{draw.randrange(6)}", T0 + 60 * draw.randrange(400), type_, amount))
            if draw.random() < 0.3:
                rows.append((*rows[-1][:3], "returned", amount))
    return rows


def digits(corpus: Corpus, row: int) -> list[tuple[int, ...]]:
    """The integers of each feature of a user's events."""
    encoder, codes = encoder_of(corpus.provenance().preprocessing), corpus.sequences
    assert encoder is not None
    assert codes.features is not None
    of_user = codes.features[codes.offsets[row] : codes.offsets[row + 1]].tolist()
    return [
        tuple(code // stride % size for size, stride in zip(encoder.sizes, encoder.strides, strict=True))
        for code in of_user
    ]


def test_by_hand(tmp_path: Path) -> None:
    """Item r is rare and left out, with the time that it took; the second b is a repeat, and left out, too."""
    rows = [
        ("u", "a", 0, "view", 1), ("u", "r", 50, "gift", 1), ("u", "b", 60, "buy", 2.5), ("u", "b", 70, "view", None),
        ("u", "a", 3_660, None, -1),
    ]  # fmt: skip
    path = write_csv(tmp_path / "log.csv", rows, HEADER)
    source = {"min_item_events": 2, "repeats": "drop"}
    corpus = prepare_log(path, tmp_path / "corpus", events={"features": FEATURES}, source=source)
    assert corpus.sequences.items.tolist() == [4, 5, 4]
    assert corpus.manifest["event_features"][0]["values"] == ["view", "buy"]  # those of events that are read
    bins = [int(np.floor(2 * np.log2(1 + value))) for value in (1, 2.5, 60, 3_600)]
    assert digits(corpus, 0) == [
        (2, 65 + bins[0], 0, 1, 4),
        (3, 65 + bins[1], 1 + bins[2], 1, 4),
        (0, 65 - bins[0], 1 + bins[3], 2, 4),
    ]
    table = pq.read_table(next((corpus.path / "sequences").iterdir()))
    assert table["features"].to_pylist() == [corpus.sequences.features.tolist()]


def test_the_same_log_in_any_form_is_the_same_corpus(tmp_path: Path) -> None:
    rows = some_events()
    forms = {
        "csv": write_csv(tmp_path / "a.csv", rows, HEADER),
        "parquet": write_parquet(tmp_path / "a.parquet", rows, HEADER, amount=pa.float64()),
        "reversed": write_csv(tmp_path / "b.csv", rows[::-1], HEADER),
        "decimal": write_parquet(tmp_path / "c.parquet", rows, HEADER, amount=pa.int16(), type=pa.large_string()),
    }
    kwargs = {"events": {"features": FEATURES}, "source": {"min_item_events": 2}}
    corpora = {name: prepare_log(path, tmp_path / name, **kwargs) for name, path in forms.items()}
    fingerprints = {corpus.manifest["fingerprint"] for corpus in corpora.values()}
    assert len(fingerprints) == 1
    plain = prepare_log(forms["csv"], tmp_path / "plain", source={"min_item_events": 2})
    assert plain.manifest["fingerprint"] not in fingerprints
    assert not (plain.path / "cache" / "features.npy").exists()
    assert "event_features" not in plain.manifest
    assert "features" not in json.dumps(plain.manifest)
    assert plain.sequences.items.tolist() == corpora["csv"].sequences.items.tolist()


def test_users_who_are_new_shape_no_categories(tmp_path: Path) -> None:
    rows = [(f"u{user}", "i", T0 + user, "old", 1) for user in range(40)]
    rows += [(f"u{user}", "i", T0 + 10_000 + user, "late", 1) for user in range(40, 80)]
    path = write_csv(tmp_path / "log.csv", rows, HEADER)
    settings = {"events": {"features": ["type"]}, "new_users": {"first_event_after": str(T0 + 9_000)}}
    corpus = prepare_log(path, tmp_path / "corpus", **settings)
    assert corpus.manifest["event_features"][0]["values"] == ["old"]
    assert set(corpus.sequences.features.tolist()) == {1, 2}  # type: ignore[union-attr]


def test_a_catalogue_in_use_brings_its_features(tmp_path: Path) -> None:
    """A later log is read with the categories of before, without naming them; a column that it lacks is missing."""
    rows = some_events()
    kwargs = {"events": {"features": FEATURES}, "source": {"min_item_events": 2}}
    first = prepare_log(write_csv(tmp_path / "a.csv", rows, HEADER), tmp_path / "first", **kwargs)
    pretrained = tiny_pretrained(first.catalogue, preprocessing=first.provenance().preprocessing)
    save_backbone(tmp_path / "backbone", pretrained)
    later = [
        (user, item, time, "gift" if type_ == "buy" else type_, amount) for user, item, time, type_, amount in rows
    ]
    log = write_csv(tmp_path / "b.csv", later, HEADER)
    for catalogue in ("first", "backbone"):
        corpus = prepare(str(log), tmp_path / "second", catalogue=str(tmp_path / catalogue), overwrite=True)
        assert corpus.manifest["event_features"] == first.manifest["event_features"]
        assert {row[0] for user in range(30) for row in digits(corpus, user)} == {0, 1, 2, 3}  # gifts are another type
        pretrained.check_corpus(corpus)
    lacking = write_csv(tmp_path / "c.csv", [row[:4] for row in later], HEADER[:4])
    corpus = prepare(str(lacking), tmp_path / "third", catalogue=str(tmp_path / "first"))
    assert {row[1] for user in range(30) for row in digits(corpus, user)} == {0}
    assert {row[0] for user in range(30) for row in digits(corpus, user)} == {0, 1, 2, 3}
    pretrained.check_corpus(corpus)
    frame = pq.read_table(write_parquet(tmp_path / "d.parquet", later, HEADER))
    of_frame = prepare(frame, tmp_path / "fourth", catalogue=str(tmp_path / "first"))
    assert (
        of_frame.manifest["fingerprint"]
        == prepare(str(log), tmp_path / "fifth", catalogue=str(tmp_path / "first")).manifest["fingerprint"]
    )
    with pytest.raises(ConfigError, match=r"not those of .*first"):
        prepare(str(log), tmp_path / "sixth", catalogue=str(tmp_path / "first"), features=["type"])


@pytest.mark.parametrize(
    ("features", "rows", "error", "message"),
    [
        (["colour"], None, DataError, "colour"),
        (["type:log-bins"], None, DataError, "no finite number"),
        (["type", "type"], None, ConfigError, "named twice"),
        (["time:hour"], [("u", "i", "first of May", "view", 1)] * 9, DataError, "time"),
    ],
)
def test_what_cannot_be_read_is_refused_and_nothing_is_written(
    features: list[str], rows: Any, error: type, message: str, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "log.csv", rows or some_events(), HEADER)
    with pytest.raises(error, match=message):
        prepare_log(path, tmp_path / "corpus", events={"features": features})
    assert not (tmp_path / "corpus").exists()


def test_columns_that_are_no_plain_values_are_refused(tmp_path: Path) -> None:
    rows = [("u", "i", T0, ["a"], 1)] * 6
    path = write_parquet(tmp_path / "log.parquet", rows, HEADER)
    with pytest.raises(DataError, match="'type' is of type list"):
        prepare_log(path, tmp_path / "corpus", events={"features": ["type"]})


def test_whole_numbers_are_written_alike_whatever_their_type(tmp_path: Path) -> None:
    """Integers with gaps become floats in pandas: 3.0 is the category 3."""
    rows = [("u", "i", T0 + n, None, n % 3 if n % 4 else None) for n in range(12)]
    fingerprints = set()
    for name, type_ in {"int": pa.int64(), "float": pa.float32()}.items():
        path = write_parquet(tmp_path / f"{name}.parquet", rows, HEADER, amount=type_, type=pa.string())
        corpus = prepare_log(path, tmp_path / name, events={"features": ["amount"]})
        fingerprints.add(corpus.manifest["fingerprint"])
        assert corpus.manifest["event_features"][0]["values"] == ["0", "1", "2"]
    assert len(fingerprints) == 1


def test_the_command_line_says_the_same(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", some_events(), HEADER)
    arguments = ["prepare", str(path), "--out", str(tmp_path / "cli"), "--feature", "type", "-q"]
    assert execute([*arguments, "--feature", "time:gap,hour"]) == 0
    corpus = prepare(str(path), tmp_path / "python", features=["type", "time:gap,hour"])
    assert Corpus.open(tmp_path / "cli").manifest["fingerprint"] == corpus.manifest["fingerprint"]
    features = [EventFeatureConfig(**feature) for feature in corpus.manifest["event_features"]]
    assert EventFeatureEncoder(features).sizes == (5, 63, 25)
