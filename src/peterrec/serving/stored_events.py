"""Events of a store as the numbers that models read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peterrec.data.history_reader import UserEvents, event_codes
from peterrec.serving.batch_plan import History
from peterrec.serving.engine import Engine
from peterrec.serving.store.base import Event


def stored_events(engine: Engine, new: Sequence[Event], cached: History | None) -> UserEvents:
    """Return all events of a user.

    Args:
        engine: knows the items and the features of events.
        new: events that were read of the store.
        cached: those before them; None: there are none.
    """
    before = UserEvents(np.empty(0, np.int64), np.empty(0)) if cached is None else cached.events
    ids = () if cached is None else cached.items
    unknown = {str(ids[row]): int(before.codes[row]) for row in np.flatnonzero(before.codes < 0).tolist()}
    codes = event_codes(engine.model.catalogue, [event.item for event in new], unknown)
    seconds = np.array([event.timestamp for event in new])
    domains = [*(before.domains or [None] * len(before)), *(event.domain for event in new)]
    assert before.seconds is not None
    features = None
    if engine.encoder is not None:
        features = engine.encoder.encode_values([event.features for event in new], seconds)
        features = features if before.features is None else np.concatenate([before.features, features])
    return UserEvents(
        np.concatenate([before.codes, codes]),
        np.concatenate([before.seconds, seconds]),
        domains if any(name is not None for name in domains) else None,
        features,
    )
