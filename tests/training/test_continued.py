"""Pre-training that goes on from a backbone begins where that ended, and is another backbone after it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from builders import tiny_bundle
from peterrec.cli.main import execute
from peterrec.config import BackboneConfig
from peterrec.data.corpus import Corpus
from peterrec.data.prepare import prepare
from peterrec.data.synthetic import synthetic
from peterrec.errors import ConfigError, FingerprintError
from peterrec.model import UserModel
from peterrec.training.pretrain import pretrain
from training.small import BACKBONE, LEARNS, StopAt, Stopped, pretrain_config

SETTINGS = {"source": {"min_item_events": 1}}


def config(**settings: object):  # type: ignore[no-untyped-def]
    return pretrain_config(**(LEARNS | settings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone, and the log of before with a fifth of the items renamed, which are new then."""
    folder = tmp_path_factory.mktemp("continued")
    log = synthetic(users=150, items=30).events
    log = log.filter(pc.equal(log["domain"], "source")).drop_columns(["domain"])
    texts = pc.cast(log["item_id"], pa.string())
    is_new = pc.ends_with(texts, "3")
    later = log.set_column(1, "item_id", pc.if_else(is_new, pc.binary_join_element_wise("new-", texts, ""), texts))
    pq.write_table(log.set_column(1, "item_id", texts).filter(pc.invert(is_new)), folder / "old.parquet")
    pq.write_table(later, folder / "later.parquet")
    corpus = prepare(str(folder / "old.parquet"), folder / "corpus", **SETTINGS)
    pretrain(corpus, folder / "backbone", config(epochs=4))
    catalogue = {"catalogue": str(folder / "backbone"), "extend_catalogue": True}
    prepare(str(folder / "later.parquet"), folder / "later", **catalogue, **SETTINGS)
    return folder


@pytest.fixture(scope="module")
def continued(folder: Path) -> UserModel:
    return pretrain(folder / "later", folder / "continued", config(epochs=2), initial=folder / "backbone")


def test_it_begins_where_the_backbone_ended(folder: Path, continued: UserModel) -> None:
    before = UserModel.from_pretrained(folder / "backbone")
    anew = pretrain(folder / "later", folder / "anew", config(epochs=2))
    assert continued.pretrained.training["start"]["valid_loss"] < anew.pretrained.training["curve"][0]["valid_loss"]
    assert "start" not in anew.pretrained.training
    assert continued.pretrained.training["metrics"]["valid_loss"] < anew.pretrained.training["metrics"]["valid_loss"]
    assert continued.pretrained.training["continued_from"] == before.fingerprint
    assert len(continued.catalogue) > len(before.catalogue)
    assert continued.catalogue.ids.to_pylist()[: len(before.catalogue)] == before.catalogue.ids.to_pylist()
    assert continued.network.backbone.config == before.network.backbone.config


def test_it_is_another_backbone(folder: Path, continued: UserModel) -> None:
    before = UserModel.from_pretrained(folder / "backbone")
    tensors = before.network.state_dict()
    changed = [
        name
        for name, tensor in continued.network.state_dict().items()
        if not torch.equal(tensor[: len(tensors[name])], tensors[name])
    ]
    assert any("blocks" in name for name in changed)
    assert before.fingerprint == UserModel.from_pretrained(folder / "backbone").fingerprint
    assert continued.pretrained.grown_from == ()
    with pytest.raises(FingerprintError, match="was made for another backbone"):
        continued.add_bundle(tiny_bundle(before.pretrained))


def test_the_same_log_needs_no_new_item(folder: Path, tmp_path: Path) -> None:
    model = pretrain(folder / "corpus", tmp_path / "again", config(epochs=1), initial=folder / "backbone")
    start = model.pretrained.training["start"]
    expected = UserModel.from_pretrained(folder / "backbone").pretrained.training["metrics"]
    assert start["valid_loss"] == pytest.approx(expected["valid_loss"], abs=1e-5)


def test_a_run_that_was_stopped_goes_on_as_if_it_never_was(folder: Path, continued: UserModel, tmp_path: Path) -> None:
    arguments = {"config": config(epochs=2, checkpoint_every=2), "initial": folder / "backbone"}
    with pytest.raises(Stopped):
        pretrain(folder / "later", tmp_path / "out", callbacks=[StopAt("batch end", 5)], **arguments)
    with pytest.raises(FingerprintError, match="another continued_from"):
        pretrain(folder / "later", tmp_path / "out", arguments["config"], resume=True)
    assert pretrain(folder / "later", tmp_path / "out", resume=True, **arguments).fingerprint == continued.fingerprint


def test_what_does_not_fit_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    unrelated = prepare(str(folder / "later.parquet"), tmp_path / "corpus", **SETTINGS)
    with pytest.raises(FingerprintError, match="does not begin with that of the backbone to go on from"):
        pretrain(unrelated, tmp_path / "a", config(), initial=folder / "backbone")
    larger = BackboneConfig(**(BACKBONE.model_dump() | {"channels": 12}))
    with pytest.raises(ConfigError, match="backbone is not that of the backbone to go on from"):
        pretrain(folder / "later", tmp_path / "b", config(backbone=larger), initial=folder / "backbone")
    assert {path.name for path in tmp_path.iterdir()} == {"corpus"}


def test_the_command_line_does_the_same(folder: Path, continued: UserModel, tmp_path: Path) -> None:
    arguments = ["pretrain", str(folder / "later"), "--out", str(tmp_path / "out"), "--from", str(folder / "backbone")]
    (tmp_path / "c.yaml").write_text((folder / "continued" / "config.yaml").read_text())
    assert execute([*arguments, "--config", str(tmp_path / "c.yaml"), "-q"]) == 0
    assert UserModel.from_pretrained(tmp_path / "out").fingerprint == continued.fingerprint
    assert Corpus.open(folder / "later").manifest["fingerprint"]
