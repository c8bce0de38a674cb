"""The verb `prepare`: events in, corpus out."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from peterrec._version import __version__
from peterrec.arguments import checked
from peterrec.config import (
    ClassificationTaskConfig,
    EventsConfig,
    PrepareConfig,
    RankingTaskConfig,
    TaskConfig,
    dump_yaml,
)
from peterrec.data.arrow_arrays import feature_lists, to_lists
from peterrec.data.cache import cache_folder, cached_path, only_maker
from peterrec.data.corpus import Corpus
from peterrec.data.frames import FrameFiles
from peterrec.data.new_users import NOBODY
from peterrec.data.prepare.engine import Engine
from peterrec.data.prepare.event_sequences import SequenceFile, pieces
from peterrec.data.prepare.events import Events, open_events
from peterrec.data.prepare.feature_columns import with_catalogue_features
from peterrec.data.prepare.files import InputFile, describe, find_files
from peterrec.data.prepare.filter_summary import (
    new_user_counts,
    new_user_warnings,
    owner_warnings,
    sequence_steps,
    shape,
    summary_lines,
)
from peterrec.data.prepare.inputs import Keywords, prepare_config, recorded_config
from peterrec.data.prepare.labels import describe_labels
from peterrec.data.prepare.leaks import refuse_later_source, refuse_targets_in_source
from peterrec.data.prepare.open_engine import open_engine
from peterrec.data.prepare.source_events import Source, catalogue_file, select_source
from peterrec.data.prepare.targets import TargetEvents, target_events, task_events
from peterrec.data.prepare.tasks import (
    UserHistories,
    cut_of,
    label_task,
    one_class_part_warnings,
    similar_class_warnings,
    task_ends,
    write_task,
)
from peterrec.data.shorten import UNCUT, shorten
from peterrec.errors import ArtifactError, DataError
from peterrec.storage import FORMAT_VERSION, new_folder, sha256_file, write_file, write_json

Report = Callable[[str], None]


@checked
def prepare(
    events: Any,
    out: str | Path | None = None,
    *,
    users: Any = None,
    label_user: str | None = None,
    classify: str | Sequence[str] | Mapping[str, str] = (),
    rank: str | Sequence[str] | Mapping[str, str] = (),
    regress: str | Sequence[str] | Mapping[str, str] = (),
    multilabel: str | Sequence[str] | Mapping[str, str] = (),
    history: str | None = None,
    overwrite: bool = False,
    report: Report | None = None,
    session: Any = None,
    **settings: Any,
) -> Corpus:
    """Turn events into a corpus: catalogue, sequences and labelled tasks (paper, section 3.1).

    Memory stays bounded however many events there are: they are held in an embedded database on disk, beside `out`,
    and cut into sequences some users at a time. Memory holds the catalogue, about 40 bytes for each user, and the
    labels and targets of one task. The same log gives the same corpus, byte for byte, whatever its files look like.

    Args:
        events: a DataFrame (pandas, Polars, PyArrow, DuckDB, PySpark, ... : what narwhals reads), a path or paths of
            Parquet and CSV, or a `PrepareConfig` that says all of it.
        out: folder of the corpus; it appears only when everything is in it. None: one in `~/.cache/peterrec` (or
            `PETERREC_CACHE`), named by what goes into it, and opened if it is there.
        users: DataFrame or path of a table with one row per user, for `classify`, `regress` and `multilabel`.
        label_user: its column with the user id; None: as in the events.
        classify: columns of `users` to predict, each a task of its name; or a mapping of names of tasks to columns.
        rank: domains to recommend items of, which are left out of the source; or a mapping of names to domains.
        regress: columns of `users` whose numbers are to be predicted; or a mapping, as of `classify`.
        multilabel: columns of `users` that hold any number of labels, as lists or as texts with `|` between them; or a
            mapping, as of `classify`.
        history: what the tasks of `rank` read: `all`, or `before-first-target` (only what came before a user's first
            event of the domain, whose items then are the targets).
        overwrite: replace the corpus at `out`.
        report: called with one line at a time about events and users that are kept and dropped, and why.
        session: a `pyspark.sql.SparkSession` that does the work, whatever `engine` says; it is neither stopped nor
            changed. A DataFrame of Spark brings its own.
        settings: of `PrepareConfig` (`source`, `split`, `tasks`, ...) and of the columns of the events (`user`, `item`,
            `time`, `domain`, ...: `EventsConfig`), by name; groups are mappings: `source={"max_history": 100}`.

    Returns:
        The corpus at `out`, opened: item indices (int32, from 4 on) of all users, oldest first.

    Raises:
        DataError: the events or a table of labels cannot be used as they are, or nobody is left to pre-train on.
        TaskError: a task cannot be learned from what is given, or its answers are in the source sequences.
        ConfigError: an argument or a setting is wrong, a time limit or domain does not fit the events, or the memory
            limit is too small.
        ArtifactError: `out` exists and `overwrite` is false; or it is not a corpus, or what is read lies in it.
        StorageError: the disk is full or the place is not writable.
    """
    say = report or (lambda line: None)
    parent = cache_folder() if out is None else Path(out).absolute().parent
    with FrameFiles(parent) as frames, frames.named_in_errors(), contextlib.ExitStack() as lock:
        keywords = Keywords(users, label_user, classify, rank, regress, history, multilabel)
        config = _with_catalogue_features(prepare_config(events, keywords, settings, frames))
        files = input_files(config)
        identities = [
            file.identity() if frames.name_of(file.path) is None else frames.identity(file.path) for file in files
        ]
        recorded = _without_engine(recorded_config(config, frames))
        if out is None:
            out = cached_path("corpus", __version__, dump_yaml(recorded), json.dumps(identities))
            lock.enter_context(only_maker(out))
            if out.exists() and not overwrite:
                say(f"opening {out}, which was made of the same events")
                return Corpus.open(out)
        if overwrite:
            _check_replaceable(Path(out), config)
        with new_folder(Path(out), overwrite=overwrite, kind="corpus") as folder:
            scratch = folder / "scratch"
            scratch.mkdir()
            with open_engine(
                scratch,
                config.memory_limit,
                config.threads,
                engine=config.engine,
                master=config.master,
                session=session or frames.session,
            ) as engine:
                _Preparation(engine, config, folder, scratch, say, recorded, identities).run()
            _remove_folder(scratch)
    return Corpus.open(out)


def _with_catalogue_features(config: PrepareConfig) -> PrepareConfig:
    """Return settings with the features of events that the catalogue given was prepared with."""
    if config.catalogue is None:
        return config
    events = config.events
    file = describe(find_files(events.paths)[0], [], separator=events.separator, columns=events.columns)
    return config.model_copy(update={"events": with_catalogue_features(events, config.catalogue, file.columns)})


def _check_replaceable(out: Path, config: PrepareConfig) -> None:
    """Refuse to replace what is no corpus, or has in it what is to be read."""
    if out.exists() and not (out / "manifest.json").is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise ArtifactError("is there and is not a corpus", remedy="choose another folder, or remove it", path=out)
    catalogue = None if config.catalogue is None else catalogue_file(config.catalogue)
    for file in input_files(config):
        if out.resolve() in file.path.resolve().parents and file.path != catalogue:
            raise ArtifactError(
                f"holds {file.path}, which is read: it would be replaced", remedy="choose another folder", path=out
            )


def _remove_folder(scratch: Path) -> None:
    for path in sorted(scratch.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    scratch.rmdir()


@dataclass
class _Preparation:
    """One run of `prepare`, step by step."""

    engine: Engine
    config: PrepareConfig
    folder: Path
    scratch: Path
    say: Report
    recorded: PrepareConfig
    identities: list[dict[str, str | int]]
    warnings: list[str] = field(default_factory=list)
    tied_events: int = 0

    def run(self) -> None:
        self.say(f"reading {len(self.identities)} file{'s' if len(self.identities) != 1 else ''}")
        events = open_events(self.engine, self.config.events)
        source = select_source(self.engine, events, self.config)
        self.say(f"{source.users.events.sum():,} source events of {len(source.users):,} users; cutting sequences")
        targets = self._targets(events, source)
        histories = self._sequences(events, source, targets)
        entries = [self._task(task, events, source, histories, targets) for task in self.config.tasks]
        self.warnings += self._warnings(events, source, targets)
        self._finish(events, source, histories[""], entries)

    def _targets(self, events: Events, source: Source) -> dict[str, TargetEvents]:
        """Find the target events of ranking tasks, and refuse tasks whose answers are in the source."""
        targets = {}
        for task in self.config.tasks:
            if isinstance(task, RankingTaskConfig):
                task_targets = target_events(self.engine, task, events, self.config.events, source)
                self.warnings += refuse_targets_in_source(events, source.chosen, task, task_targets)
                targets[task.name] = task_targets
            elif isinstance(task, ClassificationTaskConfig) and task.activity is not None:
                refuse_later_source(events, source.chosen, task)
        return targets

    def _sequences(self, events: Events, source: Source, targets: dict[str, TargetEvents]) -> dict[str, UserHistories]:
        """Write the sequences; return those of the corpus as "", and those of tasks that read others by task."""
        cuts = {}
        for task in self.config.tasks:
            times = task_ends(task, events, source, targets.get(task.name))
            if times is not None or cut_of(task) != UNCUT:
                cuts[task.name] = times
        with contextlib.ExitStack() as files:
            features = source.encoder is not None
            main = files.enter_context(SequenceFile(self.folder / "cache", features=features))
            early = {
                name: files.enter_context(SequenceFile(self.scratch / f"history-{number}", features=features))
                for number, name in enumerate(cuts)
            }
            return self._cut(source, cuts, main, early)

    def _cut(
        self, source: Source, cuts: dict[str, Any], main: SequenceFile, early: dict[str, SequenceFile]
    ) -> dict[str, UserHistories]:
        """Cut the sequences, some users at a time."""
        (self.folder / "sequences").mkdir()
        lengths = np.zeros(len(source.users), dtype=np.int64)
        early_lengths = {name: np.zeros(len(source.users), dtype=np.int64) for name in cuts}
        users, tasks = source.users, {task.name: cut_of(task) for task in self.config.tasks}
        timed = [name for name, times in cuts.items() if times is not None]
        for number, piece in enumerate(pieces(self.engine, source, [cuts[name] for name in timed])):
            ends = dict(zip(timed, piece.cuts, strict=True))
            self.tied_events += piece.tied_events
            sequences = shorten(piece.sequences, self.config.source, encoder=source.encoder)
            enough = sequences.lengths >= self.config.source.min_user_events
            lengths[piece.places] = np.where(enough, sequences.lengths, 0)
            chosen = sequences.take(np.flatnonzero(enough))
            main.append(chosen)
            user_ids = piece.user_ids.filter(pa.array(enough))
            table = pa.table({"user_id": user_ids, "sequence": to_lists(chosen), **feature_lists(chosen)})
            pq.write_table(table, self.folder / "sequences" / f"part-{number:05d}.parquet", compression="zstd")
            for name in cuts:
                cut_off = shorten(piece.sequences, self.config.source, ends.get(name), tasks[name], source.encoder)
                early[name].append(cut_off)
                early_lengths[name][piece.places] = np.where(enough, cut_off.lengths, 0)
        rows = np.where(lengths > 0, np.cumsum(lengths > 0) - 1, -1)
        np.save(self.folder / "cache" / "user_hashes.npy", users.hashes[lengths > 0])
        if self.config.new_users != NOBODY:
            np.save(self.folder / "cache" / "new_users.npy", users.new[lengths > 0])
        all_users = np.arange(len(users))
        out = {"": UserHistories(main.close(), rows, lengths)}
        if not len(out[""].sequences):
            raise DataError(
                f"no user has {self.config.source.min_user_events} source events",
                remedy="lower source.min_user_events",
            )
        if users.new[lengths > 0].all():
            raise DataError(
                "all users with a sequence are new, so nobody is left to pre-train on",
                remedy="keep out fewer users under `new_users`, or lower source.min_user_events",
            )
        return out | {name: UserHistories(file.close(), all_users, early_lengths[name]) for name, file in early.items()}

    def _task(
        self,
        task: TaskConfig,
        events: Events,
        source: Source,
        histories: dict[str, UserHistories],
        targets: dict[str, TargetEvents],
    ) -> dict[str, Any]:
        task_histories = histories.get(task.name, histories[""])
        labelled = label_task(
            self.engine, task, source.users, task_histories, (events, self.config.events), targets.get(task.name)
        )
        folder = self.folder / "tasks" / task.name
        entry = write_task(folder, task, labelled, source, task_histories, self.config.split)
        self.warnings += one_class_part_warnings(task, labelled, source.users)
        self.warnings += similar_class_warnings(task, labelled)
        return entry

    def _warnings(self, events: Events, source: Source, targets: dict[str, TargetEvents]) -> list[str]:
        task_warnings = [
            f"task {name}: {line}" for name, task_targets in targets.items() for line in task_targets.warnings
        ]
        return [*events.warnings, *task_warnings, *owner_warnings(source), *new_user_warnings(source, self.config)]

    def _finish(
        self,
        events: Events,
        source: Source,
        main: UserHistories,
        entries: list[dict[str, Any]],
    ) -> None:
        source.catalogue.write(self.folder / "catalogue.parquet")
        steps = [*source.steps, *sequence_steps(source, main, self.config.source)]
        manifest: dict[str, Any] = {
            "kind": "corpus",
            "format_version": FORMAT_VERSION,
            "peterrec_version": __version__,
            "users": len(main.sequences),
            "events": len(main.sequences.items),
            "items": len(source.catalogue),
            "fingerprint": self._fingerprint(source, entries),
            "catalogue_fingerprint": source.catalogue.fingerprint,
            **new_user_counts(source, main, self.config.new_users),
            "rare_items": self.config.source.rare_items,
            "time_kind": events.time_kind,
            "units_per_second": source.units_per_second or 1.0,
            **self._feature_facts(source),
            "steps": steps,
            "ties": {
                "events": self.tied_events,
                "fraction": self.tied_events / int(source.users.events.sum()),
                "ordered_by": "hash" if self.tied_events else self.config.events.ties,
            },
            "shape": shape(source, main),
            "tasks": entries,
            "warnings": self.warnings,
            "inputs": self.identities,
            "config": self.recorded.model_dump(mode="json"),
        }
        write_json(self.folder / "manifest.json", manifest)
        write_file(self.folder / "config.yaml", dump_yaml(self.recorded).encode())
        for line in summary_lines(manifest):
            self.say(line)

    def _feature_facts(self, source: Source) -> dict[str, Any]:
        """Return the features of events, with their categories, as the manifest has them."""
        if source.encoder is None:
            return {}
        return {"event_features": [feature.model_dump(mode="json") for feature in source.encoder.features]}

    def _fingerprint(self, source: Source, entries: list[dict[str, Any]]) -> str:
        digest = hashlib.sha256(source.catalogue.fingerprint.encode())
        names = ("items", "offsets", "user_hashes", *(["new_users"] if self.config.new_users != NOBODY else []))
        if source.encoder is not None:
            names += ("features",)
            digest.update(json.dumps(self._feature_facts(source), sort_keys=True).encode())
        for name in names:
            digest.update(sha256_file(self.folder / "cache" / f"{name}.npy").encode())
        for entry in entries:
            digest.update(entry["fingerprint"].encode())
        return digest.hexdigest()


def _without_engine(config: PrepareConfig) -> PrepareConfig:
    """Return the settings that say what the corpus is, and not what made it."""
    return config.model_copy(update={"engine": "duckdb", "master": None})


def input_files(config: PrepareConfig) -> list[InputFile]:
    """Return every file that a preparation reads, once: events, the catalogue given, tables of labels, events of tasks.

    Raises:
        DataError: a file is missing or cannot be read.
        ArtifactError: there is no catalogue where one should be.
    """
    files = _event_files(config.events)
    if config.catalogue is not None:
        files.append(describe(catalogue_file(config.catalogue), []))
    for task in config.tasks:
        if isinstance(task, RankingTaskConfig):
            files += [] if task.events is None else _event_files(task_events(task.events, config.events))
        elif task.labels is not None:
            files.append(describe_labels(task.labels))
    once: dict[Path, InputFile] = {}
    for file in files:
        once.setdefault(file.path.resolve(), file)
    return list(once.values())


def _event_files(config: EventsConfig) -> list[InputFile]:
    return [describe(path, [], separator=config.separator, columns=config.columns) for path in find_files(config.paths)]
