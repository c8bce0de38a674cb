"""A corpus folder as documented, and every way in which one can be damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import CLASSES, ragged, random_histories, tiny_catalogue, write_corpus
from peterrec.data.corpus import PARTS, Corpus
from peterrec.data.hashing import id_hash
from peterrec.errors import ArtifactError, FingerprintError, FormatVersionError, TaskError

USERS = 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", users=USERS)


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    tree = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in tree.items() if value is not None}))


def as_lists(sequences: Any) -> list[list[int]]:
    return [row.tolist() for row in sequences]


# ---------------------------------------------------------------- what is there


def test_a_corpus_is_read_as_it_was_written(folder):
    corpus = Corpus.open(str(folder))
    assert as_lists(corpus.sequences) == random_histories(USERS, 12)
    assert corpus.user_hashes.tolist() == id_hash([f"user-{i}" for i in range(USERS)]).tolist()
    assert corpus.catalogue.ids.equals(tiny_catalogue().ids)
    assert corpus.task_names == ["age", "shop"]
    assert corpus.manifest["rare_items"] == "drop"


def test_sequences_are_mapped_not_loaded_and_cannot_be_changed(folder):
    corpus = Corpus.open(folder)
    for array in (corpus.sequences.items, corpus.sequences.offsets, corpus.user_hashes):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
    assert corpus.sequences is corpus.sequences


def test_opening_reads_nothing_but_the_manifest(folder):
    for path in folder.iterdir():
        if path.name != "manifest.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert Corpus.open(folder).task_names == ["age", "shop"]


@pytest.mark.parametrize("part", PARTS)
def test_a_classification_task(folder, part):
    task = Corpus.open(folder).task("age")
    assert (task.name, task.kind, task.class_names, task.targets) == ("age", "classification", CLASSES, None)
    users = task.part(part)
    assert len(users) == USERS
    assert users.user_ids.to_pylist() == [f"{part}-{i}" for i in range(USERS)]
    assert as_lists(users.sequences) == random_histories(USERS, 12, PARTS.index(part))
    assert (users.labels.tolist(), users.labels.dtype) == ([i % 3 for i in range(USERS)], np.int64)
    assert users.targets is None


@pytest.mark.parametrize("part", PARTS)
def test_a_ranking_task(folder, part):
    task = Corpus.open(folder).task("shop")
    assert (task.name, task.kind, task.class_names) == ("shop", "ranking", ())
    assert task.targets.ids.equals(tiny_catalogue(5).ids)
    assert task.targets.first == 0
    users = task.part(part)
    assert as_lists(users.sequences) == random_histories(USERS, 12, PARTS.index(part))
    assert users.targets.lengths.tolist() == [1 + i % 3 for i in range(USERS)]
    assert users.targets.items.max() < 5
    assert users.labels is None


def test_a_part_in_several_pieces_reads_as_one(folder):
    path = folder / "tasks" / "shop" / "test.parquet"
    table = pq.read_table(path)
    expected = Corpus.open(folder).task("shop").part("test")
    pq.write_table(table, path, row_group_size=3)
    test_part = Corpus.open(folder).task("shop").part("test")
    assert as_lists(test_part.sequences) == as_lists(expected.sequences)
    assert as_lists(test_part.targets) == as_lists(expected.targets)
    assert test_part.user_ids.to_pylist() == expected.user_ids.to_pylist()


@pytest.mark.parametrize("task", ["age", "shop"])
def test_a_part_without_users(folder, task):
    path = folder / "tasks" / task / "valid.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    users = Corpus.open(folder).task(task).part("valid")
    assert len(users) == len(users.user_ids) == len(users.sequences) == 0


def test_a_corpus_without_events(tmp_path):
    folder = write_corpus(tmp_path / "corpus", users=1)  # the first user has none
    assert as_lists(Corpus.open(folder).sequences) == [[]]


# ---------------------------------------------------------------- not this folder


def test_what_is_no_corpus(tmp_path, folder):
    with pytest.raises(ArtifactError, match="is missing") as caught:
        Corpus.open(tmp_path / "nothing")
    assert str(tmp_path / "nothing") in str(caught.value)
    edit(folder / "manifest.json", kind="backbone")
    with pytest.raises(ArtifactError, match="is a backbone; a corpus is wanted"):
        Corpus.open(folder)


def test_another_format_version_is_refused(folder):
    edit(folder / "manifest.json", format_version=1)
    with pytest.raises(FormatVersionError, match="format version 1; this release reads version 2"):
        Corpus.open(folder)


@pytest.mark.parametrize("key", ["fingerprint", "catalogue_fingerprint", "users", "rare_items", "tasks"])
def test_a_manifest_that_lacks_a_key_is_damaged(folder, key):
    edit(folder / "manifest.json", **{key: None})
    with pytest.raises(ArtifactError, match=f"lacks the key '{key}'"):
        Corpus.open(folder)


def test_an_unknown_task_and_those_there_are(folder):
    with pytest.raises(TaskError, match=r"has no task 'agee' \(did you mean 'age'\? it has: age, shop\)"):
        Corpus.open(folder).task("agee")
    edit(folder / "manifest.json", tasks=[])
    with pytest.raises(TaskError, match=r"it has: none"):
        Corpus.open(folder).task("age")


# ---------------------------------------------------------------- damaged

CACHE = ["items", "offsets", "user_hashes"]


def load(folder: Path, name: str) -> Any:
    corpus = Corpus.open(folder)
    return corpus.user_hashes if name == "user_hashes" else corpus.sequences


@pytest.mark.parametrize("name", CACHE)
@pytest.mark.parametrize("share_kept", [0.0, 0.02, 0.95, None], ids=["empty", "header", "most", "missing"])
def test_a_truncated_cache_is_named(folder, name, share_kept):
    path = folder / "cache" / f"{name}.npy"
    intact = path.read_bytes()
    path.write_bytes(intact[: int(len(intact) * (share_kept or 0))])
    if share_kept is None:
        path.unlink()
    with pytest.raises(ArtifactError, match="cannot be read") as caught:
        load(folder, name)
    assert caught.value.path == path
    assert "prepare" in caught.value.remedy


@pytest.mark.parametrize("name", CACHE)
def test_a_cache_of_another_corpus_is_refused(tmp_path, folder, name):
    other_corpus = write_corpus(tmp_path / "other", users=USERS + 1)
    shutil.copy(other_corpus / "cache" / f"{name}.npy", folder / "cache")
    with pytest.raises(ArtifactError, match="the cache does not fit the manifest"):
        load(folder, name)


def test_pickles_are_never_read(folder):
    np.save(folder / "cache" / "items.npy", np.array([{"code": "runs"}], dtype=object), allow_pickle=True)
    with pytest.raises(ArtifactError, match="cannot be read"):
        _ = Corpus.open(folder).sequences


def test_another_catalogue_is_refused_with_both_fingerprints(folder):
    expected = Corpus.open(folder).catalogue.fingerprint
    other_catalogue = tiny_catalogue(13)
    other_catalogue.write(folder / "catalogue.parquet")
    with pytest.raises(FingerprintError) as caught:
        _ = Corpus.open(folder).catalogue
    assert expected[:12] in str(caught.value)
    assert other_catalogue.fingerprint[:12] in str(caught.value)


def test_other_targets_are_refused_with_both_fingerprints(folder):
    expected, other_targets = (
        Corpus.open(folder).task("shop").targets.fingerprint,
        tiny_catalogue(5, integers=True, first=0),
    )
    other_targets.write(folder / "tasks" / "shop" / "targets.parquet")
    with pytest.raises(FingerprintError) as caught:
        Corpus.open(folder).task("shop")
    assert expected[:12] in str(caught.value)
    assert other_targets.fingerprint[:12] in str(caught.value)


@pytest.mark.parametrize("name", ["task.json", "targets.parquet", "train.parquet"])
@pytest.mark.parametrize("missing", [True, False], ids=["missing", "truncated"])
def test_a_damaged_file_of_a_task_is_named(folder, name, missing):
    path = folder / "tasks" / "shop" / name
    intact = path.read_bytes()
    path.unlink() if missing else path.write_bytes(intact[: len(intact) // 2])
    with pytest.raises(ArtifactError) as caught:
        Corpus.open(folder).task("shop").part("train")
    assert caught.value.path == path


def test_a_task_file_without_a_kind_is_damaged(folder):
    edit(folder / "tasks" / "shop" / "task.json", kind=None)
    with pytest.raises(ArtifactError, match="lacks the key 'kind'"):
        Corpus.open(folder).task("shop")


@pytest.mark.parametrize(
    "columns",
    [
        {"user_id": ["a"], "sequence": ragged([[4]])},
        {"user_id": ["a"], "label": [1]},
        {"sequence": ragged([[4]]), "label": [1]},
        {"user_id": ["a"], "sequence": [4], "label": [1]},
        {"user_id": ["a"], "sequence": ragged([[4]]), "label": ["young"]},
    ],
    ids=["no labels", "no sequences", "no users", "items without lists", "labels as text"],
)
def test_a_part_with_other_columns_is_damaged(folder, columns):
    path = folder / "tasks" / "age" / "test.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(ArtifactError, match="cannot be read") as caught:
        Corpus.open(folder).task("age").part("test")
    assert caught.value.path == path
