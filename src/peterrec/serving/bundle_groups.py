"""The bundles that answer at a moment, and which of them go through the network together."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from peterrec.artifacts.bundle_io import Bundle, outputs_fingerprint, save_bundle
from peterrec.artifacts.tensors import fingerprint
from peterrec.config import Readout
from peterrec.data.reading import HistoryReader
from peterrec.errors import UnknownTaskError
from peterrec.nn.backbone import Backbone
from peterrec.nn.bank import PatchBank, admits_none, stack_key
from peterrec.nn.patch import Patch, TaskPatch
from peterrec.nn.readout import represent
from peterrec.nn.trunk import Trunk, trunk_below
from peterrec.serving.class_heads import ClassHeads
from peterrec.serving.index import ItemIndex
from peterrec.serving.requests import EVERY_TASK, Question, TaskInfo, VersionInfo

PLAIN = ""  # the version of no patch
VERSION_DIGITS = 12


@dataclass(frozen=True, eq=False)
class Loaded:
    """A version of a bundle, ready to answer.

    Attributes:
        name: of the task, as it is asked for.
        version: of the tensors, the outputs and the settings: the same bundle has the same one everywhere.
        bundle: patch, head and outputs.
        path: folder it was read from, or empty.
        loaded_at: seconds since 1970.
        index: of the targets of a ranking task.
        reader: what it reads of a user's events.
    """

    name: str
    version: str
    bundle: Bundle
    path: str
    loaded_at: float
    index: ItemIndex | None
    reader: HistoryReader

    @classmethod
    def of(cls, name: str, bundle: Bundle, path: str | Path, reader: HistoryReader) -> Loaded:
        """Return a version that is loaded now."""
        patch = None if bundle.patch_config is None else bundle.patch_config.model_dump(mode="json")
        settings = [bundle.kind, bundle.strategy, bundle.max_length, bundle.readout, patch, str(bundle.unshared)]
        settings += [bundle.exclude_seen, reader.key]
        settings += [] if bundle.class_priors is None else [bundle.class_priors]
        outputs = outputs_fingerprint(bundle.class_names, bundle.targets)
        content = json.dumps([fingerprint(bundle.tensors()), outputs, settings], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        return cls(name, digest[:VERSION_DIGITS], bundle, str(path), time.time(), None, reader)

    def save(self, path: str | Path) -> None:
        """Write it as a bundle folder, atomically; what was there is replaced.

        Raises:
            StorageError: the disk is full or the place is not writable.
        """
        save_bundle(Path(path), self.bundle, overwrite=True)

    @property
    def patch_version(self) -> str:
        """What the states of a user depend on."""
        return self.version if self.bundle.patch is not None or self.bundle.backbone is not None else PLAIN

    @property
    def answers_without_events(self) -> bool:
        """Whether it tells what is known of everybody; a bundle written before class shares were kept does not."""
        return self.bundle.targets is not None or self.bundle.class_priors is not None

    @property
    def class_priors(self) -> list[float]:
        """Share of each class among the train users, rounded as the probabilities of the network are."""
        return torch.tensor(self.bundle.class_priors).tolist()

    def task(self) -> TaskInfo:
        """Return what is told to those who ask."""
        targets = self.bundle.targets
        return TaskInfo(
            self.name, self.bundle.kind, self.version, self.bundle.class_names, 0 if targets is None else len(targets),
            self.bundle.exclude_seen, self.bundle.exclude_seen_reason,
        )  # fmt: skip

    def info(self, backbone: Backbone, *, active: bool, withdrawn: bool) -> VersionInfo:
        """Return what is told to operators.

        Args:
            backbone: the frozen one.
            active: whether this version answers now.
            withdrawn: whether somebody went back from it.
        """
        bundle = self.bundle
        group = Group(bundle.backbone or backbone, bundle.readout, [bundle.patch], shared=bundle.backbone is None)
        blocks = len(group.backbone.blocks)
        patched = {site // 2 for site in range(2 * blocks) if bundle.patch is not None and bundle.patch.at(site)}
        valid = bundle.metrics.get("valid", {})
        return VersionInfo(
            self.name, self.version, active, self.path, self.loaded_at, bundle.kind, bundle.strategy,
            sum(tensor.numel() for tensor in bundle.tensors().values()), len(patched), group.streamable,
            None if self.index is None else self.index.describe(), valid if isinstance(valid, dict) else {}, withdrawn,
        )  # fmt: skip


class Group:
    """Bundles whose rows share a pass: one backbone, one readout, patches of one configuration or none.

    Args:
        backbone: of all of them.
        readout: of all of them.
        patches: of each slot; None: the plain backbone.
        shared: whether it is the frozen backbone itself, and not one with modules of a task's own.
    """

    def __init__(
        self, backbone: Backbone, readout: Readout, patches: Sequence[Patch | None], *, shared: bool = True
    ) -> None:
        self.backbone = backbone
        self.shared = shared
        self.readout: Readout = readout
        self.patches = list(patches)
        real = [patch for patch in self.patches if patch is not None]
        self.bank = PatchBank(self.patches) if len(self.patches) > 1 else None
        self.changed = trunk_below(backbone, real[0] if real else None, None, readout)

    @property
    def streamable(self) -> bool:
        """Whether states of users can be kept up to date event by event.

        Those of a backbone with modules of a task's own are not: they would be a pool for one task.
        """
        config = self.backbone.config
        return self.shared and config.kind == "causal" and config.architecture == "dilated" and self.readout == "token"

    def patch_of(self, slots: Sequence[int]) -> TaskPatch | None:
        """Return the patches of some rows; one for all of them if it is the same."""
        if len(set(slots)) == 1:
            return self.patches[slots[0]]
        assert self.bank is not None
        if list(slots) == list(range(len(self.patches))):
            return self.bank.rows()
        device = self.backbone.embedding.weight.device
        return self.bank.rows(torch.tensor(slots, device=device))

    def vectors(
        self, tokens: Int[Tensor, "U T"], users: Int[Tensor, " B"], slots: Sequence[int], *, compiled: bool = False
    ) -> Float[Tensor, "B R"]:
        """Return the representation of each row.

        Args:
            tokens: histories of users.
            users: of each row, whose history it reads.
            slots: of each row, whose patch it goes through.
            compiled: whether torch may compile the network for a batch of this shape.
        """
        patch = self.patch_of(slots)
        if self.changed is None or (patch is None and len(tokens) == len(users)):
            backbone = self.backbone.compiled(len(users), [tokens.shape[1] + 1]) if compiled else self.backbone
            return represent(backbone, tokens[users], patch, self.readout)
        # What is below the patched blocks is the same for all tasks of a user.
        trunk = Trunk(self.backbone, self.changed, tokens.shape[1], self.readout)
        states, real = trunk.below(tokens)
        keep: Bool[Tensor, "B n"] | None = None if real is None or bool(real.all()) else real[users]
        return trunk.above(states[users], keep, patch)


class Place(NamedTuple):
    """Where a bundle's rows go: a group, and a slot of it."""

    group: Group
    slot: int


class Roster:
    """The bundles that answer at a moment; never changed, so that who started with it finishes with it.

    Args:
        backbone: what all bundles are for.
        loaded: versions that answer, one a name.
    """

    def __init__(self, backbone: Backbone, loaded: Iterable[Loaded]) -> None:
        self.loaded = {one.name: one for one in loaded}
        self.places: dict[str, Place] = {}
        self.plain: dict[Readout, Place] = {}
        self._backbone = backbone
        self._build()
        self.class_heads = ClassHeads(self.loaded.values())

    def _build(self) -> None:
        alike: dict[object, list[Loaded]] = {}
        plain: dict[Readout, list[Loaded]] = {}
        for one in self.loaded.values():
            bundle = one.bundle
            if bundle.backbone is None and bundle.patch is None:
                plain.setdefault(bundle.readout, []).append(one)
            else:
                own = None if bundle.backbone is None else one.version  # modules of its own: nobody shares its pass
                key = None if bundle.patch is None else stack_key(bundle.patch)
                alike.setdefault((own, bundle.readout, key), []).append(one)
        for members in alike.values():
            self._add(members, plain)
        for readout in {one.bundle.readout for one in self.loaded.values()}:
            place = self.plain.setdefault(readout, Place(Group(self._backbone, readout, [None]), 0))
            self.places |= {one.name: place for one in plain.get(readout, ())}

    def _add(self, members: list[Loaded], plain: dict[Readout, list[Loaded]]) -> None:
        """Make a group; tasks without a patch join the first that can take them."""
        bundle = members[0].bundle
        patches: list[Patch | None] = []
        slots: dict[str, int] = {}
        for one in members:
            slot = slots.setdefault(one.version, len(patches))
            if slot == len(patches):
                patches.append(one.bundle.patch)
        joins = bundle.backbone is None and bundle.readout in plain and bundle.readout not in self.plain
        joins = joins and bundle.patch is not None and admits_none(bundle.patch)
        backbone, shared = bundle.backbone or self._backbone, bundle.backbone is None
        group = Group(backbone, bundle.readout, [*patches, None] if joins else patches, shared=shared)
        self.places |= {one.name: Place(group, slots[one.version]) for one in members}
        if joins:
            self.plain[bundle.readout] = Place(group, len(patches))

    def without_patch(self, name: str) -> Place:
        """Return where a task's rows go to be answered without its patch."""
        bundle = self.loaded[name].bundle
        return self.places[name] if bundle.backbone is not None else self.plain[bundle.readout]

    def chosen(self, question: Question) -> tuple[Loaded, ...]:
        """Return the bundles that a question asks.

        Raises:
            UnknownTaskError: a name that is not loaded.
        """
        if question.tasks == EVERY_TASK:
            return tuple(self.loaded.values())
        for name in question.tasks:
            self.get(name)
        return tuple(self.loaded[name] for name in dict.fromkeys(question.tasks))

    def get(self, name: str) -> Loaded:
        """Return the bundle of a name.

        Raises:
            UnknownTaskError: there is none.
        """
        if name not in self.loaded:
            known = ", ".join(self.loaded) or "none"
            raise UnknownTaskError(f"no bundle answers {name[:80]!r} (loaded: {known})", remedy="ask for one of these")
        return self.loaded[name]

    def with_(self, loaded: Loaded) -> Roster:
        """Return a roster where this one answers to its name."""
        return Roster(self._backbone, (self.loaded | {loaded.name: loaded}).values())

    def without(self, name: str) -> Roster:
        """Return a roster where nobody answers to a name."""
        return Roster(self._backbone, (one for one in self.loaded.values() if one.name != name))
