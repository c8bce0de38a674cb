"""`PatchClassifier`, `PatchRegressor`, `PatchRanker`: a task on a pre-trained backbone, as estimators."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from peterrec.answers import FloatArray, NumberPredictions, Predictions, Recommendations
from peterrec.artifacts.bundle_io import Bundle
from peterrec.data.decision import chosen_classes
from peterrec.data.ids import as_histories
from peterrec.errors import DataError
from peterrec.model import UserModel
from peterrec.sklearn.histories import QUIET, HistoryEstimator, event_table, fitted_backbone, task_corpus
from peterrec.training.adapt import adapt

TASK = "task"


class _TaskEstimator(HistoryEstimator):
    """Base of estimators that adapt a backbone to a task."""

    def __init__(
        self,
        backbone: str | Path | UserModel | None = None,
        *,
        strategy: str = "patch",
        adapt_params: Mapping[str, Any] | None = None,
        prepare_params: Mapping[str, Any] | None = None,
        pretrain_params: Mapping[str, Any] | None = None,
        valid_fraction: float = 0.1,
        batch_size: int = 256,
    ) -> None:
        self.backbone = backbone
        self.strategy = strategy
        self.adapt_params = adapt_params
        self.prepare_params = prepare_params
        self.pretrain_params = pretrain_params
        self.valid_fraction = valid_fraction
        self.batch_size = batch_size

    def _adapt(self, histories: Any, folder: Path, **task: Any) -> Bundle:
        model = fitted_backbone(self.backbone, histories, self.prepare_params, self.pretrain_params, folder)
        self.model_ = UserModel(model.pretrained, str(model.device))  # its bundles are its own
        corpus = task_corpus(self.model_, histories, folder, self.valid_fraction, **task)
        params = QUIET | dict(self.adapt_params or {}) | {"strategy": self.strategy}
        bundle = adapt(self.model_, corpus, TASK, folder / "bundle", **params)
        self.model_.add_bundle(bundle)
        return bundle


class PatchClassifier(ClassifierMixin, _TaskEstimator):  # type: ignore[misc]
    """Classifier of users by their histories: a patch and a head on a frozen backbone (paper, section 3.3).

    Args:
        backbone: a folder written by `pretrain`, or a loaded model; None: one is pre-trained when this is fitted, on
            the histories that it is fitted on. Give one where this is fitted often, as in cross-validation.
        strategy: what is trained: `patch`, `head`, `all`, ... (docs/model.md).
        adapt_params: further settings of `adapt`, such as `{"epochs": 10, "optim": {"lr": 0.001}, "seed": 1}`.
        prepare_params: settings of `prepare` for pre-training.
        pretrain_params: settings of `pretrain`.
        valid_fraction: of the users, by whom the best epoch is chosen; if they are too few, by cross-validation.
        batch_size: users at once.

    Attributes:
        model_: the backbone with the bundle, a `UserModel`.
        bundle_: patch and head, with the metrics of the users who chose the epoch.
        classes_: (K,) the labels, sorted.
    """

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803 - scikit-learn's name
        """Adapt the backbone to the labels.

        Args:
            X: N histories of external item ids, oldest first: a list, an array, or a Series of lists.
            y: (N,) labels.

        Returns:
            Itself.

        Raises:
            DataError: the histories cannot be used as they are, or the labels are not as many.
            PeterRecError: as of `prepare`, `pretrain` and `adapt`.
        """
        histories, y = as_histories(X), np.asarray(y)
        _check_lengths(histories, y)
        check_classification_targets(y)
        self.classes_, indices = np.unique(y, return_inverse=True)
        names = [str(label) for label in self.classes_]
        if len(set(names)) < len(names) or "" in names:
            names = [f"class {number}" for number in range(len(names))]
        users = pa.table({"user_id": np.arange(len(y)), TASK: pa.array(names).take(pa.array(indices))})
        with tempfile.TemporaryDirectory(prefix="peterrec-") as folder:
            self.bundle_ = self._adapt(histories, Path(folder), users=users, classify=[TASK])
        places = {name: place for place, name in enumerate(self.bundle_.class_names)}
        self._columns = [places.get(name) for name in names]
        return self

    def predict_proba(self, X: Any) -> FloatArray:  # noqa: N803
        """Predict the probability of each class.

        Args:
            X: N histories.

        Returns:
            (N, K) float32; columns as `classes_`, rows sum to 1. A user of whom no item is known has the class shares
            of the users of `fit`.

        Raises:
            DataError: the histories cannot be used as they are.
        """
        check_is_fitted(self, "model_")
        answers = self.model_.predict(X, TASK, batch_size=self.batch_size, require_known=False)
        assert isinstance(answers, Predictions)
        probabilities = np.zeros((len(answers.probabilities), len(self.classes_)), dtype=np.float32)
        for place, column in enumerate(self._columns):
            if column is not None:  # nobody of a class without known items could be learned from
                probabilities[:, place] = answers.probabilities[:, column]
        return probabilities

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Predict the most probable class of each user, or the class by a threshold that `adapt_params` ask for.

        Args:
            X: N histories.

        Returns:
            (N,) labels, of the type of `y`.

        Raises:
            DataError: the histories cannot be used as they are.
        """
        probabilities = self.predict_proba(X)
        decision = self.bundle_.decision
        if decision is None or decision.thresholds is None:
            return self.classes_[probabilities.argmax(axis=1)]
        columns = np.array([column for column in self._columns if column is not None])
        places = np.flatnonzero([column is not None for column in self._columns])
        return self.classes_[places[chosen_classes(probabilities[:, places], decision.of_columns(columns))]]


class PatchRegressor(RegressorMixin, _TaskEstimator):  # type: ignore[misc]
    """Regressor of users by their histories: a patch and a linear head on a frozen backbone.

    Args:
        backbone: as of `PatchClassifier`.
        strategy: what is trained: `patch`, `head`, `all`, ... (docs/model.md).
        adapt_params: further settings of `adapt`, such as `{"regression_loss": "huber", "target_transform": "log1p"}`.
        prepare_params: settings of `prepare` for pre-training.
        pretrain_params: settings of `pretrain`.
        valid_fraction: of the users, by whom the best epoch is chosen; if they are too few, by cross-validation.
        batch_size: users at once.

    Attributes:
        model_: the backbone with the bundle, a `UserModel`.
        bundle_: patch and head, with the metrics of the users who chose the epoch.
    """

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803 - scikit-learn's name
        """Adapt the backbone to the numbers.

        Args:
            X: N histories of external item ids, oldest first: a list, an array, or a Series of lists.
            y: (N,) finite numbers.

        Returns:
            Itself.

        Raises:
            DataError: the histories cannot be used as they are, or the numbers are not as many, or not finite numbers.
            PeterRecError: as of `prepare`, `pretrain` and `adapt`.
        """
        histories, numbers = as_histories(X), _as_numbers(y)
        _check_lengths(histories, numbers)
        users = pa.table({"user_id": np.arange(len(numbers)), TASK: pa.array(numbers)})
        with tempfile.TemporaryDirectory(prefix="peterrec-") as folder:
            self.bundle_ = self._adapt(histories, Path(folder), users=users, regress=[TASK])
        return self

    def predict(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Predict the number of each user; of quantiles the median.

        Args:
            X: N histories.

        Returns:
            (N,) float64. A user of whom no item is known has the mean (median) of the users of `fit`.

        Raises:
            DataError: the histories cannot be used as they are.
        """
        return self._answers(X).predictions

    def predict_quantiles(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Predict the `quantiles` of `adapt_params` for each user.

        Args:
            X: N histories.

        Returns:
            (N, Q) float64, ascending for each user; Q is 0 where no quantiles were learned.

        Raises:
            DataError: the histories cannot be used as they are.
        """
        return self._answers(X).quantile_predictions

    def _answers(self, histories: Any) -> NumberPredictions:
        check_is_fitted(self, "model_")
        answers = self.model_.predict(histories, TASK, batch_size=self.batch_size, require_known=False)
        assert isinstance(answers, NumberPredictions)
        return answers


class PatchRanker(_TaskEstimator):
    """Recommender of target items to users by their histories in another domain (paper, section 3.3).

    Args:
        backbone: a folder written by `pretrain`, or a loaded model; None: one is pre-trained when this is fitted, on
            the histories that it is fitted on. Give one where this is fitted often, as in cross-validation.
        strategy: what is trained: `patch`, `head`, `all`, ... (docs/model.md).
        adapt_params: further settings of `adapt`, such as `{"epochs": 10, "optim": {"lr": 0.001}, "seed": 1}`.
        prepare_params: settings of `prepare` for pre-training.
        pretrain_params: settings of `pretrain`.
        valid_fraction: of the users, by whom the best epoch is chosen; if they are too few, by cross-validation.
        batch_size: users at once.

    Attributes:
        model_: the backbone with the bundle, a `UserModel`.
        bundle_: patch and head, with the metrics of the users who chose the epoch.
        targets_: ids of the items that are recommended.
    """

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Adapt the backbone to the items that users chose.

        Args:
            X: N histories of external item ids, oldest first.
            y: N lists of target items: ids of any catalogue.

        Returns:
            Itself.

        Raises:
            DataError: the histories or targets cannot be used as they are, or are not equally many.
            PeterRecError: as of `prepare`, `pretrain` and `adapt`.
        """
        histories, targets = as_histories(X), as_histories(y)
        _check_lengths(histories, targets)
        with tempfile.TemporaryDirectory(prefix="peterrec-") as name:
            folder = Path(name)
            pq.write_table(event_table(targets), folder / "targets.parquet")
            task = {
                "kind": "ranking",
                "name": TASK,
                "events": {"paths": [str(folder / "targets.parquet")]},
                "min_item_events": 1,
            }
            self.bundle_ = self._adapt(histories, folder, tasks=[task])
        assert self.bundle_.targets is not None
        self.targets_ = np.asarray(self.bundle_.targets.ids.to_pylist())
        return self

    def recommend(self, X: Any, k: int = 10, *, exclude_seen: bool | None = None) -> Recommendations:  # noqa: N803
        """Recommend the k best targets to each user.

        Args:
            X: N histories.
            k: items per user.
            exclude_seen: leave out items of the user's own history; None: as training showed.

        Returns:
            Items, best first, with scores.

        Raises:
            DataError: the histories cannot be used as they are.
        """
        check_is_fitted(self, "model_")
        options = {"batch_size": self.batch_size, "require_known": False}
        return self.model_.recommend(X, TASK, k, exclude_seen=exclude_seen, **options)

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Recommend one item to each user.

        Args:
            X: N histories.

        Returns:
            (N,) ids.

        Raises:
            DataError: the histories cannot be used as they are.
        """
        return np.asarray([items[0] for items in self.recommend(X, 1, exclude_seen=False).items])

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """Return the mean reciprocal rank of the first of the user's targets, among the 100 best (0 beyond).

        Args:
            X: N histories.
            y: N lists of target items.

        Returns:
            0 to 1; higher is better.

        Raises:
            DataError: the histories or targets cannot be used as they are.
        """
        targets = as_histories(y)
        answers = self.recommend(X, 100, exclude_seen=False).items
        _check_lengths(answers, targets)
        ranks = [
            next((rank for rank, item in enumerate(items, start=1) if item in set(chosen)), np.inf)
            for items, chosen in zip(answers, targets, strict=True)
        ]
        return float(np.mean(1 / np.asarray(ranks))) if ranks else float("nan")


def _as_numbers(values: Any) -> npt.NDArray[np.float64]:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise DataError("y is not one finite number for each user", remedy="pass N numbers, without NaN and infinity")
    return numbers


def _check_lengths(histories: Any, labels: Any) -> None:
    if len(histories) != len(labels):
        raise DataError(
            f"there are {len(histories):,} histories and {len(labels):,} labels", remedy="pass one label for each user"
        )
