"""Reading a corpus: the memory-mapped sequences, the catalogue and the tasks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from peterrec.arguments import checked, names_there
from peterrec.config import KeptOutUsersConfig, PreprocessingConfig, SplitConfig, TaskKind, build_config
from peterrec.data.arrow_arrays import from_event_lists, from_lists, single_array
from peterrec.data.catalogue import Catalogue
from peterrec.data.preprocessing import preprocessing_of
from peterrec.data.sequences import IntArray, Sequences
from peterrec.display import facts_html
from peterrec.errors import ArtifactError, FingerprintError, TaskError
from peterrec.storage import description_errors, read_artifact, read_json, short_hash

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")
REMAKE = "run `peterrec prepare` again"
KEYS = ("fingerprint", "catalogue_fingerprint", "users", "rare_items", "tasks")  # of the manifest, read here or later
DAMAGED = (OSError, EOFError, pa.ArrowException, KeyError, ValueError, TypeError, AttributeError)


@dataclass(frozen=True)
class TaskPart:
    """Users of one part (train, valid or test) of a task.

    Attributes:
        user_ids: (n,) external user ids, as text.
        sequences: n rows of source item indices.
        labels: (n,) int64 class of each user (classification), else None.
        targets: n rows of target indices, 0-based in the task's target catalogue (ranking), else None.
        seen_targets: n rows of target indices that stand in the user's source events, also in those that are not read
            any more (`max_history`); None where targets are other items than those of the source.
        numbers: (n,) float64 number of each user (regression), else None.
        label_sets: n rows of labels that each user has, ascending (multilabel), else None.
    """

    user_ids: pa.Array
    sequences: Sequences
    labels: IntArray | None = None
    targets: Sequences | None = None
    seen_targets: Sequences | None = None
    numbers: npt.NDArray[np.float64] | None = None
    label_sets: Sequences | None = None

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def kind(self) -> TaskKind:
        """Kind of the task, by what is to be learned of the users."""
        if self.numbers is not None:
            return "regression"
        if self.label_sets is not None:
            return "multilabel"
        return "ranking" if self.labels is None else "classification"

    def take(self, rows: IntArray) -> TaskPart:
        """Return the given users, in the given order."""
        return TaskPart(
            self.user_ids.take(pa.array(rows)),
            self.sequences.take(rows),
            labels=None if self.labels is None else self.labels[rows],
            targets=None if self.targets is None else self.targets.take(rows),
            seen_targets=None if self.seen_targets is None else self.seen_targets.take(rows),
            numbers=None if self.numbers is None else self.numbers[rows],
            label_sets=None if self.label_sets is None else self.label_sets.take(rows),
        )


@dataclass(frozen=True)
class Provenance:
    """The origin of the users of a task; kept with every bundle that is trained on them.

    Attributes:
        corpus_fingerprint: of the corpus.
        split: settings by which users were split into train, valid and test; None where the corpus does not say.
        preprocessing: settings by which histories were made of events; None where the corpus does not say.
    """

    corpus_fingerprint: str
    split: SplitConfig | None = None
    preprocessing: PreprocessingConfig | None = None


@dataclass(frozen=True)
class Task:
    """A task as prepared.

    Attributes:
        name: of the task.
        kind: of the task.
        path: its folder.
        class_names: of a classification task; of a multilabel task the names of its labels.
        targets: catalogue of a ranking task.
        exclude_seen: whether items of a user's own history are no answers of a ranking task.
        exclude_seen_reason: why, in words.
        provenance: where its users come from.
    """

    name: str
    kind: TaskKind
    path: Path
    class_names: tuple[str, ...] = ()
    targets: Catalogue | None = None
    exclude_seen: bool = True
    exclude_seen_reason: str = ""
    provenance: Provenance = Provenance("")

    def part(self, part: Part) -> TaskPart:
        """Read the users of one part.

        Args:
            part: `train`, `valid` or `test`.

        Returns:
            The n users of the part, with their sequences and labels, targets, numbers or label sets.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        path = self.path / f"{part}.parquet"
        try:
            table = pq.read_table(path)
            sequences = from_event_lists(table)
            if self.kind == "regression":
                numbers = np.asarray(table["number"].to_numpy(), dtype=np.float64)
                return TaskPart(single_array(table["user_id"]), sequences, numbers=numbers)
            if self.kind == "multilabel":
                return TaskPart(single_array(table["user_id"]), sequences, label_sets=from_lists(table["labels"]))
            if self.kind == "classification":
                labels = table["label"].to_numpy().astype(np.int64)
                return TaskPart(single_array(table["user_id"]), sequences, labels=labels)
            seen_targets = from_lists(table["seen"]) if "seen" in table.column_names else None
            targets = from_lists(table["targets"])
            user_ids = single_array(table["user_id"])
            return TaskPart(user_ids, sequences, targets=targets, seen_targets=seen_targets)
        except DAMAGED as error:
            raise ArtifactError(f"cannot be read ({error})", remedy=REMAKE, path=path) from error


class Corpus:
    """A prepared corpus, opened for reading (paper, section 3.1): sequences of all users, catalogue and tasks.

    Opening costs nothing per user: sequences are memory-mapped.

    Args:
        path: its folder.
        manifest: its `manifest.json`, as read; `Corpus.open` reads it and checks its version.

    Attributes:
        path: as given.
        manifest: as given: counts of users, events and items, the filter summary, the settings.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    @checked
    def open(cls, path: str | Path) -> Corpus:
        """Open a folder written by `prepare`.

        Args:
            path: the folder.

        Returns:
            The corpus; its sequences and tasks are read when they are asked for.

        Raises:
            ArtifactError: not a corpus, damaged, or of another format version.
        """
        path = Path(path)
        manifest = read_artifact(path, "corpus")
        _require(manifest, KEYS, path / "manifest.json")
        return cls(path, manifest)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The source catalogue.

        Raises:
            ArtifactError: missing or damaged.
            FingerprintError: another catalogue than the one this corpus was made with.
        """
        return _checked(self.path / "catalogue.parquet", self.manifest["catalogue_fingerprint"])

    @cached_property
    def sequences(self) -> Sequences:
        """Source sequences of all users, memory-mapped: int32 item indices, oldest first; [UNK] is 3, items start at 4.

        With the codes of the features of events, where the log was prepared with some.

        Raises:
            ArtifactError: the cache is missing, damaged or of another corpus.
        """
        items = self._map_array("items.npy")
        offsets = self._map_array("offsets.npy")
        self._check_cache(len(offsets) == self.manifest["users"] + 1 and offsets[-1] == len(items))
        if "event_features" not in self.manifest:
            return Sequences(items, offsets)
        features = self._map_array("features.npy")
        self._check_cache(len(features) == len(items))
        return Sequences(items, offsets, features)

    @cached_property
    def user_hashes(self) -> npt.NDArray[np.uint64]:
        """(users,) `id_hash` of each user, memory-mapped; errors as those of `sequences`."""
        hashes: npt.NDArray[np.uint64] = self._map_array("user_hashes.npy")
        self._check_cache(len(hashes) == self.manifest["users"])
        return hashes

    @cached_property
    def new_users(self) -> npt.NDArray[np.bool_]:
        """(users,) whether each user is kept out of all that is learned without labels; errors as of `sequences`."""
        if "new_users" not in self.manifest:
            return np.zeros(self.manifest["users"], dtype=np.bool_)
        new: npt.NDArray[np.bool_] = self._map_array("new_users.npy")
        self._check_cache(len(new) == self.manifest["users"])
        return new

    @property
    def pretraining_rows(self) -> IntArray:
        """Rows of the users whose sequences may be learned from without labels, ascending; errors as of `sequences`."""
        return np.flatnonzero(~self.new_users)

    @property
    def kept_out_users(self) -> KeptOutUsersConfig | None:
        """By which settings users are kept out, and how many; None where nobody is.

        Raises:
            ArtifactError: the manifest is damaged.
        """
        if "new_users" not in self.manifest:
            return None
        with description_errors(self.path / "manifest.json"):
            config, users = self.manifest["config"], self.manifest["new_users"]["users"]
            tree = config["new_users"] | {"split": config["split"], "users": users}
            return build_config(KeptOutUsersConfig, tree)

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.manifest.get(name, 0):,} {name}" for name in ("users", "events", "items"))
        return f"Corpus({str(self.path)!r}: {counts}; tasks: {', '.join(self.task_names) or 'none'})"

    def _repr_html_(self) -> str:
        facts = {name: self.manifest.get(name) for name in ("users", "events", "items")}
        tasks = {f"task {task['name']}": task.get("kind", "") for task in self.manifest["tasks"]}
        return facts_html(f"Corpus {self.path}", facts | tasks)

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks prepared with this corpus."""
        return [task["name"] for task in self.manifest["tasks"]]

    @checked
    def task(self, name: str) -> Task:
        """Open a task.

        Args:
            name: one of `task_names`.

        Returns:
            The task; the users of its parts are read by `Task.part`.

        Raises:
            TaskError: no such task; the message lists those there are.
            ArtifactError: a file of it is missing or damaged.
            FingerprintError: other targets than those its users' targets stand for.
        """
        if name not in self.task_names:
            names = names_there(name, self.task_names, "it has")
            raise TaskError(f"has no task {name!r}{names}", remedy="name one of these", path=self.path)
        path = self.path / "tasks" / name
        meta = read_json(path / "task.json")
        _require(meta, ("kind",), path / "task.json")
        targets = None
        if meta["kind"] == "ranking":
            targets = _checked(path / "targets.parquet", meta.get("targets_fingerprint"))
        return Task(
            name, meta["kind"], path, tuple(meta.get("class_names", ())), targets,
            exclude_seen=meta.get("exclude_seen", True),
            exclude_seen_reason=meta.get("exclude_seen_reason", ""),
            provenance=self.provenance(name),
        )  # fmt: skip

    def provenance(self, task: str | None = None) -> Provenance:
        """Return the origin of the users of a task, or of those of the source sequences.

        Args:
            task: name of a task of the corpus; None: the source sequences, which pre-training reads.

        Returns:
            The fingerprint of the corpus, the split of the users, and the settings by which their histories were made
            of events. The settings are None where the manifest lacks them, as those of earlier releases do.

        Raises:
            ArtifactError: the manifest is damaged.
        """
        with description_errors(self.path / "manifest.json"):
            config = self.manifest.get("config")
            split = build_config(SplitConfig, config["split"]) if config else None
            return Provenance(self.manifest["fingerprint"], split, preprocessing_of(self.manifest, task))

    def _map_array(self, name: str) -> Any:
        path = self.path / "cache" / name
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except DAMAGED as error:
            raise ArtifactError(f"cannot be read ({error})", remedy=REMAKE, path=path) from error

    def _check_cache(self, fits: bool) -> None:
        if not fits:
            raise ArtifactError("the cache does not fit the manifest", remedy=REMAKE, path=self.path / "cache")


def _checked(path: Path, expected: str | None) -> Catalogue:
    catalogue = Catalogue.read(path)
    if expected is not None and catalogue.fingerprint != expected:
        raise FingerprintError(
            "is not the catalogue that the corpus was made with "
            f"({short_hash(catalogue.fingerprint)}, {short_hash(expected)})",
            remedy=REMAKE,
            path=path,
        )
    return catalogue


def _require(meta: dict[str, Any], keys: tuple[str, ...], path: Path) -> None:
    for key in keys:
        if key not in meta:
            raise ArtifactError(f"lacks the key {key!r}", remedy=REMAKE, path=path)
