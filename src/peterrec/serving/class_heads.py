"""The heads of many classification tasks, applied at once: each row of a batch has its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from peterrec.serving.loaded_bundle import LoadedBundle

MAX_STACKED_CLASSES = 32  # of the heads that are stacked: each row gathers as many vectors as the largest of them has


class ClassHeads:
    """Heads of the bundles of classification tasks among these; those of one width and few classes in one stack.

    Args:
        loaded: bundles.
    """

    def __init__(self, loaded: Iterable[LoadedBundle]) -> None:
        stacks: dict[tuple[int, bool], list[LoadedBundle]] = {}
        for version in loaded:
            classes, width = version.bundle.head.weight.shape
            if version.bundle.kind == "classification":
                alone = classes > MAX_STACKED_CLASSES
                stacks.setdefault((width if not alone else id(version), alone), []).append(version)
        self._place: dict[int, tuple[int, int]] = {}
        self._stacks: list[tuple[Tensor, Tensor]] = []
        for members in stacks.values():
            self._place |= {id(version): (len(self._stacks), i) for i, version in enumerate(members)}
            self._stacks.append(_stack(members))

    def probabilities(
        self, vectors: Float[Tensor, "N R"] | list[Tensor], tasks: Sequence[LoadedBundle]
    ) -> list[list[float]]:
        """Return the probabilities of the classes of each row's task.

        Args:
            vectors: N representations, of the width of each row's head.
            tasks: N bundles, whose head reads each row.
        """
        outputs: list[list[float]] = [[] for _ in tasks]
        rows_of: dict[int, list[int]] = {}
        for row, task in enumerate(tasks):
            rows_of.setdefault(self._place[id(task)][0], []).append(row)
        for stack, rows in rows_of.items():
            weight, bias = self._stacks[stack]
            slots = [self._place[id(tasks[row])][1] for row in rows]
            inputs = torch.stack([vectors[row] for row in rows]) if len(rows) < len(vectors) else _as_tensor(vectors)
            if len(weight) == 1:
                logits = F.linear(inputs, weight[0], bias[0])
            elif slots == list(range(len(weight))):
                logits = torch.baddbmm(bias.unsqueeze(2), weight, inputs.unsqueeze(2)).squeeze(2)
            else:
                indices = torch.tensor(slots, device=weight.device)
                logits = torch.baddbmm(bias[indices].unsqueeze(2), weight[indices], inputs.unsqueeze(2)).squeeze(2)
            for row, values in zip(rows, logits.float().softmax(dim=1).tolist(), strict=True):
                outputs[row] = values[: len(tasks[row].bundle.class_names)]
            _calibrate(outputs, rows, logits, tasks)
        return outputs


def _calibrate(
    outputs: list[list[float]], rows: Sequence[int], logits: Float[Tensor, "n K"], tasks: Sequence[LoadedBundle]
) -> None:
    """Put calibrated probabilities where the task of a row has a calibration."""
    places_of: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        if tasks[row].bundle.calibration is not None:
            places_of.setdefault(id(tasks[row]), []).append(place)
    for places in places_of.values():
        bundle = tasks[rows[places[0]]].bundle
        calibrated = bundle.probabilities(logits[places, : len(bundle.class_names)].float())
        for place, values in zip(places, calibrated.tolist(), strict=True):
            outputs[rows[place]] = values


def _as_tensor(vectors: Float[Tensor, "N R"] | list[Tensor]) -> Float[Tensor, "N R"]:
    return torch.stack(vectors) if isinstance(vectors, list) else vectors


def _stack(members: Sequence[LoadedBundle]) -> tuple[Tensor, Tensor]:
    """Return weights (S, K, R) and biases (S, K); outputs that a task does not have are never chosen."""
    heads = [member.bundle.head for member in members]
    max_classes = max(len(head.bias) for head in heads)
    weight = torch.stack([F.pad(head.weight.detach(), (0, 0, 0, max_classes - len(head.bias))) for head in heads])
    bias = torch.stack(
        [F.pad(head.bias.detach(), (0, max_classes - len(head.bias)), value=-torch.inf) for head in heads]
    )
    return weight, bias
