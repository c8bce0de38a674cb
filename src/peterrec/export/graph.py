"""The graph that is exported: from rows of item indices to the answers of a model, one tensor each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from peterrec.artifacts.bundle_io import Bundle
from peterrec.data.number_outputs import LARGEST_LOG, NumberOutputs
from peterrec.data.sequences import Sequences
from peterrec.model import UserModel
from peterrec.nn.backbone import Backbone
from peterrec.nn.calibration import Curve, plain_probabilities
from peterrec.nn.heads import item_scores
from peterrec.nn.patch import Patch
from peterrec.nn.readout import represent
from peterrec.nn.tokens import SPECIAL, end_of, tokens_before

KNOWN_EVENTS = "known_events"


class _Vectors(nn.Module):
    """Representations of users, as a head reads them; without a patch the plain backbone's."""

    def __init__(
        self, backbone: Backbone, max_length: int, patch: Patch | None = None, readout: str = "token",
        readout_module: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone = backbone.masking_always()
        self.max_length = max_length
        self.patch = patch
        self.readout = readout
        self.readout_module = readout_module

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B R"]:
        """Return them."""
        latest = _latest(tokens, self.max_length)
        return represent(self.backbone, latest, self.patch, self.readout, self.readout_module)


class _NextItems(nn.Module):
    """Scores of the items of the source catalogue that are not retired."""

    rows: Tensor | None

    def __init__(self, model: UserModel) -> None:
        super().__init__()
        pretrained = model.pretrained
        self.network, self.max_length = pretrained.network, pretrained.max_length
        self.backbone = pretrained.network.backbone.masking_always()
        positions = np.asarray(pretrained.catalogue.encode(pretrained.next_items.ids)) - pretrained.catalogue.first
        rows = torch.from_numpy(positions) if pretrained.retired else None
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B n"]:
        """Return them."""
        vectors = self.network.next_item_vectors(self.backbone, _latest(tokens, self.max_length))
        weight, bias = self.network.output_table()
        if self.rows is not None:
            weight, bias = weight[self.rows], bias[self.rows]
        return item_scores(vectors, weight, bias)


class _Probabilities(nn.Module):
    """Probabilities of classes or labels from the outputs of a head, calibrated as the bundle says."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        calibration = bundle.calibration
        self.exclusive = bundle.kind != "multilabel"
        self.temperature = 1.0 if calibration is None else calibration.temperature
        curves = () if calibration is None else calibration.curves
        self.curves = _Curves(curves) if curves else None

    def forward(self, outputs: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return them."""
        if self.curves is None:
            return plain_probabilities(outputs / self.temperature, exclusive=self.exclusive)
        calibrated: Tensor = self.curves(plain_probabilities(outputs.double(), exclusive=self.exclusive))
        if self.exclusive:
            calibrated = calibrated / calibrated.sum(dim=1, keepdim=True)
        return calibrated.float()


class _Curves(nn.Module):
    """Rising curves (`calibration.Curve`), of each column its own, as sums of ramps: no search, which runtimes lack.

    The first ramp of each ends at 0, where no probability is below, and so stands for the lowest value: added as a
    number of its own, OpenVINO 2026.4 gives another sum.
    """

    starts: Tensor
    widths: Tensor
    slopes: Tensor

    def __init__(self, curves: tuple[Curve, ...]) -> None:
        super().__init__()
        longest = max(len(curve.x) for curve in curves)
        starts, widths, slopes = (torch.zeros(len(curves), longest, dtype=torch.float64) for _ in range(3))
        for row, curve in enumerate(curves):
            x, y = (torch.tensor(values, dtype=torch.float64) for values in (curve.x, curve.y))
            starts[row, 0], widths[row, 0], slopes[row, 0] = -1.0, 1.0, y[0]
            starts[row, 1 : len(x)], widths[row, 1 : len(x)] = x[:-1], x.diff()
            slopes[row, 1 : len(x)] = y.diff() / x.diff()
        self.register_buffer("starts", starts)
        self.register_buffer("widths", widths)
        self.register_buffer("slopes", slopes)

    def forward(self, probabilities: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return what each column's curve makes of it."""
        climbed = torch.minimum((probabilities.unsqueeze(2) - self.starts).clamp(min=0), self.widths)
        return (climbed * self.slopes).sum(dim=2)


class _Numbers(nn.Module):
    """Numbers in their unit from the outputs of a head, as `NumberOutputs.numbers`."""

    def __init__(self, numbers: NumberOutputs) -> None:
        super().__init__()
        self.numbers = numbers

    def forward(self, outputs: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return them, float64."""
        values = outputs.double() * self.numbers.deviation + self.numbers.mean
        if self.numbers.quantiles:
            values = values.sort(dim=1).values
        return torch.expm1(values.clamp(max=LARGEST_LOG)) if self.numbers.transform == "log1p" else values


class _Answer(nn.Module):
    """One output of the graph: some layers after each other, and another answer about users without known events."""

    without_events: Tensor | None

    def __init__(self, layers: list[nn.Module], without_events: Tensor | None) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.register_buffer("without_events", without_events)

    def forward(self, tokens: Int[Tensor, "B T"], known_events: Int[Tensor, " B"]) -> Float[Tensor, "B K"]:
        """Return it."""
        values: Tensor = self.layers(tokens)
        if self.without_events is None:
            return values
        return torch.where((known_events == 0).unsqueeze(1), self.without_events.to(values.dtype), values)


@dataclass(frozen=True)
class ExportedOutput:
    """An output of the graph.

    Attributes:
        name: `BUNDLE.probabilities`, `BUNDLE.label_probabilities`, `BUNDLE.numbers` or `BUNDLE.scores`; of a backbone
            alone `representation` and `next_item_scores`.
        bundle: name of the bundle; None: of the backbone.
        columns: what its columns are: names, in order. Empty: of items, as in `targets`, or of a representation.
        targets: file with the items that its columns are; None: they are none.
        module: computes it.
    """

    name: str
    bundle: str | None
    columns: tuple[str, ...]
    targets: str | None
    module: nn.Module = field(repr=False)


class AnswerGraph(nn.Module):
    """The answers of a model about users as one network without branches, so that it can be exported.

    Args:
        outputs: of it.
        max_length: columns of its input: the most that a bundle, or the backbone, reads.
    """

    def __init__(self, outputs: tuple[ExportedOutput, ...], max_length: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.max_length = max_length
        self.answers = nn.ModuleList(output.module for output in outputs)

    @property
    def names(self) -> list[str]:
        """Names of what `forward` returns, in order."""
        return [*(output.name for output in self.outputs), KNOWN_EVENTS]

    def forward(self, tokens: Int[Tensor, "B T"]) -> dict[str, Tensor]:
        """Return the outputs by name.

        Args:
            tokens: item indices of B users, oldest first, padded with 0 before or behind; T is `max_length`.
        """
        known_events = (tokens >= SPECIAL).sum(dim=1)
        answers = [answer(tokens, known_events) for answer in self.answers]
        return dict(zip(self.names, [*answers, known_events], strict=True))


def answer_graph(model: UserModel) -> AnswerGraph:
    """Return the graph of a model: of its bundles, or without any of the backbone itself."""
    pretrained = model.pretrained
    if model.bundles:
        outputs = [_bundle_output(model, name, bundle) for name, bundle in model.bundles.items()]
        longest = max(bundle.max_length for bundle in model.bundles.values())
    else:
        outputs, longest = _backbone_outputs(model), pretrained.max_length
    graph = AnswerGraph(tuple(outputs), longest)
    return graph.eval().requires_grad_(False)


def library_answers(model: UserModel, graph: AnswerGraph, sequences: Sequences) -> dict[str, np.ndarray[Any, Any]]:
    """Return what the model itself answers, by the names of the graph's outputs."""
    answers: dict[str, np.ndarray[Any, Any]] = {}
    for output in graph.outputs:
        kind = output.name.rpartition(".")[2]
        if kind == "probabilities":
            answers[output.name] = model.probabilities(sequences, str(output.bundle))
        elif kind == "label_probabilities":
            answers[output.name] = model.label_probabilities(sequences, str(output.bundle))
        elif kind == "numbers":
            answers[output.name] = model.numbers(sequences, str(output.bundle))
        elif kind == "representation":
            answers[output.name] = model.representations(sequences)
        else:
            answers[output.name] = np.concatenate(list(model.score_batches(sequences, output.bundle)))
    return answers | {KNOWN_EVENTS: np.asarray(sequences.item_counts, dtype=np.int64)}


def _bundle_output(model: UserModel, name: str, bundle: Bundle) -> ExportedOutput:
    backbone = bundle.backbone or model.network.backbone
    vectors = _Vectors(backbone, bundle.max_length, bundle.patch, bundle.readout, bundle.readout_module)
    layers: list[nn.Module] = [vectors, bundle.head]
    if bundle.targets is not None:
        assert bundle.popularity is not None
        answer = _Answer(layers, bundle.popularity.scores)
        return ExportedOutput(f"{name}.scores", name, (), f"{name}.targets.parquet", answer)
    if bundle.numbers is not None:
        constant = torch.tensor(bundle.numbers.constant, dtype=torch.float64)
        answer, names = _Answer([*layers, _Numbers(bundle.numbers)], constant), bundle.numbers.names
        return ExportedOutput(f"{name}.numbers", name, names[-bundle.numbers.count :], None, answer)
    priors = None if bundle.class_priors is None else torch.tensor(bundle.class_priors, dtype=torch.float64)
    kind = "label_probabilities" if bundle.kind == "multilabel" else "probabilities"
    answer = _Answer([*layers, _Probabilities(bundle)], priors)
    return ExportedOutput(f"{name}.{kind}", name, bundle.class_names, None, answer)


def _backbone_outputs(model: UserModel) -> list[ExportedOutput]:
    pretrained = model.pretrained
    vectors = _Answer([_Vectors(model.network.backbone, pretrained.max_length)], None)
    outputs = [ExportedOutput("representation", None, (), None, vectors)]
    if pretrained.training.get("objective") != "contrastive":  # which predicts no items
        scores = _Answer([_NextItems(model)], pretrained.popularity.scores)
        outputs.append(ExportedOutput("next_item_scores", None, (), "next_items.parquet", scores))
    return outputs


def _latest(tokens: Int[Tensor, "B T"], count: int) -> Int[Tensor, "B T"]:
    """Return the latest events of each row, where it has more columns than are read."""
    if tokens.shape[1] <= count:
        return tokens
    return tokens_before(tokens, end_of(tokens) - 1, 1, count)
