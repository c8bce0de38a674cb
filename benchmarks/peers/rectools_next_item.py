"""The worker of RecTools' sides of `next_item.py`, in RecTools' own virtual environment (see `install.py`).

The model is called as RecTools' guide to training its transformers does: with a function that makes the trainer (of
Lightning; `max_time` is the budget), a mask of the events to validate on, and the best epoch by recall@10 there.
"""

from __future__ import annotations

import copy
import importlib
import tempfile
from typing import Any

import numpy as np
import pandas as pd
import torch
from next_item_job import TOP, Job, Ranking, Training
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models.base import ModelBase

VALID_USERS = 2048  # as in RecTools' public benchmark
MONITOR = f"recall@{TOP}"


class BestRecall(Callback):
    """Log the recall among the items that are not in the history, and end with the weights of the best epoch."""

    def __init__(self) -> None:
        self.hits: list[torch.Tensor] = []
        self.best, self.weights = -1.0, None

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        network, items = pl_module.torch_model, pl_module.item_embs
        users = network.encode_sessions(batch, items)[:, -1, :]
        scores = network.similarity_module(users, items).scatter(1, batch["x"], -torch.inf)
        self.hits.append((scores.topk(TOP, dim=1).indices == batch["y"]).any(dim=1).float())

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        recall = float(torch.cat(self.hits).mean())
        self.hits = []
        pl_module.log(MONITOR, recall)
        if recall > self.best and not trainer.sanity_checking:
            self.best, self.weights = recall, copy.deepcopy(pl_module.state_dict())

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.weights is not None:
            pl_module.load_state_dict(self.weights)


class Clock(Callback):
    """Measure from the first step on, as Lightning's `max_time` does."""

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.epochs = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.training = Training(self.budget)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epochs = trainer.global_step / trainer.num_training_batches
        finished = trainer.max_epochs is not None and epochs >= trainer.max_epochs
        self.training.finish(epochs, "epochs" if finished else "early stopping")


def main() -> None:
    job = Job.read()
    seed_everything(job.seed, verbose=False)
    settings = dict(job.settings)
    max_epochs, patience = settings.pop("max_epochs"), settings.pop("patience")
    if "transformer_layers_type" in settings:
        module, _, name = settings["transformer_layers_type"].rpartition(".")
        settings["transformer_layers_type"] = getattr(importlib.import_module(module), name)
    with tempfile.TemporaryDirectory() as folder:

        def make_trainer() -> Trainer:
            callbacks = [BestRecall(), EarlyStopping(MONITOR, mode="max", patience=patience), Clock(job.budget)]
            return Trainer(
                accelerator="cpu", devices=1, max_epochs=max_epochs, max_time={"seconds": job.budget},
                callbacks=callbacks, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder,
            )  # fmt: skip

        frame, valid = training_events(job)

        def valid_mask(raw: pd.DataFrame) -> np.ndarray:
            assert (raw[Columns.User].to_numpy() == frame[Columns.User].to_numpy()).all(), "rows in another order"
            return valid

        kind = getattr(importlib.import_module("rectools.models"), job.model)
        model = kind(**settings, get_trainer_func=make_trainer, get_val_mask_func=valid_mask, verbose=0)
        model.fit(Dataset.construct(frame))
    clock = next(callback for callback in model.fit_trainer.callbacks if isinstance(callback, Clock))
    histories = job.histories
    job.write(
        clock.training,
        parameters=sum(parameter.numel() for parameter in model.lightning_model.torch_model.parameters()),
        all_items=ranked(model, histories, filter_viewed=False),
        unseen_items=ranked(model, histories, filter_viewed=True),
    )


def training_events(job: Job) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the train events with the validation events of some users, evenly, and which rows the latter are."""
    frame = pd.DataFrame(job.events("train", "valid"), columns=["user_id", "item_id", "order", "part"])
    users = frame.loc[frame["part"] == "valid", "user_id"].to_numpy()
    chosen = users[np.unique(np.linspace(0, len(users) - 1, min(VALID_USERS, len(users))).astype(int))]
    frame = frame[(frame["part"] == "train") | frame["user_id"].isin(chosen)]
    return as_interactions(frame), (frame["part"] == "valid").to_numpy()


def ranked(model: ModelBase, histories: list[list[str]], *, filter_viewed: bool) -> Ranking:
    """Return the best items for each history; none for one without known items."""
    rows = [(place, item, order) for place, history in enumerate(histories) for order, item in enumerate(history)]
    dataset = Dataset.construct(as_interactions(pd.DataFrame(rows, columns=["user_id", "item_id", "order"])))
    users = np.array([place for place, history in enumerate(histories) if history])
    answers = model.recommend(users, dataset, TOP, filter_viewed=filter_viewed, on_unsupported_targets="ignore")
    items = answers.sort_values(Columns.Rank).groupby(Columns.User)[Columns.Item].agg(list)
    return [items.get(place, []) for place in range(len(histories))]


def as_interactions(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({
        Columns.User: frame["user_id"].to_numpy(), Columns.Item: frame["item_id"].to_numpy(), Columns.Weight: 1.0,
        Columns.Datetime: pd.to_datetime(frame["order"].to_numpy(), unit="s"),
    })  # fmt: skip


if __name__ == "__main__":
    main()
