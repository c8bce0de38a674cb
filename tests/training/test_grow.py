"""A backbone that got more items says of old ones what it said, bit for bit, and knows the new ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.artifacts.backbone_io import load_backbone, save_backbone
from peterrec.artifacts.bundle_io import Bundle, save_bundle
from peterrec.config import EventsConfig, GrowConfig, NewUsersConfig, PatchConfig, PrepareConfig, SourceConfig
from peterrec.data.corpus import Corpus
from peterrec.data.prepare import prepare
from peterrec.data.sequences import FIRST_ITEM
from peterrec.data.synthetic import synthetic
from peterrec.errors import ArtifactError, ConfigError, DataError, FingerprintError, PeterRecError
from peterrec.model import UserModel
from peterrec.nn.backbone import UnsharedModules
from peterrec.serving.engine import Engine
from peterrec.serving.requests import Request
from peterrec.training.grow import grow
from peterrec.training.new_items import with_items
from peterrec.training.pretrain import pretrain
from training.small import QUIET, StopAt, Stopped, plain, pretrain_config

NEW = "new-"  # what ids of items begin with that the backbone does not know


def grow_config(**settings: Any) -> GrowConfig:
    defaults = {"batch_size": 24, "epochs": 2, "patience": 2, "valid_fraction": 0.3, "runner": QUIET}
    return GrowConfig(**(defaults | settings))


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events of a source, and of a year later the same with a fifth of the items of which nobody knew before."""
    folder = tmp_path_factory.mktemp("events")
    log = synthetic(users=120, items=40).events
    log = log.filter(pc.equal(log["domain"], "source"))
    texts = pc.cast(log["item_id"], "string")
    is_new = pc.equal(pc.utf8_slice_codeunits(texts, -1, None), "3")
    pq.write_table(log.filter(pc.invert(is_new)), folder / "old.parquet")
    place = log.schema.get_field_index("item_id")
    renamed = pc.if_else(is_new, pc.binary_join_element_wise(NEW, texts, ""), texts)
    later = log.set_column(place, "item_id", renamed)
    pq.write_table(later, folder / "later.parquet")
    return folder


@pytest.fixture(scope="module")
def backbone(events: Path) -> UserModel:
    corpus = prepare(_events(events / "old.parquet"), events / "corpus")
    return pretrain(corpus, events / "backbone", pretrain_config(epochs=2))


@pytest.fixture(scope="module")
def later(events: Path, backbone: UserModel) -> Corpus:
    return prepare(_events(events / "later.parquet", catalogue=events / "backbone"), events / "later")


def _events(path: Path, catalogue: Path | None = None, **settings: Any) -> PrepareConfig:
    extended = {} if catalogue is None else {"catalogue": str(catalogue), "extend_catalogue": True}
    return PrepareConfig(
        events=EventsConfig(paths=(str(path),)), source=SourceConfig(min_item_events=1), **extended, **settings
    )


def test_new_items_come_after_those_that_were_there(backbone, later):
    old, ids = len(backbone.catalogue), later.catalogue.ids.to_pylist()
    assert ids[:old] == backbone.catalogue.ids.to_pylist()
    assert ids[old:]
    assert all(item.startswith(NEW) for item in ids[old:])
    assert later.catalogue.counts[:old].tolist() == backbone.catalogue.counts.tolist()
    counts = later.catalogue.counts[old:].tolist()
    assert counts == sorted(counts, reverse=True)
    assert min(counts) > 0


def test_growing_leaves_every_byte_of_before(tmp_path, backbone, later):
    before = {name: tensor.clone() for name, tensor in backbone.network.state_dict().items()}
    grown = grow(backbone, later, tmp_path / "grown", grow_config())
    after = grown.network.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name][: len(tensor)].numpy().tobytes() == tensor.numpy().tobytes(), name
        assert backbone.network.state_dict()[name].equal(tensor)
    loaded = UserModel.from_pretrained(tmp_path / "grown")
    assert loaded.pretrained.grown_from == (backbone.identity,)
    assert loaded.catalogue.fingerprint == later.catalogue.fingerprint


SMALL = {"channels": 8, "dilations": (1, 2)}
NETWORKS: dict[str, dict[str, Any]] = {
    "tied": SMALL | {"tie_weights": True},
    "untied": SMALL | {"tie_weights": False},
    "noncausal": SMALL | {"kind": "noncausal"},
    "transformer": {"architecture": "transformer", "channels": 8, "dilations": None, "kernel_size": None, "layers": 1},
}
UPDATES: dict[str, dict[str, Any]] = {
    "full softmax": {"loss": "full"},
    "sampled softmax": {"loss": "sampled", "negatives": 30, "table_updates": "dense"},
    "touched rows": {"loss": "sampled", "negatives": 30, "table_updates": "rows"},
}


@pytest.mark.usefixtures("backbone")  # by which the corpus is there
@pytest.mark.parametrize("updates", UPDATES)
@pytest.mark.parametrize("network", NETWORKS)
def test_training_moves_what_is_new_and_not_a_bit_of_what_is_old(tmp_path, events, later, network, updates):
    config = pretrain_config(backbone=NETWORKS[network], epochs=4, optim={"lr": 0.02})
    before = pretrain(events / "corpus", tmp_path / "before", config)
    pretrained = before.pretrained
    start = grow(before, later, tmp_path / "start", grow_config(epochs=0)).network.state_dict()
    settings = grow_config(epochs=4, optim={"lr": 0.003, "weight_decay": 0.5}, **UPDATES[updates])
    grown = grow(before, later, tmp_path / "grown", settings)
    curve = grown.pretrained.training["growth"][-1]["curve"]
    assert min(row["valid_loss"] for row in curve[1:]) < curve[0]["valid_loss"]
    for name, tensor in grown.network.state_dict().items():
        old = len(pretrained.network.state_dict()[name])
        assert tensor[:old].numpy().tobytes() == pretrained.network.state_dict()[name].numpy().tobytes(), name
        assert len(tensor) == old or not tensor[old:].equal(start[name][old:]), name


def bundles_of(model: UserModel) -> dict[str, Bundle]:
    pretrained = model.pretrained
    everything = UnsharedModules(embedding=True, blocks=2)
    trained = pretrained.network.backbone.fork(everything)
    with torch.no_grad():
        trained.embedding.weight.mul_(1.5)
    return {
        "patch": tiny_bundle(pretrained),
        "items": tiny_bundle(pretrained, patch_config=PatchConfig(bottleneck=3, item_rank=2)),
        "head": tiny_bundle(pretrained, strategy="head", readout="both"),
        "shop": tiny_bundle(pretrained, targets=tiny_catalogue(5, first=0)),
        "all": tiny_bundle(pretrained, strategy="all", backbone=trained, unshared=everything),
    }


@pytest.fixture(scope="module")
def grown_twice(tmp_path_factory, events, backbone, later) -> tuple[UserModel, Path]:
    """Grown by half of the new items, then by the others."""
    folder = tmp_path_factory.mktemp("grown")
    log = pq.read_table(events / "later.parquet")
    ids = later.catalogue.ids.to_pylist()[len(backbone.catalogue) :]
    pq.write_table(log.filter(pc.invert(pc.is_in(log["item_id"], pa.array(ids[::2])))), folder / "half.parquet")
    half = prepare(_events(folder / "half.parquet", catalogue=events / "backbone"), folder / "half")
    first = grow(backbone, half, folder / "first", grow_config())
    complete = prepare(_events(events / "later.parquet", catalogue=folder / "first"), folder / "whole")
    assert len(backbone.catalogue) < len(half.catalogue) < len(complete.catalogue)
    return grow(first, complete, folder / "second", grow_config()), folder / "second"


@pytest.mark.parametrize("name", ["patch", "items", "head", "shop", "all"])
def test_bundles_of_before_answer_bit_for_bit(tmp_path, backbone, grown_twice, name):
    old = UserModel(backbone.pretrained, "cpu")
    bundle = bundles_of(backbone)[name]
    save_bundle(tmp_path / "bundle", bundle)
    old.add_bundle(bundle, name)
    rng, ids = np.random.default_rng(0), backbone.catalogue.ids.to_pylist()
    histories = [rng.choice(ids, size=n).tolist() for n in (1, 2, 5, 9, 20)] + [[]]
    expected = _answers(old, name, histories)
    model, folder = grown_twice
    for loaded in (UserModel(model.pretrained, "cpu"), UserModel.from_pretrained(folder, "cpu")):
        for source in (bundle, tmp_path / "bundle"):
            loaded.add_bundle(source, name) if isinstance(source, Bundle) else loaded.load_bundle(source, name)
            assert _answers(loaded, name, histories) == expected
            new = loaded.catalogue.ids[-1].as_py()
            assert not np.array_equal(loaded.represent([[ids[0], new]], name), loaded.represent([[ids[0]]], name))
            save_bundle(tmp_path / "again", loaded.bundle(name), overwrite=True)
            for file in ("adapter_model.safetensors", "adapter_config.json"):
                assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "bundle" / file).read_bytes()


def _answers(model: UserModel, bundle: str, histories: list[list[Any]]) -> list[Any]:
    answers = [model.represent(histories, bundle).tobytes(), model.represent(histories).tobytes()]
    if model.bundle(bundle).targets is None:
        return [*answers, model.predict(histories, bundle).probabilities.tobytes()]
    top = model.recommend(histories, bundle, k=3)
    return [*answers, top.items, top.scores]


def test_new_items_are_recommended(grown_twice):
    model, _ = grown_twice
    items = model.recommend([model.catalogue.ids.to_pylist()[:3]], k=len(model.catalogue) - 3).items[0]
    assert any(item.startswith(NEW) for item in items)


def test_a_corpus_of_before_is_read_by_the_grown_backbone(events, grown_twice):
    model, _ = grown_twice
    assert model.pretrained.reads(Corpus.open(events / "corpus").catalogue)
    assert not tiny_pretrained().reads(model.catalogue)


def test_a_byte_of_an_old_row_that_was_changed_is_found(tmp_path, grown_twice):
    """Also where fingerprints were made to fit: the rows must be those of the backbone that it says it was."""
    model, _ = grown_twice
    pretrained = load_backbone(grown_twice[1])
    with torch.no_grad():
        pretrained.network.backbone.embedding.weight[5, 0] += 1e-6
    save_backbone(tmp_path / "changed", pretrained)
    with pytest.raises(FingerprintError, match="the tensors that it was grown from"):
        load_backbone(tmp_path / "changed")
    config = json.loads((grown_twice[1] / "config.json").read_text())
    assert [ancestor["items"] for ancestor in config["grown_from"]] == sorted(
        {a["items"] for a in config["grown_from"]}
    )
    assert model.identity.root.items == config["grown_from"][0]["items"]


@pytest.mark.parametrize(("hook", "n"), [("batch start", 5), ("validation end", 1), ("epoch end", 1)])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(tmp_path, backbone, later, hook, n):
    settings = grow_config(checkpoint_every=1)
    uninterrupted = grow(backbone, later, tmp_path / "whole", settings)
    with pytest.raises(Stopped):
        grow(backbone, later, tmp_path / "out", settings, callbacks=[StopAt(hook, n)])
    assert not (tmp_path / "out").exists()
    resumed = grow(backbone, later, tmp_path / "out", settings, resume=True)
    assert resumed.fingerprint == uninterrupted.fingerprint
    curves = [plain(model.pretrained.training["growth"][0]["curve"]) for model in (uninterrupted, resumed)]
    assert curves[0] == curves[1]


def test_what_cannot_be_grown_is_refused(tmp_path, events, backbone, later):
    cases: dict[str, tuple[Any, Any, type[PeterRecError], str]] = {
        "nothing new": (backbone, Corpus.open(events / "corpus"), DataError, "has no item that the backbone lacks"),
        "another catalogue": (UserModel(tiny_pretrained(), "cpu"), later, FingerprintError, "does not begin with"),
    }
    for model, corpus, error, message in cases.values():
        with pytest.raises(error, match=message):
            grow(model, corpus, tmp_path / "out", grow_config())
    (tmp_path / "there").mkdir()
    with pytest.raises(ArtifactError, match="exists"):
        grow(backbone, later, tmp_path / "there", grow_config())
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_users_kept_out_of_pretraining_are_kept_out_of_growing(tmp_path, events, backbone, later):
    kept_out = dataclasses.replace(backbone.pretrained, new_users=_kept_out(events, tmp_path))
    with pytest.raises(DataError, match="kept out of pre-training"):
        grow(UserModel(kept_out, "cpu"), later, tmp_path / "out", grow_config())
    settings = {"new_users": NewUsersConfig(parts=("test",))}
    corpus = prepare(_events(events / "later.parquet", catalogue=events / "backbone", **settings), tmp_path / "later")
    grow(UserModel(kept_out, "cpu"), corpus, tmp_path / "out", grow_config(epochs=0))


def _kept_out(events: Path, folder: Path) -> Any:
    config = _events(events / "old.parquet", new_users=NewUsersConfig(parts=("test",)))
    return prepare(config, folder / "corpus").kept_out_users


def test_the_engine_answers_as_before_in_the_same_versions(tmp_path, backbone, grown_twice):
    """So replicas with either backbone agree on which version answers, and read each other's copies of it."""
    bundles = bundles_of(backbone)
    for name, bundle in bundles.items():
        save_bundle(tmp_path / name, bundle)
    request = Request(backbone.catalogue.ids.to_pylist()[:5])
    answers = []
    for step, model in enumerate((backbone, grown_twice[0], UserModel.from_pretrained(grown_twice[1], "cpu"))):
        engine = Engine(UserModel(model.pretrained, "cpu"))
        for name in bundles:
            engine.load(name, tmp_path / name)
            engine.save(name, tmp_path / f"copy-{step}" / name)
            saved = (tmp_path / f"copy-{step}" / name / "adapter_model.safetensors").read_bytes()
            assert saved == (tmp_path / name / "adapter_model.safetensors").read_bytes()
        answers.append(engine.predict([request])[0].tasks)
    assert answers[0] == answers[1] == answers[2]
    assert grown_twice[0].identity.root == backbone.identity


def test_items_of_which_only_the_content_is_there_get_what_items_like_them_have(tmp_path):
    """Two kinds of items, whose rows differ; a new one of a kind, by a word in its title, gets a row like theirs."""
    pretrained = tiny_pretrained(tiny_catalogue(40), backbone={"tie_weights": False})
    table, output = pretrained.network.backbone.embedding.weight, pretrained.network.output_table()[0]
    with torch.no_grad():
        table[FIRST_ITEM::2] += 3.0
        output[1::2] -= 3.0
    titles = [f"a {kind} thing" for kind in ("hot", "cold")]
    ids = [f"item-{i}" for i in range(40)] + ["another hot one", "another cold one"]
    items = pa.table({"item_id": ids, "title": [titles[i % 2] for i in range(42)]})
    grown = grow(UserModel(pretrained, "cpu"), None, tmp_path / "grown", items=items)
    rows = grown.network.backbone.embedding.weight[-2:].mean(dim=1)
    assert rows[0] - rows[1] > 2.0
    output_rows = grown.network.output_table()[0][-2:].mean(dim=1)
    assert output_rows[0] - output_rows[1] > 2.0
    assert grown.catalogue.ids.to_pylist()[-2:] == ids[-2:]
    assert grown.catalogue.counts[-2:].tolist() == [0, 0]
    assert UserModel.from_pretrained(tmp_path / "grown").identity.root == pretrained.identity
    assert ids[-2] in grown.recommend([["item-0"]], k=42, exclude_seen=False).items[0]
    with pytest.raises(DataError, match="has no item that the backbone lacks"):
        grow(grown, None, tmp_path / "more", items=items)


def test_content_is_used_beside_events(tmp_path, backbone, later):
    ids = later.catalogue.ids.to_pylist()
    items = pa.table({"item_id": ids, "place": [float(i % 4) for i in range(len(ids))]})
    by_events = grow(backbone, later, tmp_path / "events", grow_config(epochs=0))
    by_both = grow(backbone, later, tmp_path / "both", grow_config(epochs=0), items=items)
    assert by_events.fingerprint != by_both.fingerprint
    settings = grow_config(checkpoint_every=1)
    with pytest.raises(Stopped):
        grow(backbone, later, tmp_path / "out", settings, items=items, callbacks=[StopAt("batch start", 5)])
    with pytest.raises(FingerprintError):
        grow(backbone, later, tmp_path / "out", settings, resume=True)
    with pytest.raises(ConfigError, match="nothing to grow by"):
        grow(backbone, None, tmp_path / "none")


def test_new_items_of_which_old_ones_say_nothing_get_the_mean_and_that_is_told(caplog):
    pretrained = tiny_pretrained(tiny_catalogue(5))
    grown = with_items(pretrained, tiny_catalogue(7), np.arange(7.0)[:, None], np.zeros(5))
    table = grown.network.backbone.embedding.weight
    torch.testing.assert_close(table[-2:], table[FIRST_ITEM:-2].mean(dim=0).expand(2, -1))
    assert "no old item is known by what new ones are" in caplog.text
