"""Content of items is learned with the network, is folded into its tables, and is what new items get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from peterrec.artifacts.backbone_io import load_backbone
from peterrec.artifacts.learned_content import with_constant
from peterrec.cli.main import execute
from peterrec.config import PretrainConfig
from peterrec.data.corpus import Corpus
from peterrec.data.item_content import ItemContent
from peterrec.data.prepare import prepare
from peterrec.data.sequences import FIRST_ITEM
from peterrec.errors import ConfigError, DataError, FingerprintError
from peterrec.model import UserModel
from peterrec.nn.build import build_backbone
from peterrec.nn.item_content import ContentPart
from peterrec.nn.losses import LogUniformSampler
from peterrec.nn.next_item import NextItemModel
from peterrec.training.grow import grow
from peterrec.training.item_content import add_content, fold_content
from peterrec.training.pretrain import pretrain
from peterrec.training.pretrain_module import PretrainModule
from training.small import BACKBONE, LEARNS, StopAt, Stopped, pretrain_config

GROUPS = ("copper", "iron", "steel", "enamel")
SETTINGS = {"source": {"min_item_events": 1}}


def config(**settings: Any) -> PretrainConfig:
    return pretrain_config(**(LEARNS | {"epochs": 15, "patience": 15} | settings))


def pans(names: range) -> pa.Table:
    """Table of some pans of each group, which their titles tell."""
    rows = [(f"pan-{group}-{name}", f"a pan made of {group}") for group in GROUPS for name in names]
    return pa.table({"item_id": [pan for pan, _ in rows], "title": [title for _, title in rows]})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Users who like pans of one material."""
    folder = tmp_path_factory.mktemp("pans")
    rng = np.random.default_rng(0)
    rows = [(f"u{n}", f"pan-{GROUPS[n % 4]}-{rng.integers(12)}", t) for n in range(160) for t in range(8)]
    names = ("user_id", "item_id", "timestamp")
    pq.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), folder / "e.parquet")
    return prepare(str(folder / "e.parquet"), folder / "corpus", **SETTINGS)


@pytest.fixture(scope="module")
def folder(corpus: Corpus) -> Path:
    pretrain(corpus, corpus.path.parent / "backbone", config(), items=pans(range(12)))
    return corpus.path.parent / "backbone"


NETWORKS: dict[str, dict[str, Any]] = {"tied": {"tie_weights": True}, "untied": {"tie_weights": False}}


@pytest.mark.parametrize("network", NETWORKS)
def test_both_parts_add_up_to_what_was_there(corpus, network):
    backbone = BACKBONE.model_copy(update=NETWORKS[network])
    plain = NextItemModel(build_backbone(backbone, len(corpus.catalogue), seed=3), torch.rand(len(corpus.catalogue)))
    divided = NextItemModel(build_backbone(backbone, len(corpus.catalogue)))
    divided.load_state_dict(plain.state_dict())
    encoder, features = ItemContent(pans(range(12))).fit(corpus.catalogue)
    add_content(divided, features, np.ones(len(features)), dropout=1.0)
    assert any("projection" in name for name, _ in divided.named_parameters())
    divided.train()
    tokens = torch.arange(FIRST_ITEM, FIRST_ITEM + 6)[None]
    assert not torch.allclose(divided.backbone(tokens), plain.backbone(tokens), atol=1e-3)
    learned = fold_content(divided, encoder)
    assert set(learned.projections) == {"embedding", "bias"} | ({"output"} if divided.head else set())
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(divided.state_dict()[name], tensor, atol=1e-5, rtol=1e-5)


def test_some_items_do_without_a_row_of_their_own_in_a_step():
    features = torch.rand(1_000, 2)
    is_described = torch.arange(1_000) % 2 == 0
    part = ContentPart(features, torch.rand(2, 3), is_described, special=4, dropout=0.25)
    residual = torch.rand(1_004, 3) + 1.0
    content = features @ part.projection
    table = part(residual)
    assert torch.equal(table[:4], residual[:4])
    is_dropped = torch.isclose(table[4:], content).all(dim=1)
    torch.testing.assert_close(table[4:][~is_dropped], (residual[4:] + content)[~is_dropped])
    assert not is_dropped[~is_described].any()
    assert 0.15 < is_dropped[is_described].float().mean() < 0.35
    torch.testing.assert_close(part.eval()(residual)[4:], residual[4:] + content)


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_on_the_items_of_a_batch_is_one_on_whole_tables(corpus, network, views, monkeypatch):
    settings = config(
        backbone=BACKBONE.model_copy(update=NETWORKS[network]),
        loss="sampled",
        negatives=9,
        contrastive={"weight": 0.5 if views else 0.0, "users": 4},
    )
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, len(corpus.catalogue) // 2, (6, 5), generator=rng) + FIRST_ITEM
    inputs[0, 3:] = 0
    batch = {"inputs": inputs, "targets": inputs.roll(1, 0), "negatives": torch.tensor([1, 1, 40, 3, 0, 9, 9, 30, 2])}
    batch |= {"views": inputs.view(3, 2, 5)} if views else {}
    gradients = []
    for on_complete_tables in (False, True):
        trained = NextItemModel(build_backbone(settings.backbone, len(corpus.catalogue), seed=3))
        _, features = ItemContent(pans(range(12))).fit(corpus.catalogue)
        add_content(trained, features, np.ones(len(features)), dropout=0.0)
        if on_complete_tables:
            monkeypatch.setattr("peterrec.training.pretrain_module.has_content", lambda _: False)
        module = PretrainModule(trained, settings, LogUniformSampler(len(corpus.catalogue)))
        module.train()
        loss = module.training_step(batch, 0)
        loss.backward()
        gradients.append({name: p.grad for name, p in trained.named_parameters()} | {"loss": loss.detach()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-4, msg=name)


def test_new_items_have_what_their_content_says_and_are_recommended(folder, tmp_path):
    table = pans(range(12, 15))
    grown = grow(folder, None, tmp_path / "grown", items=table)
    before = UserModel.from_pretrained(folder)
    content = before.pretrained.content
    assert content is not None
    features = ItemContent(table).features(grown.catalogue, content.encoder)[len(before.catalogue) :]
    expected = with_constant(features) @ content.projections["embedding"]
    torch.testing.assert_close(grown.network.backbone.embedding.weight[FIRST_ITEM + len(before.catalogue) :], expected)
    assert grown.pretrained.content is not None
    assert grown.pretrained.content.fingerprint == content.fingerprint
    new = set(table["item_id"].to_pylist())
    for group in GROUPS:
        answers = grown.recommend([[f"pan-{group}-{n}" for n in (1, 5, 2)]], k=len(grown.catalogue) - 3).items[0]
        first = next(item for item in answers if item in new)
        assert first.startswith(f"pan-{group}-"), first
    read = UserModel.from_pretrained(tmp_path / "grown").represent([["pan-iron-13"], ["pan-iron-14"], ["pan-steel-14"]])
    assert np.abs(read[0] - read[1]).max() < 0.2 * np.abs(read[0] - read[2]).max()


def test_what_is_more_than_content_comes_from_events(folder, corpus, tmp_path):
    """A new pan of iron that lovers of steel buy."""
    rows = [("u2", "pan-steel-1", 1)] + [(f"v{n}", f"pan-steel-{n % 12}", t) for n in range(60) for t in range(2)]
    rows += [(f"v{n}", "pan-iron-99", 2) for n in range(60)]
    events = pa.table(dict(zip(("user_id", "item_id", "timestamp"), map(list, zip(*rows, strict=True)), strict=True)))
    later = prepare(events, tmp_path / "later", catalogue=str(folder), extend_catalogue=True, **SETTINGS)
    table = pa.concat_tables([pans(range(12)), pans(range(99, 100))])
    vectors = {}
    for name, content in (("events", None), ("both", table)):
        grown = grow(folder, later, tmp_path / name, epochs=0, valid_fraction=0.3, items=content)
        vectors[name] = grown.network.backbone.embedding.weight[-1]
    assert not torch.allclose(vectors["events"], vectors["both"], atol=1e-3)
    with pytest.raises(DataError, match="describes no old item"):
        grow(folder, later, tmp_path / "none", epochs=0, valid_fraction=0.3, items=pans(range(99, 100)))


def test_the_folder_says_what_was_learned_and_a_change_is_found(folder, tmp_path):
    content = load_backbone(folder).content
    assert content is not None
    assert content.encoder.columns["title"].words[:3] == ("a", "copper", "enamel")
    assert load_backbone(folder, mapped=True).content is None
    path = folder / "item_content.json"
    text = path.read_text()
    path.write_text(text.replace("copper", "silver"))
    with pytest.raises(FingerprintError, match="item_content"):
        load_backbone(folder)
    path.write_text(text)


def test_without_a_table_there_is_nothing_of_it(corpus, folder, tmp_path):
    plain = pretrain(corpus, tmp_path / "plain", config(epochs=1))
    assert plain.pretrained.content is None
    assert {path.name for path in folder.iterdir()} - {path.name for path in (tmp_path / "plain").iterdir()} == {
        "item_content.json",
        "item_content.safetensors",
    }
    assert "content" not in (tmp_path / "plain" / "config.json").read_text()
    assert "content" not in (tmp_path / "plain" / "config.yaml").read_text()
    names = UserModel.from_pretrained(folder).network.state_dict().keys()
    assert sorted(names) == sorted(plain.network.state_dict().keys())


def test_going_on_begins_with_what_both_parts_added_up_to(corpus, folder, tmp_path):
    settings = {"config": config(epochs=1), "initial": folder}
    continued = pretrain(corpus, tmp_path / "continued", **settings, items=pans(range(12)))
    before = UserModel.from_pretrained(folder).pretrained
    start = continued.pretrained.training["start"]["valid_loss"]
    assert start == pytest.approx(before.training["metrics"]["valid_loss"], abs=1e-4)
    assert continued.pretrained.content is not None
    assert pretrain(corpus, tmp_path / "without", **settings).pretrained.content is None


def test_a_run_that_was_stopped_goes_on_as_if_it_never_was(corpus, tmp_path):
    settings = config(checkpoint_every=1, epochs=3)
    uninterrupted = pretrain(corpus, tmp_path / "uninterrupted", settings, items=pans(range(12)))
    with pytest.raises(Stopped):
        pretrain(corpus, tmp_path / "out", settings, items=pans(range(12)), callbacks=[StopAt("batch start", 6)])
    with pytest.raises(FingerprintError, match="another items"):
        pretrain(corpus, tmp_path / "out", settings, resume=True)
    resumed = pretrain(corpus, tmp_path / "out", settings, items=pans(range(12)), resume=True)
    assert resumed.fingerprint == uninterrupted.fingerprint


def test_what_does_not_fit_is_refused_before_anything_is_written(corpus, tmp_path):
    by_rows = config(loss="sampled", negatives=30, table_updates="rows")
    with pytest.raises(ConfigError, match="set table_updates to dense"):
        pretrain(corpus, tmp_path / "a", by_rows, items=pans(range(12)))
    with pytest.raises(DataError, match="describes no item"):
        pretrain(corpus, tmp_path / "b", config(), items=pans(range(99, 100)))
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_does_the_same(corpus, folder, tmp_path):
    pq.write_table(pans(range(12)), tmp_path / "items.parquet")
    arguments = [str(corpus.path), "--config", str(folder / "config.yaml"), "--items", str(tmp_path / "items.parquet")]
    assert execute(["pretrain", *arguments, "--out", str(tmp_path / "out"), "-q"]) == 0
    assert UserModel.from_pretrained(tmp_path / "out").fingerprint == UserModel.from_pretrained(folder).fingerprint
