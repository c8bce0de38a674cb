"""The one list of baselines: for each its name, family, kinds of task, settings, and how it is fitted."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from peterrec.arguments import did_you_mean
from peterrec.config import Config, TaskKind
from peterrec.config.loading import build_config
from peterrec.errors import ConfigError
from peterrec.evaluation.baselines.classification import bag_of_items, history_length, majority
from peterrec.evaluation.baselines.ease import ease
from peterrec.evaluation.baselines.factors import factor_regression, factors_name
from peterrec.evaluation.baselines.multilabel import label_regressions, label_shares
from peterrec.evaluation.baselines.neighbours import user_to_user
from peterrec.evaluation.baselines.ranking import item_to_item, popularity
from peterrec.evaluation.baselines.regression import mean_number, median_number, ridge_of_items
from peterrec.evaluation.baselines.ridge import ridge
from peterrec.evaluation.baselines.settings import ConetConfig, DupnConfig, NoSettings
from peterrec.evaluation.baselines.trees import boosted_trees

Family = Literal["cheap", "neural"]
CLASSIFICATION: tuple[TaskKind, ...] = ("classification",)
RANKING: tuple[TaskKind, ...] = ("ranking",)
REGRESSION: tuple[TaskKind, ...] = ("regression",)
MULTILABEL: tuple[TaskKind, ...] = ("multilabel",)


@dataclass(frozen=True)
class Baseline:
    """A method that patches are compared with and that is not a strategy.

    Attributes:
        name: in configurations; tables show cheap ones by it, too.
        kinds: of task that it applies to.
        fit: of a cheap one `fit(train, valid, outputs)`, with the number of classes or targets, returning the fitted
            baseline or why it was skipped, where `unlabelled` is set with these sequences too; of a neural one
            `fit(corpus, tasks, settings, seed, report)`, returning a trained baseline for each task.
        family: `cheap`: fitted in seconds to minutes; `neural`: a network of another paper, trained as ours are.
        settings: class of its settings.
        quick: kinds of task for which `evaluate` fits it beside the bundles.
        all_tasks: whether one training is of all tasks of a data set together.
        unlabelled: whether `fit` takes a keyword `unlabelled`: sequences of users, with a label or without.
    """

    name: str
    kinds: tuple[TaskKind, ...]
    fit: Callable[..., Any]
    family: Family = "cheap"
    settings: type[Config] = NoSettings
    quick: tuple[TaskKind, ...] = ()
    all_tasks: bool = False
    unlabelled: bool = False


def _imported_late(path: str) -> Callable[..., Any]:
    """Return a function that imports `module:function` when it is called: training stands above evaluation."""
    module, _, function = path.partition(":")

    def fit(*args: Any) -> Any:
        return getattr(importlib.import_module(f"peterrec.{module}"), function)(*args)

    return fit


_train_dupn = _imported_late("experiments.neural_baselines.dupn:train_dupn")
_train_conet = _imported_late("experiments.neural_baselines.conet:train_conet")

BASELINES: Mapping[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        Baseline("majority", CLASSIFICATION, majority, quick=CLASSIFICATION),
        Baseline("history length", CLASSIFICATION, history_length, quick=CLASSIFICATION),
        Baseline("tf-idf + logistic regression", CLASSIFICATION, bag_of_items, quick=CLASSIFICATION),
        *(
            Baseline(
                factors_name(count),
                CLASSIFICATION,
                partial(factor_regression, count),
                quick=CLASSIFICATION,
                unlabelled=True,
            )
            for count in (64, 256)
        ),
        Baseline("mean", REGRESSION, mean_number, quick=REGRESSION),
        Baseline("median", REGRESSION, median_number, quick=REGRESSION),
        Baseline("tf-idf + ridge", REGRESSION, ridge_of_items, quick=REGRESSION),
        Baseline("gradient-boosted trees", CLASSIFICATION + REGRESSION, boosted_trees, quick=REGRESSION),
        Baseline("label shares", MULTILABEL, label_shares, quick=MULTILABEL),
        Baseline("tf-idf + logistic regressions", MULTILABEL, label_regressions, quick=MULTILABEL),
        Baseline("popularity", RANKING, popularity, quick=RANKING),
        Baseline("item-to-item cosine", RANKING, item_to_item, quick=RANKING),
        Baseline("user-to-user cosine", RANKING, user_to_user),
        Baseline("ridge across domains", RANKING, ridge, quick=RANKING),
        Baseline("EASE across domains", RANKING, ease),
        Baseline("dupn", CLASSIFICATION + RANKING, _train_dupn, "neural", DupnConfig, all_tasks=True),
        Baseline("conet", RANKING, _train_conet, "neural", ConetConfig),
    )
}
"""By name; simplest first of each kind of task."""


def baseline_names(kind: TaskKind | None = None, family: Family | None = None) -> tuple[str, ...]:
    """Return the names of all baselines, or of those for a kind of task and of a family; simplest first."""
    return tuple(
        baseline.name
        for baseline in BASELINES.values()
        if (kind is None or kind in baseline.kinds) and (family is None or family == baseline.family)
    )


def find_baseline(name: str, kind: TaskKind | None = None, family: Family | None = None) -> Baseline:
    """Return a baseline by its name.

    Raises:
        ConfigError: no such baseline of this kind of task and family; the message lists those there are.
    """
    if name in baseline_names(kind, family):
        return BASELINES[name]
    described = name in baseline_names(family=family)
    message = f"there is no baseline {name!r}{did_you_mean(name, baseline_names(kind, family))}"
    if described:
        message = f"baseline {name!r} is not for {kind}"
    names = ", ".join(baseline_names(kind, family))
    raise ConfigError(message, remedy=f"those of {kind} are {names}" if kind else f"those there are: {names}")


def baseline_settings(name: str, settings: Mapping[str, Any]) -> Config:
    """Return the settings of a baseline with all defaults, without fitting it.

    Raises:
        ConfigError: no such baseline, an unknown key or a value of the wrong type; the message names it.
    """
    settings_class = find_baseline(name).settings
    try:
        return build_config(settings_class, dict(settings))
    except ConfigError as error:
        keys = ", ".join(settings_class.model_fields)
        remedy = f"its settings are {keys}" if keys else "it has no settings"
        raise ConfigError(f"baseline {name!r}: {error.message}", remedy=remedy) from error
