"""The worker that runs peterrec, through what a user of it calls; `sides.py` speaks to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from worker import Job, Sizes, histories, serve, tune

from peterrec import AdaptConfig, BackboneConfig, PretrainConfig, UserModel
from peterrec.artifacts.backbone_io import PretrainedBackbone
from peterrec.config import RunnerConfig
from peterrec.data.batching import Windows
from peterrec.data.catalogue import Catalogue
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.sequences import FIRST_ITEM, Sequences
from peterrec.nn.backbone import Backbone
from peterrec.nn.chunked_losses import chunked_full_softmax_loss
from peterrec.nn.losses import LogUniformSampler
from peterrec.nn.matmul import onednn_matmul
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.tokens import TCL, append_token, read_at
from peterrec.training.learners import AdaptModule, Learner
from peterrec.training.loop import TrainedModule, backbone_for_runner
from peterrec.training.objectives import ExampleSource, objective_of
from peterrec.training.optim import clip_gradients, make_optimizer
from peterrec.training.pretrain_module import PretrainModule
from peterrec.training.strategies import build
from peterrec.training.task_kinds import task_objective
from peterrec.training.task_source import TaskSource

BATCHES = 4  # different ones in turn, so that no step meets exactly the rows of the one before
Batch = dict[str, Tensor]


def backbone_config(sizes: Sizes) -> BackboneConfig:
    size = {"channels": sizes.channels, "kernel_size": sizes.kernel, "dilations": sizes.dilations}
    return BackboneConfig(**size, tie_weights=True)


def user_model(sizes: Sizes, device: str = "cpu") -> UserModel:
    """Return a model of random weights, as `from_pretrained` would."""
    network = NextItemModel(Backbone(backbone_config(sizes), sizes.items))
    catalogue = Catalogue(pa.array(range(sizes.items)), np.ones(sizes.items, dtype=np.int64))
    pretrained = PretrainedBackbone(network, catalogue, max_length=sizes.events)
    return UserModel(pretrained, device=device, precision=_literal(sizes.precision), compile=sizes.compile)


def sequences_of(tokens: np.ndarray[Any, Any]) -> Sequences:
    """Return rows as a corpus has them, but in memory."""
    return Sequences(tokens.reshape(-1).astype(np.int32), np.arange(len(tokens) + 1) * tokens.shape[1])


def represent(sizes: Sizes) -> Job:
    """The vector of each user."""
    model, sequences = user_model(sizes), sequences_of(histories(sizes))
    if not sizes.full_pass:
        return lambda: model.representations(sequences, batch_size=sizes.batch)
    backbone = model.network.backbone
    width = backbone.config.channels
    return lambda: model.inference.vectors(sequences, _score_every_position, width, backbone, sizes.events, sizes.batch)


def _score_every_position(backbone: Backbone, tokens: Tensor) -> Tensor:
    """As `represent`, but with every position computed: compared with the receptive field alone."""
    longer, position = append_token(tokens, TCL)
    return read_at(backbone(longer), position.unsqueeze(1))


def rank(sizes: Sizes, device: str = "cpu") -> Job:
    """The best items of each user, of the whole catalogue."""
    model, sequences = user_model(sizes, device), sequences_of(histories(sizes))
    return lambda: model.top_k(sequences, sizes.top, batch_size=sizes.batch)


def pretrain(sizes: Sizes, device: str = "cpu") -> Job:
    """A step of pre-training."""
    config = PretrainConfig(
        item_init="random", dropout=0.0,  # as the other sides compute
        contrastive={"weight": 0.3, "users": sizes.contrastive_users} if sizes.contrastive_users else {"weight": 0.0},
        backbone=backbone_config(sizes), loss=_literal(sizes.loss), negatives=sizes.negatives,
        table_updates=_literal(sizes.table_updates), max_length=sizes.events, batch_size=sizes.batch,
        runner=_runner(sizes),
    )  # fmt: skip
    if sizes.last_only:
        return _last_items(config, sizes)
    sampler = LogUniformSampler(sizes.items) if sizes.loss == "sampled" else None
    module = PretrainModule(NextItemModel(Backbone(backbone_config(sizes), sizes.items)), config, sampler)
    objective = objective_of(config, sizes.items)
    rows, sources = np.arange(sizes.batch), []
    for seed in range(BATCHES):
        sequences = sequences_of(histories(sizes, 1, seed))
        sources.append(ExampleSource(objective, Windows.over(sequences, rows, config.max_length), sampler, sequences))
    drawn = (source.batch(rows, np.random.default_rng(seed)) for seed, source in enumerate(cycle(sources)))
    return _step(module, drawn if sizes.draw else cycle(list(islice(drawn, BATCHES))), sizes, device)


def adapt(sizes: Sizes, device: str = "cpu") -> Job:
    """A step of adapting to a classification task."""
    config = AdaptConfig(
        readout="token",
        strategy=_literal(sizes.strategy),
        max_length=sizes.events,
        batch_size=sizes.batch,
        runner=_runner(sizes),
    )
    names = tuple(f"class {number}" for number in range(sizes.classes))
    task = Task("bench", "classification", Path(), names)
    parts = [_part(sizes, seed) for seed in range(BATCHES)]
    trainable = build(config, Backbone(backbone_config(sizes), sizes.items), task, parts[0])
    sources = [TaskSource(task, part, config) for part in parts]
    learner = Learner(task, parts[0], parts[0], trainable, sources[0], task_objective(config, task, parts[0]))
    rows, rng = np.arange(sizes.batch), np.random.default_rng(0)
    batches = cycle([{"0": source.batch(rows, rng)} for source in sources])
    return _step(AdaptModule([learner], config), batches, sizes, device)


def _part(sizes: Sizes, seed: int) -> TaskPart:
    labels = np.random.default_rng(seed).integers(0, sizes.classes, sizes.batch)
    users = pa.array([str(user) for user in range(sizes.batch)])
    return TaskPart(users, sequences_of(histories(sizes, seed=seed)), labels=labels)


def _last_items(config: PretrainConfig, sizes: Sizes) -> Job:
    """A step with RecBole's loss: the last item of each row, the full softmax; only the last state is computed."""
    module = _LastItems(NextItemModel(Backbone(backbone_config(sizes), sizes.items)), config)
    rows = [torch.from_numpy(histories(sizes, 1, seed)) for seed in range(BATCHES)]
    batches = [{"inputs": row[:, :-1].contiguous(), "last": row[:, -1] - FIRST_ITEM} for row in rows]
    return _step(module, cycle(batches), sizes)


class _LastItems(PretrainModule):
    def __init__(self, network: NextItemModel, config: PretrainConfig) -> None:
        super().__init__(network, config, None)
        self.reader = backbone_for_runner(network.backbone, config.runner, config.batch_size, [config.max_length])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        hidden = self.trained.next_item_vectors(self.reader, batch["inputs"])
        return chunked_full_softmax_loss(hidden, batch["last"], *self.trained.output_table())


def _runner(sizes: Sizes) -> RunnerConfig:
    precision: Any = "bf16-mixed" if sizes.precision == "bf16" else "32-true"
    return RunnerConfig(accelerator="cpu", precision=precision, compile=sizes.compile, progress=False)


def _literal(value: str) -> Any:
    return value  # a name from `Sizes`; the configuration checks it


def _step(module: TrainedModule, batches: Iterator[Any], sizes: Sizes, device: str = "cpu") -> Job:
    """Return what the trainer does with a batch, under the settings that `training/loop.py` makes."""
    if device == "cpu":
        torch.use_deterministic_algorithms(True)
        deterministic: Any = torch.utils.deterministic
        deterministic.fill_uninitialized_memory = False
    module.to(device)
    parameters = [parameter for parameter in module.trained.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(parameters, module.optim)
    clip_norm = module.optim.clip_norm
    mixed: Callable[[], Any] = nullcontext
    if sizes.precision == "bf16":
        mixed = partial(torch.autocast, device, torch.bfloat16)  # as Lightning's bf16-mixed
    module.train()

    def run() -> None:
        optimizer.zero_grad()
        batch = move_data_to_device(next(batches), device)
        with onednn_matmul(device):
            with mixed():
                loss: Any = module.training_step(batch, 0)
            loss.backward()
        module.on_after_backward()
        if clip_norm is not None:
            clip_gradients(parameters, clip_norm)
        optimizer.step()

    return run


if __name__ == "__main__":
    tune()
    serve({"represent": represent, "rank": rank, "pretrain": pretrain, "adapt": adapt})
