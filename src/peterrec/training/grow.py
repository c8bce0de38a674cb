"""The verb `grow`: new items get embeddings, and nothing that the backbone says without them is changed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import nn

from peterrec.arguments import checked
from peterrec.artifacts.backbone_io import PretrainedBackbone, save_backbone
from peterrec.artifacts.hub import artifact_folder
from peterrec.config import GrowConfig, PretrainConfig, dump_yaml, with_settings
from peterrec.data.batching import EpochStream
from peterrec.data.corpus import Corpus
from peterrec.data.pretraining_users import split_users
from peterrec.data.sequences import IntArray
from peterrec.errors import DataError, FingerprintError
from peterrec.model import UserModel
from peterrec.nn.losses import LogUniformSampler
from peterrec.nn.next_item import NextItemModel
from peterrec.process import require_one_process
from peterrec.training.loggers import check_loggers_and_callbacks
from peterrec.training.loop import Plan, fit
from peterrec.training.new_items import with_items
from peterrec.training.objectives import ExampleSource, objective_of, valid_batches
from peterrec.training.pretrain_module import PretrainModule
from peterrec.training.work_folder import WorkFolder

logger = logging.getLogger(__name__)

SHOWN = ("valid_loss", "hr@10", "mrr@10", "ndcg@10")


@checked
def grow(
    backbone: str | Path | UserModel,
    corpus: str | Path | Corpus,
    out: str | Path,
    config: GrowConfig | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> UserModel:
    """Add the items that a corpus has more to a backbone, and write the larger backbone to `out`.

    What the network has for a new item is first predicted from the users who have it too, then trained to predict items
    of the corpus, while all that the backbone had is frozen. Every index, row and byte of before stays: of histories
    without new items, all bundles answer bit for bit as on the backbone before, and they load on this one.

    Args:
        backbone: folder of `pretrain` or `grow`, `hf://organization/name`, or a model.
        corpus: folder of `prepare` with the backbone's catalogue, extended (`extend_catalogue`), or an opened corpus.
        out: folder of the backbone to write; while training, `OUT.training` holds the resume points.
        config: settings; defaults if not given.
        resume: go on with a killed run; the result is the same as without the kill, bit for bit on a CPU.
        overwrite: replace the backbone at `out`.
        callbacks: of Lightning, called while training.
        settings: of `GrowConfig`, by name, in place of those of `config`: `epochs=0`.

    Returns:
        The larger backbone, as it was written, without a bundle.

    Raises:
        FingerprintError: the corpus' catalogue does not begin with the backbone's.
        DataError: it has no new item, or too few users; or it has users who were kept out of pre-training.
        ArtifactError, ConfigError, TrainingError, InterruptedRun, StorageError: as for `pretrain`.
    """
    config = with_settings(GrowConfig, config, settings)
    require_one_process()
    if not isinstance(backbone, UserModel):
        backbone = UserModel.from_pretrained(artifact_folder(backbone, "backbone"))
    model = backbone
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    pretrained = model.pretrained
    added = _new_items(model, corpus)
    _require_same_new_users(pretrained, corpus)
    check_loggers_and_callbacks(config.runner)
    training = config.pretraining(pretrained.network.backbone.config, pretrained.max_length)
    train_rows, valid_rows = _hold_out(corpus, training)
    inputs = {"backbone": model.fingerprint, "corpus": corpus.manifest["fingerprint"]}
    work = WorkFolder(Path(out), config, inputs, resume=resume, overwrite=overwrite, kind="backbone")
    logger.info(f"adding {added:,} items to {len(model.catalogue):,}, by {len(train_rows):,} users")
    grown = with_items(pretrained, corpus.catalogue, corpus.sequences, train_rows, config.seed)
    growth: dict[str, Any] = {"corpus_fingerprint": corpus.manifest["fingerprint"], "items": added, "seed": config.seed}
    if config.epochs > 0:
        module = GrowModule(grown.network, training, _sampler(training, len(corpus.catalogue)), added)
        growth |= _train(module, corpus, train_rows, valid_rows, work, callbacks)
    earlier = pretrained.training.get("growth", [])
    grown = replace(grown, training=pretrained.training | {"growth": [*earlier, growth]})
    save_backbone(Path(out), grown, config_yaml=dump_yaml(config), overwrite=overwrite)
    work.remove()
    return UserModel(grown, str(model.device))


def _new_items(model: UserModel, corpus: Corpus) -> int:
    """Return how many items the corpus has that the backbone lacks."""
    old = len(model.catalogue)
    if corpus.catalogue.first_items(old).fingerprint != model.catalogue.fingerprint:
        raise FingerprintError(
            "its catalogue does not begin with the backbone's",
            remedy="prepare it with `prepare --catalogue BACKBONE --extend-catalogue`",
            path=corpus.path,
        )
    if len(corpus.catalogue) == old:
        raise DataError(
            "has no item that the backbone lacks",
            remedy="lower source.min_item_events, or prepare it with --extend-catalogue",
            path=corpus.path,
        )
    return len(corpus.catalogue) - old


def _require_same_new_users(pretrained: PretrainedBackbone, corpus: Corpus) -> None:
    """Refuse a corpus that shows users whom the backbone must not know."""
    kept_out, kept_out_here = (
        None if users is None else users.model_copy(update={"users": 0})
        for users in (pretrained.new_users, corpus.kept_out_users)
    )
    if kept_out is not None and kept_out != kept_out_here:
        raise DataError(
            "has users who were kept out of pre-training as new users",
            remedy="prepare it with the same `new_users` and split",
            path=corpus.path,
        )


def _hold_out(corpus: Corpus, config: PretrainConfig) -> tuple[IntArray, IntArray]:
    train, valid = split_users(corpus, config)
    if len(train) == 0 or len(valid) == 0:
        raise DataError(
            f"{len(train)} users to train on and {len(valid)} held out have two events or more; both are needed",
            remedy="prepare it with more users, or raise valid_fraction",
            path=corpus.path,
        )
    return train, valid


class GrowModule(PretrainModule):
    """Lightning module that trains what a network has for its last items; all else stays as it is, bit for bit."""

    def __init__(
        self, network: NextItemModel, config: PretrainConfig, sampler: LogUniformSampler | None, added: int
    ) -> None:
        super().__init__(network.requires_grad_(False), config, sampler)
        self.added = added
        self.item_parameters = [network.backbone.embedding.weight, *_output_parameters(network)]
        for parameter in self.item_parameters:
            parameter.requires_grad_(True)

    def on_after_backward(self) -> None:
        """Leave a gradient to new items only: AdamW then leaves the others alone, for weights do not decay."""
        super().on_after_backward()
        for parameter in self.item_parameters:
            if (gradient := parameter.grad) is None:
                continue
            old = len(parameter) - self.added
            if gradient.is_sparse:
                gradient._values()[gradient._indices()[0] < old] = 0
            else:
                gradient[:old] = 0


def _output_parameters(network: NextItemModel) -> list[nn.Parameter]:
    return [network.bias] if network.head is None else [network.head.weight, network.head.bias]


def _sampler(config: PretrainConfig, items: int) -> LogUniformSampler | None:
    return LogUniformSampler(items) if config.sampled(items) else None


def _train(
    module: GrowModule,
    corpus: Corpus,
    train_rows: IntArray,
    valid_rows: IntArray,
    work: WorkFolder,
    callbacks: Sequence[Callback],
) -> dict[str, Any]:
    """Train what the network has for new items, to its best epoch; return the curve and what is measured there."""
    config, sequences = module.config, corpus.sequences
    objective = objective_of(config, len(corpus.catalogue))
    windows = objective.windows(sequences, train_rows)
    source = ExampleSource(objective, windows, module.sampler, sequences)
    stream = EpochStream(source, config.batch_size_for(len(windows.lengths)), config.seed)
    valid = valid_batches(objective, sequences.take(valid_rows))
    plan = replace(Plan.from_config(config, "growing", "min", SHOWN), evaluates_start=True)
    with torch.random.fork_rng(devices=[]):  # torch draws from a generator of its own for layers
        curve = fit(module, stream, valid, work, plan, config.runner, extra=callbacks)
    module.trained.requires_grad_(False)
    metrics = {name: curve.best[name] for name in SHOWN if name in curve.best}
    return {"best_epoch": int(curve.best["epoch"]), "metrics": metrics, "curve": curve.rows}
