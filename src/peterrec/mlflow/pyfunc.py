"""A saved model asked as a pyfunc: DataFrames in, DataFrames out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peterrec.errors import ConfigError, DataError
from peterrec.model import UserModel
from peterrec.storage import read_json

NEXT_ITEMS = "next-items"  # in place of a task: what the backbone itself recommends
HISTORIES = "items"  # column of rows of users


class UserModelPyfunc:
    """A model that answers DataFrames.

    Args:
        model: with its bundles.
    """

    def __init__(self, model: UserModel) -> None:
        self.model = model

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """Answer a DataFrame of events, or of rows with a list of item ids in the column `items`.

        Args:
            model_input: the DataFrame. Events are read as in `UserModel.predict`: answers have the users' ids. Rows are
                answered in their order.
            params: `task`, a bundle or `next-items`; `k`, how many items are recommended.

        Returns:
            A DataFrame of pandas, as `Predictions.to_pandas` or `Recommendations.to_pandas` give it.

        Raises:
            ConfigError: no such task.
            DataError: the DataFrame cannot be used.
        """
        settings = params or {}
        names = list(self.model.bundles)
        task = settings.get("task") or (names[0] if len(names) == 1 else NEXT_ITEMS)
        if task != NEXT_ITEMS and task not in names:
            raise ConfigError(f"the model has no task {task!r}", remedy=f"ask for {', '.join([*names, NEXT_ITEMS])}")
        histories = _histories(model_input)
        if task != NEXT_ITEMS and self.model.bundle(task).kind != "ranking":
            return self.model.predict(histories, task).to_pandas()
        bundle = None if task == NEXT_ITEMS else task
        return self.model.recommend(histories, bundle, int(settings.get("k") or 10)).to_pandas()


def _histories(frame: Any) -> Any:
    if HISTORIES not in getattr(frame, "columns", ()):
        return frame
    histories = list(frame[HISTORIES])
    if any(isinstance(items, str) or not hasattr(items, "__iter__") for items in histories):
        raise DataError(f"column {HISTORIES!r} has what is no list", remedy="give a list of item ids in each row")
    return [list(items) for items in histories]


def folder_model(folder: Path) -> UserModel:
    """Return the model of a folder that `save_model` wrote, with its bundles."""
    model = UserModel.from_pretrained(folder / "backbone")
    for number, name in enumerate(read_json(folder / "bundles.json")["bundles"]):
        model.load_bundle(folder / f"bundle-{number}", name)
    return model


def load_pyfunc(path: str) -> UserModelPyfunc:
    """Return the pyfunc of the data of a saved model."""
    return UserModelPyfunc(folder_model(Path(path)))
