"""What export refuses, and that nothing is written then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from builders import tiny_bundle, tiny_pretrained
from peterrec.config import PreprocessingConfig, build_config
from peterrec.data.corpus import Provenance
from peterrec.errors import ArtifactError, ConfigError, FingerprintError
from peterrec.export.export import export_model
from peterrec.export.formats import FORMATS, Answers, TorchFormat
from peterrec.model import UserModel


class WithoutPackage(TorchFormat):
    """A format whose package nobody has."""

    packages = ("no_such_package",)
    extra = "onnx"


class Wrong(TorchFormat):
    """A runtime that computes something else."""

    def answers(self, path: Path, batches: list[torch.Tensor]) -> list[Answers]:
        answers = super().answers(path, batches)
        answers[1] = {name: values + 0.001 for name, values in answers[1].items()}
        return answers


def refused(folder: Path, match: str, error: type[Exception] = ConfigError, **arguments: Any) -> None:
    model = arguments.pop("model", None) or UserModel(tiny_pretrained(), "cpu")
    with pytest.raises(error, match=match):
        export_model(model, folder / "out", **arguments)
    assert not list(folder.iterdir())


def test_formats_that_cannot_be_written_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path, "'onxx' is no format.*onnx", format="onxx")
    monkeypatch.setitem(FORMATS, "absent", WithoutPackage())
    refused(tmp_path, r"needs no_such_package\n.*pip install 'peterrec\[onnx\]'", format="absent")


def test_a_graph_that_answers_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "wrong", Wrong())
    refused(tmp_path, "answers otherwise.*representation", ArtifactError, format="wrong")


def test_bundles_that_one_row_cannot_serve(tmp_path: Path) -> None:
    pretrained = tiny_pretrained()
    refused(tmp_path, "two bundles are of the task 'age'", bundles=[tiny_bundle(pretrained), tiny_bundle(pretrained)])
    refused(tmp_path, "no name of a file", bundles=[tiny_bundle(pretrained, name="a/b")])
    settings = [build_config(PreprocessingConfig, {"source": {"repeats": repeats}}) for repeats in ("keep", "drop")]
    origins = [Provenance("f" * 64, preprocessing=preprocessing) for preprocessing in settings]
    bundles = [
        tiny_bundle(pretrained, name=name, provenance=origin) for name, origin in zip("ab", origins, strict=True)
    ]
    refused(tmp_path, r"read other events \(source.repeats: keep, drop\)", bundles=bundles)
    refused(tmp_path, "another backbone", FingerprintError, bundles=[tiny_bundle(tiny_pretrained(seed=1))])


def test_a_backbone_that_reads_features_of_events(tmp_path: Path) -> None:
    columns = {"features": [{"column": "n", "encoding": "log-bins"}]}
    preprocessing = build_config(PreprocessingConfig, {"columns": columns})
    model = UserModel(tiny_pretrained(preprocessing=preprocessing), "cpu")
    refused(tmp_path, "reads features of events", model=model)


def test_what_is_there_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for overwrite, match in ((False, "already exists"), (True, "is not a graph")):
        with pytest.raises(ArtifactError, match=match):
            export_model(UserModel(tiny_pretrained(), "cpu"), out, overwrite=overwrite)
    assert (out / "notes.txt").read_text() == "mine"
