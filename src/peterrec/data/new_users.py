"""New users: who is kept out of all that is learned without labels, as far as the user id tells."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from peterrec.config import NewUsersConfig, SplitConfig
from peterrec.data.corpus import PARTS
from peterrec.data.hashing import UInt64Array
from peterrec.data.splits import assign_parts, uniform

NOBODY = NewUsersConfig()


def kept_out_by_id(hashes: UInt64Array, config: NewUsersConfig, split: SplitConfig) -> npt.NDArray[np.bool_]:
    """Return who is kept out by the settings that the user id decides, `parts` and `fraction`; (n,).

    Args:
        hashes: (n,) `id_hash` of the users.
        config: who is kept out. Its `first_event_after` is not looked at: only a log tells when users came.
        split: whose parts it names.
    """
    numbers = [PARTS.index(part) for part in config.parts]
    drawn = uniform(hashes, f"new-users-{config.seed}") < config.fraction
    return np.isin(assign_parts(hashes, split), numbers) | drawn
