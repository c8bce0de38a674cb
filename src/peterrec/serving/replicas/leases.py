"""Which versions may answer at a moment: those that the registry named a short time ago."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping


class Leases:
    """Times until which versions may answer.

    A version that the registry named in a call that began at time t was withdrawn at t or later: until t + `seconds`
    it was not withdrawn more than `seconds` ago, whatever happens to this process, the registry or the network.

    Args:
        seconds: for which the word of the registry holds.
        clock: seconds that never decrease.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.clock = seconds, clock
        self._lock = threading.Lock()  # held for moments
        self._named: dict[tuple[str, str], float] = {}
        self.renewed = -math.inf  # when the last call began that the registry answered

    def renew(self, active: Mapping[str, str], call_time: float) -> None:
        """Note the versions that the registry named.

        Args:
            active: version by name of the bundle.
            call_time: when the call began.
        """
        with self._lock:
            self.renewed = max(self.renewed, call_time)
            for version in active.items():
                self._named[version] = max(call_time, self._named.get(version, call_time))
            for version in [version for version, named in self._named.items() if call_time - named > 2 * self.seconds]:
                del self._named[version]

    def lapsed(self, versions: Iterable[tuple[str, str]]) -> list[str]:
        """Return the names of the bundles whose versions may not answer now.

        Args:
            versions: names and versions of bundles.
        """
        since = self.clock() - self.seconds
        with self._lock:
            return [name for name, version in versions if self._named.get((name, version), -math.inf) < since]

    @property
    def age(self) -> float:
        """Seconds since the registry last answered."""
        return self.clock() - self.renewed
