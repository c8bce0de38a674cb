"""A version of a bundle in memory, ready to answer."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from peterrec.artifacts.bundle_io import Bundle, save_bundle
from peterrec.artifacts.tensors import fingerprint
from peterrec.data.history_reader import HistoryReader
from peterrec.serving.index import ItemIndex
from peterrec.serving.requests import TaskInfo

PLAIN = ""  # the version of no patch
VERSION_DIGITS = 12


@dataclass(frozen=True, eq=False)
class LoadedBundle:
    """A version of a bundle, ready to answer.

    Attributes:
        name: of the task, as it is asked for.
        version: of the tensors, the outputs and the settings: the same bundle has the same one everywhere.
        bundle: patch, head and outputs.
        path: folder it was read from, or empty.
        loaded_at: seconds since 1970.
        index: of the targets of a ranking task.
        reader: selects the events of a user that it reads.
    """

    name: str
    version: str
    bundle: Bundle
    path: str
    loaded_at: float
    index: ItemIndex | None
    reader: HistoryReader

    @classmethod
    def create(cls, name: str, bundle: Bundle, path: str | Path, reader: HistoryReader) -> LoadedBundle:
        """Return a version that is loaded now."""
        patch = None if bundle.patch_config is None else bundle.patch_config.model_dump(mode="json")
        settings = [bundle.kind, bundle.strategy, bundle.max_length, bundle.readout, patch, str(bundle.unshared)]
        settings += [bundle.exclude_seen, reader.key]
        settings += [] if bundle.class_priors is None else [bundle.class_priors]
        decided = [part.to_json() for part in (bundle.calibration, bundle.decision) if part is not None]
        settings += [decided] if decided else []
        content = json.dumps([fingerprint(bundle.tensors()), bundle.outputs_fingerprint, settings], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        return cls(name, digest[:VERSION_DIGITS], bundle, str(path), time.time(), None, reader)

    def save(self, path: str | Path) -> None:
        """Write the version as a bundle folder, atomically; a folder that is there is replaced.

        Raises:
            StorageError: the disk is full or the place is not writable.
        """
        save_bundle(Path(path), self.bundle, overwrite=True)

    @property
    def patch_version(self) -> str:
        """Version that the states of a user depend on; `PLAIN` where only the frozen backbone computes them."""
        return self.version if self.bundle.patch is not None or self.bundle.backbone is not None else PLAIN

    @property
    def answers_without_events(self) -> bool:
        """True if it can answer without known events; a bundle written before class shares were kept cannot."""
        return self.bundle.kind not in ("classification", "multilabel") or self.bundle.class_priors is not None

    @property
    def class_priors(self) -> list[float]:
        """Share of train users of each class, or with each label, rounded as the probabilities of the network are."""
        return torch.tensor(self.bundle.class_priors).tolist()

    def task(self) -> TaskInfo:
        """Return the description of the task for clients."""
        targets = self.bundle.targets
        return TaskInfo(
            self.name, self.bundle.kind, self.version, self.bundle.class_names, 0 if targets is None else len(targets),
            self.bundle.exclude_seen, self.bundle.exclude_seen_reason,
        )  # fmt: skip
