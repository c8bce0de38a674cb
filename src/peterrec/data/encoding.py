"""Encoding of histories of external item ids as sequences of indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from peterrec.config import HistoryCutConfig, SourceConfig
from peterrec.data.catalogue import Catalogue, ItemId
from peterrec.data.event_features import EventFeatureEncoder
from peterrec.data.ids import HistoryFeatures, as_histories
from peterrec.data.sequences import UNK, IntArray, Sequences
from peterrec.data.shorten import UNCUT, shorten
from peterrec.errors import ConfigError, UnknownItemsError

Histories = Sequence[Sequence[ItemId]]
Unknown = Literal["skip", "unk", "error"]


@dataclass(frozen=True)
class Encoded:
    """Histories as indices, and the number of items of each that the catalogue does not have; (N,) int64."""

    sequences: Sequences
    unknown_counts: IntArray

    @property
    def known_counts(self) -> IntArray:
        """(N,) int64: number of items of each history that the catalogue has; 0: nothing is known of the user."""
        return self.sequences.item_counts


def encode_histories(
    catalogue: Catalogue,
    histories: Histories,
    unknown: Unknown,
    source: SourceConfig | None = None,
    cut: HistoryCutConfig = UNCUT,
    *,
    require_known: bool = True,
    encoder: EventFeatureEncoder | None = None,
    features: HistoryFeatures | None = None,
) -> Encoded:
    """Encode N histories, oldest first; items outside the catalogue are counted, then skipped or kept as [UNK].

    Args:
        catalogue: knows the items.
        histories: external ids.
        unknown: what is done with items that it does not know.
        source: what `prepare` did with repeats and long histories, which is done here too; None: nothing.
        cut: which events of a history the model of a task reads; applied where there is a `source`.
        require_known: refuse histories of which not one item is known: ids of another domain, or written otherwise.
            Some users of many may be strangers all the same.
        encoder: of the features of events that a model reads; None: it reads items alone.
        features: of the events of all histories; None: these do not tell any.

    Raises:
        ConfigError: `unknown` is none of the three.
        DataError: the histories, one of them or an id is something else; the message says what and where.
        UnknownItemsError: `unknown` is `error` and there are some, or not one item of all histories is known, and
            `require_known`.
    """
    if not isinstance(unknown, str) or unknown not in get_args(Unknown):
        raise ConfigError(f"unknown items cannot be treated by {unknown!r}", remedy="use skip, unk or error")
    histories = as_histories(histories)
    lengths = np.array([len(history) for history in histories], dtype=np.int64)
    flat = [item for history in histories for item in history]
    indices = np.array(catalogue.encode(flat))
    rows = np.repeat(np.arange(len(lengths)), lengths)
    missing = indices == UNK
    if missing.any() and (unknown == "error" or (require_known and missing.all())):
        raise unknown_items_error(catalogue, int(missing.sum()), len(flat), flat[int(np.argmax(missing))])
    keep = ~missing if unknown == "skip" else np.ones_like(missing)
    counts = np.bincount(rows[keep], minlength=len(lengths))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    unknown_counts = np.bincount(rows[missing], minlength=len(lengths)).astype(np.int64)
    if source is None:  # an earlier release's, which reads items alone
        return Encoded(Sequences(indices[keep].astype(np.int32), offsets), unknown_counts)
    codes = {text: -1 - place for place, text in enumerate({str(flat[row]) for row in np.flatnonzero(missing)})}
    indices[missing] = [codes[str(flat[row])] for row in np.flatnonzero(missing)]  # different ones are no repeat
    sequences = Sequences(indices, offsets)
    if encoder is not None and features is not None:
        event_codes = np.array([code for codes in features.codes for code in codes], dtype=np.int64)
        seconds = np.array([second for times in features.seconds for second in times], dtype=np.float64)
        sequences = Sequences(indices, offsets, event_codes, seconds)
    return Encoded(shorten(sequences.at(keep, offsets), source, cut=cut, encoder=encoder), unknown_counts)


def unknown_items_error(catalogue: Catalogue, unknown: int, events: int, example: ItemId) -> UnknownItemsError:
    """Return the error that says how many of all events are of items outside a catalogue, such as an example."""
    in_catalogue = catalogue.ids[0].as_py() if len(catalogue) else None
    return UnknownItemsError(
        f"{unknown} of {events} items are not in the catalogue of the model, such as {example!r} (the catalogue has "
        f"{catalogue.id_type} ids such as {in_catalogue!r})",
        remedy="check that these are ids of the domain the backbone was pre-trained on, written the same way",
    )
