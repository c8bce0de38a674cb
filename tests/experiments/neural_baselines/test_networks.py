"""The networks of neural baselines against their formulas, and users with nothing to go by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peterrec.data.corpus import Corpus
from peterrec.data.sequences import UNK, Sequences
from peterrec.errors import DataError
from peterrec.evaluation.baselines.settings import DupnConfig
from peterrec.experiments.neural_baselines import conet, train_neural_baseline
from peterrec.experiments.neural_baselines.conet import CrossNetwork, PartScorer, _Pairs
from peterrec.experiments.neural_baselines.dupn import UserEncoder
from training.small import corpus_of

SMALL = {"channels": 6, "hidden": 5, "attention": 4}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_user_is_the_attention_pooled_mean_of_the_states(cell: str) -> None:
    encoder = UserEncoder(DupnConfig(cell=cell, **SMALL), 12, generator()).eval()
    tokens = torch.tensor([[4, 9, 15, 5], [7, 7, 0, 0]])
    outputs = encoder(tokens)
    for row, length in ((0, 4), (1, 2)):
        states, _ = encoder.recurrent(encoder.embedding(tokens[row, :length]))
        weights = [torch.exp(encoder.weigh(torch.tanh(encoder.attention(state)))) for state in states]
        expected = sum(w * state for w, state in zip(weights, states, strict=True)) / sum(weights)
        assert torch.allclose(outputs[row], expected, atol=1e-6)


def test_padding_and_companions_change_no_user() -> None:
    encoder = UserEncoder(DupnConfig(**SMALL), 12, generator()).eval()
    alone = encoder(torch.tensor([[7, 8]]))
    padded = encoder(torch.tensor([[7, 8, 0, 0, 0], [4, 5, 6, 7, 8]]))[:1]
    assert torch.allclose(alone, padded, atol=1e-6)
    assert not torch.allclose(alone, encoder(torch.tensor([[8, 7]])), atol=1e-4), "order counts"


@pytest.mark.parametrize("width", [0, 3])
def test_a_user_without_events_is_zero_and_has_a_finite_gradient(width: int) -> None:
    encoder = UserEncoder(DupnConfig(**SMALL), 12, generator())
    tokens = torch.zeros(2, width, dtype=torch.long)
    assert (encoder(tokens) == 0).all()
    if width:
        tokens[1, 0] = 4
        encoder(tokens).sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())
        assert (encoder.embedding.weight.grad[0] == 0).all()


def test_the_towers_exchange_their_hidden_layers() -> None:
    """Layer by layer, for one user, one source item, one target."""
    network = CrossNetwork(3, 5, 4, 2, (6, 3, 2), generator())
    user, source, target = 1, 4, 2
    x = network.users.weight[user]
    a = torch.cat([x, network.source.embedding.weight[source]])
    b = torch.cat([x, network.target.embedding.weight[target]])
    for level in range(3):
        ours = network.source.layers[level].weight @ a + network.source.layers[level].bias
        theirs = network.target.layers[level].weight @ b + network.target.layers[level].bias
        if level > 0:
            shared = network.cross[level - 1].weight
            ours, theirs = ours + shared @ b, theirs + shared @ a
        a, b = ours.relu(), theirs.relu()
    expected = [(tower.output(h)).item() for tower, h in ((network.source, a), (network.target, b))]
    outputs = network(torch.tensor([user]), torch.tensor([source]), torch.tensor([target]))
    assert [value.item() for value in outputs] == pytest.approx(expected, abs=1e-6)


def test_many_pairs_at_once_are_each_pair_alone() -> None:
    network = CrossNetwork(3, 5, 4, 2, (6, 3), generator())
    users, sources = torch.tensor([[0], [2]]), torch.tensor([[1], [5]])  # 5: none
    _, together = network(users, sources, torch.arange(4))
    for row in range(2):
        for target in range(4):
            _, alone = network(users[row], sources[row], torch.tensor([target]))
            assert together[row, target].item() == pytest.approx(alone.item(), abs=1e-6)


def test_no_item_stays_zero_however_long_it_is_trained() -> None:
    network = CrossNetwork(3, 5, 4, 8, (16, 8), generator())
    for logits in network(torch.arange(3), torch.tensor([5, 5, 1]), torch.tensor([4, 0, 4])):
        logits.sum().backward(retain_graph=True)
    for tower in (network.source, network.target):
        assert (tower.embedding.weight[tower.items] == 0).all()
        assert (tower.embedding.weight.grad[tower.items] == 0).all()
        assert (tower.embedding.weight.grad != 0).any()


def test_pairs_have_their_own_negatives_and_something_that_the_user_has_beside_them() -> None:
    sources = Sequences.from_rows([[0, 1, 1], [2], [], [0, 3]])  # two train users, then two of other parts
    targets = Sequences.from_rows([[0, 2], [1]])

    class Part:
        def __init__(self) -> None:
            self.targets = targets

        def __len__(self) -> int:
            return 2

    pairs = _Pairs(sources, Part(), 5, 3, 4)  # type: ignore[arg-type]
    assert pairs.lengths.tolist() == [5, 2, 0, 2]
    contexts = {"source": set(), "target": set()}
    for seed in range(20):
        batch = pairs.batch(np.array([3, 0, 1, 2]), np.random.default_rng(seed))
        assert batch["source_user"].squeeze(1).tolist() == [3, 3, 0, 0, 0, 1]
        assert batch["source_items"][:, 0].tolist() == [0, 3, 0, 1, 1, 2]
        assert batch["target_user"].squeeze(1).tolist() == [0, 0, 1]
        assert batch["target_items"][:, 0].tolist() == [0, 2, 1]
        for name, owned in (("source", sources), ("target", targets)):
            for user, items in zip(batch[f"{name}_user"].squeeze(1).tolist(), batch[f"{name}_items"], strict=True):
                assert not set(items[1:].tolist()) & set(owned[user].tolist())
            rows = zip(batch[f"{name}_user"].tolist(), batch[f"{name}_context"].tolist(), strict=True)
            contexts[name] |= {(user[0], item[0]) for user, item in rows}
    assert contexts["source"] == {(3, 3), (0, 0), (0, 2), (1, 1)}, "3 is no target: user 3 has none"
    assert contexts["target"] == {(0, 0), (0, 1), (1, 2)}


def test_who_has_everything_teaches_nothing() -> None:
    sources = Sequences.from_rows([[0, 1, 2], [0]])

    class Part:
        targets = Sequences.from_rows([[0], [0, 1]])

        def __len__(self) -> int:
            return 2

    batch = _Pairs(sources, Part(), 3, 2, 2).batch(np.arange(2), np.random.default_rng(0))  # type: ignore[arg-type]
    assert batch["source_user"].tolist() == [[1]]
    assert batch["target_user"].tolist() == [[0]]


def test_conet_scores_only_the_users_it_was_trained_for(tiny: Corpus) -> None:
    scorer = train_neural_baseline("conet", tiny, ["shop"], {"epochs": 1, "channels": 4, "layers": [6, 3]}, 0)[
        "shop"
    ].scorer
    task = tiny.task("shop")
    test, valid = task.part("test").sequences, task.part("valid").sequences
    all_scores = np.concatenate(list(scorer.score_batches(test, 1000)))
    assert all_scores.shape == (len(test), len(task.targets))
    assert np.concatenate(list(scorer.score_batches(test, 3))) == pytest.approx(all_scores, abs=1e-6)
    alike = Sequences(np.where(np.asarray(test.items) == test.items[0], 4 + 23, test.items), test.offsets)
    for foreign in (valid, test.take(np.arange(len(test))[::-1]), test.take(np.arange(3)), alike):
        with pytest.raises(DataError, match="not the users that CoNet was trained for"):
            scorer.score_batches(foreign, 10)


def test_conet_scores_users_by_their_own_embeddings(tiny: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part's rows of the table decide its scores, and no others do."""
    judged: list[PartScorer] = []

    class Recorded(PartScorer):
        def __init__(self, *values: Any) -> None:
            super().__init__(*values)
            judged.append(self)

    monkeypatch.setattr(conet, "PartScorer", Recorded)
    trained = train_neural_baseline("conet", tiny, ["shop"], {"epochs": 1, "channels": 8, "layers": [16, 8]}, 0)["shop"]
    parts = {name: tiny.task("shop").part(name) for name in ("train", "valid", "test")}
    end = np.cumsum([len(part) for part in parts.values()])
    for scorer, own_rows in ((judged[0], range(end[0], end[1])), (trained.scorer, range(end[1], end[2]))):
        sequences = scorer.part.sequences
        before = next(scorer.score_batches(sequences, 1000))
        table = scorer.network.users.weight
        assert len(table) == end[2]
        for rows, matter in (([r for r in range(end[2]) if r not in own_rows], False), (list(own_rows), True)):
            original = table.detach().clone()
            with torch.no_grad():
                table[rows] += torch.randn(len(rows), 8, generator=generator())
            after = next(scorer.score_batches(sequences, 1000))
            assert (np.abs(after - before).max(axis=1) > 1e-4).all() == matter
            assert matter or np.array_equal(after, before)
            with torch.no_grad():
                table.copy_(original)


@pytest.mark.parametrize("name", ["dupn", "conet"])
def test_empty_histories_and_unknown_items_are_no_trouble(name: str, tmp_path: Path) -> None:
    parts = {
        "train": [[4, 5, 6], [], [UNK], [7, 5], [4], [6, 6]],
        "valid": [[], [4, UNK], [5]],
        "test": [[UNK], [], [4, 5], []],
    }
    targets = {part: [[i % 5] for i in range(len(rows))] for part, rows in parts.items()}
    corpus = corpus_of(tmp_path, parts["train"], 8, parts=parts, targets=targets)
    settings = {"dupn": SMALL, "conet": {"channels": 4, "layers": [6, 3]}}[name] | {"epochs": 2, "batch_size": 2}
    trained = train_neural_baseline(name, corpus, ["job"], settings, 0)["job"]
    scores = np.concatenate(list(trained.scorer.score_batches(corpus.task("job").part("test").sequences, 2)))
    assert scores.shape == (4, 5)
    assert np.isfinite(scores).all()


def test_dupn_gives_classes_to_nobody_and_to_somebody_without_events(tiny: Corpus) -> None:
    trained = train_neural_baseline("dupn", tiny, ["cluster"], SMALL | {"epochs": 1}, 0)["cluster"]
    assert trained.curve.monitor == "log_loss"
    assert trained.scorer.probabilities(Sequences.from_rows([])).shape == (0, 4)
    outputs = trained.scorer.probabilities(Sequences.from_rows([[], [UNK], [4, 5]]))
    assert outputs.sum(axis=1) == pytest.approx(1.0)
