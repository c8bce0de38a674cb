"""Calibration: from the outputs of a head to probabilities that are as often right as they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Method = Literal["temperature", "isotonic"]


@dataclass(frozen=True)
class Curve:
    """A rising curve from a probability to a calibrated one: straight between its points, level beyond them.

    Attributes:
        x: of its points, rising.
        y: of its points, rising too, in [0, 1].
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, probabilities: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Return calibrated probabilities."""
        return np.asarray(np.interp(probabilities, self.x, self.y))


@dataclass(frozen=True)
class Calibration:
    """The probabilities of the outputs of a head, as some users of the task made them.

    Attributes:
        method: temperature: outputs divided by one number (Guo et al., ICML 2017), which changes no order of classes;
            isotonic: a rising curve of each class or label (Zadrozny and Elkan, KDD 2002).
        users: how many users it was fitted on.
        temperature: above 1 where the outputs said too much.
        curves: of the classes or labels.
    """

    method: Method
    users: int
    temperature: float = 1.0
    curves: tuple[Curve, ...] = ()

    def probabilities(self, outputs: Float[Tensor, "N K"], *, exclusive: bool) -> Float[Tensor, "N K"]:
        """Return (N, K) calibrated probabilities; of classes, which exclude each other, rows sum to 1."""
        if self.method == "temperature":
            return plain_probabilities(outputs.float() / self.temperature, exclusive=exclusive)
        plain = plain_probabilities(outputs.double(), exclusive=exclusive).cpu().numpy()
        values = np.stack([curve(plain[:, column]) for column, curve in enumerate(self.curves)], axis=1)
        if exclusive:
            values /= values.sum(axis=1, keepdims=True)  # no curve reaches 0
        return torch.from_numpy(values).to(outputs.device, torch.float32)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        shape: dict[str, Any] = {"temperature": self.temperature}
        if self.method == "isotonic":
            shape = {"curves": [{"x": list(curve.x), "y": list(curve.y)} for curve in self.curves]}
        return {"method": self.method, "users": self.users} | shape

    @classmethod
    def from_json(cls, tree: dict[str, Any], outputs: int) -> Self:
        """Read what `to_json` gave, of a head of so many outputs.

        Raises:
            ValueError: a method that there is not, a temperature or a curve that is none.
        """
        method, users = tree["method"], int(tree["users"])
        if method == "temperature":
            temperature = float(tree["temperature"])
            if not 0 < temperature < float("inf"):
                raise ValueError(f"temperature is {temperature}, and must be above 0")
            return cls("temperature", users, temperature)
        if method != "isotonic":
            raise ValueError(f"method is {method!r}, none of temperature, isotonic")
        curves = tuple(_curve(curve) for curve in tree["curves"])
        if len(curves) != outputs:
            raise ValueError(f"there are {len(curves)} curves of {outputs} outputs")
        return cls("isotonic", users, curves=curves)


def _curve(tree: dict[str, Any]) -> Curve:
    x, y = np.array(tree["x"], dtype=np.float64), np.array(tree["y"], dtype=np.float64)
    rising = len(x) > 0 and x.shape == y.shape and (np.diff(x) > 0).all() and (np.diff(y) >= 0).all()
    if not (rising and y[0] > 0 and y[-1] < 1):
        raise ValueError("a curve of calibration does not rise within 0 and 1")
    return Curve(tuple(x.tolist()), tuple(y.tolist()))


def plain_probabilities(outputs: Float[Tensor, "N K"], *, exclusive: bool) -> Float[Tensor, "N K"]:
    """Return the probabilities that outputs are logits of: of classes that exclude each other, or of labels."""
    return outputs.softmax(dim=1) if exclusive else outputs.sigmoid()
