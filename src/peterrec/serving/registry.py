"""The versions of bundles in memory, and changes of them: prepared first, then made in one step that cannot fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from peterrec.errors import RequestError
from peterrec.nn.backbone import Backbone
from peterrec.serving.bundle_groups import Group, RegistrySnapshot
from peterrec.serving.loaded_bundle import LoadedBundle
from peterrec.serving.requests import VersionInfo
from peterrec.serving.versions import VersionHistory

Versions = dict[str, LoadedBundle]


@dataclass(frozen=True)
class Staged:
    """A change of one bundle that is ready to be made: nothing of it answers yet.

    Attributes:
        name: of the bundle.
        versions: of the bundle that will be in memory, by version.
        history: that it will have.
        base: the snapshot that it changes.
        snapshot: the snapshot that will answer.
        restage: stages the same change again, where the snapshot has changed in between.
    """

    name: str
    versions: Versions
    history: VersionHistory
    base: RegistrySnapshot
    snapshot: RegistrySnapshot
    restage: Callable[[], Staged]

    @property
    def active(self) -> LoadedBundle:
        """The version that will answer."""
        return self.versions[self.history.active]


class BundleRegistry:
    """Bundles by name, each with its versions; threads may change it while another thread answers.

    Args:
        backbone: that all of them are for.
        max_versions: of a bundle in memory.
    """

    def __init__(self, backbone: Backbone, max_versions: int) -> None:
        self.snapshot = RegistrySnapshot(backbone, ())
        self._backbone = backbone
        self._max_versions = max_versions
        self._versions: dict[str, Versions] = {}
        self._histories: dict[str, VersionHistory] = {}
        self._changes = threading.Lock()  # held for moments only

    def stage(self, loaded: LoadedBundle) -> Staged:
        """Prepare that a version answers to its name."""
        base, name, version = self.snapshot, loaded.name, loaded.version
        before = self._histories.get(name)
        history = VersionHistory((version,)) if before is None else before.load(version)
        earlier = {
            key: earlier_version for key, earlier_version in self._versions.get(name, {}).items() if key != version
        }
        return self._staged(base, name, {**earlier, version: loaded}, history, lambda: self.stage(loaded))

    def stage_roll_back(self, name: str, version: str | None = None) -> Staged:
        """Prepare that another version answers; see `VersionHistory.roll_back`.

        Raises:
            UnknownTaskError: there is no bundle of that name.
            RequestError: no such version.
        """
        base = self.snapshot
        base.get(name)
        try:
            history = self._histories[name].roll_back(version)
        except LookupError:
            in_memory = ", ".join(reversed(self._histories[name].versions))
            raise RequestError(
                f"there is no version {version or 'before the active one'} of {name!r} (in memory: {in_memory})",
                remedy="name one of these, or load the bundle's folder again",
            ) from None
        return self._staged(base, name, self._versions[name], history, lambda: self.stage_roll_back(name, version))

    def stage_all(self, loaded: Iterable[LoadedBundle], history: VersionHistory) -> Staged:
        """Prepare that a bundle has these versions and this history, such as after a restart."""
        base, versions = self.snapshot, {bundle.version: bundle for bundle in loaded}
        name = versions[history.active].name
        return self._staged(base, name, versions, history, lambda: self.stage_all(versions.values(), history))

    def _staged(
        self,
        base: RegistrySnapshot,
        name: str,
        versions: Versions,
        history: VersionHistory,
        restage: Callable[[], Staged],
    ) -> Staged:
        history = history.newest(self._max_versions)
        in_memory = {version: versions[version] for version in versions if version in history.versions}
        return Staged(name, in_memory, history, base, base.with_bundle(in_memory[history.active]), restage)

    def activate(self, staged: Staged) -> VersionInfo:
        """Make a staged change; it is staged once more where another one was made in between."""
        while True:
            with self._changes:
                if staged.base is self.snapshot:
                    self._versions[staged.name] = staged.versions
                    self._histories[staged.name] = staged.history
                    self.snapshot = staged.snapshot
                    return self._info(staged.active)
            staged = staged.restage()

    def drop(self, name: str) -> None:
        """Unload all versions of a bundle; questions that were prepared before are still answered.

        Raises:
            UnknownTaskError: there is none of that name.
        """
        with self._changes:
            self.snapshot.get(name)
            self.snapshot = self.snapshot.without(name)
            del self._versions[name], self._histories[name]

    def infos(self, name: str | None = None) -> list[VersionInfo]:
        """Return all versions in memory, of one name or of all; of each name the one that was loaded last first.

        Raises:
            UnknownTaskError: there is no bundle of that name.
        """
        with self._changes:
            if name is not None:
                self.snapshot.get(name)
            names = list(self._versions) if name is None else [name]
            return [self._info(loaded) for key in names for loaded in reversed(self._versions[key].values())]

    def _info(self, loaded: LoadedBundle) -> VersionInfo:
        history = self._histories[loaded.name]
        return _version_info(loaded, self._backbone, history)


def _version_info(loaded: LoadedBundle, backbone: Backbone, history: VersionHistory) -> VersionInfo:
    bundle = loaded.bundle
    group = Group(bundle.backbone or backbone, bundle.readout, [bundle.patch], shared=bundle.backbone is None)
    sublayers = 2 * len(group.backbone.blocks)
    patched_blocks = {i // 2 for i in range(sublayers) if bundle.patch is not None and bundle.patch.layer_at(i)}
    metrics = bundle.metrics.get("valid", {})
    return VersionInfo(
        name=loaded.name,
        version=loaded.version,
        active=loaded.version == history.active,
        path=loaded.path,
        loaded_at=loaded.loaded_at,
        kind=bundle.kind,
        strategy=bundle.strategy,
        parameters=sum(tensor.numel() for tensor in bundle.tensors().values()),
        patched_blocks=len(patched_blocks),
        streamed=group.streamable,
        index=None if loaded.index is None else loaded.index.describe(),
        metrics=metrics if isinstance(metrics, dict) else {},
        withdrawn=loaded.version in history.withdrawn,
    )
