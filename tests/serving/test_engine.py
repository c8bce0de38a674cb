"""Mixed batches: whatever stands in a batch, each row is what `UserModel` says of it alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from builders import needs_compiler, shaken, tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.artifacts.bundle_io import Bundle
from peterrec.config import EngineConfig, PatchConfig
from peterrec.errors import RequestError, UnknownTaskError
from peterrec.model import UserModel
from peterrec.nn.backbone import UnsharedModules
from peterrec.nn.readout import represent
from peterrec.serving.engine import Engine
from peterrec.serving.requests import Answer, ClassAnswer, ItemsAnswer, Question, Request

SHOP = tiny_catalogue(9, first=0)
HISTORIES = [
    ["item-3", "item-1", "item-7"],
    [],
    ["item-0"],
    [f"item-{i % 12}" for i in range(30)],
    ["nothing", "item-2", "item-2"],
    ["nothing"],
]


def bundles(model: UserModel) -> dict[str, Bundle]:
    """One of each sort that may meet in a batch, and several of the commonest."""
    pretrained = model.pretrained
    own_modules = UnsharedModules(embedding=False, blocks=1)
    forked, second_fork = (pretrained.network.backbone.fork(own_modules) for _ in range(2))
    shaken(forked.modules_of(own_modules), 9)
    shaken(second_fork.modules_of(own_modules), 10)
    own_sublayer = replace(own_modules, per_block=1)
    third_fork = pretrained.network.backbone.fork(own_sublayer)
    shaken(third_fork.modules_of(own_sublayer), 11)
    settings: dict[str, dict[str, Any]] = {
        "age": {"seed": 1},
        "gender": {"seed": 2, "class_names": ("f", "m")},
        "music": {"seed": 3, "targets": SHOP},
        "longer": {"seed": 4, "max_length": 6},
        "gelu": {"patch_config": PatchConfig(bottleneck=3, activation="gelu")},
        "wide": {"patch_config": PatchConfig(bottleneck=5, train_norms=True)},
        "skip": {"patch_config": PatchConfig(bottleneck=2, insertion="parallel", inner_skip=True)},
        "lora": {"patch_config": PatchConfig(kind="lora", rank=2)},
        "ssf": {"patch_config": PatchConfig(kind="scale-shift")},
        "last": {"patch_config": PatchConfig(bottleneck=3, blocks=1), "seed": 5},
        "last-too": {"patch_config": PatchConfig(bottleneck=3, blocks=1), "seed": 6},
        "own-items": {"patch_config": PatchConfig(bottleneck=3, item_rank=2, train_task_token=True)},
        "head": {"strategy": "head"},
        "head-shop": {"strategy": "head", "targets": SHOP, "seed": 3},
        "pooled": {"readout": "pooled", "seed": 1},
        "both": {"readout": "both", "targets": SHOP, "seed": 2},
        "head-both": {"readout": "both", "strategy": "head"},
        "attention": {"readout": "attention", "seed": 1},
        "attention-too": {"readout": "attention", "targets": SHOP, "seed": 2},
        "head-attention": {"readout": "attention", "strategy": "head", "seed": 3},
        "head-attention-too": {"readout": "attention", "strategy": "head", "seed": 4},
        "many": {"class_names": tuple(f"c{i}" for i in range(40))},
        "last1": {"strategy": "last1", "backbone": forked, "unshared": own_modules},
        "last1-attention": {"strategy": "last1", "backbone": forked, "unshared": own_modules, "readout": "attention"},
        "last1-too": {"strategy": "last1", "backbone": second_fork, "unshared": own_modules},
        "last-sublayer": {"strategy": "last-sublayer", "backbone": third_fork, "unshared": own_sublayer},
        "last-token": {"patch_config": PatchConfig(bottleneck=3, blocks=1, train_task_token=True)},
    }
    return {name: tiny_bundle(pretrained, name=name, **options) for name, options in settings.items()}


def model_with(names: list[str] | None = None, **settings: Any) -> UserModel:
    model = UserModel(tiny_pretrained(**settings))
    for name, bundle in bundles(model).items():
        if names is None or name in names:
            model.add_bundle(bundle, name)
    return model


@pytest.fixture(scope="module")
def model() -> UserModel:
    return model_with()


def assert_alone(model: UserModel, request: Request, answer: Answer) -> None:
    """Each task's answer is what the model says of this history alone."""
    for name, task_answer in answer.tasks.items():
        alone = model.encode([request.items, ["item-0"]]).sequences  # a known item beside it: all may be unknown
        if isinstance(task_answer, ClassAnswer):
            expected = model.probabilities(alone, name)[0]
            np.testing.assert_allclose(list(task_answer.probabilities.values()), expected, atol=1e-5)
            assert tuple(task_answer.probabilities) == model.bundle(name).class_names
            assert task_answer.probabilities[task_answer.label] == max(task_answer.probabilities.values())
        else:
            exclude = request.question.exclude_seen
            best = model.recommend([request.items, ["item-0"]], name, request.question.k,
                                   exclude_seen=exclude is not False)  # fmt: skip
            assert task_answer.items == best.items[0]
            np.testing.assert_allclose(task_answer.scores, best.scores[0], atol=1e-5)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("batch_size", [3, 256])
def test_every_row_of_a_mixed_batch_is_what_it_is_alone(model, batch_size):
    engine = Engine(model, EngineConfig(batch_size=batch_size))
    names = list(model.bundles)
    rng = np.random.default_rng(0)
    requests = [Request(items, Question(k=4)) for items in HISTORIES]
    for _ in range(12):
        tasks = list(rng.permutation(names)[: rng.integers(0, 6)])
        question = Question(tasks, k=int(rng.integers(1, 12)), exclude_seen=bool(rng.integers(2)))
        requests.append(Request(HISTORIES[rng.integers(len(HISTORIES))], question))
    answers = engine.predict(requests)
    for request, answer in zip(requests, answers, strict=True):
        task_names = names if request.question.tasks == "*" else list(request.question.tasks)
        assert list(answer.tasks) == task_names
        assert answer.events == len(request.items)
        assert answer.unknown_items == list(request.items).count("nothing")
        assert answer.known_events == answer.events - answer.unknown_items
        assert_alone(model, request, answer)


def test_a_noncausal_backbone_answers_as_well():
    names = ["age", "gender", "music", "lora", "head", "attention", "head-attention", "head-attention-too"]
    model = model_with(names, backbone={"kind": "noncausal"})
    request = Request(HISTORIES[0])
    assert_alone(model, request, Engine(model).predict([request])[0])


def test_unknown_items_keep_their_place_where_the_backbone_was_trained_so():
    model = model_with(["age"], unknown="unk")
    request = Request(["item-1", "nothing", "item-2"])
    answer = Engine(model).predict([request])[0]
    assert_alone(model, request, answer)
    assert answer.tasks["age"] != Engine(model).predict([Request(["item-1", "item-2"])])[0].tasks["age"]


def test_the_engine_computes_as_the_model_does():
    names = ["age", "gender", "last", "last-too", "both"]
    plain, short = model_with(names), UserModel(tiny_pretrained(), precision="bf16")
    for name in names:
        short.add_bundle(plain.bundle(name), name)
    requests = [Request(items) for items in HISTORIES[:4]]
    exact, rounded = Engine(plain).predict(requests), Engine(short).predict(requests)
    differs = False
    for exact_answer, rounded_answer in zip(exact, rounded, strict=True):
        for name in ("age", "gender", "last", "last-too"):
            exact_values, rounded_values = (
                list(answer.tasks[name].probabilities.values()) for answer in (exact_answer, rounded_answer)
            )
            np.testing.assert_allclose(rounded_values, exact_values, atol=0.05)
            differs = differs or rounded_values != exact_values
    assert differs


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
def test_full_batches_of_the_longest_histories_may_be_compiled():
    model = UserModel(tiny_pretrained(), compile=True)
    for name, bundle in bundles(model).items():
        if name in ("age", "gender"):
            model.add_bundle(bundle, name)
    requests = [Request([f"item-{(i + j) % 12}" for i in range(5 + j % 2)]) for j in range(3)]
    plain = Engine(model_with(["age", "gender"]), EngineConfig(batch_size=4)).predict(requests)
    for compiled_answer, plain_answer in zip(
        Engine(model, EngineConfig(batch_size=4)).predict(requests), plain, strict=True
    ):
        for name, answer in plain_answer.tasks.items():
            assert isinstance(answer, ClassAnswer)
            task_answer = compiled_answer.tasks[name]
            assert isinstance(task_answer, ClassAnswer)
            assert task_answer.probabilities == pytest.approx(answer.probabilities, abs=1e-5)


def test_rows_of_bundles_that_are_alike_share_a_pass(model):
    snapshot = Engine(model).snapshot
    groups = {name: place.group for name, place in snapshot.places.items()}
    assert groups["age"] is groups["gender"] is groups["music"] is groups["longer"] is groups["many"]
    assert groups["last"] is groups["last-too"] is not groups["age"]
    assert groups["head"] is groups["head-shop"] is groups["age"]  # a slot without a patch
    assert groups["head-both"] is groups["both"]
    assert len({id(groups[name]) for name in ("age", "gelu", "wide", "skip", "lora", "ssf", "pooled", "both")}) == 8


@pytest.mark.parametrize(
    "names", [["skip", "head"], ["gender", "age"], ["last1", "last1-too"]], ids=["no zeros", "other order", "own"]
)
def test_few_bundles_in_any_order_are_what_they_are_alone(names):
    model = model_with(names)
    engine = Engine(model)
    for task_names in (names, names[::-1]):
        request = Request(HISTORIES[0], Question(task_names))
        answer = engine.predict([request])[0]
        assert list(answer.tasks) == task_names
        assert_alone(model, request, answer)


def test_a_user_is_read_once_for_tasks_without_a_patch(model, monkeypatch):
    engine = Engine(model_with(["head", "head-shop"]))
    passes: list[tuple[int, ...]] = []
    group = engine.snapshot.places["head"].group
    plain = group.vectors
    monkeypatch.setattr(group, "vectors", lambda *a, **k: passes.append((len(a[0]), len(a[2]))) or plain(*a, **k))
    engine.predict([Request(HISTORIES[0]), Request(HISTORIES[3])])
    assert passes == [(2, 2)]


def test_a_user_is_read_once_for_tasks_that_attend_to_the_same_states(model):
    engine = Engine(model_with(["head-attention", "head-attention-too"]))
    rows: list[int] = []
    first = engine.snapshot.places["head-attention"].group.backbone.blocks[0]
    first.register_forward_hook(lambda module, inputs, out: rows.append(len(out)))
    engine.predict([Request(HISTORIES[0]), Request(HISTORIES[3])])
    assert rows == [2]


def test_below_the_patched_blocks_a_user_is_read_once(model, monkeypatch):
    engine = Engine(model_with(["last", "last-too"]))
    group = engine.snapshot.places["last"].group
    rows: list[int] = []
    first = group.backbone.blocks[0]
    first.register_forward_hook(lambda module, inputs, out: rows.append(len(out)))
    engine.predict([Request(HISTORIES[0])])
    assert rows == [1]
    engine.predict([Request(items) for items in HISTORIES])
    assert rows[1] == len(HISTORIES)


def test_without_its_patch_a_task_is_answered_from_the_plain_backbone(model):
    engine = Engine(model)
    plain_answers = engine.predict([Request(HISTORIES[0], Question(patched=False))])[0].tasks
    for name in ("age", "lora", "skip", "own-items"):
        bundle = model.bundle(name)
        vector = torch.from_numpy(model.represent([HISTORIES[0][-bundle.max_length :]]))
        expected = bundle.head(vector).softmax(1)[0].tolist()
        np.testing.assert_allclose(list(plain_answers[name].probabilities.values()), expected, atol=1e-5)
        patched = engine.predict([Request(HISTORIES[0], Question([name]))])[0].tasks[name]
        assert not np.allclose(list(patched.probabilities.values()), expected, atol=1e-3)
    bundle = model.bundle("attention")
    tokens = torch.from_numpy(model.encode([HISTORIES[0]]).sequences.items).unsqueeze(0).long()
    vector = represent(model.network.backbone, tokens, None, "attention", bundle.readout_module)
    expected = bundle.head(vector).softmax(1)[0].tolist()
    np.testing.assert_allclose(list(plain_answers["attention"].probabilities.values()), expected, atol=1e-5)
    for name in ("head", "last1", "head-attention"):
        patched = engine.predict([Request(HISTORIES[0], Question([name]))])[0].tasks[name]
        probabilities = [list(answer.probabilities.values()) for answer in (plain_answers[name], patched)]
        np.testing.assert_allclose(*probabilities, atol=1e-6)


def test_the_whole_history_is_read_where_it_is_asked_for():
    model = model_with(["age", "pooled"])
    history = HISTORIES[3]
    whole_window = Engine(model, EngineConfig(window="whole")).predict([Request(history)])[0].tasks
    trained = Engine(model).predict([Request(history)])[0].tasks
    assert whole_window["pooled"] == trained["pooled"]  # a sum over all events has no end that could be read alone
    assert whole_window["age"] != trained["age"]
    model.bundles["age"] = replace(model.bundle("age"), max_length=100)
    assert_alone(model, Request(history), Answer({"age": whole_window["age"]}, 0, 0, 0))


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("request_", "error", "match"),
    [
        (Request(["item-1"], Question(["nobody"])), UnknownTaskError, "no bundle answers 'nobody'"),
        (Request(["item-1"], Question("age")), RequestError, "list of names"),
        (Request(["item-1"], Question(k=0)), RequestError, "k is 0"),
        (Request("item-1"), RequestError, "not one text"),
    ],
    ids=["task", "text", "k", "history"],
)
def test_what_cannot_be_answered_is_refused(model, request_, error, match):
    with pytest.raises(error, match=match):
        Engine(model).predict([Request(["item-1"]), request_])


def test_nothing_asked_is_nothing_answered():
    engine = Engine(UserModel(tiny_pretrained()))
    assert engine.predict([]) == []
    assert engine.predict([Request(["item-1"])]) == [Answer({}, 1, 0, 1)]
    assert engine.tasks() == []
    assert engine.versions() == []


def test_seen_items_are_left_out_however_many(model):
    engine = Engine(model)
    history = [f"item-{i}" for i in range(7)]
    unseen = engine.predict([Request(history, Question(["music"], k=50))])[0].tasks["music"]
    assert isinstance(unseen, ItemsAnswer)
    assert sorted(unseen.items) == ["item-7", "item-8"]
    all_items = engine.predict([Request(history, Question(["music"], k=50, exclude_seen=False))])[0].tasks["music"]
    assert len(all_items.items) == 9
    assert all_items.scores == sorted(all_items.scores, reverse=True)
