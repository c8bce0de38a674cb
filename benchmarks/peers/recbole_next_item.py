"""The worker of RecBole's sides of `next_item.py`, in RecBole's own virtual environment (see `install.py`).

RecBole loads the events, makes its training rows of them (each event after those before it), trains and validates (the
last event of each user: its split LS, valid_only) by its own trainer. The budget is enforced by what the trainer is
handed: batches that end when it is spent, even in the middle of an epoch, and a function that is called after the
validation of an epoch. Loading and making rows is not counted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from next_item_job import TOP, Job, Ranking, Training
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.utils import get_model, get_trainer, init_seed
from torch.nn.utils.rnn import pad_sequence

BATCH = 256
NAME = "events"


class BudgetSpentError(Exception):
    """Raised after the validation of the epoch in which the budget was spent."""


class TimedBatches:
    """RecBole's data loader, but it ends an epoch when the budget is spent."""

    def __init__(self, loader: Any, training: Training) -> None:
        self.loader = loader
        self.training = training
        self.batches = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Interaction]:
        for batch in self.loader:
            self.batches += 1
            yield batch
            if self.training.spent:
                return


def main() -> None:
    job = Job.read()
    with tempfile.TemporaryDirectory() as folder:
        config = configured(job, Path(folder))
        init_seed(config["seed"], config["reproducibility"])
        dataset = create_dataset(config)
        train_data, valid_data, _ = data_preparation(config, dataset)
        model = get_model(config["model"])(config, train_data.dataset).to(config["device"])
        # Its package turns this on for whoever imports it (sine.py): a check that makes training several times as slow.
        torch.autograd.set_detect_anomaly(False)
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        training = Training(job.budget)
        batches = TimedBatches(train_data, training)

        def stop(epoch: int, score: float) -> None:
            if training.spent:
                raise BudgetSpentError

        with suppress(BudgetSpentError):
            trainer.fit(batches, valid_data, callback_fn=stop)
        epochs = batches.batches / len(train_data)
        training.finish(epochs, "epochs" if epochs >= config["epochs"] else "early stopping")
        best = torch.load(trainer.saved_model_file, weights_only=False)
        model.load_state_dict(best["state_dict"])
        catalogue = {item for _, item, _, _ in job.events("train")}
        rank = Ranker(model.eval(), dataset, config, catalogue)
        job.write(
            training,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            notes=f"best epoch {best['epoch'] + 1}",
            all_items=rank(job.histories, exclude=False), unseen_items=rank(job.histories, exclude=True),
        )  # fmt: skip


def configured(job: Job, folder: Path) -> Config:
    """Write the events as RecBole reads them, and return its configuration."""
    (folder / NAME).mkdir()
    with (folder / NAME / f"{NAME}.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(f"{user}\t{item}\t{order}\n" for user, item, order, _ in job.events("train", "valid"))
    settings = {
        "data_path": str(folder), "checkpoint_dir": str(folder / "saved"), "gpu_id": "", "seed": job.seed,
        "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "TIME_FIELD": "timestamp",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_only"}, "order": "TO", "mode": "full", "group_by": "user"},
    }  # fmt: skip
    return Config(model=job.model, dataset=NAME, config_dict=settings | job.settings)


class Ranker:
    """The best items of a trained model.

    Args:
        model: RecBole's.
        dataset: has the ids.
        config: names of the fields.
        catalogue: items that may be recommended: those of the train events.
    """

    def __init__(self, model: Any, dataset: Any, config: Config, catalogue: set[str]) -> None:
        self.model = model
        self.ids = dataset.field2token_id["item_id"]
        self.names = np.asarray(dataset.field2id_token["item_id"], dtype=object)
        self.fields = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"], config["ITEM_LIST_LENGTH_FIELD"]
        self.length = config["MAX_ITEM_LIST_LENGTH"]
        self.outside = torch.tensor([name not in catalogue for name in self.names])

    @torch.no_grad()
    def __call__(self, histories: list[list[str]], *, exclude: bool) -> Ranking:
        """Return the best items for each history, best first; none for one without items that RecBole read."""
        indices = [[self.ids[item] for item in history if item in self.ids] for history in histories]
        best: list[list[str]] = [[] for _ in histories]
        places = [place for place, row in enumerate(indices) if row]
        for start in range(0, len(places), BATCH):
            batch = places[start : start + BATCH]
            scores = self._scores([indices[place][-self.length :] for place in batch])
            for row, place in enumerate(batch):
                if exclude:
                    scores[row, indices[place]] = -torch.inf
                values, order = scores[row].topk(TOP)
                best[place] = self.names[order[values > -torch.inf].numpy()].tolist()
        return best

    def _scores(self, rows: list[list[int]]) -> torch.Tensor:
        items = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        items = torch.nn.functional.pad(items, (0, self.length - items.shape[1]))
        values = items, torch.tensor([len(row) for row in rows])
        interaction = Interaction(dict(zip(self.fields, values, strict=True)))
        scores: torch.Tensor = self.model.full_sort_predict(interaction).view(len(rows), -1).clone()
        scores[:, self.outside] = -torch.inf
        return scores


if __name__ == "__main__":
    main()
