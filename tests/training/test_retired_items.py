"""Items that were retired are read as ever and recommended no more; nothing else of a backbone is changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

import peterrec
from builders import tiny_bundle, tiny_pretrained
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.cli.main import execute
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError, DataError
from peterrec.model import UserModel
from peterrec.storage import read_json
from peterrec.training.grow import grow
from peterrec.training.pretrain import pretrain
from training.small import pretrain_config

HISTORIES = [["item-1", "item-2"], ["item-5"], ["item-3", "item-11", "item-0"], []]
RETIRED = ["item-3", "item-0"]


def table(items: list[str]) -> pa.Table:
    return pa.table({"item_id": items})


@pytest.fixture
def before() -> UserModel:
    return UserModel(tiny_pretrained(), "cpu")


@pytest.fixture
def after(before: UserModel, tmp_path: Path) -> UserModel:
    grow(before, None, tmp_path / "out", retired=table(RETIRED))
    return UserModel.from_pretrained(tmp_path / "out", "cpu")


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_what_is_recommended_is_the_list_of_before_without_them(
    before: UserModel, after: UserModel, exclude_seen: bool
) -> None:
    options = {"k": 12, "exclude_seen": exclude_seen, "require_known": False}
    listed, remaining = before.recommend(HISTORIES, **options), after.recommend(HISTORIES, **options)
    for row in range(len(HISTORIES)):
        expected = [item for item in listed.items[row] if item not in RETIRED]
        assert remaining.items[row] == expected
        if HISTORIES[row]:
            scores = dict(zip(listed.items[row], listed.scores[row], strict=False))
            np.testing.assert_allclose(
                remaining.scores[row][: len(expected)], [scores[item] for item in expected], rtol=1e-5
            )
    assert set(RETIRED) & set(listed.items[3])


def test_histories_are_read_as_ever_and_nothing_else_is_changed(
    before: UserModel, after: UserModel, tmp_path: Path
) -> None:
    save_backbone(tmp_path / "before", before.pretrained)
    files = [tmp_path / name / "model.safetensors" for name in ("before", "out")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert after.identity == before.identity
    np.testing.assert_array_equal(after.represent(HISTORIES), before.represent(HISTORIES))
    save_bundle(tmp_path / "bundle", tiny_bundle(before.pretrained))
    after.load_bundle(tmp_path / "bundle")
    config = read_json(tmp_path / "out" / "config.json")
    assert config["retired"] == ["item-0", "item-3"]
    assert "retired" not in read_json(tmp_path / "before" / "config.json")
    assert peterrec.inspect(tmp_path / "out")["retired"] == 2


def test_they_stay_retired_when_more_come(before: UserModel, after: UserModel, tmp_path: Path) -> None:
    grown = grow(after, None, tmp_path / "more", retired=table(["item-5", "unheard of", "item-0"]))
    assert grown.pretrained.retired == ("item-0", "item-3", "item-5")
    assert grown.pretrained.training["growth"][-1] == {"items": 0, "retired": 1}
    items = pa.table({"item_id": ["item-1", "item-2", "item-4", "fresh"], "price": [1.0, 2.0, 3.0, 4.0]})
    larger = grow(grown, None, tmp_path / "larger", items=items, retired=table(["fresh"]))
    assert larger.pretrained.retired == ("item-0", "item-3", "item-5", "fresh")
    assert grow(grown, None, tmp_path / "largest", items=items).pretrained.retired == grown.pretrained.retired


def test_a_backbone_that_is_trained_further_does_not_recommend_them(
    backbone: Path, corpus: Corpus, tmp_path: Path
) -> None:
    item = corpus.catalogue.ids[0].as_py()
    grow(backbone, None, tmp_path / "retired", retired=table([item]))
    model = pretrain(corpus, tmp_path / "next", pretrain_config(epochs=1), initial=tmp_path / "retired")
    assert model.pretrained.retired == (item,)
    assert item not in UserModel.from_pretrained(tmp_path / "next", "cpu").targets().ids.to_pylist()


def test_what_cannot_be_retired_is_refused(before: UserModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the items to retire is in the catalogue"):
        grow(before, None, tmp_path / "out", retired=table(["unheard of"]))
    with pytest.raises(DataError, match="all items would be retired"):
        grow(before, None, tmp_path / "out", retired=table(before.catalogue.ids.to_pylist()))
    with pytest.raises(DataError, match="does not have the column item_id"):
        grow(before, None, tmp_path / "out", retired=pa.table({"item": ["item-1"]}))
    with pytest.raises(ConfigError, match="nothing to grow by"):
        grow(before, None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_does_the_same(before: UserModel, tmp_path: Path) -> None:
    save_backbone(tmp_path / "before", before.pretrained)
    pa_csv.write_csv(table(RETIRED), tmp_path / "gone.csv")
    arguments = [str(tmp_path / "before"), "--retire", str(tmp_path / "gone.csv"), "--out", str(tmp_path / "out")]
    assert execute(["grow", *arguments]) == 0
    lines = [json.dumps({"user": n, "items": items}) for n, items in enumerate(HISTORIES[:3])]
    (tmp_path / "users.jsonl").write_text("\n".join(lines))
    place = [str(tmp_path / "out"), str(tmp_path / "users.jsonl"), "--out", str(tmp_path / "answers.csv")]
    assert execute(["recommend", *place, "-k", "12", "-q"]) == 0
    recommended = set(pa_csv.read_csv(tmp_path / "answers.csv")["item"].to_pylist())
    assert "item-7" in recommended
    assert not recommended & set(RETIRED)
