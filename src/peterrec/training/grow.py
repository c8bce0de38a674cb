"""The verb `grow`: new items get embeddings, and nothing that the backbone says without them is changed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback
from torch import nn

from peterrec.arguments import checked
from peterrec.artifacts.backbone_io import PretrainedBackbone, save_backbone
from peterrec.artifacts.hub import artifact_folder
from peterrec.config import GrowConfig, PretrainConfig, dump_yaml, with_settings
from peterrec.data.batching import EpochStream
from peterrec.data.catalogue import ItemId
from peterrec.data.corpus import Corpus
from peterrec.data.item_content import ItemContent
from peterrec.data.pretraining_users import split_users
from peterrec.data.sequences import IntArray
from peterrec.errors import ConfigError, DataError, FingerprintError
from peterrec.model import UserModel
from peterrec.nn.losses import LogUniformSampler
from peterrec.nn.next_item import NextItemModel
from peterrec.process import require_one_process
from peterrec.storage import check_output
from peterrec.training.loggers import check_loggers_and_callbacks
from peterrec.training.loop import Plan, fit
from peterrec.training.new_items import event_counts, event_features, with_items
from peterrec.training.objectives import ExampleSource, objective_of, valid_batches
from peterrec.training.pretrain_module import PretrainModule
from peterrec.training.retired_items import retired_items
from peterrec.training.work_folder import WorkFolder

FloatArray = npt.NDArray[np.float64]

logger = logging.getLogger(__name__)

SHOWN = ("valid_loss", "hr@10", "mrr@10", "ndcg@10")


@checked
def grow(
    backbone: str | Path | UserModel,
    corpus: str | Path | Corpus | None,
    out: str | Path,
    config: GrowConfig | None = None,
    *,
    items: Any = None,
    retired: Any = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> UserModel:
    """Add new items to a backbone, and write the larger backbone to `out`.

    What the network has for a new item is first predicted from the users who have it and from its content, then trained
    to predict items of the corpus, while all that the backbone had is frozen. Every byte of that stays as it was:
    of histories without new items, all bundles answer bit for bit as on the backbone before, and they load on this one.

    Args:
        backbone: folder of `pretrain` or `grow`, `hf://organization/name`, or a model.
        corpus: folder of `prepare` with the backbone's catalogue, extended (`extend_catalogue`), or an opened corpus:
            its new items are added. None: all that are new in `items` are, of which nothing happened yet.
        out: folder of the backbone to write; while training, `OUT.training` holds the resume points.
        config: settings; defaults if not given.
        items: Parquet, CSV or a DataFrame with a column `item_id` and columns that describe items, old and new ones:
            texts, categories, numbers, or lists of numbers. Of a backbone that was pre-trained with such a table, the
            same columns; without a corpus, new items alone will do.
        retired: Parquet, CSV or a DataFrame with a column `item_id`: items that `recommend` without a bundle is to
            name no more, beside those that were retired before. In histories they are read as ever. Alone, it leaves
            everything else as it is.
        resume: go on with a killed run; the result is the same as without the kill, bit for bit on a CPU.
        overwrite: replace the backbone at `out`.
        callbacks: of Lightning, called while training.
        settings: of `GrowConfig`, by name, in place of those of `config`: `epochs=0`.

    Returns:
        The larger backbone, as it was written, without a bundle.

    Raises:
        FingerprintError: the corpus' catalogue does not begin with the backbone's.
        DataError: there is no new item, or there are too few users; the corpus has users who were kept out of
            pre-training; the items cannot be read, or describe none of the backbone's; or those to retire are none of
            its items, or all.
        ConfigError: neither corpus, items nor items to retire are given; or as for `pretrain`.
        ArtifactError, TrainingError, InterruptedRun, StorageError: as for `pretrain`.
    """
    config = with_settings(GrowConfig, config, settings)
    require_one_process()
    if not isinstance(backbone, UserModel):
        backbone = UserModel.from_pretrained(artifact_folder(backbone, "backbone"))
    content = None if items is None else ItemContent(items)
    check_output(Path(out), overwrite=overwrite, kind="backbone")
    work = None
    retired_before: tuple[ItemId, ...] = backbone.pretrained.retired
    if corpus is not None:
        corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
        _check_corpus(backbone.pretrained, corpus, config)
        if retired is not None:
            retired_items(corpus.catalogue, retired, retired_before)
        read = {"backbone": backbone.fingerprint, "corpus": corpus.manifest["fingerprint"]}
        read["items"] = "none" if content is None else content.fingerprint
        work = WorkFolder(Path(out), config, read, resume=resume, overwrite=overwrite, kind="backbone")
        grown, growth = _by_events(backbone.pretrained, corpus, content, config, work, callbacks)
    elif content is not None:
        grown, growth = _by_content(backbone.pretrained, content)
    elif retired is not None:
        grown, growth = backbone.pretrained, {}
    else:
        raise ConfigError("there is nothing to grow by", remedy="name a corpus, a table of items, or items to retire")
    if retired is not None:
        grown = replace(grown, retired=retired_items(grown.catalogue, retired, retired_before))
        growth["retired"] = len(grown.retired) - len(retired_before)
    growth["items"] = len(grown.catalogue) - len(backbone.catalogue)
    earlier = backbone.pretrained.training.get("growth", [])
    grown = replace(grown, training=grown.training | {"growth": [*earlier, growth]})
    save_backbone(Path(out), grown, config_yaml=dump_yaml(config), overwrite=overwrite)
    if work is not None:
        work.remove()
    return UserModel(grown, str(backbone.device))


def _by_content(pretrained: PretrainedBackbone, content: ItemContent) -> tuple[PretrainedBackbone, dict[str, Any]]:
    """Return a backbone with the items that only a table has, by their content alone."""
    added = content.new_ids(pretrained.catalogue)
    if not len(added):
        raise DataError("has no item that the backbone lacks", remedy="add rows of new items", path=content.path)
    catalogue = pretrained.catalogue.extended(added, np.zeros(len(added), dtype=np.int64))
    logger.info(f"adding {len(added):,} items to {len(pretrained.catalogue):,}, by their content")
    weights = np.sqrt(pretrained.catalogue.counts)
    if pretrained.content is None:
        return with_items(pretrained, catalogue, content.fit(catalogue)[1], weights), {}
    described = content.features(catalogue, pretrained.content.encoder)
    return with_items(pretrained, catalogue, np.zeros((len(catalogue), 0)), weights, described), {}


def _by_events(
    pretrained: PretrainedBackbone,
    corpus: Corpus,
    content: ItemContent | None,
    config: GrowConfig,
    work: WorkFolder,
    callbacks: Sequence[Callback],
) -> tuple[PretrainedBackbone, dict[str, Any]]:
    """Return a backbone with the new items of a corpus, by their users and what else is known of them."""
    training = config.pretraining(pretrained.network.backbone.config, pretrained.max_length)
    train_rows, valid_rows = _hold_out(corpus, training)
    old, items = len(pretrained.catalogue), len(corpus.catalogue)
    logger.info(f"adding {items - old:,} items to {old:,}, by {len(train_rows):,} users")
    features = event_features(corpus.sequences, train_rows, items, config.seed)
    weights, described = np.sqrt(event_counts(corpus.sequences, train_rows, items)[:old]), None
    if content is not None and pretrained.content is not None:
        described = content.features(corpus.catalogue, pretrained.content.encoder)
        weights = _of_described(weights, described, content)
    elif content is not None:
        features = np.column_stack([features, content.fit(corpus.catalogue)[1]])
    grown = with_items(pretrained, corpus.catalogue, features, weights, described)
    growth: dict[str, Any] = {"corpus_fingerprint": corpus.manifest["fingerprint"], "seed": config.seed}
    if config.epochs > 0:
        sampler = LogUniformSampler(items) if training.sampled(items) else None
        module = GrowModule(grown.network, training, sampler, items - old)
        growth |= _train(module, corpus, train_rows, valid_rows, work, callbacks)
    return grown, growth


def _of_described(weights: FloatArray, described: FloatArray, content: ItemContent) -> FloatArray:
    """Return weights of old items without those that a table lacks: what they have of their own is not known."""
    weights = np.where(described[: len(weights), 0] == 0, weights, 0.0)
    if not (weights > 0).any():
        raise DataError(
            "describes no old item that is in the corpus", remedy="give old items and new ones", path=content.path
        )
    return weights


def _check_corpus(pretrained: PretrainedBackbone, corpus: Corpus, config: GrowConfig) -> None:
    """Refuse a corpus by which the backbone cannot grow, and settings of a runner that is not there."""
    _require_new_items(pretrained, corpus)
    pretrained.check_event_features(corpus)
    _require_same_new_users(pretrained, corpus)
    check_loggers_and_callbacks(config.runner)


def _require_new_items(pretrained: PretrainedBackbone, corpus: Corpus) -> None:
    """Refuse a corpus whose items are not those of the backbone and others after them."""
    old = len(pretrained.catalogue)
    if corpus.catalogue.first_items(old).fingerprint != pretrained.catalogue.fingerprint:
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
