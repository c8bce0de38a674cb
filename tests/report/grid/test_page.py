"""The report of a grid: whole, escaped, self-contained, honest about what is missing; its numbers in three forms."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from peterrec.config.experiment import ExperimentConfig
from peterrec.errors import ArtifactError
from peterrec.report.grid.cells import CellKey, CellResult
from peterrec.report.grid.page import last_finished, write_grid_report
from report.grid.grid_cells import (
    CLASSIFICATION,
    MACHINE,
    METHODS,
    cell,
    demonstration,
    demonstration_cells,
    grid_config,
    users_table,
    written,
)
from report.html_page import Page

pytestmark = pytest.mark.slow

COMMAND = "peterrec experiment demo.yaml --out <here>"
HOSTILE = "<b>bold</b> | $x$ [a](b) `c`"


def report(
    config: ExperimentConfig, cells: list[CellResult], out: Path, **options: Any
) -> tuple[str, str, dict[str, Any]]:
    path = write_grid_report(config, cells, out, **{"machine": MACHINE, "command": COMMAND, "skipped": []} | options)
    assert path == out / "report.html"
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return path.read_text(encoding="utf-8"), (out / "results.md").read_text(encoding="utf-8"), results


def one_cell(out: Path) -> tuple[ExperimentConfig, list[CellResult]]:
    """One task, one method, one seed."""
    config = grid_config(
        [
            {
                "name": "q",
                "text": "Which?",
                "methods": ["patch"],
                "sections": ["metrics", "costs", "curves", "label_fractions", "events"],
            }
        ],
        tasks={"gender": CLASSIFICATION},
        seeds=(7,),
    )
    table = users_table([f"u{at}" for at in range(20)], {"accuracy": [1.0] * 12 + [0.0] * 8})
    return config, written(out, [(cell(CellKey("demo", "gender", "patch", 7), table), table)])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExperimentConfig, list[CellResult]]:
    """The demonstration with three cells missing, one of them skipped, and a label that is markup."""
    out = tmp_path_factory.mktemp("grid")
    config = demonstration()
    methods = dict(config.methods) | {"head": config.methods["head"].model_copy(update={"label": HOSTILE})}
    config = config.model_copy(update={"methods": methods})
    return out, config, written(out, demonstration_cells(config, users=150)[:-3])


@pytest.fixture(scope="module")
def written_demo(demo: tuple[Path, ExperimentConfig, list[CellResult]]) -> tuple[str, str, dict[str, Any]]:
    out, config, cells = demo
    return report(config, cells, out, skipped=[(CellKey("demo", "food", "popularity", 0), "<i>no</i> reason")])


@pytest.fixture(scope="module", params=["demo", "one cell", "none"])
def any_html(
    request: pytest.FixtureRequest,
    written_demo: tuple[str, str, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    if request.param == "demo":
        return written_demo[0]
    out = tmp_path_factory.mktemp("other")
    if request.param == "none":
        return report(demonstration(), [], out, command="")[0]
    return report(*one_cell(out), out)[0]


def test_the_page_is_well_formed(any_html: str) -> None:
    page = Page(any_html)
    assert page.mistakes == []
    assert page.tags.count("h1") == 1
    assert page.headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert len(page.ids) == len(set(page.ids))
    assert page.references <= set(page.ids)


def test_the_page_asks_nobody_for_anything(any_html: str) -> None:
    assert "://" not in any_html
    assert not re.search(r"<(script|link|img|iframe|object|embed)\b", any_html)
    assert not re.search(r"\b(src|srcset|on\w+)=", any_html)
    assert "@import" not in any_html
    assert not re.search(r"url\((?!#)", any_html)


def test_every_question_task_method_and_sentence_is_there(
    demo: tuple[Path, ExperimentConfig, list[CellResult]], written_demo: tuple[str, str, dict[str, Any]]
) -> None:
    _, config, _ = demo
    html, markdown, results = written_demo
    text = Page(html).text
    phrases = [config.title, config.description, COMMAND, *(question.text for question in config.questions)]
    phrases += [
        "demo/gender",
        "demo/noise",
        "demo/food",
        *(method.label or name for name, method in config.methods.items()),
    ]
    phrases += [sentence for sentences in results["conclusions"].values() for sentence in sentences]
    phrases += [*results["answers"].values(), "Krichene and Rendle", "70/3/27", "1,000 times"]
    assert [phrase for phrase in phrases if " ".join(phrase.replace("\u00a0", " ").split()) not in text] == []
    assert "Nothing can be told about noise" in markdown


def test_names_are_text_not_markup(written_demo: tuple[str, str, dict[str, Any]]) -> None:
    html, markdown, _ = written_demo
    page = Page(html)
    assert HOSTILE in page.text
    assert "<i>no</i> reason" in page.text
    assert not {"b", "i"} & set(page.tags)
    assert "&amp;lt;" not in html
    assert r"\<b>bold\</b> \| $x$ \[a\](b) \`c\`" in markdown


def test_numbers_are_the_same_in_all_three(written_demo: tuple[str, str, dict[str, Any]]) -> None:
    html, markdown, results = written_demo
    text = Page(html).text
    shown = [row for row in results["values"] if not row["metric"].startswith("ndcg") and row["share"] == 1.0]
    assert len(shown) > 50
    for row in shown:
        digits = 4 if f"{row['mean']:.4f}" in text else 3
        pattern = rf"(?<![\d.]){row['mean']:.{digits}f}"
        if row["low"] is not None:
            pattern += rf"(?: \(best\))?(?:\*\*)?(?: |<br>){row['low']:.{digits}f} to {row['high']:.{digits}f}"
        assert re.search(pattern, text), row
        assert re.search(pattern, markdown), row


def test_what_is_missing_and_what_was_skipped(written_demo: tuple[str, str, dict[str, Any]]) -> None:
    html, markdown, results = written_demo
    text = Page(html).text
    assert results["skipped"] == [
        {"task": "demo/food", "method": "popularity", "seed": 0, "share": 1.0, "reason": "<i>no</i> reason"}
    ]
    assert [(row["method"], row["seed"]) for row in results["missing"]] == [("popularity", 1), ("popularity", 2)]
    assert "2 cells of 203 are missing" in text
    assert "demo/food popularity 2 seeds 1 and 2; 100 % of the labels" in text
    assert "- demo/food, popularity (seeds 1 and 2; 100 % of the labels): not computed yet" in markdown


def test_the_json_has_all_that_was_promised(written_demo: tuple[str, str, dict[str, Any]]) -> None:
    _, _, results = written_demo
    assert {"title", "date", "machine", "command", "seeds", "values", "comparisons", "strata"} <= set(results)
    assert {"conclusions", "skipped", "missing"} <= set(results)
    assert results["date"] == "2026-11-25T12:00:00+00:00"
    assert results["seeds"] == [0, 1, 2]
    (pair,) = (
        row
        for row in results["comparisons"]
        if (row["task"], row["method"], row["share"], row["metric"]) == ("demo/gender", "all", 1.0, "accuracy")
    )
    assert pair["reference"] == "scratch"
    assert pair["verdict"] == "better"
    assert pair["low"] <= pair["difference"] <= pair["high"]
    assert pair["p"] <= pair["p_adjusted"] < 0.05
    assert {row["stratum"] for row in results["strata"]} >= {"2\u20135", "not seen"}
    value = results["values"][0]
    assert set(value) == {
        *("question", "task", "method", "share", "metric", "mean", "low", "high", "sd", "seeds", "users"),
    }
    assert value["mean"] == pytest.approx(sum(value["seeds"].values()) / 3)


@pytest.mark.slow
def test_the_same_cells_give_the_same_bytes(
    demo: tuple[Path, ExperimentConfig, list[CellResult]], written_demo: tuple[str, str, dict[str, Any]]
) -> None:
    out, config, cells = demo
    skipped = [(CellKey("demo", "food", "popularity", 0), "<i>no</i> reason")]
    assert report(config, list(reversed(cells)), out, skipped=skipped) == written_demo


def test_one_cell_is_a_report(tmp_path: Path) -> None:
    config, cells = one_cell(tmp_path)
    html, _, results = report(config, cells, tmp_path)
    text = Page(html).text
    assert "0.600" in text
    assert "One seed (7)" in text
    assert "Everything that the questions ask for was computed." in text
    assert results["missing"] == []
    assert Page(html).best == []


def test_the_best_value_is_marked_also_where_a_small_one_is_good(written_demo: tuple[str, str, dict[str, Any]]) -> None:
    html, _, results = written_demo
    best = Page(html).best
    key = ("fine-tuning", "demo/gender", "log_loss", 1.0)
    values = [row for row in results["values"] if (row["question"], row["task"], row["metric"], row["share"]) == key]
    low, *_, high = sorted(row["mean"] for row in values)
    assert f"{low:.3f}" in best
    assert f"{high:.3f}" not in best


def test_the_date_is_that_of_the_last_cell(tmp_path: Path) -> None:
    _, (cell,) = one_cell(tmp_path)
    dates = ["2026-11-25T12:00:00+00:00", "2026-11-26T01:00:00+02:00", "2026-11-25T13:00:00", "", "soon"]
    latest = last_finished([cell.model_copy(update={"finished": date}) for date in dates])
    assert latest.isoformat() == "2026-11-25T23:00:00+00:00"


def test_without_cells_the_report_says_so(tmp_path: Path) -> None:
    html, _, results = report(demonstration(), [], tmp_path)
    assert "Not computed yet." in Page(html).text
    assert len(results["missing"]) == 204
    assert results["values"] == []


def test_a_damaged_table_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    config, cells = one_cell(tmp_path)
    path = tmp_path / cells[0].key.folder / "users.parquet"
    path.write_bytes(b"x")
    with pytest.raises(ArtifactError, match="seed-7"):
        report(config, cells, tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_all_methods_of_the_demonstration_are_known() -> None:
    assert set(demonstration().methods) == set(METHODS)
