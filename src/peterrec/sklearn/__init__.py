"""Estimators of scikit-learn over histories: for pipelines, cross-validation, and features beside those of others."""

from peterrec.sklearn.encoder import UserEncoder
from peterrec.sklearn.tasks import PatchClassifier, PatchRanker, PatchRegressor

__all__ = ["PatchClassifier", "PatchRanker", "PatchRegressor", "UserEncoder"]
