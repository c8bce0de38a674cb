"""The verb `pretrain`: a backbone learns to predict the next item at every position, or masked items."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback

from peterrec._version import __version__
from peterrec.arguments import checked
from peterrec.artifacts.backbone_io import PretrainedBackbone, save_backbone
from peterrec.config import PretrainConfig, dump_yaml, with_settings, without_runner
from peterrec.data.batching import EpochStream
from peterrec.data.cache import cached_path, only_maker
from peterrec.data.corpus import Corpus
from peterrec.data.preprocessing import feature_sizes
from peterrec.data.pretraining_users import split_users
from peterrec.data.sequences import FIRST_ITEM, IntArray, Sequences
from peterrec.errors import ConfigError, DataError
from peterrec.model import UserModel
from peterrec.nn.build import build_backbone
from peterrec.nn.heads import log_share
from peterrec.nn.losses import LogUniformSampler
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.readout import TrainedReadout, readout_named
from peterrec.training.callbacks import Curve
from peterrec.training.co_occurrence import item_factors
from peterrec.training.continued import Start
from peterrec.training.distributed import join, on_rank_zero
from peterrec.training.item_content import FittedContent, add_content, fold_content
from peterrec.training.loggers import check_loggers_and_callbacks
from peterrec.training.loop import Plan, fit
from peterrec.training.objectives import ExampleSource, Objective, objective_of, valid_batches
from peterrec.training.pretrain_module import PretrainModule
from peterrec.training.probe import Probe
from peterrec.training.selection import too_few
from peterrec.training.work_folder import WorkFolder

FloatArray = npt.NDArray[np.float64]

logger = logging.getLogger(__name__)

PREDICTED = ("valid_loss", "hr@10", "mrr@10", "ndcg@10")
REPEAT_USERS = 100_000  # enough to tell how often people come back to an item
MOST_REPEATS = 0.01  # of the events, that `recommend` may leave out by default


@checked
def pretrain(
    corpus: str | Path | Corpus,
    out: str | Path | None = None,
    config: PretrainConfig | None = None,
    *,
    initial: str | Path | UserModel | None = None,
    items: Any = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> UserModel:
    """Pre-train a backbone on the sequences of a corpus and write it to `out` (paper, section 3.2).

    A causal backbone learns to predict the next item at every position, a noncausal one items that are masked in its
    input. Some users, `valid_fraction` of them by a hash of their id, are held out: the loss over their positions (of
    the noncausal one: over fixed masked ones) chooses the best epoch, and HR@10 and MRR@10 of their last item, by full
    ranking, are recorded.

    Args:
        corpus: a folder written by `prepare`, or an opened corpus.
        out: folder of the backbone; while training, `OUT.training` holds the resume points. None: one in
            `~/.cache/peterrec` (or `PETERREC_CACHE`), named by corpus and settings: opened if it is there, and a killed
            run is gone on with.
        config: settings; defaults if not given.
        initial: backbone to go on from, with a later log: a folder, `hf://organization/name`, or a loaded model. The
            corpus is prepared with its catalogue, which may be extended: new items start where `grow` would put them.
            All of it is trained, so it is another backbone after that, to which `migrate` brings bundles.
        items: Parquet, CSV or a DataFrame with a column `item_id` and columns that describe items: texts, categories,
            numbers, or lists of numbers such as vectors of any embedding model. What they say becomes a second part of
            an item's embedding and of what it is scored with, learned beside the first; new items have it at once
            (`grow(items=...)`).
        resume: go on with a killed run; the result is the same as without the kill, bit for bit on a CPU.
        overwrite: replace the backbone at `out`.
        callbacks: of Lightning, called while training (docs/tuning.md); an error that one raises ends it.
        settings: of `PretrainConfig`, by name, in place of those of `config`: `epochs=1, backbone={"channels": 32}`.

    Returns:
        The backbone, as it was written, without a bundle.

    Raises:
        DataError: too few users with two events or more; `items` cannot be read, or describes none of the catalogue's.
        TaskError: a task to probe is not there, not of classes, or has too few train users.
        ArtifactError: `out` exists, the corpus cannot be read, or there is an unfinished run that is not to be resumed
            or cannot be.
        ConfigError: the unfinished run had other settings, those of the runner do not work on this machine,
            `table_updates` asks for rows of a catalogue with the full softmax or with content of items, a readout is
            trained with a task, or `backbone` is not that of `initial`.
        FingerprintError: the corpus does not have the catalogue, or the features of events, of `initial`.
        TrainingError: the loss is not finite.
        InterruptedRun: Ctrl-C or SIGTERM; go on with `resume`.
        StorageError: the disk is full or the place is not writable.
    """
    config = with_settings(PretrainConfig, config, settings)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    start = None if initial is None else Start.at(initial, corpus)
    if start is not None:
        config = start.continued(config)
    sources = Sources(corpus, start, None if items is None else FittedContent.from_table(items, corpus.catalogue))
    if out is not None:
        return _pretrain(sources, Path(out), config, callbacks, resume=resume, overwrite=overwrite)
    path = cached_path("backbone", __version__, *sources.fingerprints().values(), dump_yaml(without_runner(config)))
    with only_maker(path):
        if path.exists() and not overwrite:
            logger.info(f"opening {path}, which was pre-trained on the same corpus with the same settings")
            return UserModel.from_pretrained(path)
        return _pretrain(sources, path, config, callbacks, resume=True, overwrite=overwrite)


@dataclass(frozen=True)
class Sources:
    """Inputs of a pre-training.

    Attributes:
        corpus: histories.
        start: backbone to go on from, if there is one.
        content: of the items, if there is a table of it.
    """

    corpus: Corpus
    start: Start | None
    content: FittedContent | None

    def fingerprints(self) -> dict[str, str]:
        """Return fingerprints of all, by name."""
        start = {} if self.start is None else {"continued_from": self.start.fingerprint}
        content = {} if self.content is None else {"items": self.content.fingerprint}
        return {"corpus": self.corpus.manifest["fingerprint"], **start, **content}

    def network(self, config: PretrainConfig, rows: IntArray) -> NextItemModel:
        """Return the network before training, with a part for the content of items where there is a table of it.

        Args:
            config: of the training.
            rows: users that it may be started from.
        """
        corpus = self.corpus
        network = _network(corpus, config, rows) if self.start is None else self.start.network(corpus, config, rows)
        if self.content is not None:
            add_content(network, self.content.features, np.sqrt(corpus.catalogue.counts), config.content_dropout)
        return network

    @property
    def origin(self) -> dict[str, Any]:
        """Metadata of the backbone that tell of the start and of the table of items."""
        start = {} if self.start is None else self.start.origin
        return start if self.content is None else start | {"items": self.content.fingerprint}

    def finished(self, pretrained: PretrainedBackbone) -> PretrainedBackbone:
        """Return a trained backbone as it is kept: the part for content added up, items retired as at the start."""
        if self.content is not None:
            pretrained = replace(pretrained, content=fold_content(pretrained.network, self.content.encoder))
        return pretrained if self.start is None else replace(pretrained, retired=self.start.pretrained.retired)


def _pretrain(
    sources: Sources,
    out: Path,
    config: PretrainConfig,
    callbacks: Sequence[Callback],
    *,
    resume: bool,
    overwrite: bool,
) -> UserModel:
    corpus = sources.corpus
    items = len(corpus.catalogue)
    check_settings(config, items, has_content=sources.content is not None)
    check_loggers_and_callbacks(config.runner)
    sampler = LogUniformSampler(items) if config.sampled(items) else None
    train_rows, valid_rows = _hold_out(corpus, config)
    probe = Probe.from_config(corpus, config)
    join(config.runner)
    inputs = sources.fingerprints()
    settings = dump_yaml(config)
    work = WorkFolder(out, config, inputs, resume=resume, overwrite=overwrite, kind="backbone")
    windows = objective_of(config, items).windows(corpus.sequences, train_rows)
    batch_size = config.batch_size_for(len(windows.lengths))
    config = config.model_copy(update={"batch_size": batch_size})
    objective = objective_of(config, items)
    facts: dict[str, Any] = {
        "users": len(train_rows), "windows": len(windows.lengths), "batch_size": batch_size,
        "objective": objective_name(objective, config), "loss": _loss_name(config, items),
        "repeat_fraction": repeat_fraction(corpus.sequences, train_rows),
    }  # fmt: skip
    _log_start(corpus, facts, len(valid_rows))
    source = ExampleSource(objective, windows, sampler, corpus.sequences)
    stream = EpochStream(source, batch_size, config.seed)
    valid = valid_batches(objective, corpus.sequences.take(valid_rows))
    with torch.random.fork_rng(devices=[]):  # layers draw from torch's own generator before we draw from ours
        network = sources.network(config, train_rows)
        module = PretrainModule(network, config, sampler, probe)
        plan = replace(pretraining_plan(config, probe), evaluates_start=sources.start is not None)
        curve = fit(module, stream, valid, work, plan, config.runner, extra=callbacks)
    warnings = _hold_out_warnings(len(valid_rows), config)
    training = facts | sources.origin | _outcome(curve, config, probe) | {"warnings": warnings}
    pretrained = sources.finished(_pretrained_backbone(network, corpus, config, training))
    on_rank_zero(lambda: save_backbone(out, pretrained, config_yaml=settings, overwrite=overwrite))
    on_rank_zero(work.remove)
    for warning in warnings:
        logger.warning(warning)
    return UserModel(pretrained)


def objective_name(objective: Objective, config: PretrainConfig) -> str:
    """Return in words what a training of these settings learns from."""
    predicted = [objective.name] if config.prediction_weight > 0 else []
    return " and ".join([*predicted, *(["contrastive"] if config.contrastive.weight > 0 else [])])


def _loss_name(config: PretrainConfig, items: int) -> str:
    if config.prediction_weight == 0:
        return "contrastive"
    return f"sampled softmax with {config.negatives} shared negatives" if config.sampled(items) else "full softmax"


def _log_start(corpus: Corpus, facts: dict[str, Any], held_out: int) -> None:
    items = len(corpus.catalogue)
    logger.info(
        f"pre-training on {facts['users']:,} users, {held_out:,} held out, {items:,} items, {facts['loss']}"
        + (" and contrastive" if facts["objective"].endswith(" and contrastive") else "")
    )
    if (new_users := int(corpus.new_users.sum())) > 0:
        logger.info(f"{new_users:,} new users are kept out of it")


def _hold_out_warnings(held_out: int, config: PretrainConfig) -> list[str]:
    if config.monitor == "probe":
        return []
    few = too_few(held_out, "held-out")
    setting = "max_valid_users" if held_out == config.max_valid_users else "valid_fraction"
    return [] if few is None else [f"{few}, but they chose it: raise {setting}"]


def _pretrained_backbone(
    network: NextItemModel, corpus: Corpus, config: PretrainConfig, training: dict[str, Any]
) -> PretrainedBackbone:
    """Return the backbone with what must be known of its data: how they were prepared, who was held out."""
    unknown: Literal["skip", "unk"] = "unk" if corpus.manifest["rare_items"] == "unk" else "skip"
    origin = {
        "corpus_fingerprint": corpus.manifest["fingerprint"],
        "seed": config.seed,
        "valid_fraction": config.valid_fraction,
    }
    return PretrainedBackbone(
        network, corpus.catalogue, config.max_length, unknown, training | origin,
        preprocessing=corpus.provenance().preprocessing,
        exclude_seen=training["repeat_fraction"] < MOST_REPEATS,
        new_users=corpus.kept_out_users,
    )  # fmt: skip


def repeat_fraction(sequences: Sequences, rows: IntArray) -> float:
    """Return the fraction of events whose item the user had before, of at most `REPEAT_USERS` of the users."""
    sample = sequences.take(rows[np.linspace(0, len(rows) - 1, min(len(rows), REPEAT_USERS)).astype(np.int64)])
    pairs = sample.repeat() * (int(sample.items.max(initial=0)) + 1) + sample.items
    items = pairs[sample.items >= FIRST_ITEM]
    return 1.0 - len(np.unique(items)) / max(1, len(items))


def check_settings(config: PretrainConfig, items: int, *, has_content: bool = False) -> None:
    """Refuse settings that do not fit a catalogue of so many items, or content of them.

    Raises:
        ConfigError: `table_updates` asks for rows of a catalogue with the full softmax, or a readout is trained with a
            task.
    """
    readouts = {"contrastive": config.contrastive.weight > 0, "probe": bool(config.probe.tasks)}
    for name, used in readouts.items():
        readout = getattr(config, name).readout
        if used and isinstance(readout_named(readout), TrainedReadout):
            raise ConfigError(
                f"{name}.readout {readout} has weights of a task, which pre-training does not have",
                remedy=f"set {name}.readout to token, pooled or both",
            )
    if has_content and config.by_rows(items):
        raise ConfigError("content of items is learned with whole tables", remedy="set table_updates to dense")
    if config.table_updates == "rows" and not config.sampled(items):
        raise ConfigError(
            f"table_updates rows needs the sampled softmax, but {items:,} items get the full one",
            remedy="set loss to sampled, or table_updates to auto",
        )


def _network(corpus: Corpus, config: PretrainConfig, rows: IntArray) -> NextItemModel:
    """Return the network before training; `rows` are the users that it may be started from."""
    popularity = log_share(torch.from_numpy(corpus.catalogue.counts))
    sizes = feature_sizes(corpus.provenance().preprocessing)
    backbone = build_backbone(config.backbone, len(corpus.catalogue), seed=config.seed, feature_sizes=sizes)
    if config.item_init == "co-occurrence":
        factors = item_factors(corpus.sequences, rows, backbone.items, config.backbone.channels, config.seed)
        with torch.no_grad():
            backbone.embedding.weight[FIRST_ITEM:] = torch.from_numpy(factors)
    backbone.embedding.requires_grad_(config.trains_item_embeddings)
    return NextItemModel(backbone, popularity, seed=config.seed)


def shown_metrics(config: PretrainConfig, probe: Probe | None = None) -> tuple[str, ...]:
    """Return the metrics of held-out users that a training of these settings has, the one that decides first."""
    predicted = PREDICTED if config.prediction_weight > 0 else ()
    contrasted = ("contrastive_loss",) if config.contrastive.weight > 0 else ()
    probed = () if probe is None else probe.shown
    monitor = config.chosen_by if probe is None or config.monitor != "probe" else probe.mean_column
    return tuple(dict.fromkeys((monitor, *predicted, *contrasted, *probed)))


def pretraining_plan(config: PretrainConfig, probe: Probe | None) -> Plan:
    """Return the plan of a pre-training: what it is shown and chosen by, and how long it goes on."""
    shown = shown_metrics(config, probe)
    mode = "min" if shown[0].endswith("loss") else "max"
    return Plan.from_config(config, "pre-training", mode, shown)


def _outcome(curve: Curve, config: PretrainConfig, probe: Probe | None) -> dict[str, Any]:
    names = (*shown_metrics(config, probe), *(() if probe is None else probe.columns))
    outcome = {
        "best_epoch": int(curve.best["epoch"]),
        "monitor": curve.monitor,
        "metrics": {name: curve.best[name] for name in names if name in curve.best},
        "curve": curve.rows,
    }
    if curve.start is not None:
        outcome["start"] = {name: value for name, value in curve.start.items() if name != "epoch"}
    return outcome if probe is None else outcome | {"probe": probe.description()}


def _hold_out(corpus: Corpus, config: PretrainConfig) -> tuple[IntArray, IntArray]:
    train, valid = split_users(corpus, config)
    if len(train) == 0 or len(valid) == 0:
        raise DataError(
            f"{len(train)} users to train on and {len(valid)} held out have two events or more; both are needed",
            remedy="prepare again with more users, a lower source.min_item_events or fewer new_users, or raise "
            "valid_fraction",
            path=corpus.path,
        )
    return train, valid
