"""One list says of every baseline what it is for, which settings it has and how it is fitted."""

from __future__ import annotations

import subprocess
import sys

import pytest

from peterrec.errors import ConfigError
from peterrec.evaluation.baselines import BASELINES, baseline_names, baseline_settings, find_baseline


def test_names_are_listed_by_kind_of_task_and_family() -> None:
    assert baseline_names(family="neural") == ("dupn", "conet")
    assert baseline_names("classification")[0] == "majority"
    assert "conet" not in baseline_names("classification")
    assert {"popularity", "conet", "dupn"} <= set(baseline_names("ranking"))
    assert set(baseline_names()) == set(BASELINES)
    quick = [name for name, baseline in BASELINES.items() if baseline.quick]
    assert set(quick) <= set(baseline_names(family="cheap"))


def test_a_baseline_is_found_only_where_it_applies() -> None:
    assert find_baseline("dupn", "classification").all_tasks
    with pytest.raises(ConfigError, match=r"'conet' is not for classification(.|\n)*majority"):
        find_baseline("conet", "classification")
    with pytest.raises(ConfigError, match=r"there is no baseline 'popularity'(.|\n)*dupn, conet"):
        find_baseline("popularity", family="neural")


@pytest.mark.parametrize("name", baseline_names())
def test_settings_have_defaults_and_unknown_ones_are_refused(name: str) -> None:
    assert isinstance(baseline_settings(name, {}), BASELINES[name].settings)
    with pytest.raises(ConfigError, match=rf"baseline '{name}'".replace("+", r"\+")):
        baseline_settings(name, {"no_such_setting": 1})


@pytest.mark.slow
def test_listing_baselines_imports_no_training() -> None:
    code = (
        "import sys, peterrec.evaluation.baselines as b; b.baseline_settings('dupn', {}); "
        "print([m for m in sys.modules if m.startswith(('peterrec.training', 'peterrec.experiments'))])"
    )
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert listed.stdout.strip() == "[]"
