"""Fitting of calibrations on users who were not trained on: one temperature, or a rising curve of each output."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.isotonic import IsotonicRegression

from peterrec.nn.calibration import Calibration, Curve, plain_probabilities

LARGEST_LOG = 3.0  # temperatures from 0.05 to 20: a network beyond says nothing, or needs another training
MAX_SLOPE = 20.0  # of a curve: outputs that two ways of computing round otherwise stay the same to within 1e-5

Outputs = Float[np.ndarray, "N K"]
Indicators = Int[np.ndarray, "N K"]


def fit_temperature(outputs: Outputs, indicators: Indicators, *, exclusive: bool) -> Calibration:
    """Return the temperature of the lowest log-loss (Guo et al., ICML 2017).

    Args:
        outputs: (N, K) of users' heads.
        indicators: (N, K) 1 for the class of each user, or for each label that the user has.
        exclusive: whether they are classes.
    """

    def log_loss(log_temperature: float) -> float:
        scaled = outputs * np.exp(-log_temperature)
        if exclusive:
            return float(-(log_softmax(scaled, axis=1) * indicators).sum(axis=1).mean())
        return float(np.logaddexp(0.0, np.where(indicators == 1, -scaled, scaled)).mean())

    best = minimize_scalar(log_loss, bounds=(-LARGEST_LOG, LARGEST_LOG), method="bounded", options={"xatol": 1e-6})
    return Calibration("temperature", len(outputs), temperature=float(np.exp(best.x)))


def fit_isotonic(outputs: Outputs, indicators: Indicators, *, exclusive: bool) -> Calibration:
    """Return a rising curve of each class against all others, or of each label (Zadrozny and Elkan, KDD 2002).

    Args:
        outputs: as of `fit_temperature`.
        indicators: as of `fit_temperature`.
        exclusive: whether they are classes.
    """
    plain = plain_probabilities(torch.from_numpy(outputs).double(), exclusive=exclusive).numpy()
    curves = tuple(fit_curve(plain[:, column], indicators[:, column]) for column in range(outputs.shape[1]))
    return Calibration("isotonic", len(outputs), curves=curves)


def fit_curve(probabilities: Float[np.ndarray, " N"], labels: Int[np.ndarray, " N"]) -> Curve:
    """Return the isotonic regression of labels of 0 and 1, through the centres of its steps.

    Between the centres it rises (Oron and Flournoy, Statistics in Biopharmaceutical Research 2017): a step would make
    equals of different users, and answers jump by what rounding does. Neither 0 nor 1 is reached: N users cannot show
    that a class is impossible (rule of succession).

    Args:
        probabilities: of users.
        labels: 1 for those of the class.
    """
    least = 1.0 / (len(labels) + 2)
    steps = IsotonicRegression(y_min=least, y_max=1.0 - least).fit_transform(probabilities, labels)
    heights, step = np.unique(steps, return_inverse=True)
    counts = np.bincount(step).astype(np.float64)
    centres = np.bincount(step, weights=probabilities) / counts
    points: list[tuple[float, float, float]] = []
    for x, y, count in zip(centres.tolist(), heights.tolist(), counts.tolist(), strict=True):
        points.append((x, y, count))
        while len(points) > 1 and points[-1][1] - points[-2][1] > MAX_SLOPE * (points[-1][0] - points[-2][0]):
            points[-2:] = [_merged(*points[-2:])]
    return Curve(tuple(point[0] for point in points), tuple(point[1] for point in points))


def _merged(first: tuple[float, float, float], second: tuple[float, float, float]) -> tuple[float, float, float]:
    count = first[2] + second[2]
    return (
        (first[0] * first[2] + second[0] * second[2]) / count,
        (first[1] * first[2] + second[1] * second[2]) / count,
        count,
    )
