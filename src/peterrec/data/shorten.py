"""The last steps from events to a sequence: repeats, gaps, the longest history, unknown items.

Of `prepare` and of asking.
"""

from __future__ import annotations

import numpy as np

from peterrec.config import HistoryCutConfig, SourceConfig
from peterrec.data.event_features import EventFeatureEncoder
from peterrec.data.sequences import UNK, IntArray, Sequences

UNCUT = HistoryCutConfig()


def shorten(
    sequences: Sequences,
    config: SourceConfig,
    upto: IntArray | None = None,
    cut: HistoryCutConfig = UNCUT,
    encoder: EventFeatureEncoder | None = None,
) -> Sequences:
    """Keep the first `upto` events of each row, drop consecutive repeats if asked, keep the most recent events.

    With a cut these are the most recent of the first `first_events`; its `until` is not looked at.

    Only then are unknown items, distinct numbers below zero, made one, [UNK]: two of them in a row are no repeat. The
    times of events become gaps between those that are not left out as repeats, where the encoder has such a feature.
    """
    lengths = sequences.lengths if upto is None else upto
    shortened = _slices(sequences, sequences.offsets[:-1], lengths)
    if config.repeats == "drop":
        shortened = _without_repeats(shortened)
    shortened = _with_gaps(shortened, encoder)
    if cut.first_events is not None:
        shortened = _slices(shortened, shortened.offsets[:-1], np.minimum(shortened.lengths, cut.first_events))
    lengths = np.minimum(shortened.lengths, min(config.max_history, cut.last_events or config.max_history))
    shortened = _slices(shortened, shortened.offsets[1:] - lengths, lengths)
    items = np.where(shortened.items < 0, UNK, shortened.items).astype(np.int32)
    return Sequences(items, shortened.offsets, shortened.features)


def _slices(sequences: Sequences, starts: IntArray, lengths: IntArray) -> Sequences:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    index = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
    return sequences.at(index, offsets)


def _without_repeats(sequences: Sequences) -> Sequences:
    rows = sequences.repeat()
    is_repeat = np.zeros(len(rows), dtype=bool)
    is_repeat[1:] = (sequences.items[1:] == sequences.items[:-1]) & (rows[1:] == rows[:-1])
    lengths = np.bincount(rows[~is_repeat], minlength=len(sequences))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return sequences.at(~is_repeat, offsets)


def _with_gaps(sequences: Sequences, encoder: EventFeatureEncoder | None) -> Sequences:
    if encoder is None or sequences.features is None:
        return sequences
    is_first = np.zeros(len(sequences.items), dtype=bool)
    is_first[sequences.offsets[:-1][sequences.lengths > 0]] = True
    codes = encoder.with_gaps(sequences.features, sequences.seconds, is_first)
    return Sequences(sequences.items, sequences.offsets, codes.astype(np.int32))
