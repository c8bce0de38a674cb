"""The verb `benchmark predict`: the scores of a peterrec model, written as anybody's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from peterrec.answers import Predictions
from peterrec.arguments import checked
from peterrec.artifacts.hub import artifact_folder
from peterrec.benchmark.folder import Benchmark
from peterrec.benchmark.protocol import BenchmarkTask, K
from peterrec.errors import ConfigError, TaskError
from peterrec.model import UserModel
from peterrec.storage import replace_file


@checked
def predict_benchmark(
    benchmark: str | Path, task: str, backbone: str | Path, out: str | Path, *, bundle: str | Path | None = None
) -> pa.Table:
    """Answer a task of the benchmark with a backbone and a bundle, and write it as `score_benchmark` reads it.

    Args:
        benchmark: folder that `build_benchmark` wrote; of it only the test users' histories of the task are read.
        task: name of one of its tasks.
        backbone: folder that `pretrain` wrote.
        out: Parquet file to write.
        bundle: folder that `adapt` wrote; None, of a ranking task only, answers with next items of the backbone.

    Returns:
        What was written: one row for each test user.

    Raises:
        ConfigError: the bundle is missing or of another kind of task.
        TaskError: no such task, or the bundle has other classes.
        UnknownItemsError: no item of the histories is in the catalogue of the backbone.
        ArtifactError, FingerprintError: a folder is missing or damaged, or one is not for the other.
        StorageError: `out` cannot be written.
    """
    opened = Benchmark.open(benchmark)
    question = opened.task(task)
    if bundle is None and question.kind == "classification":
        raise ConfigError(
            f"{task} asks for classes, and there is no bundle", remedy="name a bundle adapted to the label"
        )
    model = UserModel.from_pretrained(artifact_folder(backbone, "backbone"))
    name = None if bundle is None else model.load_bundle(artifact_folder(bundle, "bundle"))
    histories = opened.histories("test", question.first_events)
    table = pa.table({"user_id": list(histories)} | _answers(model, name, question, list(histories.values())))
    with replace_file(Path(out)) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return table


def _answers(model: UserModel, bundle: str | None, task: BenchmarkTask, histories: list[list[Any]]) -> dict[str, Any]:
    if task.kind == "ranking":
        items = model.recommend(histories, bundle, K, exclude_seen=True).items
        return {"items": pa.array(items, pa.list_(model.targets(bundle).ids.type))}
    assert bundle is not None
    answers = model.predict(histories, bundle)
    if not isinstance(answers, Predictions):
        raise TaskError(
            f"the bundle is of a {model.bundle(bundle).kind} task, and classes are asked for",
            remedy="name a bundle adapted to the label",
        )
    if sorted(answers.class_names) != sorted(task.classes):
        raise TaskError(
            f"the classes of the bundle are {', '.join(answers.class_names)}, those of {task.name} "
            f"{', '.join(task.classes)}",
            remedy="adapt to the label of the task, with users of every class",
        )
    places = [answers.class_names.index(name) for name in task.classes]
    return {name: answers.probabilities[:, place] for name, place in zip(task.classes, places, strict=True)}
