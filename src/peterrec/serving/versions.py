"""The history of a bundle's versions: those that have answered, in order, and those that were withdrawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class VersionHistory:
    """Versions of one bundle that can answer. Never changed: each change returns another one.

    Attributes:
        answered: those that have answered, the first one first; the last one answers now.
        withdrawn: versions that were rolled back, the longest ago first: they answer again only if they are named.
    """

    answered: tuple[str, ...]
    withdrawn: tuple[str, ...] = ()

    @property
    def active(self) -> str:
        """The version that answers."""
        return self.answered[-1]

    @property
    def versions(self) -> tuple[str, ...]:
        """All versions; those that are left out first come first."""
        return self.withdrawn + self.answered

    def load(self, version: str) -> VersionHistory:
        """Let a version answer, whether or not it did before."""
        if version == self.active:
            return self
        return VersionHistory((*_without(self.answered, version), version), _without(self.withdrawn, version))

    def roll_back(self, version: str | None = None) -> VersionHistory:
        """Withdraw the version that answers for the one that answered before it, or for the one that is named.

        What answered after a named version is withdrawn with the active one; a withdrawn version that is named answers
        again, and what answered until now is what it can be rolled back to.

        Raises:
            LookupError: there is none before, or none of that name.
        """
        if version is None:
            if len(self.answered) == 1:
                raise LookupError("no version answered before")
            version = self.answered[-2]
        if version in self.withdrawn:
            return self.load(version)
        if version not in self.answered:
            raise LookupError(version)
        end = self.answered.index(version) + 1
        return VersionHistory(self.answered[:end], self.withdrawn + self.answered[end:])

    def newest(self, count: int) -> VersionHistory:
        """Return at most `count` versions: withdrawn ones are left out first, then those that answered long ago."""
        newest_versions = self.versions[max(0, len(self.versions) - count) :]
        return self.only(newest_versions)

    def only(self, versions: Sequence[str]) -> VersionHistory:
        """Return the history of some of the versions, among them the active one."""
        return VersionHistory(
            tuple(version for version in self.answered if version in versions),
            tuple(version for version in self.withdrawn if version in versions),
        )


def _without(versions: tuple[str, ...], version: str) -> tuple[str, ...]:
    return tuple(other_version for other_version in versions if other_version != version)
