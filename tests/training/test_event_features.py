"""Features of events are learned, kept with backbone and bundles, and refused where they mean other things."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from peterrec.config import EventFeatureConfig
from peterrec.data.corpus import Corpus
from peterrec.data.prepare import prepare
from peterrec.data.sequences import ITEM_BITS, Sequences, items_of
from peterrec.errors import FingerprintError
from peterrec.model import UserModel
from peterrec.training.adapt import adapt
from peterrec.training.grow import grow
from peterrec.training.objectives import ExampleSource, objective_of
from peterrec.training.pretrain import pretrain
from training.small import QUIET, adapt_config, pretrain_config

FEATURES = ["step", "time:gap"]


def planted(users: int = 90, items: int = 12, seed: int = 0) -> pa.Table:
    """The next item is as many items on as the event before says, which nothing but its feature tells."""
    rng = np.random.default_rng(seed)
    rows, steps = [], rng.choice([1, 4], (users, 14))
    for user in range(users):
        item = int(rng.integers(items))
        for place, step in enumerate(steps[user].tolist()):
            rows.append((f"u{user}", f"i{item:02}", 100 * place, f"by {step}"))
            item = (item + step) % items
    columns = ("user_id", "item_id", "timestamp", "step")
    return pa.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)))


def corpus_of(folder: Path, name: str, **settings: object) -> Corpus:
    events = planted()
    groups = ["ab"[n % 2] for n in range(90)]
    users = pa.table({"user_id": [f"u{n}" for n in range(90)], "group": groups})
    return prepare(events, folder / name, users=users, classify=["group"], **settings)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    folder = tmp_path_factory.mktemp("corpora")
    return {"with": corpus_of(folder, "with", features=FEATURES), "without": corpus_of(folder, "without")}


@pytest.fixture(scope="module")
def models(corpora: dict[str, Corpus], tmp_path_factory: pytest.TempPathFactory) -> dict[str, UserModel]:
    folder = tmp_path_factory.mktemp("backbones")
    config = pretrain_config(epochs=30, patience=30, optim={"lr": 0.03}, batch_size=16)
    return {name: pretrain(corpus, folder / name, config) for name, corpus in corpora.items()}


def test_what_events_say_is_learned(models: dict[str, UserModel]) -> None:
    losses = {name: model.pretrained.training["metrics"]["valid_loss"] for name, model in models.items()}
    assert losses["without"] > 0.6  # one of two items: log 2 at best
    assert losses["with"] < 0.5
    assert models["with"].network.backbone.feature_sizes == (4, 63)
    assert models["without"].network.backbone.event_features is None


@pytest.mark.parametrize("strategy", ["patch", "all", "scratch", "last1", "head"])
def test_bundles_answer_after_loading_as_before(
    strategy: str, corpora: dict[str, Corpus], models: dict[str, UserModel], tmp_path: Path
) -> None:
    model, corpus = models["with"], corpora["with"]
    bundle = adapt(model, corpus, "group", tmp_path / "bundle", adapt_config(strategy=strategy, epochs=1))
    sequences = corpus.task("group").part("test").sequences
    model.add_bundle(bundle, "made")
    model.load_bundle(tmp_path / "bundle", "loaded")
    vectors = model.representations(sequences, "made")
    assert np.array_equal(vectors, model.representations(sequences, "loaded"))
    assert not np.allclose(vectors, model.representations(sequences.without_features(), "made"), atol=1e-4)


def test_a_fraction_of_the_windows_is_read_without_features(corpora: dict[str, Corpus]) -> None:
    corpus = corpora["with"]
    for fraction in (0.0, 0.3, 1.0):
        config = pretrain_config(masking={"feature_dropout": fraction})
        objective = objective_of(config, len(corpus.catalogue))
        windows = objective.windows(corpus.sequences, np.arange(90))
        source = ExampleSource(objective, windows, None, corpus.sequences)
        rng = np.random.default_rng(0)
        inputs = np.concatenate([source.batch(np.arange(90), rng)["inputs"].numpy() for _ in range(20)])
        with_codes = (inputs >> ITEM_BITS).any(axis=1)
        assert 1 - with_codes.mean() == pytest.approx(fraction, abs=0.05)
        assert (items_of(inputs) > 3).sum() == 20 * 90 * 14


def test_codes_that_mean_other_things_are_refused(
    corpora: dict[str, Corpus], models: dict[str, UserModel], tmp_path: Path
) -> None:
    with pytest.raises(FingerprintError, match="are not the backbone's"):
        adapt(models["without"], corpora["with"], "group", tmp_path / "a", adapt_config())
    different = Corpus(corpora["with"].path, dict(corpora["with"].manifest))
    first = different.manifest["event_features"][0]
    different.manifest["event_features"] = [first | {"values": first["values"][::-1]}, {"encoding": "gap"}]
    with pytest.raises(FingerprintError, match="or have other categories"):
        adapt(models["with"], different, "group", tmp_path / "b", adapt_config())
    assert not list(tmp_path.iterdir())
    # Without any, all of them are missing: that is understood.
    models["with"].pretrained.check_corpus(corpora["without"])


def test_a_larger_backbone_reads_the_same_features(models: dict[str, UserModel], tmp_path: Path) -> None:
    model = models["with"]
    save = tmp_path / "backbone"
    model.save_pretrained(save)
    events = planted(60, 16, seed=1)
    later = prepare(events, tmp_path / "later", catalogue=str(save), extend_catalogue=True)
    config = {"epochs": 1, "batch_size": 16, "valid_fraction": 0.3, "runner": QUIET}
    grown = grow(model, later, tmp_path / "grown", **config)
    table = "backbone.event_features.table.weight"
    assert torch.equal(grown.network.state_dict()[table], model.network.state_dict()[table])
    loaded = UserModel.from_pretrained(tmp_path / "grown")
    old = Sequences.from_rows([[4, 5, 6, 7]])
    with_codes = replace(old, features=np.array([3, 2, 130, 7], dtype=np.int32))
    for sequences in (old, with_codes):
        assert np.array_equal(loaded.representations(sequences), model.representations(sequences))
    columns = later.provenance().preprocessing.columns  # type: ignore[union-attr]
    assert columns.features[1] == EventFeatureConfig(encoding="gap")
    assert pq.read_table(tmp_path / "grown" / "catalogue.parquet").num_rows == 16


def test_views_are_told_apart_by_their_items_alone(corpora: dict[str, Corpus]) -> None:
    """What a session has in common, such as its gaps, would tell users apart by itself."""
    corpus = corpora["with"]
    config = pretrain_config(contrastive={"weight": 0.3}, masking={"feature_dropout": 0.0})
    objective = objective_of(config, len(corpus.catalogue))
    source = ExampleSource(objective, objective.windows(corpus.sequences, np.arange(90)), None, corpus.sequences)
    batch = source.batch(np.arange(30), np.random.default_rng(0))
    assert (batch["views"] >> ITEM_BITS).max() == 0
    assert (batch["inputs"] >> ITEM_BITS).max() > 0
