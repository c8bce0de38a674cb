"""Messages that say what was meant: another verb's file, another folder, a flag without its task, a misspelt name."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from peterrec.cli.main import execute
from peterrec.data.corpus import Corpus
from peterrec.data.synthetic import synthetic

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def events(tmp_path: Path) -> str:
    path = tmp_path / "events.parquet"
    pq.write_table(synthetic(users=300, items=20, targets=6, mean_events=8, seed=1).events, path)
    return str(path)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the message with which a command line is refused."""
    assert execute(list(arguments)) == 2
    return capsys.readouterr().err


def test_a_flag_for_the_history_of_ranking_tasks(tmp_path: Path, events: str) -> None:
    out = str(tmp_path / "corpus")
    flags = ["--rank", "target", "--history", "before-first-target"]
    assert execute(["prepare", events, "--domain", "domain", *flags, "-o", out, "-q"]) == 0
    (task,) = Corpus.open(out).manifest["config"]["tasks"]
    assert (task["kind"], task["history"]) == ("ranking", "before-first-target")


def test_a_history_without_its_task_or_of_another_name(
    tmp_path: Path, events: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare = ["prepare", events, "--domain", "domain", "-o", str(tmp_path / "corpus"), "-q"]
    assert "--history is of tasks of --rank" in refusal(capsys, *prepare, "--history", "all")
    message = refusal(capsys, *prepare, "--rank", "target", "--history", "before-first")
    assert "before-first-target" in message
    assert not (tmp_path / "corpus").exists()


def test_the_file_of_a_run_given_to_a_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo = str(ROOT / "configs" / "demo.yaml")
    message = refusal(capsys, "pretrain", "corpus", "-o", str(tmp_path / "b"), "--config", demo)
    assert f"peterrec run {demo}" in message


def test_a_backbone_where_a_corpus_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ml_bb").mkdir()
    (tmp_path / "ml_bb" / "config.json").write_text(json.dumps({"kind": "backbone", "format_version": 2}))
    message = refusal(capsys, "pretrain", str(tmp_path / "ml_bb"), "-o", str(tmp_path / "b"))
    assert f"{tmp_path / 'ml_bb'}: is a backbone; a corpus is wanted" in message
    assert "peterrec prepare" in message
