"""The engine: one frozen backbone that answers any task about any user, while bundles come and go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from peterrec.arguments import checked, describe
from peterrec.artifacts.bundle_io import Bundle, load_bundle
from peterrec.config import EngineConfig
from peterrec.data.history_reader import HistoryReader, UserEvents, event_codes
from peterrec.data.ids import as_history
from peterrec.data.preprocessing import encoder_of
from peterrec.errors import ArtifactError, DataError, RequestError
from peterrec.model import UserModel
from peterrec.serving.batch_plan import History, Prepared, RowReader, Streams
from peterrec.serving.bundle_groups import RegistrySnapshot
from peterrec.serving.index import build_index
from peterrec.serving.loaded_bundle import LoadedBundle
from peterrec.serving.registry import BundleRegistry, Staged
from peterrec.serving.requests import (
    Answer,
    Question,
    Request,
    TaskInfo,
    VersionInfo,
    check_question,
    feature_codes,
    times_and_domains,
)
from peterrec.serving.task_answers import NO_NUMBERS, TRAIN_AGAIN, answer_from
from peterrec.serving.versions import VersionHistory

SAMPLED_USERS = 64  # random ones, to measure an index on
CHECKED_USERS = 4  # random ones, to see that a bundle answers with numbers


class Engine:
    """An engine that answers questions of several tasks about many users in one pass (paper, section 3.3).

    Rows of a batch go through the frozen backbone together, each with its own patch and head. Threads may load and drop
    bundles while another one answers.

    Args:
        model: the backbone, its device and precision; bundles that are loaded on it are there from the start.
        config: window, batches, search; None: the defaults.

    Raises:
        ConfigError: usearch is needed for the number of targets, and not installed.
        FingerprintError, ArtifactError: as `load`, about a bundle of `model`.
    """

    @checked
    def __init__(self, model: UserModel, config: EngineConfig | None = None) -> None:
        self.model = model
        self.config = config or EngineConfig()
        self.encoder = encoder_of(model.pretrained.preprocessing)
        self._reader = RowReader(self.config, model.inference)
        self._registry = BundleRegistry(model.network.backbone, self.config.keep_versions)
        for name, bundle in model.bundles.items():
            self.add(bundle, name)

    # ------------------------------------------------------------ questions

    def predict(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer requests, whatever tasks each of them names, in one pass.

        Args:
            requests: N questions with the events of their users.

        Returns:
            N answers, in the same order.

        Raises:
            UnknownTaskError: a name that is not loaded.
            RequestError: a question that cannot be answered.
            AnswerError: a bundle answers with NaN or infinity.
            ConfigError: the process was forked, and the GPU was in use before.
        """
        if not isinstance(requests, list | tuple):
            raise RequestError(f"requests are {describe(requests)}", remedy="pass a list of Request")
        return self.answer([self.prepare(request) for request in requests])

    def prepare(self, request: Request) -> Prepared:
        """Check a request and look its items up; the bundles that are loaded now will answer it.

        Args:
            request: a question with the T events of its user.

        Returns:
            The checked question for `answer`, with the bundles that it names and the catalogue's indices of the items.

        Raises:
            UnknownTaskError: a name that is not loaded.
            RequestError: a question that cannot be answered.
        """
        if not isinstance(request, Request):
            raise RequestError(f"a request is {describe(request)}", remedy="pass e.g. Request(['item-1', 'item-2'])")
        check_question(request.question)
        try:
            items = as_history(request.items)
        except DataError as error:
            raise RequestError(error.message, remedy=error.remedy) from error
        snapshot, question = self.snapshot, request.question
        times, domains = times_and_domains(request)
        features = feature_codes(request, self.encoder, times)
        events = UserEvents(event_codes(self.model.catalogue, items), times, domains, features)
        return Prepared(snapshot, question, snapshot.chosen(question), History(items, events))

    @property
    def snapshot(self) -> RegistrySnapshot:
        """The bundles that answer now."""
        return self._registry.snapshot

    @torch.inference_mode()
    def answer(self, prepared: Sequence[Prepared], streams: Streams | None = None) -> list[Answer]:
        """Answer N prepared questions that have a history.

        Args:
            prepared: N questions, by `prepare`.
            streams: states of stored users, if there are any.

        Returns:
            N answers, in the same order.

        Raises:
            AnswerError: a bundle answers with NaN or infinity.
            ConfigError: the process was forked, and the GPU was in use before.
        """
        vectors = self._reader.read(prepared, streams)
        return answer_from(prepared, vectors)

    def represent(self, prepared: Sequence[Prepared]) -> Float[Tensor, "N R"]:
        """Compute the representation that the head reads, of N questions with one task each (paper, section 3.3).

        Args:
            prepared: N questions with a history, by `prepare`; the bundles have the same readout and backbone width.

        Returns:
            (N, R) tensor on the device of the model. R is the channels, or a multiple of them, by the readout.

        Raises:
            ConfigError: the process was forked, and the GPU was in use before.
        """
        return torch.stack([vectors[0] for vectors in self._reader.read(prepared, None)])

    # ------------------------------------------------------------ bundles

    @checked
    def load(self, name: str, path: str | Path) -> VersionInfo:
        """Load a bundle, or replace the one of that name; questions that were prepared before are not affected.

        Args:
            name: of the task, as questions name it.
            path: folder written by `adapt`.

        Returns:
            The version that answers now.

        Raises:
            FingerprintError: it belongs to another backbone or catalogue.
            ArtifactError: missing or damaged, or it answers with what are no numbers.
            ConfigError: usearch is needed for the number of targets, and not installed.
        """
        return self.activate(self.stage(name, path))

    @checked
    def add(self, bundle: Bundle, name: str | None = None, path: str | Path = "") -> VersionInfo:
        """Load a bundle that is in memory, as `load` does from a folder.

        Args:
            bundle: as `adapt` returns it.
            name: of the task, as questions name it; None: the name of the bundle's task.
            path: folder that `versions` reports as its place; empty: none.

        Returns:
            The version that answers now.

        Raises:
            FingerprintError: it belongs to another backbone or catalogue.
            ArtifactError: it answers with what are no numbers.
            ConfigError: usearch is needed for the number of targets, and not installed.
        """
        return self.activate(self._registry.stage(self._make_ready(bundle, name, path)))

    def stage(self, name: str, path: str | Path) -> Staged:
        """Read a bundle and do all that is slow or may fail; the bundle answers when it is activated.

        Args:
            name: of the task, as questions name it.
            path: folder written by `adapt`.

        Returns:
            The change, for `activate`; nothing of it answers yet.

        Raises:
            FingerprintError: it belongs to another backbone or catalogue.
            ArtifactError: missing or damaged, or it answers with what are no numbers.
            ConfigError: usearch is needed for the number of targets, and not installed.
        """
        return self._registry.stage(self.read(name, path))

    def stage_versions(self, versions: Sequence[LoadedBundle], history: VersionHistory) -> Staged:
        """Prepare a bundle with several versions, such as after a restart.

        Args:
            versions: by `read`, all of one name, the active one among them.
            history: of these and perhaps others, which are given up.

        Returns:
            The change, for `activate`; at most `EngineConfig.keep_versions` versions are kept, the active one among
            them.

        Raises:
            KeyError: the active version of `history` is not among `versions`.
        """
        return self._registry.stage_all(versions, history.only([loaded.version for loaded in versions]))

    def read(self, name: str, path: str | Path, version: str | None = None) -> LoadedBundle:
        """Read a bundle and make it ready to answer, without loading it.

        Args:
            name: that it would answer to.
            path: folder written by `adapt`.
            version: that it must be; None: any.

        Returns:
            The version, on the device of the model, with its reader and its index of targets.

        Raises:
            FingerprintError: it belongs to another backbone or catalogue.
            ArtifactError: missing or damaged, it answers with what are no numbers, or it is another version.
            ConfigError: usearch is needed for the number of targets, and not installed.
        """
        loaded = self._make_ready(load_bundle(Path(path), self.model.network.backbone, self.model.identity), name, path)
        if version not in (None, loaded.version):
            raise ArtifactError(
                f"is the version {loaded.version} of {name!r}, not {version}",
                remedy="put the copy of that version back, or load the bundle again", path=path,
            )  # fmt: skip
        return loaded

    def activate(self, staged: Staged) -> VersionInfo:
        """Make a change that was staged, in one step; questions that were prepared before are not affected.

        Args:
            staged: by `stage`, `stage_versions` or `stage_roll_back`. It is staged once more where another change was
                made in between.

        Returns:
            The version that answers now.

        Raises:
            UnknownTaskError: it is a roll-back, and the bundle was dropped in between.
            RequestError: it is a roll-back, and its version was given up in between.
        """
        return self._registry.activate(staged)

    def _make_ready(self, bundle: Bundle, name: str | None, path: str | Path) -> LoadedBundle:
        """Return a bundle on its device, checked, with its reader and its index of targets."""
        self.model.identity.owner(bundle.backbone_fingerprint, bundle.catalogue_fingerprint)
        bundle = bundle.on(self.model.network.backbone)
        bundle.modules().to(self.model.device).eval().requires_grad_(False)
        loaded = LoadedBundle.create(name or bundle.name, bundle, path, self._reader_of(bundle))
        with torch.inference_mode():
            head = bundle.head
            if not bool(head(self._sample(loaded, CHECKED_USERS)).isfinite().all()):
                raise ArtifactError(f"{NO_NUMBERS} as {loaded.name!r}", remedy=TRAIN_AGAIN, path=path)
            if bundle.targets is None:
                return loaded
            index = build_index(head.weight, head.bias, self.config, lambda: self._sample(loaded, SAMPLED_USERS))
        return replace(loaded, index=index)

    def _reader_of(self, bundle: Bundle) -> HistoryReader:
        """Return the reader of a bundle: as its data were prepared, or the backbone's where that is not recorded."""
        pretrained = self.model.pretrained
        bundle_preprocessing = None if bundle.provenance is None else bundle.provenance.preprocessing
        preprocessing = bundle_preprocessing or pretrained.preprocessing
        time_filters = self.config.bounds == "prepared"
        return HistoryReader.for_model(preprocessing, pretrained.unknown, time_filters=time_filters)

    def bounds(self) -> list[str]:
        """Return one line of text for each time bound by which events are left out.

        Returns:
            Lines with the tasks that a bound applies to, the bound and the remedy; none where no event is left out by
            its time.
        """
        lines: dict[str, list[str]] = {}
        for version in self.snapshot.loaded.values():
            for line in version.reader.time_filter_notes():
                lines.setdefault(line, []).append(version.name)
        remedy = "; engine.bounds=none reads them"
        return [f"{', '.join(names)}: {line}, as when data were prepared{remedy}" for line, names in lines.items()]

    @checked
    def drop(self, name: str) -> None:
        """Unload all versions of a bundle; questions that were prepared before are still answered.

        Args:
            name: of the bundle.

        Raises:
            UnknownTaskError: there is none of that name.
        """
        self._registry.drop(name)

    @checked
    def roll_back(self, name: str, version: str | None = None) -> VersionInfo:
        """Activate another version that is still in memory: the previous one, or the one that is named.

        The version that was active is withdrawn: it answers again only if it is named, or loaded.

        Args:
            name: of the bundle.
            version: that will answer; None: the one that answered before.

        Returns:
            The version that answers now.

        Raises:
            UnknownTaskError: there is no bundle of that name.
            RequestError: no such version.
        """
        return self.activate(self.stage_roll_back(name, version))

    def stage_roll_back(self, name: str, version: str | None = None) -> Staged:
        """Prepare the change that `roll_back` makes, without making it.

        Args:
            name: of the bundle.
            version: that will answer; None: the one that answered before.

        Returns:
            The change, for `activate`.

        Raises:
            UnknownTaskError: there is no bundle of that name.
            RequestError: no such version.
        """
        return self._registry.stage_roll_back(name, version)

    @checked
    def save(self, name: str, path: str | Path) -> None:
        """Write the version that answers to a name as a bundle folder, atomically; a bundle that was there is replaced.

        Args:
            name: of the bundle.
            path: folder to write.

        Raises:
            UnknownTaskError: there is no bundle of that name.
            ArtifactError: `path` is there and is not a bundle.
            StorageError: the disk is full or the place is not writable.
        """
        self.snapshot.get(name).save(path)

    def tasks(self) -> list[TaskInfo]:
        """Return the tasks that questions may name.

        Returns:
            Name, kind, version, classes and number of targets of each, in the order of loading.
        """
        return [version.task() for version in self.snapshot.loaded.values()]

    @checked
    def versions(self, name: str | None = None) -> list[VersionInfo]:
        """Return all versions in memory, of one name or of all.

        Args:
            name: of a bundle; None: all bundles.

        Returns:
            The versions, of each name the one that was loaded last first; after a restart of the service in the order
            in which they answered, withdrawn ones last.

        Raises:
            UnknownTaskError: there is no bundle of that name.
        """
        return self._registry.infos(name)

    def _sample(self, loaded: LoadedBundle, users: int) -> Tensor:
        """Return representations of random users, whose events are drawn by popularity."""
        rng = np.random.default_rng(0)
        counts = self.model.catalogue.counts + 1.0
        lengths = rng.integers(1, loaded.bundle.max_length + 1, users)
        first = self.model.catalogue.first
        histories = [rng.choice(len(counts), length, p=counts / counts.sum()) + first for length in lengths]
        snapshot = RegistrySnapshot(self.model.network.backbone, [loaded])
        random_histories = [History([], UserEvents(tokens)) for tokens in histories]
        return self.represent([Prepared(snapshot, Question(), (loaded,), history) for history in random_histories])
