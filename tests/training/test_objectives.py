"""What pre-training asks for: examples by hand and, a position at a time, against loops over the users' items."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peterrec.config import ContrastiveConfig, MaskingConfig, PretrainConfig
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import FIRST_ITEM, MASK, PAD, UNK, Sequences
from peterrec.nn.backbone import Backbone
from peterrec.nn.contrastive import contrastive_loss
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.readout import represent
from peterrec.training.objectives import ExampleSource, MaskedItems, NextItem, objective_of
from peterrec.training.pretrain import pretrain
from peterrec.training.pretrain_module import PretrainModule
from training.small import LEARNS, pretrain_config

ITEMS = 12
MASKED = MaskingConfig(mask_fraction=0.5, mask_replace_fraction=1.0, keep_fraction=0.0, random_replace_fraction=0.0)
histories = st.lists(
    st.lists(st.integers(FIRST_ITEM, FIRST_ITEM + ITEMS - 1) | st.just(UNK), max_size=12), min_size=1, max_size=5
)
TABLE = np.array([[5, 6, 7, 8], [9, UNK, 4, PAD], [4, 5, PAD, PAD]])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def config_of(kind: str, masking: MaskingConfig | None = None, max_length: int = 5) -> PretrainConfig:
    return PretrainConfig(backbone={"kind": kind}, masking=masking or MaskingConfig(), max_length=max_length)


def table_of(rows: list[list[int]]) -> np.ndarray:
    width = max(map(len, rows))
    return np.array([[*row, *[PAD] * (width - len(row))] for row in rows])


def test_the_kind_of_the_backbone_decides_what_is_predicted() -> None:
    assert isinstance(objective_of(config_of("causal"), ITEMS), NextItem)
    assert isinstance(objective_of(config_of("noncausal"), ITEMS), MaskedItems)


# ---------------------------------------------------------------- the next item


def test_the_next_item_is_asked_for_at_every_position() -> None:
    """Neither [UNK] nor padding is an item."""
    examples = NextItem(config_of("causal"), ITEMS).examples(TABLE, rng())
    assert examples.inputs.tolist() == [[5, 6, 7], [9, UNK, 4], [4, 5, PAD]]
    assert examples.targets.tolist() == [[6, 7, 8], [PAD, 4, PAD], [5, PAD, PAD]]


@given(rows=histories, longest=st.integers(2, 7))
def test_every_item_but_the_first_is_predicted_once_from_what_stands_before_it(rows, longest):
    objective = NextItem(config_of("causal", max_length=longest), ITEMS)
    windows = objective.windows(Sequences.from_rows(rows), np.arange(len(rows)))
    questions: Counter[tuple[int, ...]] = Counter()  # what is read, and the target behind it
    for window in range(len(windows.lengths)):
        examples = objective.examples(windows.tokens(np.array([window])), rng())
        inputs, targets = examples.inputs[0].tolist(), examples.targets[0].tolist()
        questions.update((*inputs[: t + 1], target) for t, target in enumerate(targets) if target != PAD)
    assert all(len(question) <= longest + 1 for question in questions)
    for row in rows:
        for end in range(1, len(row)):
            cuts = [tuple(row[start : end + 1]) for start in range(max(0, end - longest), end)]
            matching = [cut for cut in cuts if questions[cut] > 0]
            if row[end] != UNK:
                assert matching, f"item {end} of {row} is never predicted"
                questions[matching[0]] -= 1
    assert not +questions, "nothing else is asked for, and nothing twice"


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_inputs_may_be_masked_and_what_is_asked_for_stays_the_same(share: float) -> None:
    tokens = rng(1).integers(FIRST_ITEM, FIRST_ITEM + ITEMS, (30, 11))
    masking = MASKED.model_copy(update={"mask_fraction": share})
    plain = NextItem(config_of("causal"), ITEMS).examples(tokens, rng())
    masked = NextItem(config_of("causal", masking), ITEMS).examples(tokens, rng())
    assert (plain.inputs == tokens[:, :-1]).all(), "nothing is masked unless it is asked for"
    assert (masked.targets == tokens[:, 1:]).all(), "an item that is hidden from the input is asked for all the same"
    hidden = masked.inputs == MASK
    assert (masked.inputs == np.where(hidden, MASK, tokens[:, :-1])).all()
    # 11 items of a row are masked at that share, rounded; the last one is no input.
    per_row = hidden.sum(axis=1)
    assert set(per_row.tolist()) <= {round(share * 11) - 1, round(share * 11)}
    assert per_row.sum() == pytest.approx(30 * round(share * 11) * 10 / 11, abs=6)


# ---------------------------------------------------------------- masked items


def test_what_is_masked_is_asked_for_and_nothing_else() -> None:
    inputs, targets = [], []
    for seed in range(20):
        examples = MaskedItems(config_of("noncausal", MASKED), ITEMS).examples(TABLE, rng(seed))
        hidden = examples.inputs == MASK
        assert (examples.inputs == np.where(hidden, MASK, TABLE)).all()
        assert (examples.targets == np.where(hidden, TABLE, PAD)).all()
        assert hidden.sum(axis=1).tolist() == [2, 1, 1], "half of four, of two and of two items"
        inputs.append(examples.inputs.tolist())
        targets.append(examples.targets.tolist())
    assert len({str(table) for table in inputs}) > 5, "not always the same ones"


@given(rows=histories.filter(lambda rows: any(map(len, rows))), seed=st.integers(0, 99))
def test_an_item_that_stays_or_becomes_another_is_asked_for_like_a_masked_one(rows, seed):
    tokens, masking = table_of(rows), MaskingConfig(mask_fraction=0.6)
    examples = MaskedItems(config_of("noncausal", masking), ITEMS).examples(tokens, rng(seed))
    for row, inputs, targets in zip(tokens.tolist(), examples.inputs.tolist(), examples.targets.tolist(), strict=True):
        items = [token for token in row if token >= FIRST_ITEM]
        assert sum(target != PAD for target in targets) == min(len(items), max(1, round(0.6 * len(items))))
        for token, read, target in zip(row, inputs, targets, strict=True):
            assert target in (PAD, token)
            if target == PAD:
                assert read == token, "what is not asked for is left alone"


def test_each_row_that_has_an_item_is_asked_for_one() -> None:
    """However small the share: a window without a question would be computed for nothing."""
    masking = MASKED.model_copy(update={"mask_fraction": 0.01})
    examples = MaskedItems(config_of("noncausal", masking), ITEMS).examples(TABLE, rng())
    assert (examples.targets != PAD).sum(axis=1).tolist() == [1, 1, 1]


# ---------------------------------------------------------------- views of the users of a batch


@pytest.mark.parametrize("limit", [2, 3, 64])
def test_views_are_of_users_of_the_batch_each_once_and_at_most_so_many(limit: int) -> None:
    """User u has items of its own: u + 4, again and again."""
    contrastive = {"weight": 0.3, "users": limit, "views": 3}
    config = PretrainConfig(max_length=2, contrastive=contrastive)
    sequences = Sequences.from_rows([[user + FIRST_ITEM] * 6 for user in range(5)])
    objective = NextItem(config, ITEMS)
    windows = objective.windows(sequences, np.arange(5))
    source = ExampleSource(objective, windows, None, sequences)
    rows = np.flatnonzero(np.isin(windows.users, [0, 2, 3, 4]))  # several windows of each
    views = source.batch(rows, rng())["views"].numpy()
    users = [set(of_user[of_user != PAD].tolist()) for of_user in views]
    assert all(len(items) == 1 for items in users), "all views of a user are the user's own"
    chosen = [items.pop() - FIRST_ITEM for items in users]
    assert len(chosen) == min(limit, 4) == len(set(chosen))
    assert set(chosen) <= {0, 2, 3, 4}


def test_without_a_contrastive_loss_nothing_is_drawn_for_it() -> None:
    config = config_of("causal").model_copy(update={"contrastive": ContrastiveConfig(weight=0)})
    sequences = Sequences.from_rows([[4, 5, 6]])
    objective = NextItem(config, ITEMS)
    source = ExampleSource(objective, objective.windows(sequences, np.arange(1)), None, sequences)
    assert set(source.batch(np.arange(1), rng())) == {"inputs", "targets"}


def test_views_are_compared_in_full_precision_also_where_the_network_is_not() -> None:
    config = pretrain_config(contrastive={"weight": 1.0, "temperature": 0.01})
    network = NextItemModel(Backbone(config.backbone, ITEMS))
    module = PretrainModule(network, config, None).eval()
    views = torch.from_numpy(rng().integers(FIRST_ITEM, FIRST_ITEM + ITEMS, (6, 2, 5)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        vectors = represent(network.backbone, views.flatten(0, 1), readout="both")
        loss = module._contrastive_loss(views)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(contrastive_loss(vectors.float().view(6, 2, -1), 0.01).item(), rel=1e-5)


@pytest.mark.parametrize(
    "backbone",
    [
        {"channels": 8, "dilations": (1, 2)},
        {"kind": "noncausal", "channels": 8, "dilations": (1, 2)},
        {"architecture": "transformer", "channels": 8},
    ],
    ids=["causal", "noncausal", "transformer"],
)
def test_every_backbone_learns_to_tell_users_apart(corpus: Corpus, tmp_path: Path, backbone: dict[str, Any]) -> None:
    """Held-out users, beside predicting items: better than where the contrastive loss hardly weighs."""
    losses = []
    for weight in (0.3, 1e-6):
        settings = {"backbone": backbone, "item_init": "co-occurrence", "contrastive": {"weight": weight}, **LEARNS}
        training = pretrain(corpus, tmp_path / str(weight), pretrain_config(**settings)).pretrained.training
        assert training["objective"].endswith(" and contrastive")
        losses.append(training["curve"][-1]["contrastive_loss"])
    assert losses[0] < losses[1]
