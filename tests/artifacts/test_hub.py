"""Backbones and bundles on the Hub: pushed and loaded by its real client, against tests/hub_server.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from hub_server import TOKEN, Hub, Repository, serve_hub
from peterrec import push
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.hub import HubLocation, find_location
from peterrec.artifacts.learned_content import LearnedContent
from peterrec.data.item_content import ItemContent
from peterrec.errors import ArtifactError, ConfigError, FingerprintError, HubError
from peterrec.model import UserModel

pytest.importorskip("huggingface_hub")
# Of huggingface_hub, where it sends a large file to its HTTP client.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
HISTORIES = [["item-1", "item-3"], ["item-2"], []]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as server:
        yield server


@pytest.fixture
def model() -> UserModel:
    pretrained = tiny_pretrained()
    model = UserModel(pretrained, "cpu")
    model.add_bundle(tiny_bundle(pretrained))
    model.add_bundle(tiny_bundle(pretrained, targets=tiny_catalogue(5, first=0)))
    return model


@pytest.fixture
def options(hub: Hub, tmp_path: Path) -> dict[str, Any]:
    """How the Hub is read."""
    return {"endpoint": hub.address, "cache_dir": tmp_path / "cache"}


def owner(hub: Hub) -> dict[str, Any]:
    """Who may write to the Hub."""
    return {"endpoint": hub.address, "token": TOKEN}


def same_answers(model: UserModel, loaded: UserModel) -> bool:
    return all(
        np.array_equal(ask(model), ask(loaded))
        for ask in (
            lambda m: m.represent(HISTORIES),
            lambda m: m.predict(HISTORIES, "age").probabilities,
            lambda m: [row for scores in m.recommend(HISTORIES, "shop", 3).scores for row in scores],
        )
    )


def load_all(options: dict[str, Any]) -> UserModel:
    loaded = UserModel.from_pretrained("org/model", "cpu", **options)
    for name in ("age", "shop"):
        loaded.load_bundle("org/model", subfolder=f"bundles/{name}", **options)
    return loaded


def test_what_was_learned_of_content_is_pushed_and_read(hub: Hub, options: dict[str, Any], tmp_path: Path) -> None:
    """Every file that a backbone's config.json speaks of is one that a push sends and a reader fetches."""
    pretrained = tiny_pretrained()
    items = pa.table({"item_id": [f"item-{i}" for i in range(12)], "price": range(12)})
    encoder, features = ItemContent(items).fit(pretrained.catalogue)
    projections = {name: torch.ones(features.shape[1] + 1, 8) for name in ("embedding", "output")}
    content = LearnedContent(encoder, projections | {"bias": torch.ones(features.shape[1] + 1)})
    save_backbone(tmp_path / "backbone", replace(pretrained, content=content))
    push(tmp_path / "backbone", "org/model", **owner(hub))
    loaded = UserModel.from_pretrained("org/model", "cpu", **options)
    assert loaded.pretrained.content is not None
    assert loaded.pretrained.content.fingerprint == content.fingerprint


FRESH = """
import io, sys, numpy as np
from peterrec import UserModel, predict
from peterrec.serving.http.serve import parse_bundles
model = UserModel.from_pretrained("org/model", "cpu")
model.load_bundle("org/model", subfolder="bundles/age")
model.load_bundle("hf://org/model/bundles/shop")
histories = [["item-1", "item-3"], ["item-2"], []]
scores = [row for scores in model.recommend(histories, "shop", 3).scores for row in scores]
shares = model.predict(histories, "age").probabilities
assert parse_bundles(["a=hf://org/model/bundles/age"])["a"].endswith("bundles/age")
lines = io.StringIO('{"user": "a", "items": ["item-1", "item-3"]}')
table = predict("hf://org/model", "hf://org/model/bundles/age", lines)
assert abs(table["p(young)"][0].as_py() - shares[0, 0]) < 1e-6
np.savez(sys.argv[1], vectors=model.represent(histories), scores=scores, shares=shares)
"""


def push_all(model: UserModel, hub: Hub) -> None:
    model.push_to_hub("org/model", **owner(hub))
    for name in ("age", "shop"):
        model.push_to_hub("org/model", bundle=name, subfolder=f"bundles/{name}", **owner(hub))


@pytest.mark.parametrize("offline", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_fresh_process_answers_the_same(model: UserModel, hub: Hub, tmp_path: Path, offline: bool) -> None:
    push_all(model, hub)
    if offline:
        load_all({"endpoint": hub.address, "cache_dir": tmp_path / "home" / "hub"})
    before, out = len(hub.requests), tmp_path / "answers.npz"
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": str(int(offline))}
    process = [sys.executable, "-W", "error", "-c", FRESH, str(out)]
    subprocess.run(process, env=os.environ | settings, check=True)
    assert (len(hub.requests) > before) == (not offline)
    answers = np.load(out)
    assert np.array_equal(answers["vectors"], model.represent(HISTORIES))
    assert np.array_equal(answers["shares"], model.predict(HISTORIES, "age").probabilities)
    scores = model.recommend(HISTORIES, "shop", 3).scores
    assert np.array_equal(answers["scores"], [row for rows in scores for row in rows])


def test_loaded_from_the_hub_and_then_from_the_cache(model: UserModel, hub: Hub, options: dict[str, Any]) -> None:
    push_all(model, hub)
    for local_files_only in (False, True):
        before = len(hub.requests)
        loaded = load_all(options | {"local_files_only": local_files_only})
        assert same_answers(model, loaded)
        assert (len(hub.requests) > before) == (not local_files_only)
    assert loaded.repo_id == "org/model"


def test_revisions(model: UserModel, hub: Hub, options: dict[str, Any]) -> None:
    first = model.push_to_hub("org/model", **owner(hub))
    newer = UserModel(tiny_pretrained(seed=1), "cpu")
    newer.push_to_hub("org/model", revision="v2", **owner(hub))
    for revision, expected in ((None, model), (first, model), ("v2", newer)):
        loaded = UserModel.from_pretrained("org/model", "cpu", revision=revision, **options)
        assert loaded.fingerprint == expected.fingerprint
    loaded = UserModel.from_pretrained("hf://org/model@v2", "cpu", **options)
    assert loaded.fingerprint == newer.fingerprint
    with pytest.raises(HubError, match=r"hf://org/model@v3: .*no such revision"):
        UserModel.from_pretrained("org/model", "cpu", revision="v3", **options)


def test_a_folder_that_is_there_wins(
    model: UserModel, hub: Hub, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    UserModel(tiny_pretrained(seed=1), "cpu").push_to_hub("org/model", **owner(hub))
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("org/model")
    before = len(hub.requests)
    assert UserModel.from_pretrained("org/model", "cpu", **options).fingerprint == model.fingerprint
    assert UserModel.from_pretrained("org", "cpu", subfolder="model", **options).fingerprint == model.fingerprint
    assert len(hub.requests) == before
    with pytest.raises(ConfigError, match="is a folder of this machine, which has no revision 'v2'"):
        UserModel.from_pretrained("org/model", "cpu", revision="v2", **options)
    assert UserModel.from_pretrained("hf://org/model", "cpu", **options).fingerprint != model.fingerprint


def test_a_private_repository_wants_a_token(model: UserModel, hub: Hub, options: dict[str, Any]) -> None:
    model.push_to_hub("org/model", private=True, **owner(hub))
    with pytest.raises(HubError, match=r"it is private .*\(401\)") as caught:
        UserModel.from_pretrained("org/model", "cpu", **options)
    assert "hf auth login" in caught.value.remedy
    loaded = UserModel.from_pretrained("org/model", "cpu", token=TOKEN, **options)
    assert loaded.fingerprint == model.fingerprint


ABSENT = {
    "org/nothing": r"hf://org/nothing: .* has no such repository, or it is private",
    "org/gated": "its owners give access to it",
    "hf://org/model/elsewhere": "has no backbone there: config.json, model.safetensors, catalogue.parquet missing",
    "org/model/elsewhere": "is missing",  # a path of three parts is a folder
    "hf://org/model/bundles/age": "is a bundle, not a backbone",
    "hf://org/-model": "no repository of the Hub can have this name",
    "hf://org": "does not say where on the Hub",
    "hf://org/model/../../etc": "is no folder of a repository",
    "hf://org/model/*": "is no folder of a repository",
}


def test_what_is_not_there(model: UserModel, hub: Hub, options: dict[str, Any]) -> None:
    push_all(model, hub)
    hub.repositories["org/gated"] = Repository(gated=True)
    for reference, problem in ABSENT.items():
        with pytest.raises((HubError, ConfigError, ArtifactError), match=problem) as caught:
            UserModel.from_pretrained(reference, "cpu", **options)
        assert caught.value.remedy
    with pytest.raises(HubError, match="is a backbone, not a bundle"):
        model.load_bundle("org/model", **options)


def test_a_hub_in_trouble(model: UserModel, hub: Hub, options: dict[str, Any]) -> None:
    model.push_to_hub("org/model", **owner(hub))
    for status, problem in {500: "has a fault", 403: "refuses access", 429: "too often"}.items():
        hub.fault = lambda method, path, status=status: status if path.startswith("/api/models") else None
        with pytest.raises(HubError, match=problem):
            UserModel.from_pretrained("org/model", "cpu", **options)


def test_nobody_to_ask(model: UserModel, hub: Hub, options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(HubError, match="the cache does not have it, and the Hub is not asked"):
        UserModel.from_pretrained("org/model", "cpu", local_files_only=True, **options)
    with pytest.raises(HubError, match=r"http://127.0.0.1:9 cannot be reached"):
        UserModel.from_pretrained("org/model", "cpu", cache_dir=tmp_path)  # the endpoint of tests/conftest.py
    with pytest.raises(HubError, match=r"http://127.0.0.1:9 cannot be reached"):
        model.push_to_hub("org/model", token=TOKEN)
    push_all(model, hub)
    loaded = UserModel.from_pretrained("org/model", "cpu", **options)
    with pytest.raises(HubError, match=r"hf://org/model/bundles/age: the cache does not have it"):
        loaded.load_bundle("org/model", subfolder="bundles/age", local_files_only=True, **options)


def test_a_bundle_of_another_backbone_is_refused(model: UserModel, hub: Hub, options: dict[str, Any]) -> None:
    push_all(model, hub)
    stranger = UserModel(tiny_pretrained(seed=1), "cpu")
    with pytest.raises(FingerprintError, match="was made for another backbone"):
        stranger.load_bundle("org/model", subfolder="bundles/age", **options)
    assert stranger.bundles == {}


def test_nothing_but_the_files_of_the_artifact_is_fetched(model: UserModel, hub: Hub, options: dict[str, Any]) -> None:
    push_all(model, hub)
    repository = hub.repositories["org/model"]
    tree = repository.trees[repository.refs["main"]]
    repository.commit(tree | {"pytorch_model.bin": b"\x80\x04", "model.pkl": b"\x80\x04", "bundles/age/x.pt": b"\x80"})
    loaded = UserModel.from_pretrained("org/model", "cpu", **options)
    loaded.load_bundle("org/model", subfolder="bundles/age", **options)
    fetched = {path.partition("/resolve/")[2].partition("/")[2] for _, path in hub.requests if "/resolve/" in path}
    expected = {"config.json", "model.safetensors", "catalogue.parquet", "README.md"}
    files = ("adapter_config.json", "adapter_model.safetensors", "labels.json", "metrics.json", "README.md")
    assert fetched == expected | {f"bundles/age/{name}" for name in files}


def test_a_damaged_file_is_refused(model: UserModel, hub: Hub, options: dict[str, Any]) -> None:
    model.push_to_hub("org/model", **owner(hub))
    UserModel(tiny_pretrained(seed=1), "cpu").push_to_hub("org/another", **owner(hub))
    repository, another = hub.repositories["org/model"], hub.repositories["org/another"]
    weights = {"model.safetensors": another.trees[another.refs["main"]]["model.safetensors"]}
    repository.commit(repository.trees[repository.refs["main"]] | weights)
    with pytest.raises(FingerprintError, match="the fingerprint of its tensors is"):
        UserModel.from_pretrained("org/model", "cpu", **options)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (
        lambda: UserModel.from_pretrained("org/model", "cpu"),
        lambda: UserModel(tiny_pretrained(), "cpu").push_to_hub("org/model"),
    ):
        with pytest.raises(ConfigError, match="huggingface_hub, which is not installed") as caught:
            call()
        assert "pip install 'peterrec[hub]'" in caught.value.remedy


def test_references() -> None:
    assert find_location("hf://org/name@refs%2Fpr%2F1/a/b/") == HubLocation("org/name", "a/b", "refs/pr/1")
    assert find_location("org/name", "a", "v1") == HubLocation("org/name", "a", "v1")
    assert find_location(Path("org/name")) is None
    assert find_location("./org/name") is None
    assert str(HubLocation("org/name", "a/b", "v1")) == "hf://org/name@v1/a/b"
    with pytest.raises(ConfigError, match="say it twice"):
        find_location("hf://org/name/a", "b")
