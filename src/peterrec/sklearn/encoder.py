"""`UserEncoder`: histories in, vectors out, in a pipeline of scikit-learn."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from peterrec.answers import FloatArray
from peterrec.model import UserModel
from peterrec.nn.readout import readout_named
from peterrec.sklearn.histories import HistoryEstimator, fitted_backbone


class UserEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, HistoryEstimator):  # type: ignore[misc]
    """Transformer of histories into vectors of users: what a pre-trained backbone makes of them (paper, section 3.3).

    Args:
        backbone: a folder written by `pretrain`, or a loaded model; None: one is pre-trained when this is fitted, on
            the histories that it is fitted on, without any label.
        readout: of the hidden states: `token` ([TCL]), `pooled` (sums over all events) or `both`.
        prepare_params: settings of `prepare` for pre-training, such as `{"source": {"min_item_events": 1}}`.
        pretrain_params: settings of `pretrain`, such as `{"epochs": 5, "seed": 1}`.
        batch_size: users at once.

    Attributes:
        model_: the backbone, a `UserModel`.
    """

    def __init__(
        self,
        backbone: str | Path | UserModel | None = None,
        *,
        readout: str = "both",
        prepare_params: Mapping[str, Any] | None = None,
        pretrain_params: Mapping[str, Any] | None = None,
        batch_size: int = 256,
    ) -> None:
        self.backbone = backbone
        self.readout = readout
        self.prepare_params = prepare_params
        self.pretrain_params = pretrain_params
        self.batch_size = batch_size

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Load the backbone, or pre-train one.

        Args:
            X: N histories of external item ids, oldest first: a list, an array, or a Series of lists.
            y: not used.

        Returns:
            Itself.

        Raises:
            PeterRecError: as of `prepare` and `pretrain`, or of `UserModel.from_pretrained`.
        """
        with tempfile.TemporaryDirectory(prefix="peterrec-") as folder:
            self.model_ = fitted_backbone(self.backbone, X, self.prepare_params, self.pretrain_params, Path(folder))
        return self

    def transform(self, X: Any) -> FloatArray:  # noqa: N803
        """Compute a vector for each user.

        Args:
            X: N histories.

        Returns:
            (N, 3 C) float32, of a backbone with C channels (`token`: C, `pooled`: 2 C); a user of whom no item is known
            has the vector of an empty history.

        Raises:
            DataError: the histories cannot be used as they are.
        """
        check_is_fitted(self, "model_")
        return self.model_.represent(X, readout=self.readout, batch_size=self.batch_size, require_known=False)

    @property
    def _n_features_out(self) -> int:
        return readout_named(self.readout).width(self.model_.network.backbone.config.channels)
