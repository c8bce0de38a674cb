"""A name that is none is told with the one that may have been meant, wherever names are looked up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders import tiny_bundle, tiny_pretrained, write_corpus
from peterrec import AdaptConfig, PretrainConfig, RunConfig, UserModel, convert, fetch
from peterrec.arguments import did_you_mean, names_there, with_suggestions
from peterrec.config import ExperimentConfig, PrepareConfig, build_config
from peterrec.data.corpus import Corpus
from peterrec.data.prepare.files import describe
from peterrec.errors import PeterRecError
from peterrec.evaluation.baselines.registry import find_baseline
from peterrec.experiments.pipeline import _check_overrides
from peterrec.nn.readout import readout_named

EVENTS: dict[str, Any] = {"paths": ["a.csv"]}
TASK: dict[str, Any] = {"kind": "ranking", "name": "shop", "domains": ["food"]}
GRID: dict[str, Any] = {
    "data": {"a": {"prepare": {"events": EVENTS, "tasks": [TASK]}}},
    "methods": {"popular": {"baseline": "popularity"}},
}


def question(**values: Any) -> ExperimentConfig:
    tree = {"name": "q", "text": "q?", "methods": ["popular"]} | values
    return build_config(ExperimentConfig, GRID | {"questions": [tree]})


def run_with_override() -> None:
    prepare = {"events": EVENTS, "tasks": [TASK]}
    _check_overrides(build_config(RunConfig, {"prepare": prepare, "task_overrides": {"shpo": {}}}))


def loaded() -> UserModel:
    pretrained = tiny_pretrained()
    model = UserModel(pretrained, "cpu")
    model.add_bundle(tiny_bundle(pretrained), name="age")
    return model


LOOKUPS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "task of a corpus": (lambda path: Corpus.open(write_corpus(path / "corpus")).task("shpo"), "shop"),
    "bundle loaded": (lambda _: loaded().bundle("agee"), "age"),
    "strategy": (lambda _: AdaptConfig(strategy="pach"), "patch"),  # type: ignore[arg-type]
    "readout": (lambda _: readout_named("pooeld"), "pooled"),
    "readout as a setting": (lambda _: AdaptConfig(readout="pooeld"), "pooled"),
    "kind of patch": (lambda _: build_config(AdaptConfig, {"patch": {"kind": "loar"}}), "lora"),
    "kind of backbone": (lambda _: build_config(PretrainConfig, {"backbone": {"kind": "casual"}}), "causal"),
    "kind of task": (
        lambda _: build_config(PrepareConfig, {"events": EVENTS, "tasks": [TASK | {"kind": "rankin"}]}),
        "ranking",
    ),
    "setting": (lambda _: build_config(PretrainConfig, {"optim": {"Lr": 1}}), "lr"),
    "baseline": (lambda _: find_baseline("popularty"), "popularity"),
    "baseline of a kind": (lambda _: find_baseline("popularty", "ranking"), "popularity"),
    "public data set": (lambda path: fetch("tafeng", path / "out"), "ta-feng"),
    "format": (lambda path: convert("tenrek", ["a.csv"], path / "out"), "tenrec"),
    "method of a grid": (lambda _: question(methods=["poplar"]), "popular"),
    "task of a grid": (lambda _: question(tasks=["a/shpo"]), "a/shop"),
    "task of a run": (lambda _: run_with_override(), "shop"),
}


@pytest.mark.parametrize("place", LOOKUPS)
def test_the_name_that_may_have_been_meant_is_told(place: str, tmp_path: Path) -> None:
    look_up, meant = LOOKUPS[place]
    with pytest.raises(PeterRecError) as caught:
        look_up(tmp_path)
    assert f"did you mean {meant!r}?" in caught.value.message


def test_columns_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text("user_id,gender\nu1,F\n")
    with pytest.raises(PeterRecError) as caught:
        describe(path, ["userid", "gendr", "zip"])
    assert "columns 'userid' (did you mean 'user_id'?), 'gendr' (did you mean 'gender'?), 'zip'; it has" in str(
        caught.value
    )


def test_what_is_near_nothing_is_told_with_what_there_is() -> None:
    assert did_you_mean("zip", ["gender"]) == ""
    assert names_there("zip", ["gender", "age"], "it has") == " (it has: gender, age)"
    assert names_there("gendr", ["gender", "age"], "it has") == " (did you mean 'gender'? it has: gender, age)"
    assert names_there("zip", [], "loaded") == " (loaded: none)"
    assert with_suggestions(["Age", "x"], iter(["age"])) == "'Age' (did you mean 'age'?), 'x'"
