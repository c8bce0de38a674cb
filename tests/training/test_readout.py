"""What a head reads: kept in the bundle, the same after loading, with every strategy; and events that are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from peterrec.config import AdaptConfig, Strategy
from peterrec.data.corpus import Corpus
from peterrec.model import UserModel
from peterrec.storage import read_json
from peterrec.training.activation_cache import changed_blocks
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.strategies import Trainable, build
from training.small import CHANNELS, LEARNS, adapt_config, pretrain_config

STRATEGIES: tuple[Strategy, ...] = ("scratch", "head", "last-sublayer", "last1", "all", "patch", "patch-random")


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("readout", ["pooled", "both", "attention"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_bundle_answers_after_loading_as_before(
    model: UserModel, corpus: Corpus, tmp_path: Path, strategy: Strategy, readout: str
) -> None:
    histories = corpus.task("cluster").part("test").sequences
    for task in ("cluster", "shop"):
        bundle = adapt(model, corpus, task, tmp_path / task, adapt_config(strategy=strategy, readout=readout, epochs=2))
        assert bundle.head.weight.shape[1] == {"pooled": 2, "both": 3, "attention": 8}[readout] * 8
        assert read_json(tmp_path / task / "adapter_config.json")["readout"] == readout
        model.add_bundle(bundle, "made")
        model.load_bundle(tmp_path / task, "loaded")
        in_memory, loaded = (model.representations(histories, name) for name in ("made", "loaded"))
        np.testing.assert_array_equal(in_memory, loaded)
        if task == "cluster":
            in_memory, loaded = (model.probabilities(histories, name) for name in ("made", "loaded"))
            np.testing.assert_array_equal(in_memory, loaded)
        else:
            scores = [np.concatenate(list(model.score_batches(histories, name))) for name in ("made", "loaded")]
            np.testing.assert_array_equal(*scores)
        # What the head says, a reader of the card may check: its valid metric is that of the bundle as it is saved.
        if task == "cluster":
            valid = corpus.task("cluster").part("valid")
            probabilities = model.probabilities(valid.sequences, "loaded")
            loss = -np.log(probabilities[np.arange(len(valid)), valid.labels]).mean()
            assert loss == pytest.approx(bundle.metrics["valid"]["log_loss"], abs=1e-5)


def test_users_of_whom_nothing_is_known_get_an_answer(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    adapt(model, corpus, "cluster", tmp_path / "out", adapt_config(readout="pooled", epochs=1))
    model.load_bundle(tmp_path / "out", "pooled")
    assert np.isfinite(model.predict([[], ["s0004"]], "pooled").probabilities).all()
    assert model.predict([], "pooled").probabilities.shape == (0, 4)


def test_joint_training_reads_the_same_and_says_so(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    config = adapt_config(strategy="joint", readout="both", epochs=2)
    bundles = adapt_jointly(model, corpus, ["cluster", "shop"], tmp_path / "out", config)
    valid = corpus.task("cluster").part("valid")
    model.load_bundle(tmp_path / "out" / "cluster", "loaded")
    assert bundles["cluster"].readout == "both"
    probabilities = model.probabilities(valid.sequences, "loaded")
    loss = -np.log(probabilities[np.arange(len(valid)), valid.labels]).mean()
    assert loss == pytest.approx(bundles["cluster"].metrics["valid"]["log_loss"], abs=1e-5)


def test_only_the_whole_representation_is_computed_once_where_all_events_are_read(
    model: UserModel, corpus: Corpus
) -> None:
    task, backbone = corpus.task("cluster"), model.network.backbone
    for strategy, token, pooled in (("head", 0, 0), ("last1", 1, None), ("all", None, None)):
        parts = build(adapt_config(strategy=strategy), backbone, task, task.part("train"))
        assert (changed_blocks(parts), changed_blocks(parts, "pooled")) == (token, pooled)


def test_states_computed_once_train_the_same_head(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    heads = []
    for cache in ("memory", "off"):
        config = adapt_config(strategy="head", readout="both", cache=cache)
        heads.append(adapt(model, corpus, "cluster", tmp_path / cache, config).head)
    np.testing.assert_allclose(*(head.weight.detach().numpy() for head in heads), atol=1e-4)


def test_events_are_left_out_in_training_only_and_anew_each_time(
    model: UserModel, corpus: Corpus, tmp_path: Path
) -> None:
    plain, dropped = (
        adapt(model, corpus, "cluster", tmp_path / f"{share}", adapt_config(strategy="head", event_dropout=share))
        for share in (0.0, 0.5)
    )
    assert not np.allclose(plain.head.weight.detach().numpy(), dropped.head.weight.detach().numpy())
    model.add_bundle(dropped, "dropped")
    sequences = corpus.task("cluster").part("test").sequences
    np.testing.assert_array_equal(model.probabilities(sequences, "dropped"), model.probabilities(sequences, "dropped"))
    second_result = adapt(
        model, corpus, "cluster", tmp_path / "again", adapt_config(strategy="head", event_dropout=0.5)
    )
    np.testing.assert_array_equal(second_result.head.weight.detach().numpy(), dropped.head.weight.detach().numpy())


@pytest.mark.slow
def test_pooled_states_tell_a_taste_that_is_spread_over_the_history(corpus: Corpus, tmp_path: Path) -> None:
    from peterrec.training.pretrain import pretrain

    backbone = pretrain(corpus, tmp_path / "backbone", pretrain_config(backbone=CHANNELS, epochs=8, **LEARNS))
    config = AdaptConfig(**(adapt_config(strategy="head", readout="pooled", epochs=20).model_dump() | {
        "optim": {"lr": 0.02}, "batch_size": 32,
    }))  # fmt: skip
    bundle = adapt(backbone, corpus, "cluster", tmp_path / "pooled", config)
    assert bundle.metrics["valid"]["accuracy"] > 0.7


@pytest.mark.parametrize("strategy", ["patch", "scratch", "patch-random"])
def test_all_that_reads_users_before_training_is_where_the_backbone_is(
    model: UserModel, corpus: Corpus, tmp_path: Path, strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    device_types: list[set[str]] = []

    def look(network: Trainable, *settings: object) -> None:
        parts = [network.backbone, network.patch, network.head]
        device_types.append({p.device.type for part in parts if part is not None for p in part.parameters()})
        raise KeyboardInterrupt

    monkeypatch.setattr("peterrec.training.learners.start_head", look)
    model.device = torch.device("meta")
    model.network.to("meta")
    with pytest.raises(KeyboardInterrupt):
        adapt(model, corpus, "cluster", tmp_path / "out", adapt_config(strategy=strategy, readout="pooled"))
    assert device_types == [{"meta"}]
