"""`peterrec experiment`: a grid from a file, its report, and what is wrong with the input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from experiments.grid.small_grid import question, small_grid
from peterrec.cli.main import execute


def write_grid(folder: Path, *overrides: str) -> str:
    config = small_grid(*overrides, questions=[question("majority", "popularity", compare=[])])
    (folder / "grid.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    return str(folder / "grid.yaml")


@pytest.mark.slow
def test_it_computes_says_and_concludes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid, out = write_grid(tmp_path), tmp_path / "out"
    arguments = ["experiment", grid, "-o", str(out), "-j", "1", "--set", "title=Ours & theirs"]
    assert execute(arguments) == 0
    output = capsys.readouterr()
    assert "2 cells, 0 of them finished before" in output.err
    assert "small/cluster majority, seed 0: accuracy" in output.err
    assert output.out.startswith("Which?\n  ")
    assert f"The report is {out / 'report.html'}" in output.out
    page = (out / "report.html").read_text()
    assert "Ours &amp; theirs" in page
    assert "--set &#39;title=Ours &amp; theirs&#39;" in page
    assert execute([*arguments, "--quiet"]) == 0
    second_output = capsys.readouterr()
    assert second_output.err == ""
    assert second_output.out == output.out
    for name in ("report.html", "results.md", "results.json"):
        (out / name).unlink()
    assert execute([*arguments, "--report-only"]) == 0
    assert (out / "report.html").read_text() == page, "the same cells give the same report"


def test_failures_are_told_and_the_status_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = write_grid(tmp_path, "data.small.prepare.source.min_item_events=100000")
    assert execute(["experiment", grid, "-o", str(tmp_path / "out"), "-j", "1"]) == 1
    stderr = capsys.readouterr().err
    assert "3 steps of the grid failed" in stderr
    assert "small corpus, seed 0: " in stderr
    assert "run the same command again" in stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no grid to compute"),
        (["GRID", "--quick"], "both a file and --quick are given"),
        (["GRID", "--report-only", "--overwrite"], "--report-only computes nothing"),
        (["GRID", "--report-only"], "is no folder of a grid"),
        (["GRID", "-s", "methods.patch.adapt.epoch=1"], "method 'patch' on 'small'"),
        (["GRID", "-s", "seed=1"], "seed: there is no such setting"),
        (["--quick", "-s", "questions=[]"], "questions"),
        (["missing.yaml"], "missing.yaml: cannot be read"),
    ],
)
def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    grid, out = write_grid(tmp_path), tmp_path / "out"
    command = ["experiment", *(grid if argument == "GRID" else argument for argument in arguments), "-o", str(out)]
    assert execute(command) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert "What to do:" in output.err
    assert output.out == ""
    assert not out.exists()


def test_data_are_looked_for_where_they_are_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_grid(questions=[question("majority")]).model_dump(mode="json", exclude_unset=True)
    del config["data"]["small"]["synthetic"]
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(config))
    command = [
        "experiment",
        str(tmp_path / "grid.yaml"),
        "-o",
        str(tmp_path / "out"),
        "--data",
        str(tmp_path / "there"),
    ]
    assert execute(command) == 2
    assert f"{tmp_path / 'there' / 'events.parquet'}: there is no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_quick_grid_finds_what_was_planted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from peterrec.storage import read_json

    jobs = min(2, os.cpu_count() or 1)
    assert execute(["experiment", "--quick", "-o", str(tmp_path / "out"), "-j", str(jobs), "-q"]) == 0
    results = read_json(tmp_path / "out" / "results.json")
    assert results["skipped"] == []
    assert results["missing"] == []
    verdicts = {(c["question"], c["task"], c["method"], c["reference"], c["metric"]): c for c in results["comparisons"]}
    primary = {"planted/cluster": "accuracy", "planted/target": "mrr@5"}
    for task, metric in primary.items():
        for method, reference in (("patch", "patch-random"), ("all", "scratch")):
            comparison = verdicts["pretraining", task, method, reference, metric]
            assert comparison["verdict"] == "better"
            assert comparison["low"] > comparison["difference"] / 2 > 0, "with room to spare"
    for (question_, _, _, reference, metric), comparison in verdicts.items():
        if question_ == "noise" and metric == "accuracy":
            assert reference == "majority"
            assert comparison["verdict"] != "better"
            assert abs(comparison["difference"]) < 0.1
    conclusion = " ".join(results["conclusions"]["noise"])
    assert "no method is better than majority" in conclusion
