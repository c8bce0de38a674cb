"""Settings of what becomes of the outputs of a head: calibrated probabilities, thresholds, sets of classes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from peterrec.config.base import Config, Positive, Text


class ThresholdConfig(Config):
    """Settings of a threshold that the valid users choose: for a precision, or for the costs of the two errors."""

    precision: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="of those who are answered to have the label; most are found that allow it"
    )
    false_positive_cost: Positive | None = Field(
        default=None, description="of answering the label of a user without it; the mean cost is made lowest"
    )
    false_negative_cost: Positive | None = Field(
        default=None, description="of not answering the label of a user who has it"
    )
    positive_class: Text | None = Field(
        default=None, description="of a task of two classes, that the threshold is for; the second if not given"
    )

    @model_validator(mode="after")
    def _check_one_aim(self) -> Self:
        costs = (self.false_positive_cost, self.false_negative_cost)
        if (self.precision is None) == (costs == (None, None)) or (None in costs and costs != (None, None)):
            raise ValueError("a threshold is for a `precision`, or for `false_positive_cost` and `false_negative_cost`")
        return self


class CalibrationConfig(Config):
    """Settings of what the valid users decide after training, of classification and multilabel tasks."""

    method: Literal["none", "temperature", "isotonic"] = Field(
        default="none",
        description="how probabilities are calibrated; temperature: outputs divided by one number; isotonic: a rising "
        "curve of each class or label (1,000 valid users or more)",
    )
    threshold: ThresholdConfig | None = Field(
        default=None,
        description="that labels are answered by, of multilabel tasks and tasks of two classes; if not given, the most "
        "probable class, and labels of a probability of 0.5 or more",
    )
    conformal: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="share of users whose class may be missing in the set of classes that is answered too; of "
        "classification tasks",
    )

    @property
    def decides(self) -> bool:
        """Whether valid users are to decide anything."""
        return self != CalibrationConfig()
