"""A backbone that reads features of events is one whose items are pairs of item and code, in every way of reading."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from builders import shaken
from contracts import BACKBONES
from peterrec.config import BackboneConfig, PatchConfig
from peterrec.data import sequences
from peterrec.nn import tokens as network_tokens
from peterrec.nn.backbone import Backbone, UnsharedModules
from peterrec.nn.bank import PatchBank
from peterrec.nn.build import build_backbone
from peterrec.nn.patch import Patch
from peterrec.nn.readout import represent, represent_next
from peterrec.nn.stream import Stream
from peterrec.nn.tokens import ITEM_BITS, MASK, SPECIAL, TCL, UNK, items_of
from peterrec.nn.trunk import Trunk

ITEMS, SIZES = 6, (3, 2)
CODES = 6
CAUSAL = BackboneConfig(channels=8, dilations=(1, 2), kernel_size=3)


def reading_features(config: BackboneConfig, seed: int = 0) -> Backbone:
    backbone = shaken(build_backbone(config, ITEMS, seed=seed, feature_sizes=SIZES), seed, 0.4)
    assert isinstance(backbone, Backbone)
    return backbone.double().requires_grad_(False)


def of_pairs(backbone: Backbone) -> Backbone:
    """The same network without features, which has an item, and an [UNK], for each pair of item and code."""
    plain = build_backbone(backbone.config, ITEMS + (1 + ITEMS) * CODES).double().requires_grad_(False)
    state = {name: value for name, value in backbone.state_dict().items() if not name.startswith("event_features")}
    tables = backbone.event_features.table.weight.split(SIZES)  # type: ignore[union-attr]
    rows = [backbone.embedding.weight]
    for item in (UNK, *range(SPECIAL, SPECIAL + ITEMS)):
        pairs = [backbone.embedding.weight[item] + tables[0][code % 3] + tables[1][code // 3] for code in range(CODES)]
        rows.append(torch.stack(pairs))
    plain.load_state_dict(state | {"embedding.weight": torch.cat(rows)})
    return plain


def as_pairs(tokens: Tensor) -> Tensor:
    items, codes = items_of(tokens), tokens >> ITEM_BITS
    return torch.where(items < UNK, items, SPECIAL + ITEMS + (items - UNK) * CODES + codes)


def some_events(rows: int = 4, length: int = 9, seed: int = 0) -> Tensor:
    """Events of any codes, [UNK] among them, rows of unlike lengths with padding behind them."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(UNK, SPECIAL + ITEMS, (rows, length)) | rng.integers(0, CODES, (rows, length)) << ITEM_BITS
    tokens[np.arange(length) >= rng.integers(1, length + 1, (rows, 1))] = 0
    return torch.from_numpy(tokens)


@pytest.mark.parametrize("backbone_config", BACKBONES.values(), ids=BACKBONES)
def test_every_backbone_reads_pairs_beneath_a_patch(backbone_config: BackboneConfig) -> None:
    backbone, tokens = reading_features(backbone_config), some_events()
    plain, pairs = of_pairs(backbone), as_pairs(some_events())
    patch = shaken(Patch(PatchConfig(bottleneck=2), backbone_config), 1).double()
    for readout in ("token", "both"):
        vectors, expected = represent(backbone, tokens, patch, readout), represent(plain, pairs, patch, readout)
        assert torch.allclose(vectors, expected, atol=1e-12)
    assert torch.allclose(represent_next(backbone, tokens), represent_next(plain, pairs), atol=1e-12)


def test_items_have_the_same_bits_in_data_and_in_the_network() -> None:
    assert (network_tokens.ITEM_BITS, network_tokens.UNK, network_tokens.PAD) == (
        sequences.ITEM_BITS,
        sequences.UNK,
        sequences.PAD,
    )
    packed = some_events()
    assert torch.equal(network_tokens.items_of(packed), torch.from_numpy(sequences.items_of(packed.numpy())))


def test_special_tokens_say_nothing_but_themselves() -> None:
    backbone = reading_features(CAUSAL)
    tokens = torch.tensor([[0, TCL, MASK, UNK, 4]])
    added = backbone.event_features(tokens | 5 << ITEM_BITS)  # type: ignore[misc]
    assert added[0, :3].abs().max() == 0
    assert added[0, 3].abs().min() > 0
    fresh = build_backbone(CAUSAL, ITEMS, feature_sizes=SIZES)
    assert fresh.event_features is not None
    assert fresh.event_features(tokens).abs().max() == 0  # "missing" starts at zero
    plain = build_backbone(CAUSAL, ITEMS)
    assert plain.state_dict().keys() == fresh.state_dict().keys() - {"event_features.table.weight"}
    for name, value in plain.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name])


def test_states_that_are_kept_up_to_date_event_by_event_read_pairs() -> None:
    backbone, tokens = reading_features(CAUSAL).float(), some_events()
    stream, rows = Stream(backbone), torch.arange(2)
    filled, pushed = stream.new(2), stream.new(2)
    histories = tokens[:2].clone()
    histories[histories == 0] = 4 | 1 << ITEM_BITS
    stream.fill(filled, rows, histories)
    for position in range(histories.shape[1]):
        hidden = stream.push(pushed, rows, histories[:, position])
        assert torch.allclose(hidden, backbone(histories)[:, position], atol=1e-5)
    expected = represent(backbone, histories)
    for states in (filled, pushed):
        assert torch.allclose(stream.peek(states, rows), expected, atol=1e-5)


def test_rows_of_many_tasks_read_items_and_features_apart() -> None:
    """Tables that patches add to items have no row for a pair: the item's is added."""
    backbone, tokens = reading_features(CAUSAL).float(), some_events()
    config = PatchConfig(bottleneck=2, item_rank=2, train_task_token=True)
    patches = [shaken(Patch(config, CAUSAL, items=ITEMS), i).requires_grad_(False) for i in (1, 2)]
    bank, which = PatchBank(patches), torch.tensor([1, 0, 1, 0])  # type: ignore[arg-type]
    mixed = represent(backbone, tokens, bank.rows(which))
    for row, number in enumerate(which.tolist()):
        alone = represent(backbone, tokens[row : row + 1], patches[number])  # type: ignore[arg-type]
        assert torch.allclose(mixed[row], alone[0], atol=1e-5)
    different_codes = torch.where(tokens > 0, tokens ^ 1 << ITEM_BITS, 0)
    assert not torch.allclose(represent(backbone, different_codes, bank.rows(which)), mixed, atol=1e-3)


def test_a_task_may_have_features_of_its_own() -> None:
    backbone, tokens = reading_features(CAUSAL), some_events()
    before = represent(backbone, tokens)
    unshared = UnsharedModules(embedding=True, blocks=2)
    fork = backbone.fork(unshared)
    with torch.no_grad():
        fork.event_features.table.weight.add_(1.0)  # type: ignore[union-attr]
    assert torch.equal(represent(backbone, tokens), before)
    assert not torch.allclose(represent(fork, tokens), before)
    assert "event_features.table.weight" in fork.modules_of(unshared).state_dict()
    grafted = backbone.graft(unshared, fork.modules_of(unshared))
    assert torch.equal(represent(grafted, tokens), represent(fork, tokens))
    assert torch.equal(represent(backbone.truncated(ITEMS - 1), tokens.clamp(max=0)), represent(backbone, tokens * 0))


def test_what_stays_below_the_blocks_of_a_task_reads_pairs() -> None:
    backbone, tokens = reading_features(CAUSAL).float(), some_events()
    plain = of_pairs(backbone.double()).float()
    backbone = backbone.float()
    states, expected = (
        Trunk(network, 1, 9, "token").compute_states(batch)[0]
        for network, batch in ((backbone, tokens), (plain, as_pairs(tokens)))
    )
    assert torch.allclose(states, expected, atol=1e-5)


def test_the_cases_are_what_they_are_for() -> None:
    assert {config.kind for config in BACKBONES.values()} == {"causal", "noncausal"}
    assert (items_of(some_events()) == UNK).any()
    assert pytest.approx(CODES) == SIZES[0] * SIZES[1]
