"""The verb `evaluate`: bundles against baselines on the test users."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from peterrec.arguments import checked
from peterrec.artifacts.bundle_io import Bundle
from peterrec.artifacts.hub import artifact_folder
from peterrec.artifacts.inspection import inspect
from peterrec.config import EvaluateConfig, with_settings
from peterrec.data.corpus import Corpus
from peterrec.data.decision import Decision
from peterrec.data.pretraining_users import unlabelled_sequences
from peterrec.data.sequences import IntArray, Sequences
from peterrec.errors import ConfigError
from peterrec.evaluation.evaluate import evaluate_task
from peterrec.evaluation.matching import comparable, output_columns
from peterrec.evaluation.new_users import describe_overlap, pretraining_overlap
from peterrec.evaluation.results import TaskEvaluation
from peterrec.model import UserModel
from peterrec.sequence_model import attach_bundle, with_separate_bundles
from peterrec.storage import write_json


class BundleScorer:
    """A loaded bundle, seen as a method to evaluate.

    Args:
        model: with the bundle.
        name: of the bundle.
        batch_size: users at once.
        columns: (n,) the output of the bundle for each class or target of the task; None: they are in the same order.
    """

    def __init__(self, model: UserModel, name: str, batch_size: int, columns: IntArray | None = None) -> None:
        self.model = model
        self.name = name
        self.batch_size = batch_size
        self.columns = slice(None) if columns is None or _in_order(columns) else columns
        bundle = model.bundle(name)
        self.trainable: int | None = bundle.trainable_params
        self.trainable_fraction: float | None = bundle.trainable_params / bundle.all_params

    def probabilities(self, sequences: Sequences) -> np.ndarray:
        """Return (N, C) class probabilities."""
        return self.model.probabilities(sequences, self.name, batch_size=self.batch_size)[:, self.columns]

    def label_probabilities(self, sequences: Sequences) -> np.ndarray:
        """Return (N, K) probabilities of labels."""
        return self.model.label_probabilities(sequences, self.name, batch_size=self.batch_size)[:, self.columns]

    @property
    def decision(self) -> Decision | None:
        """Thresholds and sets of classes of the bundle, if it has them."""
        decision = self.model.bundle(self.name).decision
        return decision if decision is None or isinstance(self.columns, slice) else decision.of_columns(self.columns)

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Those that the bundle predicts, if it predicts numbers."""
        numbers = self.model.bundle(self.name).numbers
        return () if numbers is None else numbers.quantiles

    def numbers(self, sequences: Sequences) -> np.ndarray:
        """Return (N, 1 + Q): the prediction, and each quantile."""
        scale = self.model.bundle(self.name).numbers
        assert scale is not None
        return scale.columns(self.model.numbers(sequences, self.name, batch_size=self.batch_size))

    def score_batches(self, sequences: Sequences, batch_size: int) -> Iterator[np.ndarray]:
        """Yield (B, n_targets) scores, rows in order."""
        for scores in self.model.score_batches(sequences, self.name, batch_size=batch_size):
            yield scores[:, self.columns]


def _in_order(columns: IntArray) -> bool:
    return bool(np.array_equal(columns, np.arange(len(columns))))


@checked
def evaluate(
    backbone: str | Path | UserModel,
    corpus: str | Path | Corpus,
    bundles: Mapping[str, str | Path | Bundle] | Sequence[str | Path | Bundle] | str | Path | Bundle,
    out: str | Path | None = None,
    config: EvaluateConfig | None = None,
    **settings: Any,
) -> TaskEvaluation:
    """Evaluate bundles of one task on its test users, beside cheap baselines (paper, section 4.2).

    Classes and targets are matched by name. On another corpus than the one of training, users that a bundle was trained
    on or chosen by do not count as test users; the result says how many these are.

    Args:
        backbone: a folder written by `pretrain` or `hf://organization/name`, or a loaded model.
        corpus: a folder written by `prepare`, or an opened corpus.
        bundles: one or several of one task, as `adapt` returns them or as the folders it writes; a mapping gives them
            names; those of a list are named by their strategies where these differ, else by their paths or places.
        out: JSON file to write; None writes none.
        config: settings; defaults if not given.
        settings: of `EvaluateConfig`, by name, in place of those of `config`.

    Returns:
        The table: for each bundle and baseline every metric with its interval over users (accuracy, macro-F1, AUC,
        macro-AP, HR@k, MRR@k and NDCG@k are 0 .. 1, log-loss is in nats; of numbers MAE, RMSE and pinball loss are in
        their unit), the differences of each bundle from all others on the same users and resamples, and a few
        sentences about them, with how many test users are new to the backbone.

    Raises:
        ConfigError: no bundle, the same one twice, or bundles of different tasks.
        ArtifactError: a folder is missing, damaged or of another format.
        FingerprintError: backbone, corpus and bundles do not belong together, or events were prepared otherwise.
        TaskError: classes or targets cannot be matched, no test user is left, or a bundle has a baseline's name.
        DataError: scores that are not finite; the message names the bundle.
        StorageError: `out` cannot be written.
    """
    config = with_settings(EvaluateConfig, config, settings)
    if not isinstance(backbone, UserModel):
        backbone = UserModel.from_pretrained(artifact_folder(backbone, "backbone"))
    model = with_separate_bundles(backbone)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    model.pretrained.check_corpus(corpus)
    if not isinstance(bundles, Mapping):
        bundles = named_bundles([bundles] if isinstance(bundles, str | Path | Bundle) else bundles, _strategy_of)
    loaded = {name: attach_bundle(model, bundle, f"evaluate {name}") for name, bundle in bundles.items()}
    task = corpus.task(_one_task(model, loaded.values()))
    task_bundles = {name: model.bundle(key) for name, key in loaded.items()}
    columns = {name: output_columns(task, bundle) for name, bundle in task_bundles.items()}
    pretrained = model.pretrained
    task, notes = comparable(
        corpus, task, list(task_bundles.values()), pretrained.training, new_users=pretrained.new_users
    )
    overlap = pretraining_overlap(corpus, task, pretrained)
    notes = [describe_overlap(overlap), *notes]
    scorers = {name: BundleScorer(model, key, config.batch_size, columns[name]) for name, key in loaded.items()}
    evaluation = evaluate_task(task, scorers, config, notes=notes, unlabelled=unlabelled_sequences(corpus))
    evaluation = evaluation.model_copy(update={"pretraining_overlap": overlap})
    if out is not None:
        write_json(Path(out), evaluation.to_json())
    return evaluation


def _one_task(model: UserModel, names: Iterable[str]) -> str:
    tasks = {model.bundle(name).name for name in names}
    if len(tasks) != 1:
        raise ConfigError(
            f"bundles of {len(tasks)} tasks were given ({', '.join(sorted(tasks)) or 'none'})",
            remedy="evaluate the bundles of one task at a time",
        )
    return tasks.pop()


def named_bundles(
    bundles: Sequence[str | Path | Bundle], label_of: Callable[[str | Path | Bundle], str]
) -> dict[str, str | Path | Bundle]:
    """Name bundles by labels where these are distinct; where not, by their paths, or places in the list.

    Raises:
        ConfigError: the same bundle twice.
    """
    distinct = {id(bundle) if isinstance(bundle, Bundle) else Path(bundle).resolve() for bundle in bundles}
    if len(distinct) < len(bundles):
        raise ConfigError("the same bundle was given twice", remedy="name each bundle once")
    names = [label_of(bundle) for bundle in bundles]
    if len(set(names)) < len(names):
        names = [
            f"{name} {place}" if isinstance(bundle, Bundle) else str(bundle)
            for place, (name, bundle) in enumerate(zip(names, bundles, strict=True), start=1)
        ]
    return dict(zip(names, bundles, strict=True))


def _strategy_of(bundle: str | Path | Bundle) -> str:
    if isinstance(bundle, Bundle):
        return bundle.strategy
    return str(inspect(artifact_folder(bundle, "bundle")).get("strategy", "model"))
