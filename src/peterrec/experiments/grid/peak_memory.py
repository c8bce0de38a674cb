"""Peak memory of a computation in this process, on systems that report it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_PEAK = "5"  # what Linux takes for: the peak is what there is now (proc(5), clear_refs)


def watch_memory() -> Callable[[], int | None]:
    """Start to watch; the function that is returned gives the most bytes that the process grew by since then.

    Memory that was freed before is given back to the system first, so that what is used again counts. None where the
    system keeps no such peak (other systems than Linux, some containers).
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    try:
        CLEAR.write_text(FORGET_PEAK)
    except OSError:
        return lambda: None
    start = _bytes("VmRSS")

    def growth() -> int | None:
        peak = _bytes("VmHWM")
        return None if start is None or peak is None else max(0, peak - start)

    return growth


def _bytes(name: str) -> int | None:
    match = re.search(rf"^{name}:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)
    return None if match is None else 1024 * int(match[1])
