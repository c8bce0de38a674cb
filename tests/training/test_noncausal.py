"""Noncausal backbones: pre-trained on masked items, adapted and asked like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from peterrec.config import BackboneConfig, MaskingConfig
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import FIRST_ITEM, MASK, PAD, TCL, UNK
from peterrec.data.splits import uniform
from peterrec.errors import FingerprintError
from peterrec.model import UserModel
from peterrec.training.adapt import adapt
from peterrec.training.objectives import objective_of, valid_batches
from peterrec.training.pretrain import pretrain
from training.small import LEARNS, adapt_config, corpus_of, plain, pretrain_config

NONCAUSAL = BackboneConfig(kind="noncausal", channels=8, dilations=(1, 2))
LAST_END = NONCAUSAL.model_copy(update={"task_tokens": "last-end"})
WIDER = NONCAUSAL.model_copy(update={"channels": 16})
HISTORIES = [["s0001", "s0002", "s0009"], ["s0005"], [], ["s0003"] * 12]


def config(**settings: Any) -> Any:
    return pretrain_config(**({"backbone": NONCAUSAL} | settings))


@pytest.fixture(scope="module")
def folder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("noncausal") / "backbone"
    pretrain(corpus, path, config(epochs=2))
    return path


@pytest.fixture
def masked(folder: Path) -> UserModel:
    return UserModel.from_pretrained(folder, device="cpu")


def held_out(corpus: Corpus) -> list[np.ndarray]:
    draw = uniform(corpus.user_hashes, "pretrain-0")
    rows = [corpus.sequences[row] for row in np.flatnonzero(draw < 0.3)]
    return [row for row in rows if len(row) >= 2]


# ---------------------------------------------------------------- what it learns


@pytest.mark.slow
def test_pretraining_beats_its_start_and_popularity(structured: Corpus, tmp_path: Path) -> None:
    def metrics(**settings: Any) -> dict[str, float]:
        pretrain_settings = config(backbone=WIDER, valid_fraction=0.2, batch_size=32, **settings)
        training = pretrain(structured, tmp_path / "out", pretrain_settings, overwrite=True).pretrained.training
        return dict(training["metrics"])

    start = metrics(epochs=1, optim={"lr": 1e-9, "schedule": "constant"})
    learned = metrics(epochs=6, optim=LEARNS["optim"])
    assert 3.5 < start["valid_loss"] < np.log(61), "the first guess is popularity"
    assert learned["valid_loss"] < start["valid_loss"] - 0.8
    assert learned["mrr@10"] > 3 * start["mrr@10"]
    sampled = metrics(epochs=6, optim=LEARNS["optim"], loss="sampled", negatives=1000)
    assert sampled["valid_loss"] < learned["valid_loss"] + 0.3


def test_the_metrics_are_those_of_the_last_item_when_it_is_masked(corpus: Corpus, tmp_path: Path) -> None:
    settings = config(epochs=1, max_length=5)
    model = pretrain(corpus, tmp_path / "out", settings)
    weight, bias = model.network.output_table()
    reciprocal = []
    for row in held_out(corpus):
        tokens = torch.from_numpy(np.append(row[-5:-1], MASK).astype("int64"))
        scores = model.network.backbone(tokens[None])[0, -1] @ weight.T + bias
        rank = 1 + int((scores > scores[row[-1] - FIRST_ITEM]).sum())
        reciprocal.append(1 / rank if rank <= 10 else 0.0)
    metrics = model.pretrained.training["metrics"]
    assert metrics["mrr@10"] == pytest.approx(np.mean(reciprocal), rel=1e-5)
    assert metrics["hr@10"] == pytest.approx(np.mean([r > 0 for r in reciprocal]), rel=1e-5)
    draw = uniform(corpus.user_hashes, "pretrain-0")
    valid = corpus.sequences.take(np.flatnonzero((draw < 0.3) & (corpus.sequences.lengths >= 2)))
    losses = []
    for batch in valid_batches(objective_of(settings, 24), valid):
        is_target = batch["counted"]
        log_p = (model.network.backbone(batch["inputs"])[is_target] @ weight.T + bias).log_softmax(1)
        losses += [-float(line[p - FIRST_ITEM]) for line, p in zip(log_p, batch["targets"][is_target], strict=True)]
    assert len(losses) >= len(valid)
    assert metrics["valid_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert model.pretrained.training["objective"] == "masked items"


def test_held_out_users_hide_what_is_asked_for(corpus: Corpus) -> None:
    """No target of a ranking is in the input; what the loss counts is what the masks chose, and nothing is both."""
    settings = config(
        max_length=5,
        masking=MaskingConfig(
            mask_fraction=0.5, mask_replace_fraction=1.0, keep_fraction=0.0, random_replace_fraction=0.0
        ),
    )
    rows = held_out(corpus)
    ranked_positions = counted_positions = 0
    for batch in valid_batches(objective_of(settings, 24), corpus.sequences.take(np.arange(len(corpus.sequences)))):
        inputs, targets, ranked = batch["inputs"], batch["targets"], batch["ranked"]
        assert bool((inputs[targets != PAD] == MASK).all())
        assert not bool((ranked & batch["counted"]).any())
        assert torch.equal(ranked | batch["counted"], targets != PAD)
        if bool(ranked.any()):
            assert torch.equal(ranked.sum(1), torch.ones(len(ranked), dtype=torch.long))
            ends = (inputs != PAD).sum(1) - 1
            assert torch.equal(ranked.int().argmax(1), ends), "the last item of each"
        ranked_positions, counted_positions = (
            ranked_positions + int(ranked.sum()),
            counted_positions + int(batch["counted"].sum()),
        )
    assert ranked_positions == len(corpus.sequences)
    assert counted_positions > len(rows)


def test_windows_fit_the_network_and_each_is_asked_for_something(corpus: Corpus) -> None:
    objective = objective_of(config(max_length=5, masking=MaskingConfig(mask_fraction=0.01)), 24)
    windows = objective.windows(corpus.sequences, np.arange(len(corpus.sequences)))
    assert set(windows.lengths) == {2, 3, 4, 5}, "at most as many as are read"
    covered = np.concatenate([np.arange(s, s + n) for s, n in zip(windows.starts, windows.lengths, strict=True)])
    assert set(covered) == set(range(len(corpus.sequences.items))), "every event is in one"
    examples = objective.examples(windows.tokens(np.arange(len(windows.lengths))), np.random.default_rng(0))
    assert ((examples.targets != PAD).sum(axis=1) == 1).all()


class Log(Callback):
    """For each epoch, which items of each window are hidden; and the batches of held-out users."""

    def __init__(self) -> None:
        self.windows: list[dict[tuple[int, ...], Any]] = []
        self.valid: list[list[Any]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.windows.append({})

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        for inputs, targets in zip(batch["inputs"].numpy(), batch["targets"].numpy(), strict=True):
            real = np.where(targets != PAD, targets, inputs)
            window = tuple(real[real != PAD].tolist())
            self.windows[-1].setdefault(window, []).append(inputs[real != PAD].tolist())

    def on_validation_start(self, *_: Any) -> None:
        self.valid.append([])

    def on_validation_batch_start(self, trainer: Any, module: Any, batch: Any, index: int, loader: int = 0) -> None:
        self.valid[-1].append({name: tensor.tolist() for name, tensor in batch.items()})


@pytest.mark.slow
def test_training_masks_are_fresh_each_epoch_and_validation_masks_are_not(
    corpus: Corpus, watched: Callable[..., None], tmp_path: Path
) -> None:
    def logged(name: str, **settings: Any) -> Log:
        watched(log := Log())
        pretrain(corpus, tmp_path / name, config(**settings))
        return log

    log = logged("a")
    assert len(log.windows) == len(log.valid) == 3
    assert log.valid[0] == log.valid[1] == log.valid[2]
    first, second = log.windows[:2]
    assert first.keys() == second.keys(), "the same windows"
    assert len(first) > 70
    changed = sum(first[window] != second[window] for window in first)
    assert changed > 0.8 * len(first)
    hidden = sum(MASK in inputs for masks in first.values() for inputs in masks)
    assert hidden > 0.8 * len(first), "at least one item of every window is asked for, mostly by [MASK]"
    repeated, other_seed = logged("b"), logged("c", seed=1)
    assert (repeated.windows, repeated.valid) == (log.windows, log.valid)
    assert other_seed.windows[0] != log.windows[0]


def test_the_same_seed_gives_the_same_backbone(corpus: Corpus, folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    saved_model = UserModel.from_pretrained(folder, "cpu")
    repeated = pretrain(corpus, tmp_path / "a", config(epochs=2))
    assert repeated.fingerprint == saved_model.fingerprint
    assert plain(repeated.pretrained.training["curve"]) == plain(saved_model.pretrained.training["curve"])
    assert pretrain(corpus, tmp_path / "b", config(epochs=2, seed=1)).fingerprint != saved_model.fingerprint


# ---------------------------------------------------------------- what it answers


def test_the_next_item_is_what_a_mask_after_the_last_event_would_be(masked: UserModel) -> None:
    weight, bias = masked.network.output_table()
    actual = masked.recommend(HISTORIES, None, 24, exclude_seen=False)
    for history, items, scores in zip(HISTORIES, actual.items, actual.scores, strict=True):
        if not history:
            continue  # nothing is known of the user: popularity answers, see tests/test_without_events.py
        tokens = [*masked.encode([history]).sequences[0].tolist(), MASK]
        expected = (masked.network.backbone(torch.tensor([tokens]))[0, -1] @ weight.T + bias).numpy()
        assert sorted(items) == sorted(masked.catalogue.ids.to_pylist())
        np.testing.assert_allclose(scores, np.sort(expected)[::-1], atol=1e-5)
        assert items[0] == masked.catalogue.ids[int(expected.argmax())].as_py()


def test_the_hit_rate_is_what_recommend_reaches_on_histories_without_their_last_event(
    corpus: Corpus, masked: UserModel
) -> None:
    """It sees nothing that comes later: with the last event out of sight, the answers are those that were judged."""
    ids = corpus.catalogue.ids.to_pylist()
    rows = [[ids[i - FIRST_ITEM] for i in row] for row in held_out(corpus)]
    actual = masked.recommend([row[:-1] for row in rows], None, 10, exclude_seen=False)
    hits = [row[-1] in items for row, items in zip(rows, actual.items, strict=True)]
    assert np.mean(hits) == pytest.approx(masked.pretrained.training["metrics"]["hr@10"])
    assert 0.2 < np.mean(hits) < 1


def test_save_load_answer_is_bit_equal(masked: UserModel, folder: Path, tmp_path: Path) -> None:
    masked.save_pretrained(tmp_path / "again")
    second_result = UserModel.from_pretrained(tmp_path / "again", "cpu")
    assert second_result.fingerprint == masked.fingerprint
    assert second_result.network.backbone.config == NONCAUSAL
    assert np.array_equal(second_result.represent(HISTORIES), masked.represent(HISTORIES))
    assert second_result.recommend(HISTORIES, None, 24) == masked.recommend(HISTORIES, None, 24)
    first = masked.represent([["s0001", "s0002", "s0003"], ["s0004", "s0002", "s0003"]])
    assert not np.allclose(first[0], first[1]), "both ends are seen"


@pytest.mark.usefixtures("last_epoch_kept")
@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("strategy", ["patch", "last-sublayer", "last1", "all", "patch-random"])
@pytest.mark.parametrize("task", ["cluster", "shop"])
def test_a_noncausal_backbone_is_adapted_like_any_other(
    masked: UserModel, folder: Path, corpus: Corpus, tmp_path: Path, strategy: str, task: str
) -> None:
    before = masked.pretrained.fingerprint
    settings = adapt_config(epochs=2, strategy=strategy, patch={"kind": "lora", "rank": 2}, optim={"lr": 0.03})
    masked.add_bundle(adapt(masked, corpus, task, tmp_path / "out", settings), "memory")
    second_model = UserModel.from_pretrained(folder, "cpu")
    second_model.load_bundle(tmp_path / "out", "disk")
    assert masked.pretrained.fingerprint == before == second_model.pretrained.fingerprint
    vectors = masked.represent(HISTORIES, "memory")
    assert np.array_equal(vectors, second_model.represent(HISTORIES, "disk"))
    assert not np.allclose(vectors, masked.represent(HISTORIES), atol=1e-4)
    if task == "cluster":
        memory, disk = masked.predict(HISTORIES, "memory"), second_model.predict(HISTORIES, "disk")
        assert np.array_equal(memory.probabilities, disk.probabilities)
    else:
        assert masked.recommend(HISTORIES, "memory", 8) == second_model.recommend(HISTORIES, "disk", 8)


@pytest.mark.slow
def test_adapting_it_learns(structured: Corpus, tmp_path: Path) -> None:
    settings = config(backbone=WIDER, epochs=4, valid_fraction=0.2, **LEARNS)
    model = pretrain(structured, tmp_path / "backbone", settings)
    model.add_bundle(adapt(model, structured, "cluster", tmp_path / "out", adapt_config(epochs=4, **LEARNS)))
    test = structured.task("cluster").part("test")
    assert test.labels is not None
    assert (model.probabilities(test.sequences, "cluster").argmax(1) == test.labels).mean() > 0.85


# ---------------------------------------------------------------- where [TCL] stands


def test_with_the_token_at_the_last_end_only_it_answers_after_loading_as_before(
    masked: UserModel, corpus: Corpus, tmp_path: Path
) -> None:
    model = pretrain(corpus, tmp_path / "backbone", config(epochs=2, backbone=LAST_END))
    model.add_bundle(adapt(model, corpus, "cluster", tmp_path / "out", adapt_config(epochs=1)), "memory")
    loaded = UserModel.from_pretrained(tmp_path / "backbone", "cpu")
    loaded.load_bundle(tmp_path / "out", "disk")
    assert loaded.network.backbone.config == LAST_END
    assert np.array_equal(model.represent(HISTORIES), loaded.represent(HISTORIES))
    assert np.array_equal(model.represent(HISTORIES, "memory"), loaded.represent(HISTORIES, "disk"))
    tokens = torch.tensor([[*loaded.encode(HISTORIES[:1]).sequences[0].tolist(), TCL]])
    expected = loaded.network.backbone(tokens)[0, -1].detach().numpy()
    np.testing.assert_allclose(loaded.represent(HISTORIES[:1])[0], expected, atol=1e-5)
    assert not np.allclose(masked.represent(HISTORIES[:1])[0], expected, atol=1e-3)


def test_a_bundle_is_refused_by_the_same_weights_with_the_token_elsewhere(
    masked: UserModel, corpus: Corpus, tmp_path: Path
) -> None:
    """Masked items are predicted without [TCL]: pre-training makes the same weights whichever it is."""
    model = pretrain(corpus, tmp_path / "backbone", config(epochs=2, backbone=LAST_END))
    weights, expected = model.network.state_dict(), masked.network.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    adapt(masked, corpus, "cluster", tmp_path / "out", adapt_config(epochs=1))
    with pytest.raises(FingerprintError, match="was made for another backbone"):
        model.load_bundle(tmp_path / "out")


# ---------------------------------------------------------------- users of whom little is known


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("kind", ["causal", "noncausal"])
def test_empty_histories_and_unknown_items_are_answered(
    masked: UserModel, model: UserModel, corpus: Corpus, tmp_path: Path, kind: str
) -> None:
    tested_model = masked if kind == "noncausal" else model
    for task in ("cluster", "shop"):
        tested_model.add_bundle(adapt(tested_model, corpus, task, tmp_path / task, adapt_config(epochs=1)))
    known_items, unknown_items = ["s0001", "s0002"], ["nobody", "knows", "these"]
    for histories in (
        [[]],
        [[], []],
        [[], known_items],
        [unknown_items, known_items],
        [known_items, unknown_items, []],
    ):
        for treat in ("skip", "unk"):
            vectors = tested_model.represent(histories, unknown=treat)
            assert np.isfinite(vectors).all()
            classes = tested_model.predict(histories, "cluster", unknown=treat).probabilities
            np.testing.assert_allclose(classes.sum(1), 1, atol=1e-5)
            for bundle, total in ((None, 24), ("shop", 8)):
                actual = tested_model.recommend(histories, bundle, 99, exclude_seen=False, unknown=treat)
                assert [len(items) for items in actual.items] == [total] * len(histories)
                assert np.isfinite(actual.scores).all()
    labels = corpus.task("cluster").part("train").labels
    assert labels is not None
    shares = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(tested_model.predict([[]], "cluster").probabilities[0], shares, atol=1e-6)
    alone, batched = (
        tested_model.recommend(h, None, 5, exclude_seen=False).scores[0] for h in ([[]], [[], known_items])
    )
    np.testing.assert_allclose(alone, batched, atol=1e-5)
    rows = tested_model.represent([unknown_items, [], known_items], unknown="unk")
    assert not np.allclose(rows[0], rows[1], atol=1e-4), "three unknown events are not none"


@pytest.mark.slow
def test_windows_of_unknown_items_alone_do_no_harm(tmp_path: Path) -> None:
    """One window a step: some have nothing that could be hidden."""
    histories = [[4, *[UNK] * 40, 4 + n % 5, 4 + (n + 1) % 5, *[UNK] * 9] for n in range(60)] + [[4, UNK]] * 9
    model = pretrain(
        corpus_of(tmp_path / "corpus", histories, 5, rare_items="unk"), tmp_path / "out",
        config(max_length=16, batch_size=1, epochs=2),
    )  # fmt: skip
    assert all(np.isfinite(row["train_loss"]) for row in model.pretrained.training["curve"])
    assert len(model.recommend([["item-1", "?"], ["?"]], None, 5).items[1]) == 5
