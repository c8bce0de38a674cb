"""The bundles that answer at a moment, and which of them go through the network together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from peterrec.arguments import names_there
from peterrec.config import ReadoutName
from peterrec.errors import UnknownTaskError
from peterrec.nn.backbone import Backbone
from peterrec.nn.bank import PatchBank, is_identity_at_zero, stack_key
from peterrec.nn.patch import Patch, TaskPatch
from peterrec.nn.readout import ReadStates, RowModules, readout_named, represent
from peterrec.nn.trunk import Trunk, count_changed_blocks
from peterrec.serving.class_heads import ClassHeads
from peterrec.serving.loaded_bundle import LoadedBundle
from peterrec.serving.requests import EVERY_TASK, Question


class Group:
    """Bundles whose rows share a pass: one backbone, one readout, patches of one configuration or none.

    Args:
        backbone: of all of them.
        readout: of all of them.
        patches: of each slot; None: the plain backbone.
        shared: whether it is the frozen backbone itself, and not one with modules of a task's own.
    """

    def __init__(
        self, backbone: Backbone, readout: ReadoutName, patches: Sequence[Patch | None], *, shared: bool = True
    ) -> None:
        self.backbone = backbone
        self.shared = shared
        self.readout: ReadoutName = readout
        self.patches = list(patches)
        patched = [patch for patch in self.patches if patch is not None]
        self.bank = PatchBank(self.patches) if len(self.patches) > 1 else None
        self.changed = count_changed_blocks(backbone, patched[0] if patched else None, None, readout)

    @property
    def streamable(self) -> bool:
        """True if states of users can be kept up to date event by event.

        Those of a backbone with modules of a task's own are not: they would be a pool for one task.
        """
        config = self.backbone.config
        dilated = config.kind == "causal" and config.architecture == "dilated"
        return self.shared and dilated and readout_named(self.readout).token_only

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
        self,
        tokens: Int[Tensor, "U T"],
        users: Int[Tensor, " B"],
        slots: Sequence[int],
        modules: Sequence[nn.Module | None],
        *,
        compiled: bool = False,
    ) -> Float[Tensor, "B R"]:
        """Return the representation of each row.

        Args:
            tokens: histories of users.
            users: of each row, whose history it reads.
            slots: of each row, whose patch it goes through.
            modules: of each row, what its task reads by where the readout is trained.
            compiled: whether torch may compile the network for a batch of this shape.
        """
        patch, module = self.patch_of(slots), module_of_rows(modules)
        if self.changed is None or (patch is None and len(tokens) == len(users)):
            backbone = self.backbone.compiled(len(users), [tokens.shape[1] + 1]) if compiled else self.backbone
            return represent(backbone, tokens[users], patch, self.readout, module)
        # What is below the patched blocks is the same for all tasks of a user.
        trunk = Trunk(self.backbone, self.changed, tokens.shape[1], self.readout)
        states, real = trunk.compute_states(tokens)
        keep: Bool[Tensor, "B n"] | None = None if real is None or bool(real.all()) else real[users]
        return trunk.represent(states[users], keep, patch, module)


def module_of_rows(modules: Sequence[nn.Module | None]) -> ReadStates | None:
    """Return what some rows are read by: one module if it is the same for all of them, None if there is none."""
    trained = [module for module in modules if module is not None]
    if not trained:
        return None
    assert len(trained) == len(modules), "rows of a pass have one readout"
    return trained[0] if len(set(trained)) == 1 else RowModules(trained)


class Place(NamedTuple):
    """Where a bundle's rows are computed.

    Attributes:
        group: computes them.
        slot: of the bundle's patch there.
        module: what the bundle reads by, where its readout is trained.
    """

    group: Group
    slot: int
    module: nn.Module | None = None


class RegistrySnapshot:
    """The bundles that answer at a moment; never changed, so that a question that started with it finishes with it.

    Args:
        backbone: the frozen one, which all bundles were trained on.
        loaded: versions that answer, one a name.
    """

    def __init__(self, backbone: Backbone, loaded: Iterable[LoadedBundle]) -> None:
        self.loaded = {version.name: version for version in loaded}
        self.places: dict[str, Place] = {}
        self.plain: dict[ReadoutName, Place] = {}
        self._backbone = backbone
        self._build()
        self.class_heads = ClassHeads(self.loaded.values())

    def _build(self) -> None:
        members_by_key: dict[object, list[LoadedBundle]] = {}
        plain: dict[ReadoutName, list[LoadedBundle]] = {}
        for version in self.loaded.values():
            bundle = version.bundle
            if bundle.backbone is None and bundle.patch is None:
                plain.setdefault(bundle.readout, []).append(version)
            else:
                # A backbone with modules of the task's own: no other bundle shares its pass.
                own_version = None if bundle.backbone is None else version.version
                key = None if bundle.patch is None else stack_key(bundle.patch)
                members_by_key.setdefault((own_version, bundle.readout, key), []).append(version)
        for members in members_by_key.values():
            self._add(members, plain)
        for readout in {version.bundle.readout for version in self.loaded.values()}:
            place = self.plain.setdefault(readout, Place(Group(self._backbone, readout, [None]), 0))
            self.places |= {
                version.name: place._replace(module=version.bundle.readout_module) for version in plain.get(readout, ())
            }

    def _add(self, members: list[LoadedBundle], plain: dict[ReadoutName, list[LoadedBundle]]) -> None:
        """Make a group; tasks without a patch join the first group that admits them."""
        bundle = members[0].bundle
        patches: list[Patch | None] = []
        slots: dict[str, int] = {}
        for member in members:
            slot = slots.setdefault(member.version, len(patches))
            if slot == len(patches):
                patches.append(member.bundle.patch)
        joins = bundle.backbone is None and bundle.readout in plain and bundle.readout not in self.plain
        joins = joins and bundle.patch is not None and is_identity_at_zero(bundle.patch)
        backbone, shared = bundle.backbone or self._backbone, bundle.backbone is None
        group = Group(backbone, bundle.readout, [*patches, None] if joins else patches, shared=shared)
        self.places |= {
            member.name: Place(group, slots[member.version], member.bundle.readout_module) for member in members
        }
        if joins:
            self.plain[bundle.readout] = Place(group, len(patches))

    def without_patch(self, name: str) -> Place:
        """Return the place that computes a task's rows without its patch."""
        bundle = self.loaded[name].bundle
        if bundle.backbone is not None:
            return self.places[name]
        return self.plain[bundle.readout]._replace(module=bundle.readout_module)

    def chosen(self, question: Question) -> tuple[LoadedBundle, ...]:
        """Return the bundles of the tasks that a question names.

        Raises:
            UnknownTaskError: a name that is not loaded.
        """
        if question.tasks == EVERY_TASK:
            return tuple(self.loaded.values())
        for name in question.tasks:
            self.get(name)
        return tuple(self.loaded[name] for name in dict.fromkeys(question.tasks))

    def get(self, name: str) -> LoadedBundle:
        """Return the bundle of a name.

        Raises:
            UnknownTaskError: there is none.
        """
        if name not in self.loaded:
            names = names_there(name[:80], self.loaded, "loaded")
            raise UnknownTaskError(f"no bundle answers {name[:80]!r}{names}", remedy="ask for one of these")
        return self.loaded[name]

    def with_bundle(self, loaded: LoadedBundle) -> RegistrySnapshot:
        """Return a snapshot in which this version answers to its name."""
        return RegistrySnapshot(self._backbone, (self.loaded | {loaded.name: loaded}).values())

    def without(self, name: str) -> RegistrySnapshot:
        """Return a snapshot in which no bundle answers to a name."""
        return RegistrySnapshot(self._backbone, (version for key, version in self.loaded.items() if key != name))
