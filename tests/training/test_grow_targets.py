"""A ranking bundle that got more targets says of old ones what it said, bit for bit, and knows the new ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from peterrec.artifacts.bundle_io import Bundle
from peterrec.cli.main import execute
from peterrec.data.corpus import Corpus
from peterrec.data.prepare import prepare
from peterrec.data.synthetic import synthetic
from peterrec.errors import ArtifactError, DataError, TaskError
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.requests import Question, Request
from peterrec.training.adapt import adapt
from peterrec.training.grow_targets import grow_targets
from peterrec.training.pretrain import pretrain
from training.small import LEARNS, adapt_config, pretrain_config

SETTINGS = {"domain": "domain", "source": {"domains": ["source"], "min_item_events": 1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone, a bundle of the targets of before, and a log with a fifth more of them."""
    folder = tmp_path_factory.mktemp("targets")
    data = synthetic(users=300, items=40)
    events = data.events.set_column(1, "item_id", pc.cast(data.events["item_id"], pa.string()))
    is_new = pc.and_(pc.equal(events["domain"], "target"), pc.ends_with(events["item_id"], "3"))
    pq.write_table(events.filter(pc.invert(is_new)), folder / "old.parquet")
    pq.write_table(events, folder / "later.parquet")
    pq.write_table(data.users, folder / "users.parquet")
    tasks = [{"kind": "ranking", "name": "shop", "domains": ["target"], "min_item_events": 1}]
    corpus = prepare(str(folder / "old.parquet"), folder / "corpus", tasks=tasks, **SETTINGS)
    model = pretrain(corpus, folder / "backbone", pretrain_config(epochs=3, **LEARNS))
    adapt(model, corpus, "shop", folder / "shop", adapt_config(epochs=2, head_init="linear-probe"))
    prepare(
        str(folder / "later.parquet"), folder / "later", tasks=tasks, catalogue=str(folder / "backbone"),
        users=str(folder / "users.parquet"), classify=["cluster"], **SETTINGS,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> UserModel:
    model = UserModel.from_pretrained(folder / "backbone")
    model.load_bundle(folder / "shop", "before")
    return model


@pytest.fixture(scope="module")
def grown(folder: Path, model: UserModel) -> Bundle:
    bundle = grow_targets(model, folder / "later", "shop", folder / "shop", folder / "grown")
    model.load_bundle(folder / "grown", "after")
    return bundle


def test_old_targets_keep_places_scores_and_every_byte(model: UserModel, grown: Bundle, folder: Path) -> None:
    before, after = model.bundle("before"), model.bundle("after")
    assert before.targets is not None
    assert after.targets is not None
    old = len(before.targets)
    assert len(after.targets) > old
    assert after.targets.ids.to_pylist()[:old] == before.targets.ids.to_pylist()
    assert after.targets.ids.to_pylist() == grown.targets.ids.to_pylist()  # type: ignore[union-attr]
    for name, tensor in before.tensors().items():
        assert after.tensors()[name][: len(tensor)].numpy().tobytes() == tensor.numpy().tobytes(), name
    sequences = Corpus.open(folder / "later").task("shop").part("test").sequences
    scores = [np.concatenate(list(model.score_batches(sequences, name))) for name in ("before", "after")]
    np.testing.assert_allclose(scores[1][:, :old], scores[0], atol=1e-6)
    assert after.metrics["grown_targets"] == len(after.targets) - old
    assert after.head_params == sum(p.numel() for p in after.head.parameters())


def test_new_targets_are_told_apart(model: UserModel, grown: Bundle, folder: Path) -> None:
    """Among themselves, for test users, better than popularity tells them; no test user was looked at."""
    before, after = model.bundle("before"), model.bundle("after")
    assert before.targets is not None
    assert after.targets is not None
    task = Corpus.open(folder / "later").task("shop")
    part, old = task.part("test"), len(before.targets)
    assert task.targets is not None
    assert part.targets is not None
    places = np.asarray(after.targets.encode(task.targets.ids))
    scores = np.concatenate(list(model.score_batches(part.sequences, "after")))
    counts = after.targets.counts[old:]
    ranks: dict[str, list[float]] = {"bundle": [], "popularity": []}
    for row in range(len(part)):
        for target in places[part.targets[row]]:
            if target >= old:
                of_user = scores[row, old:]
                ranks["bundle"].append(1 / (1 + (of_user > of_user[target - old]).sum()))
                ranks["popularity"].append(1 / (1 + (counts > counts[target - old]).sum()))
    assert len(ranks["bundle"]) > 20
    assert np.mean(ranks["bundle"]) > np.mean(ranks["popularity"]) + 0.1


def test_it_is_served_as_another_version(model: UserModel, grown: Bundle) -> None:
    engine = Engine(model)
    versions = {name: engine.versions(name)[0].version for name in ("before", "after")}
    assert versions["before"] != versions["after"]
    history = model.catalogue.ids.to_pylist()[:5]
    (answer,) = engine.predict([Request(history, Question(["before", "after"], k=100, exclude_seen=False))])
    old = answer.tasks["before"].items  # type: ignore[union-attr]
    new_order = [item for item in answer.tasks["after"].items if item in set(old)]  # type: ignore[union-attr]
    assert new_order == old


def test_what_cannot_grow_is_refused_before_anything_is_written(
    model: UserModel, grown: Bundle, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no target that the bundle lacks"):
        grow_targets(model, folder / "later", "shop", folder / "grown", tmp_path / "a")
    with pytest.raises(TaskError, match="'cluster' is of kind classification"):
        grow_targets(model, folder / "later", "cluster", folder / "shop", tmp_path / "b")
    with pytest.raises(ArtifactError, match=r"exists|is there"):
        grow_targets(model, folder / "later", "shop", folder / "shop", folder / "grown")
    assert not list(tmp_path.iterdir())
    assert set(model.bundles) == {"before", "after"}


def test_the_command_line_does_the_same(
    grown: Bundle, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["adapt", str(folder / "backbone"), str(folder / "later"), "shop", "--grow", str(folder / "shop")]
    assert execute([*arguments, "--out", str(tmp_path / "shop")]) == 0
    assert f"it has {len(grown.targets or ())} targets" in capfd.readouterr().err
    assert (tmp_path / "shop" / "adapter_model.safetensors").read_bytes() == (
        folder / "grown" / "adapter_model.safetensors"
    ).read_bytes()
    assert execute([*arguments, "--out", str(tmp_path / "x"), "--set", "epochs=3"]) == 2
    assert "--grow and --retire train nothing" in capfd.readouterr().err


def test_retired_targets_are_recommended_no_more_and_read_as_before(
    model: UserModel, grown: Bundle, folder: Path, tmp_path: Path
) -> None:
    targets = grown.targets
    assert targets is not None
    retired_ids = targets.ids.to_pylist()[1::3]
    pq.write_table(pa.table({"item_id": retired_ids}), tmp_path / "gone.parquet")
    smaller = grow_targets(
        model, folder / "later", "shop", folder / "shop", tmp_path / "left", retired=tmp_path / "gone.parquet"
    )
    model.load_bundle(tmp_path / "left", "left")
    try:
        assert smaller.targets is not None
        assert smaller.targets.ids.to_pylist() == [
            item for item in targets.ids.to_pylist() if item not in set(retired_ids)
        ]
        sequences = Corpus.open(folder / "later").task("shop").part("test").sequences
        scores = [np.concatenate(list(model.score_batches(sequences, name))) for name in ("after", "left")]
        np.testing.assert_allclose(scores[1], scores[0][:, ~np.isin(targets.ids.to_pylist(), retired_ids)], atol=1e-6)
        history = model.catalogue.ids.to_pylist()[:4]
        recommended = model.recommend([history], "left", len(targets), exclude_seen=False)
        assert set(recommended.items[0]) == set(smaller.targets.ids.to_pylist())
        popular = Engine(model).predict([Request([], Question(["left"], k=100))])[0].tasks["left"]
        assert not set(popular.items) & set(retired_ids)  # type: ignore[union-attr]
        everything = pa.table({"item_id": targets.ids})
        with pytest.raises(DataError, match="all targets would be retired"):
            grow_targets(model, folder / "later", "shop", folder / "grown", tmp_path / "a", retired=everything)
        nobody = pa.table({"item_id": ["nowhere"]})
        with pytest.raises(DataError, match="none is retired"):
            grow_targets(model, folder / "later", "shop", folder / "grown", tmp_path / "b", retired=nobody)
    finally:
        model.delete_bundle("left")
