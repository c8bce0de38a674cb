"""Meaning of the outputs of a head that predicts numbers: their scale, and the quantiles they stand for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Transform = Literal["none", "log1p"]
MEDIAN = 0.5
LARGEST_LOG = 700.0  # of which the exponential is a float64


def quantile_name(quantile: float) -> str:
    """Return what a column of a quantile is called, such as `q0.1`."""
    return f"q{quantile:g}"


@dataclass(frozen=True)
class NumberOutputs:
    """The way from outputs of a head to numbers in their own unit, and back.

    An output is `(transform(number) - mean) / deviation`. There is one output, the prediction; or one for each
    quantile, among which the median is the prediction.

    Attributes:
        transform: applied to numbers first; `log1p`: log(1 + number), of numbers above -1.
        mean: of the transformed numbers of the train users.
        deviation: of these.
        quantiles: that the outputs stand for, ascending; none: the only output is the prediction.
        constant: (K,) the same answer for everybody, in the unit of the numbers: the mean, median or quantiles of the
            train users, and the answer about a user without known events.
    """

    transform: Transform
    mean: float
    deviation: float
    quantiles: tuple[float, ...]
    constant: tuple[float, ...]

    @property
    def count(self) -> int:
        """K, the number of outputs."""
        return max(1, len(self.quantiles))

    @property
    def prediction(self) -> int:
        """Place of the prediction among the outputs."""
        return self.quantiles.index(MEDIAN) if self.quantiles else 0

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of answers: `prediction`, and `q0.1`, ... for each quantile."""
        return ("prediction", *map(quantile_name, self.quantiles))

    def outputs(self, numbers: FloatArray) -> FloatArray:
        """Return what a head should say of numbers; any shape."""
        return (self.transformed(numbers) - self.mean) / self.deviation

    def transformed(self, numbers: FloatArray) -> FloatArray:
        """Return numbers after the transform."""
        return np.log1p(numbers) if self.transform == "log1p" else numbers

    def numbers(self, outputs: npt.NDArray[Any]) -> FloatArray:
        """Return (N, K) numbers in their own unit, from (N, K) outputs; quantiles never cross.

        Outputs of a user are sorted, which can only make quantiles better (Chernozhukov et al., Econometrica 2010).
        """
        values = np.asarray(outputs, dtype=np.float64) * self.deviation + self.mean
        if self.quantiles:
            values = np.sort(values, axis=1)
        return np.expm1(np.minimum(values, LARGEST_LOG)) if self.transform == "log1p" else values

    def columns(self, numbers: FloatArray) -> FloatArray:
        """Return (N, len(names)) columns of answers, from (N, K) numbers."""
        return np.concatenate([numbers[:, [self.prediction]], numbers], axis=1) if self.quantiles else numbers

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            ValueError: the values do not fit one another.
        """
        floats = {name: tuple(map(float, tree[name])) for name in ("quantiles", "constant")}
        read = cls(tree["transform"], float(tree["mean"]), float(tree["deviation"]), **floats)
        finite = np.isfinite([read.mean, read.deviation, *read.quantiles, *read.constant]).all()
        if read.transform not in ("none", "log1p") or not finite or read.deviation <= 0:
            raise ValueError("transform, mean and deviation are no scale of numbers")
        if len(read.constant) != read.count or (read.quantiles and MEDIAN not in read.quantiles):
            raise ValueError("quantiles without the median, or not one constant for each")
        return read
