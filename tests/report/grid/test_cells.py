"""What is kept of a cell: it comes back as it was, and damage is told."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from peterrec.errors import ArtifactError
from peterrec.report.grid.cells import CellKey, CellResult, Cost, read_cell, read_users, write_cell

KEY = CellKey("ml-1m", "gender", "patch", 2, 0.05)
USERS = pa.table({"user_id": ["a", "b"], "events": [3, 4], "seen": [True, False], "rows": [1, 1], "accuracy": [0.0, 1]})


def result() -> CellResult:
    return CellResult(
        data=KEY.data,
        task=KEY.task,
        method=KEY.method,
        seed=KEY.seed,
        share=KEY.share,
        inputs={"source": "abc", "adapt": {"epochs": 3}},
        task_kind="classification",
        family="adapt",
        users={"train": 5, "valid": 1, "test": 2},
        classes={"f": 1, "m": 1},
        metrics={"accuracy": 0.5},
        primary="accuracy",
        cost=Cost(trained={"patch": 7}, seconds=1.5),
        monitor="log_loss",
        curve=[{"epoch": 0.0, "log_loss": 0.7, "seconds": None}],
        best_epoch=0,
    )


def test_places_are_told_apart_and_readable() -> None:
    assert str(KEY.folder) == "cells/ml-1m/gender/patch/seed-2-share-5"
    shares = (0.001, 0.01, 0.07, 0.1, 0.29, 1.0)
    names = [CellKey("d", "t", "m", 0, share).folder.name for share in shares]
    assert names == [f"seed-0-share-{text}" for text in ("0.1", "1", "7", "10", "29", "100")]
    assert KEY.task_path == "ml-1m/gender"


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    path = write_cell(tmp_path, result(), USERS)
    assert path == tmp_path / KEY.folder
    assert read_cell(path) == result()
    assert read_cell(path).key == KEY
    assert read_users(path).equals(USERS)
    changed = result().model_copy(update={"metrics": {"accuracy": 1.0}})
    write_cell(tmp_path, changed, USERS)
    assert read_cell(path) == changed
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name], "nothing is left beside it"


def test_what_is_not_a_cell_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / KEY.folder).mkdir(parents=True)
    (tmp_path / KEY.folder / "mine.txt").write_text("keep")
    with pytest.raises(ArtifactError, match="is not a cell"):
        write_cell(tmp_path, result(), USERS)
    assert (tmp_path / KEY.folder / "mine.txt").read_text() == "keep"


def test_damage_is_told(tmp_path: Path) -> None:
    path = write_cell(tmp_path, result(), USERS)
    text = (path / "cell.json").read_text()
    (path / "cell.json").write_text(text.replace('"primary"', '"secondary"'))
    with pytest.raises(ArtifactError, match="is no cell of a grid"):
        read_cell(path)
    (path / "cell.json").write_text(text[:50])
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_cell(path)
    (path / "users.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_users(path)
