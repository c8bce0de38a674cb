"""Windows, batches and the resumable stream."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peterrec.data import batching
from peterrec.data.batching import EpochStream, Windows, draw_prefixes, inference_batches, last_events, leave_out
from peterrec.data.sequences import PAD, Sequences
from peterrec.errors import ArtifactError

lengths = st.lists(st.integers(0, 30), min_size=1, max_size=12)


def numbered(lengths: list[int]) -> Sequences:
    """Sequences whose items are all different, so that a mix-up shows."""
    ends = np.cumsum(lengths)
    return Sequences.from_rows(
        [range(100 + end - length, 100 + end) for end, length in zip(ends, lengths, strict=True)]
    )


class Rows:
    """A source whose batches are the row numbers and a draw."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = np.array(lengths)

    def batch(self, rows, rng):
        return rows.tolist(), float(rng.random())


@given(lengths, st.integers(1, 9))
def test_every_item_but_the_first_is_a_target_exactly_once(lengths, longest):
    sequences = numbered(lengths)
    windows = Windows.over(sequences, np.arange(len(sequences)), longest)
    targets = []
    for row in range(len(windows.starts)):
        tokens = windows.tokens(np.array([row]))[0]
        tokens = tokens[tokens != PAD]
        assert 2 <= len(tokens) <= longest + 1
        assert (np.diff(tokens) == 1).all()  # one user's items, in order
        targets += tokens[1:].tolist()
    expected = [int(item) for row in range(len(sequences)) for item in sequences[row][1:]]
    assert sorted(targets) == sorted(expected)


def test_windows_are_the_same_however_many_users_are_cut_at_once(monkeypatch):
    sequences = numbered(np.random.default_rng(0).integers(0, 30, 50).tolist())
    rows = np.random.default_rng(1).permutation(50)[:40]
    at_once = Windows.over(sequences, rows, 7)
    monkeypatch.setattr(batching, "ROWS_AT_ONCE", 9)
    cut = Windows.over(sequences, rows, 7)
    assert (cut.starts.tolist(), cut.lengths.tolist()) == (at_once.starts.tolist(), at_once.lengths.tolist())
    assert len(at_once.starts) > 50


def test_of_no_users_there_are_no_windows():
    windows = Windows.over(numbered([3, 4]), np.array([], dtype=np.int64), 5)
    assert (len(windows.starts), len(windows.lengths)) == (0, 0)


@given(lengths, st.integers(1, 5), st.integers(1, 9))
def test_inference_batches_have_every_row_once_with_its_last_events(lengths, batch_size, longest):
    sequences = numbered(lengths)
    batched_rows = []
    for rows, tokens in inference_batches(sequences, batch_size, longest):
        assert len(rows) <= batch_size
        for row, line in zip(rows, tokens, strict=True):
            assert line[line != PAD].tolist() == sequences[row][-longest:].tolist()
            assert (line[: (line != PAD).sum()] != PAD).all()  # padding only on the right
        batched_rows += rows.tolist()
    assert sorted(batched_rows) == list(range(len(lengths)))


def test_last_events_of_users_without_events():
    assert last_events(Sequences.from_rows([[], []]), np.array([0, 1]), 5).shape == (2, 0)


@given(lengths, st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_has_every_row_once_and_the_next_one_another_order(lengths, batch_size, seed):
    stream = EpochStream(Rows(lengths), batch_size, seed)
    epochs = [[row for rows, _ in stream for row in rows] for _ in range(3)]
    assert [sorted(rows) for rows in epochs] == [list(range(len(lengths)))] * 3
    assert stream.epoch == 3


@given(lengths, st.integers(1, 4), st.data())
def test_a_stream_that_is_stopped_anywhere_goes_on_with_the_very_next_batch(lengths, batch_size, data):
    uninterrupted = EpochStream(Rows(lengths), batch_size, seed=7)
    expected = [batch for _ in range(3) for batch in uninterrupted]
    stop = data.draw(st.integers(1, len(expected) - 1))
    first, taken = EpochStream(Rows(lengths), batch_size, seed=7), []
    while len(taken) < stop:
        for batch in first:
            taken.append(batch)
            if len(taken) == stop:
                break
    second = EpochStream(Rows(lengths), batch_size, seed=7)
    second.load_state_dict(first.state_dict())
    resumed_batches = []
    while len(resumed_batches) < len(expected) - stop:
        resumed_batches += list(second)
    assert taken + resumed_batches == expected


def test_batches_hold_rows_of_similar_length():
    lengths = np.random.default_rng(0).integers(1, 1000, 2000)
    stream = EpochStream(Rows(lengths.tolist()), 20, seed=0)
    spread = [np.ptp(lengths[rows]) for rows, _ in stream]
    assert np.median(spread) < 100  # at random it is above 850


@pytest.mark.parametrize("rows", [1, 99, 100, 101, 737])
def test_batches_are_cut_from_sorted_pools_and_come_in_any_order(rows):
    """Against lists and `sorted`; `POOL` batches of two rows are a pool."""
    lengths = np.random.default_rng(1).integers(1, 9, rows).tolist()
    stream = EpochStream(Rows(lengths), 2, seed=5)
    for epoch in range(2):
        rng = np.random.default_rng([5, epoch, 0, 0])
        drawn = rng.permutation(rows).tolist()
        pools = [sorted(drawn[i : i + 100], key=lengths.__getitem__) for i in range(0, rows, 100)]
        batches = [pool[i : i + 2] for pool in pools for i in range(0, len(pool), 2)]
        assert [batch for batch, _ in stream] == [batches[i] for i in rng.permutation(len(batches))]


def test_rows_of_any_length_are_told_apart():
    lengths = [3] * 50 + [2**16 + 3] * 50  # in 16 bits both would be 3
    batches = [rows for rows, _ in EpochStream(Rows(lengths), 10, seed=0)]
    assert {len({lengths[row] for row in rows}) for rows in batches} == {1}


def test_the_lengths_are_asked_for_once():
    class Counted(Rows):
        reads = 0

        @property
        def lengths(self):
            self.reads += 1
            return np.ones(5, dtype=np.int64)

        @lengths.setter
        def lengths(self, _):
            pass

    source = Counted([])
    stream = EpochStream(source, 2, seed=0)
    assert [len(list(stream)), len(list(stream)), len(stream)] == [3, 3, 3]
    assert source.reads == 1  # of a task it is a pass over all users


def test_a_state_of_other_data_is_refused():
    state = EpochStream(Rows([1, 2, 3]), 1, seed=0).state_dict()
    with pytest.raises(ArtifactError, match="other data"):
        EpochStream(Rows([1, 2]), 1, seed=0).load_state_dict(state)


@given(lengths, st.floats(0, 0.99), st.integers(0, 99))
def test_any_share_left_out_keeps_the_order_and_at_least_one_event(lengths, share, seed):
    sequences = numbered(lengths)
    tokens = last_events(sequences, np.arange(len(sequences)), 20)
    shortened = leave_out(tokens, share, np.random.default_rng(seed))
    for before, after in zip(tokens, shortened, strict=True):
        items_left = after[after != PAD]
        assert set(items_left) <= set(before[before != PAD])
        assert (np.diff(items_left) > 0).all(), "in order, none twice"
        assert bool(len(items_left)) == bool((before != PAD).any())
        assert (after[len(items_left) :] == PAD).all(), "padding only behind"
    assert shortened.shape[1] <= tokens.shape[1]


def test_the_share_is_left_out_on_average_and_none_where_it_is_zero():
    sequences = numbered([40] * 200)
    tokens = last_events(sequences, np.arange(200), 40)
    is_kept = leave_out(tokens, 0.3, np.random.default_rng(0)) != PAD
    assert is_kept.sum() / (tokens != PAD).sum() == pytest.approx(0.7, abs=0.02)
    assert len(set(is_kept.sum(axis=1))) > 3, "drawn for each event, not for each row"
    assert (leave_out(tokens, 0.0, np.random.default_rng(0)) == tokens).all()


@given(lengths, st.floats(0, 1), st.integers(0, 99))
def test_any_prefix_is_of_the_first_items_and_its_last_ones_are_read(lengths, fraction, seed):
    sequences, rows = numbered(lengths), np.arange(len(lengths))
    prefixes = draw_prefixes(sequences.lengths_of(rows), fraction, np.random.default_rng(seed))
    assert ((prefixes >= np.minimum(1, sequences.lengths)) & (prefixes <= sequences.lengths)).all()
    tokens = last_events(sequences, rows, 5, prefixes)
    for row, prefix in zip(rows, prefixes, strict=True):
        first = sequences[row][:prefix].tolist()
        assert tokens[row][tokens[row] != PAD].tolist() == first[-5:]


def test_prefixes_are_log_uniform_and_of_that_fraction_of_the_rows():
    prefixes = draw_prefixes(np.full(20_000, 15), 1.0, np.random.default_rng(0))
    assert np.bincount(np.log2(prefixes).astype(int)) / 20_000 == pytest.approx([0.25] * 4, abs=0.02)
    assert (np.bincount(prefixes, minlength=16)[1:] > 0).all()
    some_cut = draw_prefixes(np.full(20_000, 10**9), 0.3, np.random.default_rng(0))
    assert (some_cut < 10**9).mean() == pytest.approx(0.3, abs=0.02)
    assert (draw_prefixes(np.arange(9), 0.0, np.random.default_rng(0)) == np.arange(9)).all()
    assert draw_prefixes(np.zeros(9, np.int64), 1.0, np.random.default_rng(0)).tolist() == [0] * 9
