"""Users who are kept out of all that is learned without labels; who they are is compared in test_against_oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.prepare.logs import SMALL, items_of, prepare_log, settings, write_csv
from peterrec.data.corpus import Corpus
from peterrec.data.new_users import kept_out_by_id
from peterrec.data.prepare import prepare
from peterrec.errors import ConfigError, DataError


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "log.csv", SMALL)


def prepared(log: Path, name: str = "corpus", **new_users: Any) -> Corpus:
    return prepare_log(log, log.parent / name, new_users=new_users)


def test_where_nobody_is_kept_out_nothing_of_it_is_written(log: Path) -> None:
    corpus = prepare_log(log, log.parent / "corpus", new_users={})
    assert "new_users" not in corpus.manifest
    assert "new_users" not in corpus.manifest["config"]
    assert b"new_users" not in (corpus.path / "config.yaml").read_bytes()
    assert sorted(path.name for path in (corpus.path / "cache").iterdir()) == [
        "items.npy",
        "offsets.npy",
        "user_hashes.npy",
    ]
    assert not corpus.new_users.any()
    assert corpus.pretraining_rows.tolist() == list(range(8))
    assert corpus.kept_out_users is None


def test_an_item_of_new_users_alone_is_outside_of_the_catalogue(tmp_path: Path) -> None:
    """Every user has an item of its own: those of new users are rare, whatever they have of them."""
    rows = [(f"u{user}", item, time) for user in range(12) for time, item in enumerate(["a", f"own{user}", "a"])]
    path = write_csv(tmp_path / "log.csv", rows)
    for rare_items, place in (("drop", []), ("unk", ["[UNK]"])):
        source = {"min_item_events": 1, "rare_items": rare_items}
        corpus = prepare_log(path, tmp_path / rare_items, source=source, new_users={"fraction": 0.5})
        sequences = items_of(corpus)
        assert 0 < corpus.new_users.sum() < 12
        for (user, items), is_new in zip(sequences.items(), corpus.new_users, strict=True):
            assert items == (["a", *place, "a"] if is_new else ["a", f"own{user[1:]}", "a"])
        count = len(corpus.pretraining_rows)
        assert dict(zip(corpus.catalogue.ids.to_pylist(), corpus.catalogue.counts.tolist(), strict=True))["a"] == (
            2 * count
        )
        assert len(corpus.catalogue) == 1 + count
        steps = corpus.manifest["steps"]
        assert "the item has fewer than 1 events of users who are not new" in [step["why"] for step in steps][1]
        assert corpus.manifest["new_users"]["users"] == 12 - count


def test_the_draws_of_parts_and_fraction_are_independent(log: Path) -> None:
    hashes = np.arange(20_000, dtype=np.uint64)
    config = settings(log, new_users={"parts": ["test"], "fraction": 0.4})
    test, drawn = (
        kept_out_by_id(hashes, config.new_users.model_copy(update=update), config.split)
        for update in ({"fraction": 0.0}, {"parts": ()})
    )
    assert kept_out_by_id(hashes, config.new_users, config.split).tolist() == (test | drawn).tolist()
    assert test.mean() == pytest.approx(0.25, abs=0.02)
    assert drawn.mean() == pytest.approx(0.4, abs=0.02)
    assert (test & drawn).mean() == pytest.approx(0.1, abs=0.02)
    reseeded = kept_out_by_id(hashes, config.new_users.model_copy(update={"parts": (), "seed": 1}), config.split)
    assert (drawn & reseeded).mean() == pytest.approx(0.16, abs=0.02)


@pytest.mark.parametrize("new_users", [{"fraction": 1.0}, {"parts": ["train", "valid", "test"]},
                                       {"first_event_after": "0"}])  # fmt: skip
def test_nobody_left_to_pretrain_on_is_refused(log: Path, new_users: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="nobody is left to pre-train on") as caught:
        prepared(log, **new_users)
    assert "new_users" in caught.value.remedy
    assert not (log.parent / "corpus").exists()


def test_nobody_left_with_a_sequence_is_refused(tmp_path: Path) -> None:
    rows = [("old", "a", 0), *(("late", item, 5) for item in "aab")]
    path = write_csv(tmp_path / "log.csv", rows)
    with pytest.raises(DataError, match="all users with a sequence are new"):
        prepare_log(path, tmp_path / "out", source={"min_user_events": 2, "min_item_events": 1},
                    new_users={"first_event_after": "3"})  # fmt: skip


def test_a_time_that_is_none_is_refused(log: Path) -> None:
    with pytest.raises(ConfigError, match=r"new_users\.first_event_after is '2001-02-01', but the times"):
        prepared(log, first_event_after="2001-02-01")


def test_what_keeps_nobody_out_and_a_catalogue_from_elsewhere_are_warned_of(log: Path) -> None:
    nobody = prepared(log, first_event_after="1000")
    assert nobody.manifest["new_users"] == {"users": 0, "events": 0}
    assert any("keeps nobody out" in line for line in nobody.manifest["warnings"])
    reusing = prepare_log(log, log.parent / "given", new_users={"fraction": 0.5}, catalogue=str(nobody.path))
    assert any("catalogue was made elsewhere" in line for line in reusing.manifest["warnings"])


def test_who_is_kept_out_is_part_of_the_fingerprint_and_of_the_account(log: Path) -> None:
    """With one catalogue and the same sequences: what is pre-trained on one is not what is on the other."""
    plain = prepare_log(log, log.parent / "plain")
    lines: list[str] = []
    fingerprints = {plain.manifest["fingerprint"]}
    for seed in range(2):
        corpus = prepare_log(
            log, log.parent / f"c{seed}", new_users={"fraction": 0.5, "seed": seed}, catalogue=str(plain.path)
        )
        fingerprints.add(corpus.manifest["fingerprint"])
        kept_out = corpus.kept_out_users
        assert kept_out is not None
        assert kept_out.users == corpus.new_users.sum() == corpus.manifest["new_users"]["users"] > 0
        assert corpus.manifest["new_users"]["events"] == corpus.sequences.lengths[corpus.new_users].sum()
        assert (kept_out.fraction, kept_out.seed, kept_out.split.salt) == (0.5, seed, "peterrec")
    assert len(fingerprints) == 3
    prepare(settings(log, new_users={"fraction": 0.5}), log.parent / "said", report=lines.append)
    assert any(line.startswith("new users: ") and "without labels" in line for line in lines)
