"""`catalogue=`: the catalogue of another corpus or of a backbone, used as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builders import tiny_catalogue, tiny_pretrained
from data.prepare.logs import (
    SMALL,
    assert_steps_add_up,
    items_of,
    prepare_log,
    sequences_of,
    write_csv,
    write_parquet,
)
from data.prepare.oracle import Oracle, Row, Settings
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.data.corpus import Corpus
from peterrec.errors import ArtifactError, ConfigError, DataError

LATER = [(f"v{user}", item, place) for user in range(8) for place, item in enumerate(("a", "new", "new", "b", "z"))]


def given_of(corpus: Corpus) -> list[Any]:
    return list(zip(corpus.catalogue.ids.to_pylist(), corpus.catalogue.counts.tolist(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("rare_items", "wanted"), [("drop", ["a", "b"]), ("unk", ["a", *["[UNK]"] * 2, "b", "[UNK]"])])
def test_the_catalogue_of_a_corpus_is_used_as_it_is(tmp_path: Path, rare_items: str, wanted: list[str]) -> None:
    first = prepare_log(write_parquet(tmp_path / "a.parquet", SMALL), tmp_path / "first", source={"min_item_events": 2})
    path = write_csv(tmp_path / "b.csv", LATER)
    source = {"min_item_events": 100, "rare_items": rare_items, "repeats": "keep"}
    corpus = prepare_log(path, tmp_path / "out", source=source, catalogue=str(first.path))
    assert given_of(corpus) == given_of(first)
    assert corpus.manifest["catalogue_fingerprint"] == first.manifest["catalogue_fingerprint"]
    assert items_of(corpus) == {f"v{user}": wanted for user in range(8)}
    rows = [Row(*row) for row in LATER]
    oracle = Oracle(rows, Settings(rare_items=rare_items), [item for item, _ in given_of(first)])
    assert sequences_of(corpus) == oracle.sequences
    assert_steps_add_up(corpus)
    reason = next(step["why"] for step in corpus.manifest["steps"] if "catalogue" in step["why"])
    assert "not in the catalogue that was given" in reason
    assert [Path(file["path"]).name for file in corpus.manifest["inputs"]] == ["b.csv", "catalogue.parquet"]


def test_the_catalogue_of_a_backbone(tmp_path: Path) -> None:
    save_backbone(tmp_path / "backbone", tiny_pretrained(tiny_catalogue(5)))
    rows = [(f"u{user}", f"item-{item}", item) for user in range(9) for item in (7, 3, 0)]
    corpus = prepare_log(
        write_parquet(tmp_path / "a.parquet", rows), tmp_path / "out", catalogue=str(tmp_path / "backbone")
    )
    assert given_of(corpus) == [(f"item-{item}", 5 - item) for item in range(5)]
    assert sequences_of(corpus)["u0"] == [4, 7]


@pytest.mark.slow
def test_integer_catalogues_and_ids_of_the_other_kind(tmp_path: Path) -> None:
    first = prepare_log(
        write_csv(tmp_path / "a.csv", [(u, i, i) for u in range(9) for i in (30, 4)]), tmp_path / "first"
    )
    text = write_parquet(tmp_path / "b.parquet", [(f"u{user}", "30", 1) for user in range(9)])
    with pytest.raises(DataError, match="has integer item ids, but the items of the events are text") as caught:
        prepare_log(text, tmp_path / "out", catalogue=str(first.path))
    assert "events.ids=integer" in caught.value.remedy
    users = write_parquet(tmp_path / "c.parquet", [(user, "30", 1) for user in range(9)])
    corpus = prepare_log(users, tmp_path / "out", catalogue=str(first.path), events={"ids": "integer"})
    assert items_of(corpus)["8"] == [30]


@pytest.mark.slow
def test_what_has_no_catalogue_or_another_one(tmp_path: Path) -> None:
    path, out = write_parquet(tmp_path / "a.parquet", SMALL), tmp_path / "out"
    (tmp_path / "empty").mkdir()
    for folder in ("nowhere", "empty", "a.parquet"):
        with pytest.raises(ArtifactError, match="has no catalogue") as caught:
            prepare_log(path, out, catalogue=str(tmp_path / folder))
        assert "a corpus or a backbone" in caught.value.remedy
    (tmp_path / "empty" / "catalogue.parquet").write_text("no")
    with pytest.raises((ArtifactError, DataError), match=r"catalogue\.parquet: cannot be read"):
        prepare_log(path, out, catalogue=str(tmp_path / "empty"))
    foreign = prepare_log(
        write_parquet(tmp_path / "b.parquet", [(f"u{n}", "q", 1) for n in range(9)]), tmp_path / "other"
    )
    with pytest.raises(DataError, match="no item is in the catalogue") as caught_data:
        prepare_log(path, out, catalogue=str(foreign.path))
    assert "written the same way" in caught_data.value.remedy
    assert not out.exists()


def test_items_that_it_lacks_are_appended(tmp_path: Path) -> None:
    """Most frequent first, ties by id; those that it has keep index and count, whatever the events say of them."""
    save_backbone(tmp_path / "backbone", tiny_pretrained(tiny_catalogue(5)))
    rows = [(f"u{user}", item, place) for user in range(9) for place, item in enumerate(("item-3", "z", "y", "item-0"))]
    rows += [(f"u{user}", "often", 9) for user in range(9)] + [(f"u{user}", "often", 10) for user in range(3)]
    rows += [("u0", "rare", 11)]
    settings = {"catalogue": str(tmp_path / "backbone"), "source": {"min_item_events": 2}}
    path = write_parquet(tmp_path / "a.parquet", rows)
    corpus = prepare_log(path, tmp_path / "out", extend_catalogue=True, **settings)
    old = [(f"item-{item}", 5 - item) for item in range(5)]
    assert given_of(corpus) == [*old, ("often", 12), ("y", 9), ("z", 9)]
    assert sequences_of(corpus)["u8"] == [7, 11, 10, 4, 9]
    assert prepare_log(path, tmp_path / "given", **settings).catalogue.fingerprint != corpus.catalogue.fingerprint
    second = prepare_log(
        path, tmp_path / "again", extend_catalogue=True, **settings | {"catalogue": str(tmp_path / "out")}
    )
    assert second.manifest["catalogue_fingerprint"] == corpus.manifest["catalogue_fingerprint"]
    assert sequences_of(second) == sequences_of(corpus)


def test_only_a_catalogue_that_is_given_is_extended(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="extend_catalogue needs the catalogue"):
        prepare_log(write_csv(tmp_path / "b.csv", LATER), tmp_path / "out", extend_catalogue=True)
