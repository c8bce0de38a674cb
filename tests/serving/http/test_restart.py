"""After a restart the bundles are those that answered before."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
import torch

from builders import tiny_bundle, tiny_pretrained
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.config import ServeConfig
from peterrec.errors import ConfigError
from peterrec.serving.http.logs import Log
from peterrec.serving.http.serve import open_service
from peterrec.serving.http.server import share_cores
from peterrec.serving.http.service import Service

PRETRAINED = tiny_pretrained()


class Restarts:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = ServeConfig(state=str(folder / "state"), bundle_root=str(folder))
        save_backbone(folder / "backbone", PRETRAINED)

    def write(self, name: str, seed: int) -> str:
        save_bundle(self.folder / name, tiny_bundle(PRETRAINED, seed=seed), overwrite=True)
        return str(self.folder / name)

    def open(self, **given: str) -> Service:
        return open_service(self.folder / "backbone", given, self.config, None, Log())

    @staticmethod
    def versions(service: Service) -> dict[str, str]:
        return {task.name: task.version for task in service.parts.engine.tasks()}

    @staticmethod
    def close(service: Service) -> None:
        asyncio.run(service.close())


def test_what_was_rolled_back_to_answers_though_its_folder_has_something_else(tmp_path: Path) -> None:
    site = Restarts(tmp_path)
    given = site.write("age", 0)
    service = site.open(age=given)
    first = site.versions(service)["age"]
    site.write("age", 1)  # trained again, into the same folder
    second = service.bundles.load("age", "age").version
    assert service.bundles.roll_back("age", None).version == first != second
    site.close(service)
    service = site.open(age=given)
    assert site.versions(service) == {"age": first}
    assert service.bundles.load("age", "age").version == second
    site.close(service)
    shutil.rmtree(given)  # what was loaded is there without its folder
    service = site.open(age=given)
    assert site.versions(service) == {"age": second}
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
    age, other = site.write("age", 0), site.write("other", 1)
    service = site.open(age=age)
    service.bundles.load("more", "other")
    service.bundles.drop("age")
    site.close(service)
    service = site.open(age=age)
    assert list(site.versions(service)) == ["more"]
    site.close(service)
    service = site.open(age=other)
    assert sorted(site.versions(service)) == ["age", "more"]
    site.close(service)


@pytest.mark.parametrize(("threads", "environment", "expected"), [(None, None, [3]), (None, "4", []), (2, "4", [2])])
def test_the_network_leaves_a_core_to_who_talks_to_clients(
    monkeypatch: pytest.MonkeyPatch, threads: int | None, environment: str | None, expected: list[int]
) -> None:
    found: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if environment is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    share_cores(ServeConfig(threads=threads))
    assert found == expected
