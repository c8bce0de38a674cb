"""The folder of a benchmark: tables with fingerprints of their rows, written once and checked when they are read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from peterrec.arguments import names_there
from peterrec.benchmark.protocol import VERSION, BenchmarkTask, history_file
from peterrec.data.corpus import DAMAGED, Part
from peterrec.errors import ArtifactError, FingerprintError, FormatVersionError, TaskError
from peterrec.storage import description_errors, read_artifact

DESCRIPTION = "benchmark.json"
REBUILD = "run `peterrec benchmark build` again"


def fingerprint(table: pa.Table) -> str:
    """Return the sha256 of a table's rows: of the JSON list [name, values as text or null] of each column in turn.

    Not of the bytes of its file: a Parquet writer signs them with its version.
    """
    digest = hashlib.sha256()
    for name in table.column_names:
        values = table[name].cast(pa.string()).to_pylist()
        digest.update(json.dumps([name, values], ensure_ascii=False, separators=(",", ":")).encode())
    return digest.hexdigest()


def write_table(folder: Path, name: str, table: pa.Table) -> dict[str, Any]:
    """Write a table and return its entry of `benchmark.json`."""
    (folder / name).parent.mkdir(exist_ok=True)
    pq.write_table(table, folder / name, compression="zstd")
    return {"rows": len(table), "columns": table.column_names, "fingerprint": fingerprint(table)}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that was built, opened for reading.

    Attributes:
        path: its folder.
        description: its `benchmark.json`.
        tasks: by name.
    """

    path: Path
    description: dict[str, Any]
    tasks: dict[str, BenchmarkTask]

    @classmethod
    def open(cls, path: str | Path) -> Benchmark:
        """Open a folder written by `build_benchmark`.

        Raises:
            ArtifactError: not a benchmark, or damaged.
            FormatVersionError: of another version of the format or of the protocol.
        """
        path = Path(path)
        description = read_artifact(path, "benchmark")
        with description_errors(path / DESCRIPTION):
            tasks = [BenchmarkTask.from_json(entry) for entry in description["tasks"]]
            _ = {key: description[key] for key in ("name", "version", "fingerprint", "files")}
        if description["version"] != VERSION:
            problem = f"has version {description['version']} of the benchmark; this release judges version {VERSION}"
            raise FormatVersionError(problem, remedy=f"install the release that built it, or {REBUILD}", path=path)
        return cls(path, description, {task.name: task for task in tasks})

    def task(self, name: str) -> BenchmarkTask:
        """Return a task by its name.

        Raises:
            TaskError: no such task; the message lists those there are.
        """
        if name not in self.tasks:
            names = names_there(name, self.tasks, "it has")
            raise TaskError(f"has no task {name!r}{names}", remedy="name one of these", path=self.path)
        return self.tasks[name]

    def table(self, name: str) -> pa.Table:
        """Read one of its files.

        Raises:
            ArtifactError: it is missing or damaged.
            FingerprintError: it is not as it was built.
        """
        path = self.path / name
        try:
            table = pq.read_table(path)
        except DAMAGED as error:
            raise ArtifactError(f"cannot be read ({error})", remedy=REBUILD, path=path) from error
        with description_errors(self.path / DESCRIPTION):
            expected = self.description["files"][name]["fingerprint"]
        if fingerprint(table) != expected:
            raise FingerprintError("was changed since it was built: its rows are others", remedy=REBUILD, path=path)
        return table

    def histories(self, part: Part, first_events: int) -> dict[str, list[Any]]:
        """Return the item ids of each user's first events, oldest first, by user id as text; errors as of `table`."""
        table = self.table(history_file(part, first_events))
        histories: dict[str, list[Any]] = {}
        for user, item in zip(texts(table["user_id"]), table["item_id"].to_pylist(), strict=True):
            histories.setdefault(user, []).append(item)
        return histories

    def answers(self, task: BenchmarkTask) -> dict[str, str]:
        """Return the class or target of each test user who has one, as texts, by user id; errors as of `table`."""
        table = self.table("test_answers.parquet")
        pairs = zip(texts(table["user_id"]), texts(table[task.answers]), strict=True)
        return {user: answer for user, answer in pairs if answer is not None}


def texts(column: pa.ChunkedArray) -> list[Any]:
    """Return the values of a column as texts: ids are compared as they are written, whatever their type."""
    values: list[Any] = column.cast(pa.string()).to_pylist()
    return values
