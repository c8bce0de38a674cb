"""Bundles come, change and go while questions are in flight."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.config import EngineConfig, PatchConfig
from peterrec.errors import AnswerError, ArtifactError, FingerprintError, RequestError, UnknownTaskError
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.explain import explain
from peterrec.serving.requests import Answer, ClassAnswer, Question, Request

REQUEST = Request(["item-3", "item-1", "item-7"])
PRETRAINED = tiny_pretrained()


def engine(**config: int) -> Engine:
    return Engine(UserModel(PRETRAINED), EngineConfig(**config))


def age(seed: int = 0, name: str = "age", **settings) -> object:
    return tiny_bundle(PRETRAINED, seed=seed, name=name, **settings)


def folder(path: Path, seed: int = 0, **settings) -> Path:
    save_bundle(path, age(seed, **settings))
    return path


def test_a_bundle_of_a_folder_answers_and_says_what_it_is(tmp_path):
    served = engine()
    info = served.load("how-old", folder(tmp_path / "age"))
    assert (info.name, info.active, info.path, info.kind) == ("how-old", True, str(tmp_path / "age"), "classification")
    assert (info.strategy, info.patched_blocks, info.streamed, info.index) == ("patch", 2, True, None)
    assert info.metrics == {"accuracy": 0.5}
    assert info.parameters == sum(t.numel() for t in age().tensors().values())
    assert [task.name for task in served.tasks()] == ["how-old"]
    assert served.tasks()[0].classes == ("young", "old", "older")
    answer = served.predict([REQUEST])[0].tasks["how-old"]
    assert answer.version == info.version


def test_the_version_is_of_the_content(tmp_path):
    served = engine()
    first = served.load("a", folder(tmp_path / "one")).version
    assert served.load("b", folder(tmp_path / "two")).version == first
    assert served.load("c", folder(tmp_path / "three", seed=1)).version != first
    assert served.load("d", folder(tmp_path / "four", class_names=("x", "y", "z"))).version != first
    assert served.load("e", folder(tmp_path / "five", max_length=4)).version != first
    gelu = PatchConfig(bottleneck=3, activation="gelu")  # the same numbers, used in another way
    assert served.load("f", folder(tmp_path / "six", patch_config=gelu)).version != first


def test_who_asked_before_is_answered_by_the_version_before():
    served = engine()
    old = served.add(age(0)).version
    before = served.predict([REQUEST])
    prepared = served.prepare(REQUEST)
    new = served.add(age(1)).version
    after = served.prepare(REQUEST)
    served.drop("age")
    with pytest.raises(UnknownTaskError):
        served.prepare(Request(REQUEST.items, Question(["age"])))
    answers = served.answer([prepared, after, served.prepare(REQUEST)])
    assert [list(answer.tasks) for answer in answers] == [["age"], ["age"], []]
    assert [answer.tasks["age"].version for answer in answers[:2]] == [old, new]
    assert answers[0] == before[0]
    assert answers[1] != before[0]


def test_a_roll_back_goes_through_what_has_answered():
    served = engine(keep_versions=4)
    first, second, third = (served.add(age(seed)).version for seed in (0, 1, 2))
    assert served.roll_back("age").version == second
    assert [(info.version, info.active, info.withdrawn) for info in served.versions("age")] == [
        (third, False, True), (second, True, False), (first, False, False),
    ]  # fmt: skip
    fourth = served.add(age(3)).version
    assert served.roll_back("age").version == second  # not the third, which was withdrawn
    assert served.roll_back("age").version == first
    with pytest.raises(RequestError, match="no version before the active one"):
        served.roll_back("age")
    assert served.roll_back("age", third).version == third
    assert served.predict([REQUEST])[0].tasks["age"].version == third
    assert served.roll_back("age").version == first
    with pytest.raises(RequestError, match=f"in memory: {first}, {third}, {second}, {fourth}"):
        served.roll_back("age", "0123")
    with pytest.raises(UnknownTaskError):
        served.roll_back("shop")


def test_what_was_staged_answers_when_it_is_activated(tmp_path):
    served = engine()
    first = served.add(age(0)).version
    staged_too = served.stage("age", folder(tmp_path / "other", seed=1))
    back = served.stage("age", folder(tmp_path / "again", seed=0))
    assert served.predict([REQUEST])[0].tasks["age"].version == first
    assert len(served.versions("age")) == 1
    second = served.activate(staged_too).version
    assert served.predict([REQUEST])[0].tasks["age"].version == second != first
    assert served.activate(back).version == first  # staged when the other one did not answer yet
    assert [info.version for info in served.versions("age") if not info.withdrawn] == [first, second]
    assert served.roll_back("age").version == second


def test_versions_that_are_too_many_are_given_up_withdrawn_ones_first():
    served = engine(keep_versions=2)
    first, second = (served.add(age(seed)).version for seed in (0, 1))
    served.roll_back("age")
    third = served.add(age(2)).version
    assert {info.version for info in served.versions("age")} == {first, third}
    assert served.roll_back("age").version == first
    with pytest.raises(RequestError, match="no version"):
        served.roll_back("age", second)


def test_the_version_that_answers_can_be_written_and_is_the_same_when_read(tmp_path):
    served = engine()
    version = served.add(age(0), path="somewhere").version
    served.add(age(1))
    served.roll_back("age")
    served.save("age", tmp_path / "copy")
    assert served.load("again", tmp_path / "copy").version == version
    served.roll_back("age", served.versions("age")[0].version)  # withdrawn, and named
    served.save("age", tmp_path / "copy")
    assert served.load("again", tmp_path / "copy").version != version
    with pytest.raises(UnknownTaskError):
        served.save("nobody", tmp_path / "nobody")


def test_only_so_many_versions_are_kept_and_a_dropped_one_is_gone():
    served = engine(keep_versions=2)
    versions = [served.add(age(seed)).version for seed in (0, 1, 2)]
    assert [info.version for info in served.versions("age")] == versions[:0:-1]
    served.add(age(1))
    served.add(age(1))  # again: no version twice
    assert [info.version for info in served.versions("age")] == [versions[1], versions[2]]
    served.drop("age")
    assert served.versions() == []
    with pytest.raises(UnknownTaskError):
        served.drop("age")
    with pytest.raises(UnknownTaskError):
        served.versions("age")


def test_what_cannot_be_loaded_leaves_everything_as_it_was(tmp_path):
    served = engine()
    served.add(age(0))
    before = served.predict([REQUEST])
    save_bundle(tmp_path / "foreign", tiny_bundle(tiny_pretrained(seed=1)))
    damaged = folder(tmp_path / "damaged", seed=1) / "adapter_model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    with pytest.raises(FingerprintError, match="was made for another backbone"):
        served.load("age", tmp_path / "foreign")
    with pytest.raises(ArtifactError):
        served.load("age", tmp_path / "damaged")
    with pytest.raises(ArtifactError):
        served.load("age", tmp_path / "nowhere")
    with pytest.raises(FingerprintError):
        served.add(tiny_bundle(tiny_pretrained(seed=1)))
    assert served.predict([REQUEST]) == before
    assert len(served.versions()) == 1


@pytest.mark.parametrize("kind", ["classes", "ranking"])
def test_a_bundle_that_answers_with_no_numbers_is_refused(kind):
    served = engine()
    before = served.add(age(0)).version
    targets = tiny_catalogue(5, first=0) if kind == "ranking" else None
    bad = tiny_bundle(PRETRAINED, targets=targets, name="age")
    with torch.no_grad():
        bad.head.weight.fill_(3e38)  # finite itself
    with pytest.raises(ArtifactError, match="answers with NaN or infinity as 'age'"):
        served.add(bad)
    assert served.predict([REQUEST])[0].tasks["age"].version == before


@pytest.mark.parametrize("kind", ["classes", "ranking"])
def test_an_answer_of_no_numbers_is_an_error_and_not_one_without_them(kind):
    served = engine()
    targets = tiny_catalogue(5, first=0) if kind == "ranking" else None
    served.add(tiny_bundle(PRETRAINED, targets=targets, name="age"))
    loaded = served.snapshot.get("age")
    with torch.inference_mode():
        loaded.bundle.head.weight[0].fill_(float("nan"))
        for weight, _ in served.snapshot.class_heads._stacks:
            weight.fill_(float("nan"))
    with pytest.raises(AnswerError, match="'age' answers with NaN or infinity"):
        served.predict([REQUEST])
    with pytest.raises(AnswerError, match="'age' answers with NaN or infinity"):
        explain(served, served.prepare(REQUEST), "age")


def test_answers_are_of_one_version_or_the_other_while_it_changes():
    served = engine()
    bundles = [age(0), age(1, patch_config=PatchConfig(bottleneck=2))]
    expected: dict[str, Answer] = {}
    for bundle in bundles:
        version = served.add(bundle).version
        expected[version] = served.predict([REQUEST])[0]
    stop, wrong = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            answer = served.predict([REQUEST, REQUEST])[1]
            task_answer = answer.tasks["age"]
            assert isinstance(task_answer, ClassAnswer)
            right = expected[task_answer.version].tasks["age"].probabilities
            if any(abs(task_answer.probabilities[name] - right[name]) > 1e-5 for name in right):
                wrong.append(task_answer)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(30):
        served.add(bundles[i % 2])
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_index_of_targets_comes_and_goes_with_its_bundle():
    served = engine()
    few = served.add(tiny_bundle(PRETRAINED, targets=tiny_catalogue(5, first=0), name="shop"))
    larger = served.add(tiny_bundle(PRETRAINED, targets=tiny_catalogue(8, first=0), name="shop", seed=1))
    assert few.index == larger.index == {"kind": "exact", "recall": 1.0}
    assert served.tasks()[0].targets == 8
    request = Request([], Question(["shop"], k=20))
    assert len(served.predict([request])[0].tasks["shop"].items) == 8
    served.roll_back("shop")
    assert len(served.predict([request])[0].tasks["shop"].items) == 5
