"""Settings of torch that hold for the whole process, changed for as long as some thread wants it so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class ProcessSetting:
    """Attribute that has another value while anybody is inside; put back when the last thread leaves.

    Args:
        name: of the attribute.
        value: that it has then.
    """

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value
        self._lock = threading.Lock()
        self._inside = 0
        self._saved: Any = None

    @contextmanager
    def changed(self, owner: Any) -> Iterator[None]:
        """Change it: `owner`, always the same, is the object that has the attribute."""
        with self._lock:
            if self._inside == 0:
                self._saved = getattr(owner, self.name)
                setattr(owner, self.name, self.value)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    setattr(owner, self.name, self._saved)
