"""Formats of an exported graph: how each is written, and asked again in its own runtime. One class a format."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from peterrec.arguments import did_you_mean
from peterrec.errors import ConfigError

Answers = dict[str, np.ndarray[Any, Any]]
LEAST_TORCH = (2, 7)
INPUT = "tokens"


class GraphFormat(ABC):
    """One format of a graph.

    Attributes:
        file: its name in the folder of an export.
        packages: that must be importable to write it and to ask it.
        extra: group of peterrec that brings them; none: they are there.
        usage: ten lines of Python that ask the graph, run in the folder of the export.
    """

    file: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    usage: ClassVar[str]

    def missing(self) -> list[str]:
        """Return which of its packages are not installed."""
        return [package for package in self.packages if importlib.util.find_spec(package) is None]

    @abstractmethod
    def write(self, program: ExportedProgram, names: list[str], path: Path) -> None:
        """Write a program to a file; `names` are those of its outputs, in order."""

    @abstractmethod
    def answers(self, path: Path, batches: list[Tensor]) -> list[Answers]:
        """Return what the file answers to each batch, in the format's own runtime."""


class TorchFormat(GraphFormat):
    """`torch.export`: read by torch alone, without peterrec."""

    file = "model.pt2"
    usage = """\
import json

import numpy as np
import torch

model = torch.export.load("model.pt2").module()
example = json.load(open("example.json"))
with torch.inference_mode():
    answers = model(torch.tensor(example["tokens"]))
for name, expected in example["outputs"].items():
    shown = answers[name].reshape(len(expected), -1)[:, : len(expected[0])]
    np.testing.assert_allclose(shown, expected, rtol=1e-4, atol=1e-5)
"""

    def write(self, program: ExportedProgram, names: list[str], path: Path) -> None:
        """Write it."""
        torch.export.save(program, path)

    def answers(self, path: Path, batches: list[Tensor]) -> list[Answers]:
        """Return what it answers."""
        module = torch.export.load(path).module()
        with torch.inference_mode():
            return [{name: value.numpy() for name, value in module(batch).items()} for batch in batches]


class OnnxFormat(GraphFormat):
    """ONNX, by torch's exporter; asked by ONNX Runtime."""

    file = "model.onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")
    extra = "onnx"
    usage = """\
import json

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
example = json.load(open("example.json"))
for name, expected in example["outputs"].items():  # only what is asked for is computed
    (answer,) = session.run([name], {"tokens": np.array(example["tokens"], dtype=np.int64)})
    shown = answer.reshape(len(expected), -1)[:, : len(expected[0])]
    np.testing.assert_allclose(shown, expected, rtol=1e-4, atol=1e-5)
"""

    def write(self, program: ExportedProgram, names: list[str], path: Path) -> None:
        """Write it, in one file unless it passes 2 GB: then its weights stand beside it."""
        written: Any = torch.onnx.export(
            program, input_names=[INPUT], output_names=names, dynamo=True, verbose=False, external_data=False,
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
        )  # fmt: skip
        written.save(str(path))

    def answers(self, path: Path, batches: list[Tensor]) -> list[Answers]:
        """Return what it answers."""
        onnxruntime: Any = importlib.import_module("onnxruntime")
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return [dict(zip(names, session.run(None, {INPUT: batch.numpy()}), strict=True)) for batch in batches]


class OpenVinoFormat(GraphFormat):
    """OpenVINO's intermediate representation, weights in fp32."""

    file = "model.xml"
    packages = ("openvino",)
    extra = "openvino"
    usage = """\
import json

import numpy as np
import openvino

# Without the hint, OpenVINO computes in bf16 where the processor can: answers then differ in the second digit.
model = openvino.compile_model("model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
example = json.load(open("example.json"))
answers = model({"tokens": np.array(example["tokens"], dtype=np.int64)})
for name, expected in example["outputs"].items():
    shown = answers[name].reshape(len(expected), -1)[:, : len(expected[0])]
    np.testing.assert_allclose(shown, expected, rtol=1e-4, atol=1e-5)
"""

    def write(self, program: ExportedProgram, names: list[str], path: Path) -> None:
        """Write it; the weights stand beside it (`model.bin`)."""
        with _without_telemetry():
            openvino: Any = importlib.import_module("openvino")
            model = openvino.convert_model(program)
        for output, name in zip(model.outputs, names, strict=True):
            output.get_tensor().set_names({name})
        model.reshape({INPUT: [-1, _columns(program)]})
        openvino.save_model(model, str(path), compress_to_fp16=False)

    def answers(self, path: Path, batches: list[Tensor]) -> list[Answers]:
        """Return what it answers, computed in fp32."""
        with _without_telemetry():
            openvino: Any = importlib.import_module("openvino")
        model = openvino.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        results = [model({INPUT: batch.numpy()}) for batch in batches]
        return [{output.get_any_name(): result[output] for output in model.outputs} for result in results]


FORMATS: dict[str, GraphFormat] = {"torch": TorchFormat(), "onnx": OnnxFormat(), "openvino": OpenVinoFormat()}


def graph_format(name: str) -> GraphFormat:
    """Return a format that can be written here.

    Raises:
        ConfigError: there is no such format, or a package that it needs is not installed.
    """
    if name not in FORMATS:
        raise ConfigError(
            f"{name!r} is no format{did_you_mean(name, FORMATS)}", remedy=f"choose one of {', '.join(FORMATS)}"
        )
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < LEAST_TORCH:
        least = ".".join(map(str, LEAST_TORCH))
        raise ConfigError(f"export needs torch {least}, and this is {torch.__version__}", remedy="install a later one")
    missing = FORMATS[name].missing()
    if missing:
        remedy = f"pip install 'peterrec[{FORMATS[name].extra}]'"
        raise ConfigError(f"the format {name} needs {' and '.join(missing)}", remedy=remedy)
    return FORMATS[name]


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Keep what exporters say of themselves (deprecations, operators of packages that are not there) off the screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """Keep OpenVINO from telling its makers that it is imported or converts: it does not where CI is set."""
    earlier = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if earlier is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = earlier


def _columns(program: ExportedProgram) -> int:
    shape = next(node for node in program.graph.nodes if node.name == INPUT).meta["val"].shape
    return int(shape[1])
