"""What a process may set for itself to compute faster. The command line does; a library must be asked."""

from __future__ import annotations

import ctypes
import os

SPINS = "1000"
KEPT_BYTES = 1 << 30
# Of glibc's mallopt: memory given back to the system when so much of it is free at the end, and blocks that are mapped
# (and unmapped, when freed) on their own from this size.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3


def tune_process() -> bool:
    """Make this process compute faster on a CPU; call it before torch is first imported.

    - Threads of OpenMP that wait for each other give their core away soon: with a busy neighbour on one core (a
      browser, another job) networks are otherwise many times slower. `GOMP_SPINCOUNT` is left as it is where it is set.
    - Freed memory is kept for the next step instead of being given back to the system, which would have to clear and
      map it anew for every large tensor. The process then holds the most memory that it ever needed, up to 1 GiB more
      than without.

    Returns:
        Whether memory is kept: it is with glibc, as most of Linux has it; elsewhere nothing is done.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(mallopt(MMAP_THRESHOLD, KEPT_BYTES) and mallopt(TRIM_THRESHOLD, KEPT_BYTES))
