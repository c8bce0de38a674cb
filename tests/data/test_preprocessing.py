"""Remarks about a backbone of another corpus."""

from __future__ import annotations

from typing import Any

import pytest

from peterrec.config import ColumnsConfig, PrepareConfig, PreprocessingConfig, build_config
from peterrec.data.preprocessing import assumptions, differences, preprocessing_of, pretraining_remarks

OVERLAP_REMARK = "the backbone was pre-trained on events like the targets: it may have seen the answers"


def manifest(source: dict[str, Any] | None = None, **task: Any) -> dict[str, Any]:
    tree = {
        "events": {"paths": ["log.csv"]},
        "source": source or {},
        "tasks": [{"name": "t", "kind": "ranking"} | task],
    }
    return {"config": build_config(PrepareConfig, tree).model_dump(mode="json"), "time_kind": "integer"}


def backbone(**source: Any) -> PreprocessingConfig:
    return build_config(PreprocessingConfig, {"source": source, "time_kind": "integer"})


@pytest.mark.parametrize(
    ("source", "task", "may_have_seen"),
    [
        ({}, {"domains": ["b"]}, True),
        ({"exclude_domains": ["b"]}, {"domains": ["b"]}, False),
        ({"exclude_domains": ["b"]}, {"domains": ["b", "c"]}, True),
        ({"domains": ["a"]}, {"domains": ["b"]}, False),
        ({"before": "9"}, {"after": "10"}, False),
        ({"before": "11"}, {"after": "10"}, True),
        ({}, {"after": "10"}, True),
        ({"before": "2001-02-01"}, {"after": "2001-02-01"}, False),
        ({"before": "9"}, {"domains": ["b"], "after": "10"}, False),
    ],
)
def test_a_backbone_that_may_have_seen_the_answers(
    source: dict[str, Any], task: dict[str, Any], may_have_seen: bool
) -> None:
    assert (OVERLAP_REMARK in pretraining_remarks(backbone(**source), manifest(source, **task), "t")) is may_have_seen


def test_differences_are_told_by_their_settings() -> None:
    assert differences(backbone(repeats="drop"), backbone(max_history=7)) == [
        "source.max_history: 200, 7",
        "source.repeats: drop, keep",
    ]
    assert differences(None, backbone()) == differences(backbone(), backbone()) == []
    (line,) = pretraining_remarks(backbone(repeats="drop", before="9"), manifest({"before": "9"}, after="9"), "t")
    assert line == "the backbone was trained on other events than these (there, here: source.repeats: drop, keep)"


def test_a_manifest_without_a_configuration_says_nothing() -> None:
    assert preprocessing_of({"fingerprint": "f"}) is None
    assert assumptions(None, times=False, domains=False) == ()


def test_a_history_that_ends_before_the_first_target_is_part_of_the_task_only() -> None:
    log_manifest = manifest(history="before-first-target", domains=["b"], before="9")
    for_task = preprocessing_of(log_manifest, "t")
    assert for_task is not None
    assert for_task.first_target is not None
    assert (for_task.first_target.domains, for_task.first_target.before, for_task.first_target.separate_files) == (
        ("b",),
        "9",
        False,
    )
    for_source = preprocessing_of(log_manifest)
    assert for_source is not None
    assert for_source.first_target is None
    elsewhere = preprocessing_of(manifest(history="before-first-target", events={"paths": ["own.csv"]}), "t")
    assert elsewhere is not None
    assert elsewhere.first_target is not None
    assert elsewhere.first_target.separate_files


def test_other_categories_are_a_difference_that_fits_on_a_line() -> None:
    def prepared(*values: str) -> PreprocessingConfig:
        return PreprocessingConfig(columns=ColumnsConfig(features=[{"column": "type", "values": values}, "time:gap"]))

    many = [f"category {number}" for number in range(1_000)]
    assert differences(prepared(*many), prepared(*many)) == []
    (line,) = differences(prepared(*many), prepared(*many[::-1]))
    assert line.startswith("columns.features: type:categories (1000 categories, ")
    assert len(line) < 200
    (line,) = differences(prepared("a"), PreprocessingConfig())
    assert line.endswith("time:gap, None")
