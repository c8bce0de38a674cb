"""The page: complete, escaped, self-contained, well formed, the same for the same record."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from peterrec.evaluation.results import MetricEstimate, TaskEvaluation
from peterrec.report.run.page import paragraphs, render, write_report
from peterrec.report.run.record import ClassFacts, Curve, RunRecord, TaskRecord
from report.html_page import Page

MakeRecord = Callable[..., RunRecord]


@pytest.fixture(scope="session")
def odd_record(make_record: MakeRecord, make_evaluation: Callable[..., TaskEvaluation]) -> RunRecord:
    """One strategy, no baseline, undefined limits, many classes, names that are markup."""
    name = "<script>alert(1)</script> & a task with a name that goes on and on and on and on"
    values = {"accuracy": (0.31, 0.02), "macro_f1": (0.05, 0.01), "log_loss": (2.7, 0.1)}
    evaluation = make_evaluation(name, "classification", "accuracy", {"patch": values}, users=12, outputs=21)
    method = evaluation.methods[0]
    undefined = {key: MetricEstimate(value=v.value, low=None, high=None) for key, v in method.values.items()}
    evaluation = evaluation.model_copy(update={"methods": [method.model_copy(update={"values": undefined})]})
    age = make_record().tasks[1]
    classes = [ClassFacts(name=f"<b>class {i}</b> $x$ 職業", users=10 + i) for i in range(21)]
    facts = age.facts.model_copy(update={"name": name, "classes": classes, "steps": []})
    task = TaskRecord(facts=facts, bundles=age.bundles[:1], evaluation=evaluation)
    return make_record(title="<html> & co", tasks=[task], command="")


def from_the_start(record: RunRecord) -> RunRecord:
    """A record whose trainings evaluated their start: one kept it, and of another a cross-validation chose it."""
    task = record.tasks[0]
    start = {"log_loss": 0.5101, "accuracy": 0.7501}
    patch, head = (
        bundle.model_copy(
            update={"curve": bundle.curve.model_copy(update={"best_epoch": -1, "start": start, "rows": rows})}
        )
        for bundle, rows in zip(task.bundles, (task.bundles[0].curve.rows, []), strict=True)
    )
    later = task.bundles[0].model_copy(
        update={"strategy": "all", "curve": task.bundles[0].curve.model_copy(update={"start": start})}
    )
    return record.model_copy(update={"tasks": [task.model_copy(update={"bundles": [patch, head, later]})]})


@pytest.fixture(scope="session", params=["whole", "no tasks", "odd", "bare", "from the start"])
def any_record(request: pytest.FixtureRequest, make_record: MakeRecord, odd_record: RunRecord) -> RunRecord:
    if request.param == "odd":
        return odd_record
    if request.param == "no tasks":
        return make_record(tasks=[])
    if request.param == "bare":
        return bare(make_record())
    return from_the_start(make_record()) if request.param == "from the start" else make_record()


@pytest.fixture(scope="session")
def any_html(any_record: RunRecord) -> str:
    return render(any_record)


@pytest.fixture(scope="session")
def html(record: RunRecord) -> str:
    return render(record)


@pytest.fixture(scope="session")
def text(html: str) -> str:
    return Page(html).text


def bare(record: RunRecord) -> RunRecord:
    """A record whose corpus told no more than it must, with nothing in the curve."""
    absent = {"steps": [], "inputs": [], "history_length": None, "item_events": None, "median_history": None}
    data = record.data.model_copy(update={**absent, "top_share": {}, "first": None, "last": None})
    nothing = Curve(monitor="valid_loss", best_epoch=0, rows=[])
    backbone = record.backbone.model_copy(update={"curve": nothing})
    return record.model_copy(update={"data": data, "backbone": backbone, "stages": [], "tasks": []})


def test_the_page_is_well_formed(any_html: str) -> None:
    page = Page(any_html)
    assert page.mistakes == []
    assert page.tags.count("h1") == 1
    assert page.headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))


def test_ids_are_unique_and_every_reference_finds_one(any_html: str) -> None:
    page = Page(any_html)
    assert len(page.ids) == len(set(page.ids))
    assert page.references <= set(page.ids)


def test_the_page_asks_nobody_for_anything(any_html: str) -> None:
    assert "://" not in any_html
    assert not re.search(r"<(script|link|img|iframe|object|embed)\b", any_html)
    assert not re.search(r"\b(src|srcset|on\w+)=", any_html)
    assert "@import" not in any_html
    assert not re.search(r"url\((?!#)", any_html)


def test_figures_are_named_for_those_who_cannot_see_them(html: str) -> None:
    figures = re.findall(r"<svg [^>]*>(?:<title|<path)", html)
    images = [figure for figure in figures if 'role="img"' in figure]
    assert len(images) == 4 + 2 + 3 + 2  # dots (AUC too for the binary task), pre-training, adaptation, data
    assert all("aria-labelledby" in figure and figure.endswith("<title") for figure in images)
    assert all('aria-hidden="true"' in figure for figure in figures if figure not in images)
    assert '<html lang="en">' in html


@pytest.mark.slow
def test_the_same_record_gives_the_same_bytes_also_after_json(any_record: RunRecord, any_html: str) -> None:
    assert any_html == render(RunRecord.model_validate_json(any_record.model_dump_json()))


@pytest.mark.slow
def test_the_report_is_written_where_it_was_asked_for(record: RunRecord, html: str, tmp_path: Path) -> None:
    path = write_report(record, str(tmp_path / "report.html"))
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == html


def test_every_result_is_on_the_page(record: RunRecord, text: str) -> None:
    for task in record.tasks:
        for part in paragraphs(task.evaluation.sentence):
            assert part in text
        for method in task.evaluation.methods:
            for name, value in method.values.items():
                digits = 4 if max(m.values[name].value for m in task.evaluation.methods) < 0.1 else 3
                assert value.low is not None
                assert value.high is not None
                # every value with its interval
                pattern = rf"{value.value:.{digits}f} (\(best\) )?{value.low:.{digits}f} to {value.high:.{digits}f}"
                assert re.search(pattern, text), (task.name, method.name, name)
        for comparison in task.evaluation.comparisons:
            assert comparison.verdict in text


def test_trained_parameters_are_told_apart(text: str) -> None:
    # of the ranking task: backbone, patch, head, together, each with its share
    assert "patch frozen 19,584 1.61 % 65,780 5.39 % 85,364 7.00 %" in text
    assert "head frozen none 65,780 5.48 % 65,780 5.48 %" in text
    assert "patch 1.61 % · with head 7.00 %" in text
    assert "head 5.48 %" in text
    assert "whole table, one vector for each item" in text


def test_every_fact_of_the_run_is_on_the_page(record: RunRecord, text: str) -> None:
    data = record.data
    counted = [data.users, data.events, data.items, record.backbone.parameters, record.backbone.item_table]
    counted += [n for step in data.steps for n in (step.remaining, step.dropped) if n]
    counted += [n for task in record.tasks for n in task.facts.users.values()]
    counted += [label.users for task in record.tasks for label in task.facts.classes]
    assert data.history_length is not None
    assert data.item_events is not None
    counted += [n for n in (*data.history_length.counts, *data.item_events.counts) if n < 10_000]
    assert [n for n in counted if f"{n:,}" not in text] == []
    phrases = [record.title, record.command, *record.config.splitlines(), data.fingerprint, record.backbone.fingerprint]
    phrases += [data.catalogue_fingerprint, data.inputs[0].path, *(step.reason for step in data.steps)]
    phrases += [bundle.fingerprint for task in record.tasks for bundle in task.bundles]
    phrases += [*(str(value) for value in record.machine.model_dump().values()), *record.seeds]
    phrases += [stage.name for stage in record.stages]
    phrases += ["2025-11-24 17:45 UTC", "18.3 %", "55.3 %", "1 min 35 s", "35.9 %", "64.1 %", "22.4 %", "9,377 pairs"]
    assert [words for words in phrases if " ".join(words.split()) not in text] == []


def test_every_epoch_is_on_the_page(record: RunRecord, text: str) -> None:
    curves = [record.backbone.curve, *(bundle.curve for task in record.tasks for bundle in task.bundles)]
    values = [v for curve in curves for row in curve.rows for key, v in row.items() if key not in ("epoch", "seconds")]
    assert [value for value in values if f"{value:.4f}" not in text] == []
    assert text.count("(kept)") == len(curves)


def test_the_start_is_on_the_page_and_said_to_be_kept(record: RunRecord) -> None:
    text = Page(render(from_the_start(record))).text
    assert text.count("0 of 8, the start") == 1
    assert text.count("0 of 0, the start") == 1
    assert text.count(", the start") == 2
    assert text.count("0.5101") == 2, "a row in the table of either training"
    assert text.count("0 (kept)") == 1
    assert "Epoch 0: before the first step." in text


def test_a_reused_stage_does_not_pretend_to_have_been_quick(text: str) -> None:
    assert "pretrain reused" in text
    assert "0.2 s" not in text
    assert "without what was made earlier and reused" in text


def test_names_are_text_not_markup(odd_record: RunRecord) -> None:
    html = render(odd_record)
    page = Page(html)
    assert "script" not in page.tags
    assert page.tags.count("html") == 1
    assert "<html> & co" in page.text
    assert odd_record.tasks[0].name in page.text
    assert "<b>class 20</b> $x$ 職業" in page.text
    assert "&amp;lt;" not in html  # escaped once


def test_undefined_limits_and_absent_baselines_are_said(odd_record: RunRecord) -> None:
    page = Page(render(odd_record))
    assert "0.310 no interval" in page.text
    assert "none was fitted" in page.text
    assert "Marks compare with the baselines" not in page.text
    assert page.best == []  # the best of one is no news
    assert "resolved configuration is below" in page.text.lower()


def test_without_tasks_the_page_says_so(make_record: MakeRecord) -> None:
    text = Page(render(make_record(tasks=[]))).text
    assert "The corpus has no task" in text
    assert "trainable share" not in text
    assert "HR@10 is how often it is among the first 10" in text


def test_the_best_value_of_each_metric_is_marked(html: str) -> None:
    page = Page(html)
    assert "1.884" in page.best  # log-loss, where lower is better
    assert "0.298" in page.best  # a baseline
    assert "0.287" not in page.best  # patch, which lost
    assert page.best.count("0.0712") == 2  # the headline, and the table of the task


@pytest.mark.slow
def test_a_seed_of_one_task_is_told(record: RunRecord, text: str) -> None:
    task = record.tasks[0]
    reseeded = [bundle.model_copy(update={"seed": 17}) for bundle in task.bundles]
    changed = record.model_copy(update={"tasks": [task.model_copy(update={"bundles": reseeded})]})
    assert "seed: adapt returns (patch) 17" in Page(render(changed)).text
    assert "seed: adapt returns" not in text


def test_sentences_are_split_where_another_comparison_begins() -> None:
    sentence = "On auc, patch (0.7) is better than majority (0.5). So it is. On auc, head is worse. Ridge was skipped."
    assert paragraphs(sentence) == [
        "On auc, patch (0.7) is better than majority (0.5). So it is.",
        "On auc, head is worse. Ridge was skipped.",
    ]
