"""A reader never sees half a file, and a failure leaves what was there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from builders import file_size_limit
from peterrec.artifacts.tensors import write_tensors
from peterrec.errors import ArtifactError, StorageError
from peterrec.storage import new_folder, remove_folder, replace_file, storage_errors, write_file, write_json

STOPS = [ValueError("a bug"), KeyboardInterrupt(), SystemExit(1), OSError(errno.EIO, "a broken disk")]
NUMBERS = np.arange(50_000, dtype=np.float64)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def write_half(path: Path, stop: BaseException) -> None:
    path.write_bytes(b"half of the n")
    raise stop


# ---------------------------------------------------------------- files


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    write_file(path, b"old")
    with replace_file(path) as temporary:
        temporary.write_bytes(b"ne")
        assert path.read_bytes() == b"old"
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("stop", STOPS, ids=repr)
@pytest.mark.parametrize("before", [None, b"old"])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, stop, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(type(stop)), replace_file(path) as temporary:
        write_half(temporary, stop)
    assert tree(tmp_path) == ({} if before is None else {"file": before})


def test_folders_above_a_file_are_made(tmp_path):
    write_json(tmp_path / "a" / "b" / "c.json", {"naïve": 1})
    assert (tmp_path / "a" / "b" / "c.json").read_text(encoding="utf-8") == '{\n  "naïve": 1\n}\n'


def test_what_is_renamed_was_synced_and_so_is_its_folder_afterwards(tmp_path, monkeypatch):
    happened: list[object] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename
    monkeypatch.setattr(os, "fsync", lambda handle: (happened.append(os.fstat(handle).st_ino), fsync(handle)))
    monkeypatch.setattr(Path, "replace", lambda *paths: (happened.append("renamed"), replace(*paths)))
    monkeypatch.setattr(Path, "rename", lambda *paths: (happened.append("renamed"), rename(*paths)))
    write_file(tmp_path / "file", b"x")
    assert happened == [(tmp_path / "file").stat().st_ino, "renamed", tmp_path.stat().st_ino]
    happened.clear()
    with new_folder(tmp_path / "new") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_bytes(b"x")
    created = [tmp_path / "new" / "sub" / "file", tmp_path / "new" / "sub", tmp_path / "new"]
    assert happened == [*(path.stat().st_ino for path in created), "renamed", tmp_path.stat().st_ino]


def test_the_users_umask_decides_who_may_read(tmp_path):
    before = os.umask(0o077)
    try:
        write_file(tmp_path / "file", b"about people")
        with new_folder(tmp_path / "folder") as folder:
            (folder / "file").write_bytes(b"about people")
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "file", tmp_path / "folder")}
    assert modes == {"file": 0o600, "folder": 0o700}


# ---------------------------------------------------------------- folders


def fill(path: Path, *files: str, overwrite: bool = False) -> None:
    with new_folder(path, overwrite=overwrite) as folder:
        assert names(folder) == []
        for name in files:
            (folder / name).write_text(f"{name} of {files}")


def test_a_folder_appears_when_it_is_whole(tmp_path):
    with new_folder(tmp_path / "a" / "new") as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "a" / "new").exists()
    assert tree(tmp_path) == {"a/new/file": b"x"}
    assert names(tmp_path / "a") == ["new"]


@pytest.mark.parametrize("stop", STOPS, ids=repr)
@pytest.mark.parametrize("before", [False, True])
def test_a_stopped_folder_leaves_nothing_new(tmp_path, stop, before):
    if before:
        fill(tmp_path / "out", "one", "two")
    tree_before = tree(tmp_path)
    with pytest.raises(type(stop)), new_folder(tmp_path / "out", overwrite=True) as folder:
        write_half(folder / "one", stop)
    assert tree(tmp_path) == tree_before
    assert names(tmp_path) == (["out"] if before else [])


def test_a_folder_is_not_replaced_unless_asked(tmp_path):
    fill(tmp_path / "out", "one")
    before = tree(tmp_path)
    with pytest.raises(ArtifactError, match="already exists") as caught, new_folder(tmp_path / "out"):
        pytest.fail("nothing may be done for a folder that cannot be written")
    assert "--overwrite" in caught.value.remedy
    assert caught.value.path == tmp_path / "out"
    assert tree(tmp_path) == before
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_overwriting_replaces_everything(tmp_path, kind):
    path = tmp_path / "out"
    if kind == "file":
        path.write_text("old")
    else:
        fill(path, "one", "two")
    fill(path, "three", overwrite=True)
    assert tree(tmp_path) == {"out/three": b"three of ('three',)"}
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("stop", [OSError(errno.EIO, "a broken disk"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("which", [1, 2], ids=["moving the old away", "moving the new there"])
def test_a_failing_rename_brings_the_old_folder_back(tmp_path, monkeypatch, stop, which):
    fill(tmp_path / "out", "one", "two")
    before, calls, rename = tree(tmp_path), [], Path.rename

    def failing(self, target):
        calls.append(target)
        if len(calls) == which:
            raise stop
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(type(stop)):
        fill(tmp_path / "out", "three", overwrite=True)
    assert tree(tmp_path) == before
    assert names(tmp_path) == ["out"]


def test_a_relative_path_is_held_even_if_the_work_moves_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    with new_folder(Path("out")) as folder:
        os.chdir("other")
        (folder / "file").write_text("x")
    assert tree(tmp_path) == {"out/file": b"x"}


# ---------------------------------------------------------------- symbolic links


@pytest.mark.parametrize("chain", [1, 3])
@pytest.mark.parametrize("before", ["nothing", "old"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_symbolic_link_stays_and_what_it_points_to_is_written(tmp_path, chain, before, kind):
    links, target = tmp_path / "links", tmp_path / "there" / "deep" / "out"
    links.mkdir()
    for number in range(chain):  # relative ones, of which the last is named
        (links / str(number)).symlink_to(Path("../there/deep/out") if number == 0 else Path(str(number - 1)))
    if before == "old":
        write_file(target, b"old") if kind == "file" else fill(target, "one", "two")
    if kind == "file":
        write_file(links / str(chain - 1), b"new")
        assert target.read_bytes() == b"new"
    else:
        fill(links / str(chain - 1), "three", overwrite=before == "old")
        assert tree(target) == {"three": b"three of ('three',)"}
    assert names(target.parent) == ["out"]
    assert names(links) == [str(number) for number in range(chain)]
    assert all((links / name).is_symlink() for name in names(links))


def test_a_link_to_a_folder_is_not_replaced_unless_asked_and_a_failure_changes_nothing(tmp_path):
    fill(tmp_path / "out", "one")
    (tmp_path / "link").symlink_to("out", target_is_directory=True)
    with pytest.raises(ArtifactError, match="already exists"):
        fill(tmp_path / "link", "two")
    with pytest.raises(ValueError, match="a bug"), new_folder(tmp_path / "link", overwrite=True) as folder:
        write_half(folder / "one", ValueError("a bug"))
    assert tree(tmp_path / "out") == {"one": b"one of ('one',)"}
    assert names(tmp_path) == ["link", "out"]


@pytest.mark.parametrize("write", [lambda path: write_file(path, b"x"), fill], ids=["file", "folder"])
def test_a_link_that_leads_back_to_itself_is_refused(tmp_path, write):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(StorageError, match="leads back to itself") as caught:
        write(tmp_path / "a")
    assert caught.value.path == tmp_path / "a"
    assert names(tmp_path) == ["a", "b"]


def test_removing_a_link_to_a_folder_removes_both(tmp_path):
    fill(tmp_path / "out", "one")
    (tmp_path / "link").symlink_to("out", target_is_directory=True)
    remove_folder(tmp_path / "link")
    assert names(tmp_path) == []


# ---------------------------------------------------------------- the operating system refuses


WRITERS = {
    "bytes": lambda path: path.write_bytes(bytes(NUMBERS)),
    "numpy": lambda path: np.save(path, NUMBERS),
    "parquet": lambda path: pq.write_table(pa.table({"x": np.random.default_rng(0).random(50_000)}), path),
    "tensors": lambda path: write_tensors(path, {"x": torch.from_numpy(NUMBERS)}),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_said_and_nothing_is_kept(tmp_path, writer):
    kept_at = tmp_path / "out"
    fill(kept_at, "one")
    before = tree(tmp_path)
    full = file_size_limit(10_000)
    with (
        pytest.raises(StorageError, match="disk is full") as caught,
        full,
        new_folder(kept_at, overwrite=True) as folder,
    ):
        WRITERS[writer](folder / "large.npy")
    assert caught.value.path == kept_at
    assert tree(tmp_path) == before
    assert names(tmp_path) == ["out"]


def test_a_full_disk_keeps_the_old_file(tmp_path):
    write_file(tmp_path / "file", b"old")
    with pytest.raises(StorageError, match="the disk is full"), file_size_limit(10_000):
        write_file(tmp_path / "file", bytes(NUMBERS))
    assert tree(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EFBIG, "the disk is full"),
        (errno.EACCES, "may not be written"),
        (errno.EPERM, "may not be written"),
        (errno.EROFS, "may not be written"),
        (errno.ENAMETOOLONG, "cannot be written"),
    ],
)
def test_a_refusal_becomes_an_error_with_advice(number, message):
    with pytest.raises(StorageError, match=message) as caught, storage_errors(Path("out")):
        raise OSError(number, os.strerror(number))
    assert caught.value.path == Path("out")
    assert caught.value.remedy


def test_other_errors_stay_what_they_are():
    with pytest.raises(OSError, match="a broken disk"), storage_errors(Path("out")):
        raise OSError(errno.EIO, "a broken disk")
    with pytest.raises(OSError, match="no number"), storage_errors(Path("out")):
        raise OSError("no number")


@pytest.mark.parametrize("write", [lambda path: write_file(path, b"x"), fill], ids=["file", "folder"])
def test_a_place_that_cannot_be_written(tmp_path, monkeypatch, write):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError, match="cannot be written"):
        write(tmp_path / "file" / "below")

    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match="may not be written"):
        write(tmp_path / "out")
    assert names(tmp_path) == ["file"]


def test_a_folder_stands_where_a_file_should_be_written(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(StorageError, match="cannot be written"):
        write_file(tmp_path / "out", b"x")
    assert names(tmp_path) == ["out"]
