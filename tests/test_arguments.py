"""Everything that is exported, asked with what it cannot take: a clear refusal, never an answer or another error."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peterrec
from argument_cases import CASES, Artifacts
from peterrec.arguments import checked
from peterrec.config import Config
from peterrec.errors import ConfigError, PeterRecError


class Frame:
    """A DataFrame of some library: iterating gives the names of its columns."""

    columns = ("user_id", "item_id")

    def __len__(self) -> int:
        return 100_000

    def __iter__(self) -> Any:
        return iter(self.columns)

    def __getitem__(self, name: Any) -> Any:
        return [name]

    def __eq__(self, operand: object) -> Any:
        raise ValueError("The truth value of a DataFrame is ambiguous.")

    def __bool__(self) -> bool:
        raise ValueError("The truth value of a DataFrame is ambiguous.")

    __hash__ = None  # type: ignore[assignment]


def frames() -> dict[str, Any]:
    tables: dict[str, Any] = {"frame": Frame()}
    for library in ("pandas", "polars"):
        try:
            tables[library] = pytest.importorskip(library).DataFrame({"user_id": [1], "item_id": [2]})
        except pytest.skip.Exception:
            continue
    return tables


# Of each, what is a kind that no argument of any public function is of.
WRONG: dict[str, Callable[[], Any]] = {
    **{name: (lambda frame=frame: frame) for name, frame in frames().items()},
    "set": lambda: {"a"},
    "generator": lambda: (letter for letter in "ab"),
    "bytes": lambda: b"ab",
    "object": object,
    "float": lambda: 1.5,
}
ANSWERS = {
    "Answer", "AuditResult", "BenchmarkScores", "ClassAnswer", "Embeddings", "ItemsAnswer", "LabelPredictions",
    "LabelsAnswer",
    "NumberAnswer", "NumberPredictions", "Predictions", "Recommendations", "TopItems", "TuneResult", "TuneTrial",
    "DriftReport", "PeriodMetric", "MigrationReport",
}  # fmt: skip
WITHOUT_ARGUMENTS = {"PeterRecError", "__version__", "tune_process"}  # nothing to be given


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Any:
    prepared = Artifacts(tmp_path_factory.mktemp("made"))
    yield prepared
    prepared.store.close()


CONFIGS = sorted(
    name
    for name in peterrec.__all__
    if inspect.isclass(getattr(peterrec, name)) and issubclass(getattr(peterrec, name), Config)
)


def test_nothing_that_is_exported_is_forgotten() -> None:
    tested = {name.partition(".")[0] for name, *_ in CASES}
    assert {*tested, *CONFIGS, *ANSWERS, *WITHOUT_ARGUMENTS} == set(peterrec.__all__)


@pytest.mark.parametrize(
    ("call", "good", "wrong", "argument"),
    [
        pytest.param(call, good, wrong, argument, id=f"{name}-{argument}")
        for name, call, good, wrong in CASES
        for argument in wrong
    ],
)
def test_what_an_argument_cannot_be_is_refused(
    artifacts: Artifacts, call: Any, good: Any, wrong: Any, argument: str
) -> None:
    values = [lambda value=value: value for value in wrong[argument]]
    for value in (*WRONG.values(), *values):
        with pytest.raises(PeterRecError) as caught:
            call(artifacts)(**(good(artifacts) | {argument: value()}))
        assert caught.value.remedy, "it says what to do"
        assert "nowhere" not in str(caught.value), "before anything is read"
    assert not artifacts.nowhere.exists()
    assert list(artifacts.model.bundles) == ["age", "shop"]


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_of_other_kinds_are_refused(name: str) -> None:
    config = getattr(peterrec, name)
    for setting in config.model_fields:
        for value in WRONG.values():
            if isinstance(value(), float | bytes):
                continue  # may be a number of the settings, or a text
            with pytest.raises(ConfigError, match=f"not valid: .*{setting}"):
                config(**{setting: value()})


def test_paths_of_events_are_a_list() -> None:
    for wrong in ("log.csv", Frame(), {"log.csv"}, iter(["log.csv"]), [3], None):
        with pytest.raises(ConfigError, match="paths"):
            peterrec.EventsConfig(paths=wrong)  # type: ignore[arg-type]
    assert peterrec.EventsConfig(paths=["a", "b"]).paths == ("a", "b")  # type: ignore[arg-type]


def test_good_arguments_are_let_through(artifacts: Artifacts) -> None:
    @checked
    def public(
        path: str | Path, names: list[str] | None = None, *numbers: int, scale: float = 1.0, **options: Any
    ) -> Any:
        return path, names, numbers, scale, options

    assert public("a") == ("a", None, (), 1.0, {})
    assert public(Path("a"), ["b"], 3, scale=2, other={"c"}) == (Path("a"), ["b"], (3,), 2, {"other": {"c"}})
    with pytest.raises(TypeError, match="missing"):
        public()  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="names is a list with the number 3") as caught:
        public("a", [3])  # type: ignore[list-item]
    assert caught.value.remedy == "give a list of a text or None"
