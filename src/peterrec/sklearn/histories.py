"""Histories of an estimator as events, a backbone to read them, and tags of what estimators take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.base import BaseEstimator

from peterrec.data.corpus import Corpus
from peterrec.data.ids import as_histories
from peterrec.data.prepare import prepare
from peterrec.errors import DataError
from peterrec.model import UserModel
from peterrec.training.pretrain import pretrain

QUIET = {"runner": {"progress": False}}
READ = ("max_history", "repeats", "rare_items")  # settings of the source that lists of items can follow


class HistoryEstimator(BaseEstimator):  # type: ignore[misc]
    """Base of estimators whose X is a list, array or Series of N histories: item ids of a user, oldest first."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.non_deterministic = False
        return tags


def event_table(histories: Sequence[Sequence[str | int]], item: str = "item_id") -> pa.Table:
    """Return histories as events: the number of the user, the item, and the place in the history as time.

    Raises:
        DataError: some ids are texts and others integers.
    """
    lengths = [len(history) for history in histories]
    items = [item for history in histories for item in history]
    if len({type(item) for item in items}) > 1:
        raise DataError("ids of items are texts and integers", remedy="make all of them texts, or all integers")
    return pa.table(
        {
            "user_id": np.repeat(np.arange(len(lengths)), lengths),
            item: pa.array(items),
            "timestamp": np.concatenate([np.arange(0), *(np.arange(length) for length in lengths)]),
        }
    )


def fitted_backbone(
    backbone: str | Path | UserModel | None,
    histories: Any,
    prepare_params: Mapping[str, Any] | None,
    pretrain_params: Mapping[str, Any] | None,
    folder: Path,
) -> UserModel:
    """Return a backbone: the one given, or one that is pre-trained on the histories.

    Args:
        backbone: a folder, a loaded model, or None.
        histories: of N users.
        prepare_params: settings of `prepare`.
        pretrain_params: settings of `pretrain`.
        folder: for files that are needed meanwhile.

    Raises:
        PeterRecError: as of `prepare` and `pretrain`, or of `UserModel.from_pretrained`.
    """
    if isinstance(backbone, UserModel):
        return backbone
    if backbone is not None:
        return UserModel.from_pretrained(backbone)
    corpus = prepare(event_table(as_histories(histories)), folder / "pretraining", **(prepare_params or {}))
    return pretrain(corpus, folder / "backbone", **(QUIET | dict(pretrain_params or {})))


def task_corpus(
    model: UserModel, histories: Sequence[Sequence[str | int]], folder: Path, valid_fraction: float, **settings: Any
) -> Corpus:
    """Prepare labelled histories with the catalogue of a backbone; of its users none is kept for a test.

    Args:
        model: whose catalogue is used, and whose settings say how much of a history is read.
        histories: of N users, who are numbered from 0 on.
        folder: for the corpus, and for the catalogue.
        valid_fraction: of the users, who choose the epoch.
        settings: of `prepare`: the task.
    """
    model.save_pretrained(folder / "catalogue")
    preprocessing = model.preprocessing()
    source = {} if preprocessing is None else preprocessing.source.model_dump(include=set(READ))
    return prepare(
        event_table(histories),
        folder / "corpus",
        catalogue=str(folder / "catalogue"),
        source=source,
        split={"train": 1 - valid_fraction, "valid": valid_fraction, "test": 0.0},
        **settings,
    )
