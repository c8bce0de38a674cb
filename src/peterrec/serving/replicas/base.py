"""The protocol of a registry of bundles that replicas share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from peterrec.serving.versions import VersionHistory


@dataclass(frozen=True)
class Entry:
    """Entry of a registry: the versions of one name.

    Attributes:
        history: of the versions that replicas have in memory; None: the bundle was dropped.
        generation: of the change that wrote it.
        text: as the registry has it; no two changes write the same.
    """

    history: VersionHistory | None
    generation: int
    text: str

    @property
    def active(self) -> str | None:
        """The version that answers; None: no version."""
        return None if self.history is None else self.history.active


@dataclass(frozen=True)
class Listing:
    """All that a registry says at a moment.

    Attributes:
        state: differs after each change.
        generation: number of changes until now.
        entries: by name; a name that was dropped keeps its entry.
    """

    state: str = ""
    generation: int = 0
    entries: Mapping[str, Entry] = field(default_factory=dict)

    @cached_property
    def active(self) -> dict[str, str]:
        """The version that answers, of each name that has one."""
        return {name: entry.active for name, entry in self.entries.items() if entry.active is not None}


class SharedRegistry(Protocol):
    """Names of bundles and their versions, which replicas read and change. All calls may come from several threads.

    Every call raises `StoreError` where the registry does not answer, or is no longer the one that was opened.

    Attributes:
        identity: name of a folder that no other registry has: what the copies of two are told apart by.
    """

    identity: str

    def read(self, state: str) -> Listing | None:
        """Return all entries, or None if the registry is still in this state."""

    def publish(
        self, name: str, before: Entry | None, history: VersionHistory | None, *, seed: bool = False
    ) -> int | None:
        """Replace the entry of a name in one step.

        Args:
            name: of the bundle.
            before: entry that is replaced; None: there is none.
            history: that the bundle has now; None: it is dropped.
            seed: whether it comes from a command line, and not from an operator.

        Returns:
            The generation of the change; None where the entry is another one by now: nothing was changed.
        """

    def close(self) -> None:
        """Close files and connections."""


def unpack_entry(text: str) -> Entry:
    """Decode an entry as registries have it: `GENERATION RANDOM JSON`."""
    generation, _, packed = text.split(" ", 2)
    return Entry(unpack_history(packed), int(generation), text)


def pack_history(history: VersionHistory | None) -> str:
    """Encode a history as JSON; one without versions stands for a bundle that was dropped."""
    history = history or VersionHistory(())
    return json.dumps({"answered": list(history.answered), "withdrawn": list(history.withdrawn)})


def unpack_history(packed: str) -> VersionHistory | None:
    """Decode the JSON of `pack_history`."""
    values: dict[str, Any] = json.loads(packed)
    answered, withdrawn = (tuple(map(str, values[key])) for key in ("answered", "withdrawn"))
    return VersionHistory(answered, withdrawn) if answered else None
