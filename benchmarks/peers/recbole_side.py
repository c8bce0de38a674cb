"""The worker that runs RecBole's NextItNet, in RecBole's own virtual environment (see `install.py`).

The model's methods are called as RecBole's trainer calls them; its data loader, progress bar and evaluator are left
out, as ours are on the other side.
"""

from __future__ import annotations

import torch
from recbole.model.sequential_recommender.nextitnet import NextItNet
from torch import Tensor
from worker import SPECIAL, Job, Sizes, histories, serve, tune

# The package `recbole.model.sequential_recommender` imports all its models, and one of them, sine.py, calls
# torch.autograd.set_detect_anomaly(True) at its top: so anomaly mode is on for whoever trains a sequential model.
SHIPPED_ANOMALY = torch.is_anomaly_enabled()

Interaction = dict[str, Tensor]  # RecBole's class of this name is asked for nothing else here


class Data:
    """The part of a RecBole data set that a model reads: how many items there are, padding included."""

    def __init__(self, items: int) -> None:
        self.items = items + 1

    def num(self, field: str) -> int:
        return self.items


def network(sizes: Sizes) -> NextItNet:
    """Return the model with the settings RecBole ships, but for the number of blocks and what `sizes` says."""
    pattern = list(sizes.dilations[:2])
    config = {
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "LIST_SUFFIX": "_list",
        "ITEM_LIST_LENGTH_FIELD": "item_length",
        "MAX_ITEM_LIST_LENGTH": sizes.events,
        "NEG_PREFIX": "neg_",
        "device": torch.device("cpu"),
        "embedding_size": sizes.channels,
        "kernel_size": sizes.kernel,
        "dilations": pattern,
        "block_num": len(sizes.dilations) // len(pattern),  # repetitions of the pattern: 4 times two blocks
        "reg_weight": 1e-5,
        "loss_type": "CE",
    }
    return NextItNet(config, Data(sizes.items))


def represent(sizes: Sizes) -> Job:
    """Its vector of each user."""
    model, sequences = network(sizes).eval(), _interaction(sizes)["item_id_list"]
    return torch.no_grad()(lambda: model(sequences))


def rank(sizes: Sizes) -> Job:
    """The best items of each user, as its evaluation finds them."""
    model, interaction = network(sizes).eval(), _interaction(sizes)

    def run() -> None:
        scores = model.full_sort_predict(interaction)
        scores[:, 0] = -torch.inf  # the padding
        scores.topk(sizes.top, dim=1)

    return torch.no_grad()(run)


def train(sizes: Sizes) -> Job:
    """A step of training: one target for each row, full softmax."""
    torch.autograd.set_detect_anomaly(SHIPPED_ANOMALY and sizes.anomaly == "shipped")
    model, interaction = network(sizes).train(), _interaction(sizes)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run() -> None:
        optimizer.zero_grad()
        loss = model.calculate_loss(interaction)
        if torch.isnan(loss):
            raise ValueError("Training loss is nan")
        loss.backward()
        optimizer.step()

    return run


def _interaction(sizes: Sizes) -> Interaction:
    tokens = torch.from_numpy(histories(sizes, 1)) - (SPECIAL - 1)  # its items start at 1
    length = torch.full((sizes.batch,), sizes.events)
    return {"item_id_list": tokens[:, :-1].contiguous(), "item_id": tokens[:, -1].clone(), "item_length": length}


if __name__ == "__main__":
    tune()
    serve({"represent": represent, "rank": rank, "train": train})
