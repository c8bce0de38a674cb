"""`UserModel`: bundles come and go, answers survive a save bit for bit, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from builders import CLASSES, tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.artifacts.bundle_io import Bundle, save_bundle
from peterrec.errors import ArtifactError, ConfigError, FingerprintError, UnknownItemsError
from peterrec.model import Predictions, UserModel

HISTORIES = [["item-1", "item-2", "item-1"], ["item-9"], [], ["item-3"] * 9]
TARGETS = tiny_catalogue(5, first=0)


@pytest.fixture
def model() -> UserModel:
    model = UserModel(tiny_pretrained(), "cpu")
    model.add_bundle(tiny_bundle(model.pretrained))
    model.add_bundle(tiny_bundle(model.pretrained, targets=TARGETS))
    return model


def answers(model: UserModel) -> list[object]:
    """Every kind of answer, as values that compare exactly."""
    vectors = [model.represent(HISTORIES, bundle).tolist() for bundle in (None, "age", "shop")]
    listed = [model.recommend(HISTORIES, bundle, 4) for bundle in (None, "shop")]
    return [vectors, model.predict(HISTORIES, "age").probabilities.tolist(), [(r.items, r.scores) for r in listed]]


# ---------------------------------------------------------------- on disk


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("tie", [False, True])
def test_save_load_predict_is_bit_equal(tmp_path, integers, tie):
    pretrained = tiny_pretrained(tiny_catalogue(integers=integers), backbone={"tie_weights": tie})
    first = UserModel(pretrained, "cpu")
    histories = [[first.catalogue.ids[i].as_py() for i in row] for row in ([1, 2, 1], [9], [], [3] * 9)]
    bundles = [tiny_bundle(pretrained), tiny_bundle(pretrained, targets=TARGETS, strategy="head")]
    for bundle in bundles:
        first.add_bundle(bundle)
        save_bundle(tmp_path / bundle.name, bundle)
    first.save_pretrained(tmp_path / "backbone")
    second = UserModel.from_pretrained(str(tmp_path / "backbone"), "cpu")
    assert [second.load_bundle(str(tmp_path / bundle.name)) for bundle in bundles] == ["age", "shop"]
    for name in (None, "age", "shop"):
        assert np.array_equal(first.represent(histories, name), second.represent(histories, name))
    before, after = first.predict(histories, "age"), second.predict(histories, "age")
    assert np.array_equal(before.probabilities, after.probabilities)
    assert before.class_names == after.class_names == CLASSES
    for name in (None, "shop"):
        assert first.recommend(histories, name) == second.recommend(histories, name)


def test_saving_keeps_everything_but_the_bundles(tmp_path, model):
    model.save_pretrained(tmp_path / "b")
    reloaded = UserModel.from_pretrained(tmp_path / "b", "cpu")
    assert (reloaded.fingerprint, reloaded.pretrained.max_length, reloaded.bundles) == (model.fingerprint, 6, {})
    assert reloaded.pretrained.training == model.pretrained.training
    with pytest.raises(ArtifactError, match="already exists"):
        model.save_pretrained(tmp_path / "b")
    reloaded.save_pretrained(tmp_path / "b", overwrite=True)  # onto the very folder it came from
    assert UserModel.from_pretrained(tmp_path / "b", "cpu").fingerprint == model.fingerprint


def test_a_folder_that_is_no_backbone(tmp_path):
    with pytest.raises(ArtifactError, match="is missing"):
        UserModel.from_pretrained(tmp_path)


# ---------------------------------------------------------------- bundles


@pytest.mark.parametrize("pretrained", [tiny_pretrained(seed=1), tiny_pretrained(tiny_catalogue(integers=True))])
def test_a_bundle_of_another_backbone_or_catalogue_is_refused(tmp_path, model, pretrained):
    bundle = tiny_bundle(pretrained)
    save_bundle(tmp_path / "b", bundle)
    loaded_before, expected = dict(model.bundles), answers(model)
    for attach in (lambda: model.load_bundle(tmp_path / "b"), lambda: model.add_bundle(bundle)):
        with pytest.raises(FingerprintError, match="was made for another") as caught:
            attach()
        mine = (model.fingerprint, model.catalogue.fingerprint)
        theirs = (pretrained.fingerprint, pretrained.catalogue.fingerprint)
        assert any(
            a != b and a[:12] in caught.value.message and b[:12] in caught.value.message
            for a, b in zip(mine, theirs, strict=True)
        )
    assert model.bundles == loaded_before
    assert answers(model) == expected


def test_a_bundle_has_the_name_of_its_task_or_a_given_one(tmp_path, model):
    bundle = tiny_bundle(model.pretrained, seed=5)
    save_bundle(tmp_path / "b", bundle)
    assert model.load_bundle(tmp_path / "b", "age 2") == "age 2"
    assert list(model.bundles) == ["age", "shop", "age 2"]
    first, second = (model.predict(HISTORIES, name).probabilities for name in ("age", "age 2"))
    assert not np.allclose(first, second, atol=1e-3)
    assert model.load_bundle(tmp_path / "b") == "age", "the one of that name is replaced"
    assert np.array_equal(model.predict(HISTORIES, "age").probabilities, second)


def test_bundles_do_not_touch_each_other(tmp_path, model):
    expected = answers(model)
    plain = UserModel(tiny_pretrained(), "cpu")
    assert plain.represent(HISTORIES).tolist() == expected[0][0], "without a bundle there is no trace of one"
    save_bundle(tmp_path / "b", tiny_bundle(model.pretrained, seed=7))
    model.load_bundle(tmp_path / "b", "more")
    model.predict(HISTORIES, "more")
    assert answers(model) == expected
    model.delete_bundle("more")
    assert answers(model) == expected


def test_a_deleted_bundle_is_gone_but_its_folder_stays(tmp_path, model):
    save_bundle(tmp_path / "b", tiny_bundle(model.pretrained))
    model.load_bundle(tmp_path / "b", "more")
    model.delete_bundle("more")
    for use in (model.delete_bundle, model.bundle, lambda name: model.predict(HISTORIES, name)):
        with pytest.raises(ConfigError, match=r"no bundle 'more' is loaded \(loaded: age, shop\)"):
            use("more")
    assert model.load_bundle(tmp_path / "b", "more") == "more"
    with pytest.raises(ConfigError, match=r"loaded: none"):
        UserModel(tiny_pretrained(), "cpu").represent(HISTORIES, "age")


def test_a_bundle_of_the_wrong_kind_says_what_to_use(model):
    with pytest.raises(ConfigError, match="ranking task") as caught:
        model.predict(HISTORIES, "shop")
    assert caught.value.remedy == "use recommend"
    for use in (lambda: model.recommend(HISTORIES, "age"), lambda: next(iter(model.score_batches(None, "age")))):
        with pytest.raises(ConfigError, match="classification task") as caught:
            use()
        assert caught.value.remedy == "use predict"


def test_targets_are_those_of_the_bundle_or_the_source(model):
    assert model.targets() is model.catalogue
    assert model.targets("shop") is TARGETS
    with pytest.raises(ConfigError, match="classification task"):
        model.targets("age")


# ---------------------------------------------------------------- answers and settings


def test_answering_changes_nothing(model):
    def everything(bundle: Bundle) -> list[torch.Tensor]:
        return [tensor.clone() for tensor in bundle.tensors().values()]

    before, bundles_before = model.pretrained.fingerprint, [everything(bundle) for bundle in model.bundles.values()]
    first = answers(model)
    assert answers(model) == first
    assert model.pretrained.fingerprint == before
    for bundle, tensors in zip(model.bundles.values(), bundles_before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(everything(bundle), tensors, strict=True))
        assert not any(p.requires_grad for part in (bundle.patch, bundle.head) for p in part.parameters())
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


def test_labels_are_the_most_probable_classes():
    predictions = Predictions(
        ("a", "b", "c"), np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]], np.float32), np.array([2, 1])
    )
    assert predictions.labels == ["b", "a"]


@pytest.mark.parametrize("device", ["cudaa", "", "cuda:99", "gpu"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(ConfigError, match="no such device") as caught:
        UserModel(tiny_pretrained(), device)
    assert "cpu" in caught.value.remedy


def test_options_are_checked(model):
    with pytest.raises(ConfigError, match="batch_size is 0"):
        model.represent(HISTORIES, batch_size=0)
    with pytest.raises(TypeError, match="batchsize"):
        model.predict(HISTORIES, "age", batchsize=3)
    with pytest.raises(ConfigError, match="'drop'"):
        model.represent(HISTORIES, unknown="drop")
    with pytest.raises(UnknownItemsError):
        model.represent([["item-1", "x"]], unknown="error")


def test_taking_scores_leaves_the_callers_torch_as_it_is(model):
    sequences = model.encode(HISTORIES).sequences
    modes = [torch.is_inference_mode_enabled() for _ in model.score_batches(sequences, "shop", batch_size=1)]
    assert modes == [False] * len(HISTORIES)
    assert torch.ones(1, requires_grad=True).requires_grad


def test_paths_may_be_text_or_paths(tmp_path, model):
    for path in (tmp_path / "a", str(tmp_path / "b")):
        model.save_pretrained(path)
        assert UserModel.from_pretrained(path, "cpu").fingerprint == model.fingerprint
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["a", "b"]
