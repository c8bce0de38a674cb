"""Models with a bundle of every kind, rows of every length, and how answers to them are compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from builders import shaken, tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.artifacts.backbone_io import PretrainedBackbone
from peterrec.artifacts.bundle_io import Bundle
from peterrec.config import PatchConfig
from peterrec.data.number_outputs import NumberOutputs
from peterrec.export.formats import Answers
from peterrec.export.graph import AnswerGraph
from peterrec.model import UserModel
from peterrec.nn.backbone import UnsharedModules
from peterrec.nn.calibration import Calibration, Curve

BACKBONES: dict[str, dict[str, Any]] = {
    "causal": {},
    "noncausal": {"kind": "noncausal", "kernel_size": 3},
    "last-end": {"kind": "noncausal", "kernel_size": 3, "task_tokens": "last-end"},
    "transformer": {"architecture": "transformer", "layers": 2, "heads": 2, "positions": 5, "dilations": None},
    "noncausal-transformer": {
        "architecture": "transformer", "kind": "noncausal", "layers": 2, "heads": 2, "positions": 50, "dilations": None,
    },
}  # fmt: skip
SPEND = NumberOutputs("log1p", 3.0, 1.5, (0.1, 0.5, 0.9), (2.0, 20.0, 90.0))
YEARS = NumberOutputs("none", 40.0, 12.0, (), (41.5,))
CURVES = (
    Curve((0.1, 0.3, 0.31), (0.05, 0.2, 0.4)), Curve((0.5,), (0.3,)),
    Curve((0.2, 0.9, 0.95, 1.0), (0.1, 0.5, 0.5, 0.9)),
)  # fmt: skip
LONGEST = 9
# Nothing, [UNK] alone, one event, as many as are read, more than some bundles read, [UNK] among events.
ROWS = [[], [3], [5], [4, 5, 6], list(range(4, 13)), [3, 7, 3, 9], [15, 14, 15, 4, 4, 4]]


def model_of(backbone: str = "causal", *, bundles: bool = True, **settings: Any) -> UserModel:
    """A model with a bundle of each kind of task, readout, calibration and strategy."""
    pretrained = tiny_pretrained(backbone=BACKBONES[backbone], max_length=LONGEST, **settings)
    model = UserModel(pretrained, "cpu")
    for bundle in bundles_of(pretrained) if bundles else ():
        model.add_bundle(bundle)
    return model


def bundles_of(pretrained: PretrainedBackbone) -> Iterator[Bundle]:
    lora = PatchConfig(kind="lora", train_norms=True, train_task_token=True)
    temperature, isotonic = Calibration("temperature", 90, temperature=1.7), Calibration("isotonic", 90, curves=CURVES)
    yield tiny_bundle(pretrained)
    yield tiny_bundle(pretrained, targets=tiny_catalogue(4, first=0), max_length=LONGEST, seed=2)
    yield tiny_bundle(pretrained, name="cold", class_priors=None, strategy="head", readout="pooled")
    yield tiny_bundle(pretrained, name="warm", calibration=temperature, patch_config=PatchConfig(item_rank=2))
    yield tiny_bundle(pretrained, name="curved", calibration=isotonic, patch_config=lora, max_length=7)
    yield tiny_bundle(pretrained, name="labels", kind="multilabel", readout="both", calibration=isotonic)
    yield tiny_bundle(pretrained, name="spend", numbers=SPEND, readout="attention", max_length=3)
    yield tiny_bundle(pretrained, name="years", numbers=YEARS, patch_config=PatchConfig(kind="scale-shift"))
    unshared = UnsharedModules(embedding=True, blocks=1)
    fork = pretrained.network.backbone.fork(unshared)
    shaken(fork.modules_of(unshared), 5, scale=0.4)
    yield tiny_bundle(pretrained, name="forked", strategy="last1", backbone=fork, unshared=unshared)


def rows_of(graph: AnswerGraph, *, before: bool) -> Tensor:
    """The rows as a batch, padded before or behind."""
    tokens = torch.zeros(len(ROWS), graph.max_length, dtype=torch.long)
    for row, items in enumerate(ROWS):
        if items:
            tokens[row, slice(-len(items), None) if before else slice(len(items))] = torch.tensor(items)
    return tokens


def check_answers(answers: Answers, expected: Answers) -> None:
    assert answers.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(answers[name], values, rtol=1e-5, atol=1e-5, err_msg=name)
