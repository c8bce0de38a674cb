"""Copies in a folder that replicas share."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from peterrec.errors import StorageError, StoreError
from peterrec.serving.replicas.copies import SharedCopies

GRACE = 60.0


def bundle(version: str, name: str = "age") -> Any:
    def save(path: Path) -> None:
        path.mkdir(parents=True)
        (path / "version").write_text(version)

    return SimpleNamespace(name=name, version=version, save=save)


@pytest.fixture
def copies(tmp_path: Path) -> SharedCopies:
    return SharedCopies(tmp_path / "copies", GRACE)


def make_old(path: Path) -> None:
    os.utime(path, (time.time() - 2 * GRACE,) * 2)


def test_what_nothing_names_is_removed_after_its_grace(copies: SharedCopies) -> None:
    for version in ("named", "young", "old"):
        copies.save(bundle(version))
    left_behind = copies.path("age", ".old.0123.tmp")
    left_behind.mkdir()
    for version in ("named", "old"):
        make_old(copies.path("age", version))
    make_old(left_behind)
    copies.clean(lambda: {("age", "named"), ("other", "old")})
    assert sorted(path.name for path in copies.path("age", "x").parent.iterdir()) == ["named", "young"]


def test_a_copy_that_is_written_again_or_left_has_its_grace_from_then_on(copies: SharedCopies) -> None:
    for version in ("again", "left"):
        copies.save(bundle(version))
        make_old(copies.path("age", version))
    copies.save(bundle("again"))
    copies.touch("age", ["left"])
    copies.clean(set)
    assert copies.path("age", "again").is_dir()
    assert copies.path("age", "left").is_dir()


def test_a_copy_that_is_named_while_it_is_removed_comes_back(copies: SharedCopies) -> None:
    copies.save(bundle("v1"))
    make_old(copies.path("age", "v1"))
    names = iter([set(), {("age", "v1")}])
    copies.clean(lambda: next(names))
    assert (copies.path("age", "v1") / "version").read_text() == "v1"
    assert len(list(copies.path("age", "v1").parent.iterdir())) == 1


def test_nothing_is_removed_where_the_registry_does_not_answer(copies: SharedCopies) -> None:
    copies.save(bundle("v1"))
    make_old(copies.path("age", "v1"))

    def fails() -> set[tuple[str, str]]:
        raise StoreError("does not answer")

    copies.clean(fails)
    assert copies.path("age", "v1").is_dir()


def test_only_a_copy_that_cannot_be_read_is_written_anew(copies: SharedCopies) -> None:
    copies.save(bundle("v1"))
    copy = copies.path("age", "v1")
    (copy / "version").write_text("damaged")
    copies.save(bundle("v1"), lambda path: True)
    assert (copy / "version").read_text() == "damaged"
    # The stand-in does not replace what is there; that it was asked to is what counts.
    with pytest.raises(StorageError, match="File exists"):
        copies.save(bundle("v1"), lambda path: False)


def test_another_replica_may_have_written_it_just_now(copies: SharedCopies) -> None:
    late = bundle("v1")

    def save(path: Path) -> None:
        bundle("v1").save(path)  # as the other one does
        raise OSError(39, "Directory not empty")

    late.save = save
    copies.save(late)
    assert (copies.path("age", "v1") / "version").read_text() == "v1"


def test_a_root_that_the_others_do_not_have_is_refused(tmp_path: Path) -> None:
    copies = SharedCopies(tmp_path / "copies", GRACE, tmp_path)
    copies.check(named=False)
    with pytest.raises(StorageError, match="not the folder that the other replicas have"):
        copies.check(named=True)
    SharedCopies(tmp_path / "copies", GRACE).check(named=True)
    copies.save(bundle("v1"))
    copies.check(named=True)
