"""The verb `audit`: how well an attribute of people can be read from a backbone and its bundles."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from peterrec.arguments import checked
from peterrec.artifacts.bundle_io import Bundle
from peterrec.artifacts.hub import artifact_folder
from peterrec.auditing.attribute import Attribute, read_attribute
from peterrec.auditing.groups import group_differences
from peterrec.auditing.probes import items, out_of_fold, probes_of, without_looking
from peterrec.auditing.sources import sources
from peterrec.config import AuditConfig, with_settings
from peterrec.data.corpus import Corpus
from peterrec.data.hashing import id_hash
from peterrec.data.splits import assign_folds
from peterrec.errors import ConfigError
from peterrec.evaluation.audit_results import AuditResult, ProbeResult
from peterrec.evaluation.bundles import named_bundles
from peterrec.evaluation.intervals import Interval, Resamples, Statistic, bootstrap, verdict
from peterrec.evaluation.label_statistics import mean_over_labels
from peterrec.evaluation.protocols import classification_outcome
from peterrec.evaluation.results import MetricEstimate
from peterrec.evaluation.statistics import auc_statistic, classification_statistics
from peterrec.model import UserModel
from peterrec.report.audit.page import write_audit_page
from peterrec.sequence_model import attach_bundle, with_separate_bundles
from peterrec.storage import write_json

logger = logging.getLogger(__name__)

Probabilities = Float[np.ndarray, "N K"]
Key = tuple[Literal["nothing", "backbone", "readout", "answers", "bag of items"], str | None, str]
"""What is read, whose it is, and the probe."""

METRICS = ("auc", "accuracy", "log_loss")


@checked
def audit(
    backbone: str | Path | UserModel,
    corpus: str | Path | Corpus,
    attribute: str,
    bundles: Mapping[str, str | Path | Bundle] | Sequence[str | Path | Bundle] | str | Path | Bundle = (),
    out: str | Path | None = None,
    config: AuditConfig | None = None,
    **settings: Any,
) -> AuditResult:
    """Measure how well an attribute can be read from vectors and answers, and how bundles serve its groups.

    Every user is guessed by probes that were fitted on others. Beside them stand the answer without looking (floor) and
    a regression on the items themselves (ceiling of what is linear in them). A result that is no better than the floor
    is no proof that nobody can read it.

    Args:
        backbone: a folder written by `pretrain` or `hf://organization/name`, or a loaded model.
        corpus: a folder written by `prepare`, or an opened corpus.
        attribute: a classification task of the corpus, whose test users are audited; or FILE:COLUMN of a table with a
            column `user_id`, all of whose users are.
        bundles: of any tasks: what their heads read, and what they answer, is audited, too; a mapping gives them names.
        out: JSON file to write, with a page of the same name that ends in .html; None writes none.
        config: settings; defaults if not given.
        settings: of `AuditConfig`, by name, in place of those of `config`.

    Returns:
        AUC, accuracy and log-loss of each probe with intervals over users; and of each bundle the largest difference of
        its metrics between groups of its test users.

    Raises:
        ConfigError: the same bundle twice, or `out` is no JSON file.
        TaskError: no such task, or fewer than two classes with enough users.
        DataError: the table cannot be read, or lacks a column or the users.
        FingerprintError: backbone, corpus and bundles do not belong together.
        ArtifactError: a folder is missing, damaged or of another format.
        StorageError: `out` cannot be written.
    """
    config = with_settings(AuditConfig, config, settings)
    if out is not None and Path(out).suffix != ".json":
        raise ConfigError(f"out {out} is no JSON file", remedy="name a file that ends in .json")
    if not isinstance(backbone, UserModel):
        backbone = UserModel.from_pretrained(artifact_folder(backbone, "backbone"))
    model = with_separate_bundles(backbone)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    model.pretrained.check_corpus(corpus)
    people = read_attribute(attribute, corpus, config)
    if not isinstance(bundles, Mapping):
        bundles = named_bundles([bundles] if isinstance(bundles, str | Path | Bundle) else bundles, _name_of)
    loaded = {name: attach_bundle(model, bundle, f"audit {name}") for name, bundle in bundles.items()}
    guesses = _guess(model, loaded, people, config)
    differences, notes = group_differences(model, loaded, corpus, people, config)
    result = AuditResult(
        attribute=people.name,
        source=people.source,
        classes=dict(zip(people.class_names, np.bincount(_labels(people)).tolist(), strict=True)),
        probes=_judge(guesses, people, config),
        differences=differences,
        notes=[*people.notes, *notes],
        settings=config.model_dump(mode="json"),
    )
    if out is not None:
        write_json(Path(out), result.to_json())
        write_audit_page(result, Path(out).with_suffix(".html"))
    return result


def _name_of(bundle: str | Path | Bundle) -> str:
    return bundle.name if isinstance(bundle, Bundle) else Path(bundle).name


def _labels(people: Attribute) -> np.ndarray:
    return np.asarray(people.part.labels, dtype=np.int64)


def _guess(
    model: UserModel, bundles: dict[str, str], people: Attribute, config: AuditConfig
) -> dict[Key, Probabilities]:
    """Return what each probe guesses of each user, fitted on others; floor first, ceiling last."""
    part, labels, classes = people.part, _labels(people), len(people.class_names)
    hashes = id_hash(part.user_ids.to_pylist())
    folds = assign_folds(hashes, config.folds, f"audit {config.seed}", labels)
    guess = partial(out_of_fold, folds, classes)
    guesses: dict[Key, Probabilities] = {("nothing", None, "majority"): guess(without_looking(part, classes))}
    for source in sources(model, bundles, part.sequences, config):
        named = probes_of(source.vectors, labels, classes, hashes, seed=config.seed, with_network=config.nonlinear)
        for probe, build in named.items():
            logger.info("%s probe of %s", probe, " ".join(filter(None, (source.bundle, source.reads))))
            guesses[source.reads, source.bundle, probe] = guess(build())
    logger.info("linear probe of the bag of items")
    guesses["bag of items", None, "linear"] = guess(items(part, classes, hashes))
    return guesses


def _judge(guesses: dict[Key, Probabilities], people: Attribute, config: AuditConfig) -> list[ProbeResult]:
    labels = _labels(people)
    statistics = {
        (key, metric): statistic
        for key, probabilities in guesses.items()
        for metric, statistic in _statistics(probabilities, labels).items()
    }
    estimates = bootstrap(statistics, Resamples(len(labels), config.bootstrap, config.seed))
    results = []
    for key in guesses:
        reads, bundle, probe = key
        intervals = {metric: estimates[key, metric].interval(config.confidence) for metric in METRICS}
        family: Literal["floor", "probe", "ceiling"] = "probe"
        if reads in ("nothing", "bag of items"):
            family = "floor" if reads == "nothing" else "ceiling"
        results.append(
            ProbeResult(
                reads=reads, bundle=bundle, probe=probe, family=family,
                values={metric: MetricEstimate.from_interval(interval) for metric, interval in intervals.items()},
                verdict=None if family == "floor" else _against_chance(intervals["auc"]),
            )
        )  # fmt: skip
    return results


def _against_chance(auc: Interval) -> Literal["better", "worse", "no clear difference"]:
    return verdict(Interval(auc.value - 0.5, auc.low - 0.5, auc.high - 0.5))


def _statistics(probabilities: Probabilities, labels: np.ndarray) -> dict[str, Statistic]:
    """Return the metrics of guesses; the AUC of several classes is the mean over each against the rest."""
    statistics = classification_statistics(classification_outcome(probabilities, labels))
    by_class = [
        auc_statistic(probabilities[:, index], (labels == index).astype(np.int64))
        for index in range(probabilities.shape[1])
    ]
    return {"auc": partial(mean_over_labels, by_class)} | {name: statistics[name] for name in METRICS[1:]}
