"""After a restart the bundles are those that answered before."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import tiny_bundle, tiny_pretrained
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.config import EngineConfig, ServeConfig
from peterrec.errors import ArtifactError, ConfigError, StorageError
from peterrec.serving.http.errors import ApiError
from peterrec.serving.http.logs import Log
from peterrec.serving.http.serve import open_service
from peterrec.serving.http.server import share_cores
from peterrec.serving.http.service import Service
from peterrec.serving.journal import BundleJournal
from peterrec.serving.loaded_bundle import LoadedBundle
from peterrec.serving.requests import Question, Request
from peterrec.serving.state_folder import JOURNAL

PRETRAINED = tiny_pretrained()


class Restarts:
    def __init__(self, folder: Path, **engine: int) -> None:
        self.folder, self.state = folder, folder / "state"
        self.config = ServeConfig(state=str(self.state), bundle_root=str(folder), engine=EngineConfig(**engine))
        self.lines = io.StringIO()
        save_backbone(folder / "backbone", PRETRAINED)

    def write(self, name: str, seed: int) -> str:
        save_bundle(self.folder / name, tiny_bundle(PRETRAINED, seed=seed), overwrite=True)
        return str(self.folder / name)

    def open(self, **bundles: str) -> Service:
        return open_service(self.folder / "backbone", bundles, self.config, None, Log(self.lines))

    def failures(self) -> list[dict[str, Any]]:
        return [
            line for line in map(json.loads, self.lines.getvalue().splitlines()) if line["event"] == "bundle failed"
        ]

    def on_disk(self) -> dict[str, bytes]:
        paths = [self.state / JOURNAL, *(self.state / "bundles").rglob("*")]
        return {str(path): path.read_bytes() for path in paths if path.is_file()}

    @staticmethod
    def versions(service: Service) -> dict[str, str]:
        return {task.name: task.version for task in service.parts.engine.tasks()}

    @staticmethod
    def close(service: Service) -> None:
        asyncio.run(service.close())


def test_what_was_rolled_back_to_answers_though_its_folder_has_something_else(tmp_path: Path) -> None:
    site = Restarts(tmp_path)
    folder = site.write("age", 0)
    service = site.open(age=folder)
    first = site.versions(service)["age"]
    site.write("age", 1)  # trained again, into the same folder
    second = service.bundles.load("age", "age").version
    assert service.bundles.roll_back("age", None).version == first != second
    site.close(service)
    service = site.open(age=folder)
    assert site.versions(service) == {"age": first}
    assert service.bundles.load("age", "age").version == second
    site.close(service)
    shutil.rmtree(folder)  # what was loaded is there without its folder
    service = site.open(age=folder)
    assert site.versions(service) == {"age": second}
    site.close(service)


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("keep_versions", "step"),
    [(3, "first copy"), (3, "second copy"), (3, "journal"), (1, "first copy"), (1, "journal")],
)
def test_a_change_that_fails_at_any_step_leaves_answers_memory_and_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, keep_versions: int
) -> None:
    """The command line's version has no copy yet, so that a first change writes two (one, if one version is kept)."""
    site = Restarts(tmp_path, keep_versions=keep_versions)
    folder = site.write("age", 0)
    service = site.open(age=folder)
    site.write("next", 1)
    before = site.versions(service), service.parts.engine.versions(), site.on_disk()
    saves = itertools.count(1)
    fails_at = {"first copy": 1, "second copy": 2}.get(step)
    save, write = LoadedBundle.save, BundleJournal._write

    def failing_save(loaded: LoadedBundle, path: Path) -> None:
        save(loaded, path)  # it is written, and then the disk is full
        if next(saves) == fails_at:
            raise StorageError("the disk is full")

    def failing_write(journal: BundleJournal, entries: Any) -> None:
        if step == "journal":
            raise StorageError("the disk is full")
        write(journal, entries)

    monkeypatch.setattr(LoadedBundle, "save", failing_save)
    monkeypatch.setattr(BundleJournal, "_write", failing_write)
    for name in ("age", "other"):
        saves = itertools.count(1 if name == "age" or fails_at != 2 else 2)  # of another name there is one copy only
        with pytest.raises(StorageError, match="full"):
            service.bundles.load(name, "next")
        assert (site.versions(service), service.parts.engine.versions(), site.on_disk()) == before
    monkeypatch.undo()
    site.close(service)
    service = site.open(age=folder)
    assert site.versions(service) == before[0]
    second = service.bundles.load("age", "next").version
    assert site.versions(service) == {"age": second}
    site.close(service)


def test_a_copy_that_can_be_read_is_left_alone(tmp_path: Path) -> None:
    """While it is replaced there would be none, and a kill in between would lose the version."""
    site = Restarts(tmp_path)
    service = site.open()
    site.write("age", 0)
    version = service.bundles.load("age", "age").version
    copy = site.state / "bundles" / "age" / version
    before = copy.stat().st_ino
    service.bundles.load("age", "age")
    assert copy.stat().st_ino == before
    damage(copy)
    service.bundles.load("age", "age")
    assert copy.stat().st_ino != before
    site.close(service)
    service = site.open()
    assert site.versions(service) == {"age": version}
    site.close(service)


def test_a_mistake_of_the_command_line_overrules_nothing(tmp_path: Path) -> None:
    site = Restarts(tmp_path)
    folder = site.write("age", 0)
    service = site.open(age=folder)
    site.write("age", 1)
    service.bundles.load("age", "age")
    first = service.bundles.roll_back("age", None).version
    before = site.on_disk()
    site.close(service)
    with pytest.raises(ArtifactError):
        site.open(age=str(tmp_path / "mistyped"))
    assert site.on_disk() == before
    service = site.open(age=folder)
    assert site.versions(service) == {"age": first}
    site.close(service)


def test_a_journal_that_is_written_though_what_comes_after_fails_names_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Restarts(tmp_path)
    service = site.open()
    site.write("age", 0)
    write = BundleJournal._write

    def failing(journal: BundleJournal, entries: Any) -> None:
        write(journal, entries)
        raise StorageError("cannot be synced")

    monkeypatch.setattr(BundleJournal, "_write", failing)
    with pytest.raises(StorageError):
        service.bundles.load("age", "age")
    assert site.versions(service) == {}
    monkeypatch.undo()
    site.close(service)
    service = site.open()  # as the file says
    assert list(site.versions(service)) == ["age"]
    assert not site.failures()
    site.close(service)


def test_the_order_in_which_versions_answered_holds_after_a_restart(tmp_path: Path) -> None:
    site = Restarts(tmp_path, keep_versions=4)
    folder = site.write("age", 0)
    service = site.open(age=folder)
    first = site.versions(service)["age"]
    site.write("second", 1)
    site.write("third", 2)
    second = service.bundles.load("age", "second").version
    service.bundles.roll_back("age", None)
    third = service.bundles.load("age", "third").version
    site.close(service)
    service = site.open(age=folder)
    listed = {info.version: (info.active, info.withdrawn) for info in service.parts.engine.versions("age")}
    assert listed == {first: (False, False), second: (False, True), third: (True, False)}
    assert service.bundles.roll_back("age", None).version == first
    assert service.bundles.roll_back("age", second).version == second
    site.close(service)


def test_a_folder_of_state_may_be_moved(tmp_path: Path) -> None:
    site = Restarts(tmp_path)
    service = site.open()
    site.write("age", 0)
    version = service.bundles.load("age", "age").version
    site.close(service)
    site.state = site.state.rename(tmp_path / "moved")
    site.config = site.config.model_copy(update={"state": str(site.state)})
    service = site.open()
    assert site.versions(service) == {"age": version}
    site.close(service)


def damage(copy: Path) -> None:
    weights = copy / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


def replace_by_another_version(copy: Path) -> None:
    save_bundle(copy, tiny_bundle(PRETRAINED, seed=9), overwrite=True)


def edit(**values: object) -> Callable[[Path], None]:
    def mishap(copy: Path) -> None:
        file = copy / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return mishap


def no_bundle(copy: Path) -> None:
    shutil.rmtree(copy)
    copy.write_text("a file")


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    "mishap",
    [
        damage, shutil.rmtree, replace_by_another_version, no_bundle, edit(max_length=0), edit(max_length="6"),
        edit(outputs=-1), edit(kind_of_task="x"), edit(outputs=None), edit(patch={"bottleneck": -3}),
    ],
    ids=range(10),
)  # fmt: skip
def test_a_bundle_that_cannot_be_loaded_again_is_listed_and_the_rest_answers(
    tmp_path: Path, mishap: Callable[[Path], None]
) -> None:
    site = Restarts(tmp_path)
    service = site.open()
    site.write("age", 0)
    for name in ("age", "other"):
        service.bundles.load(name, "age")
    site.write("age", 1)
    lost = service.bundles.load("age", "age").version
    site.close(service)
    mishap(site.state / "bundles" / "age" / lost)
    service = site.open()
    assert list(site.versions(service)) == ["other"]
    (line,) = site.failures()
    assert (line["level"], line["name"], line["version"]) == ("error", "age", lost)
    assert line["path"].startswith(str(site.state / "bundles" / "age" / lost))
    assert line["remedy"]
    assert list(service.bundles.failed) == ["age"]
    with pytest.raises(ApiError, match="could not be loaded after a restart"):
        asyncio.run(service.answer([Request([], Question(["age"]))]))
    assert service.bundles.load("age", "age").version == lost  # loading it again mends it
    assert service.bundles.failed == {}
    site.close(service)
    service = site.open()
    assert site.versions(service) == {"other": site.versions(service)["other"], "age": lost}
    service.bundles.drop("age")
    site.close(service)


def test_an_older_version_that_cannot_be_loaded_is_given_up(tmp_path: Path) -> None:
    site = Restarts(tmp_path)
    service = site.open()
    versions = []
    for seed in range(3):
        site.write("age", seed)
        versions.append(service.bundles.load("age", "age").version)
    site.close(service)
    damage(site.state / "bundles" / "age" / versions[1])
    service = site.open()
    assert [line["version"] for line in site.failures()] == [versions[1]]
    assert service.bundles.failed == {}
    assert service.bundles.roll_back("age", None).version == versions[0]
    site.close(service)


def test_another_backbone_leaves_a_service_without_its_bundles(tmp_path: Path) -> None:
    site = Restarts(tmp_path)
    service = site.open()
    site.write("age", 0)
    service.bundles.load("age", "age")
    site.close(service)
    save_backbone(tmp_path / "backbone", tiny_pretrained(seed=3), overwrite=True)
    service = site.open()
    assert site.versions(service) == {}
    assert "was made for another backbone" in service.bundles.failed["age"].message
    assert [line["name"] for line in site.failures()] == ["age"]
    service.bundles.drop("age")
    assert service.bundles.failed == {}
    site.close(service)


def test_two_services_do_not_share_a_folder_and_a_killed_one_leaves_it_free(tmp_path: Path) -> None:
    site = Restarts(tmp_path)
    service = site.open()
    with pytest.raises(ConfigError, match="another service uses this folder"):
        site.open()
    site.close(service)
    site.close(site.open())


def test_what_operators_added_and_dropped_stays_so_until_the_command_line_says_otherwise(tmp_path: Path) -> None:
    site = Restarts(tmp_path)
    age, new_bundle = site.write("age", 0), site.write("other", 1)
    service = site.open(age=age)
    service.bundles.load("more", "other")
    service.bundles.drop("age")
    site.close(service)
    service = site.open(age=age)
    assert list(site.versions(service)) == ["more"]
    site.close(service)
    service = site.open(age=new_bundle)
    assert sorted(site.versions(service)) == ["age", "more"]
    site.close(service)


@pytest.mark.parametrize(("threads", "environment", "expected"), [(None, None, [3]), (None, "4", []), (2, "4", [2])])
def test_the_network_leaves_a_core_to_who_talks_to_clients(
    monkeypatch: pytest.MonkeyPatch, threads: int | None, environment: str | None, expected: list[int]
) -> None:
    thread_counts: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", thread_counts.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if environment is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    share_cores(ServeConfig(threads=threads))
    assert thread_counts == expected
