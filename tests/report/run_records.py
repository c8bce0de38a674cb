"""A run made by hand: three tasks with realistic, invented numbers, and what a test wants to change of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest

from peterrec.evaluation.results import Comparison, EvaluationProtocol, MethodResult, MetricEstimate, TaskEvaluation
from peterrec.evaluation.sentence import describe
from peterrec.report.run.record import (
    BackboneFacts,
    BundleFacts,
    ClassFacts,
    Curve,
    DataFacts,
    Histogram,
    InputFile,
    Machine,
    RunRecord,
    Stage,
    Step,
    TaskFacts,
    TaskRecord,
)

PROTOCOL = EvaluationProtocol(k=5, sampled_negatives=99, bootstrap=1000, confidence=0.95, seed=0)
BACKBONE = 1_134_592
PATCH = 19_584
LOWER = ("log_loss",)
VERSIONS = {"python": "3.11.9", "torch": "2.13.0+cpu", "lightning": "2.6.6", "peterrec": "0.1.0"}
MODELS = ("patch", "head")
AGES = ("<25", "25-29", "30-34", "35-39", "40-44", "45-49", "50-54", "55-59", "60-64", ">65")


def evaluation(
    task: str,
    kind: str,
    primary: str,
    table: dict[str, dict[str, tuple[float, float]]],
    *,
    users: int,
    outputs: int,
    models: Sequence[str] = MODELS,
    settings: dict[str, dict[str, Any]] | None = None,
) -> TaskEvaluation:
    """Rows of method -> metric -> (value, half width); a difference is clear where it is above half of both widths."""
    methods = [
        MethodResult(
            name=name,
            family="model" if name in models else "baseline",
            trainable=10 if name in models else None,
            trainable_fraction=0.02 if name in models else None,
            settings=(settings or {}).get(name, {}),
            values={metric: MetricEstimate(value=v, low=v - half, high=v + half) for metric, (v, half) in row.items()},
        )
        for name, row in table.items()
    ]
    metrics = list(next(iter(table.values())))
    about = [primary] + (["auc"] if "auc" in metrics else [])
    comparisons = []
    for name, metric, reference in product([m for m in table if m in models], about, table):
        if name != reference:
            (value, half), (reference_value, half_other) = table[name][metric], table[reference][metric]
            comparisons.append(comparison(name, reference, metric, value - reference_value, 0.5 * (half + half_other)))
    return TaskEvaluation(
        task=task,
        kind=kind,
        users=users,
        rows=users if kind == "classification" else 2 * users,
        candidates=outputs if kind == "ranking" else None,
        protocol=PROTOCOL,
        metrics=metrics,
        primary=primary,
        lower_is_better=[metric for metric in metrics if metric in LOWER],
        methods=methods,
        comparisons=comparisons,
        sentence=describe(methods, comparisons, primary),
    )


def comparison(method: str, reference: str, metric: str, difference: float, half: float) -> Comparison:
    verdict = "better" if difference > half else "worse" if difference < -half else "no clear difference"
    limits = {"low": difference - half, "high": difference + half}
    return Comparison(
        method=method, reference=reference, metric=metric, difference=difference, verdict=verdict, **limits
    )


def curve(monitor: str, start: float, end: float, epochs: int, best: int, **metrics: float) -> Curve:
    """A curve that goes from `start` to `end` until `best` (from 0), and a little back after it."""

    def at(epoch: int, begin: float, finish: float) -> float:
        value = finish + (begin - finish) * math.exp(-2.5 * min(epoch, best) / max(1, best))
        return value + 0.03 * (begin - finish) * max(0, epoch - best)

    rows = [
        {
            "epoch": epoch,
            "train_loss": at(min(epoch, best), 1.1, 0.9) * (0.69 if monitor == "mrr" else start) - 0.005 * epoch,
            monitor: at(epoch, start, end),
            **{name: at(epoch, 0.3 * value, value) for name, value in metrics.items()},
            "seconds": 11.5 + 0.25 * epoch,
        }
        for epoch in range(epochs)
    ]
    return Curve(monitor=monitor, best_epoch=best, rows=rows)


def bundle(strategy: str, outputs: int, learned: Curve) -> BundleFacts:
    patch = PATCH if strategy == "patch" else 0
    head = 65 * outputs
    return BundleFacts(
        strategy=strategy,
        patch_params=patch,
        head_params=head,
        backbone_params=0,
        all_params=BACKBONE + patch + head,
        outputs=outputs,
        seed=0,
        fingerprint=f"{strategy}-{outputs}-" + "0123456789abcdef" * 3,
        bytes=4 * (patch + head) + 2_321,
        curve=learned,
    )


def cells(names: Sequence[str], values: Sequence[float], halves: Sequence[float]) -> dict[str, tuple[float, float]]:
    return {name: (value, half) for name, value, half in zip(names, values, halves, strict=True)}


def returns() -> TaskRecord:
    """A binary task that patch wins on AUC, and on accuracy against all but the strongest baseline."""
    names = ("accuracy", "macro_f1", "log_loss", "auc")
    table = {
        "patch": cells(names, (0.741, 0.702, 0.521, 0.783), (0.009, 0.011, 0.012, 0.010)),
        "head": cells(names, (0.729, 0.684, 0.538, 0.765), (0.009, 0.011, 0.012, 0.010)),
        "majority": cells(names, (0.641, 0.391, 0.653, 0.5), (0.010, 0.004, 0.005, 0.0)),
        "history length": cells(names, (0.722, 0.671, 0.549, 0.752), (0.009, 0.011, 0.010, 0.011)),
        "tf-idf + logistic regression": cells(names, (0.736, 0.69, 0.519, 0.769), (0.009, 0.011, 0.011, 0.010)),
    }
    settings = {"tf-idf + logistic regression": {"C": 1.0, "chosen by": "log-loss of the valid users"}}
    return TaskRecord(
        facts=TaskFacts(
            name="returns",
            kind="classification",
            users={"train": 21_230, "valid": 911, "test": 8_124},
            median_history=14.0,
            classes=[ClassFacts(name="no", users=10_864), ClassFacts(name="yes", users=19_401)],
            steps=[
                Step(
                    description="users with a source sequence",
                    remaining=30_265,
                    dropped=2_001,
                    reason="no event is left",
                )
            ],
        ),
        bundles=[
            bundle("patch", 2, curve("log_loss", 0.61, 0.524, 8, 4, accuracy=0.744)),
            bundle("head", 2, curve("log_loss", 0.63, 0.541, 8, 7, accuracy=0.731)),
        ],
        evaluation=evaluation(
            "returns", "classification", "accuracy", table, users=8_124, outputs=2, settings=settings
        ),
    )


def age() -> TaskRecord:
    """Ten classes, where patch loses to a baseline."""
    names = ("accuracy", "macro_f1", "log_loss")
    table = {
        "patch": cells(names, (0.287, 0.141, 1.902), (0.006, 0.005, 0.012)),
        "head": cells(names, (0.279, 0.118, 1.931), (0.006, 0.004, 0.012)),
        "majority": cells(names, (0.251, 0.040, 2.011), (0.006, 0.001, 0.010)),
        "history length": cells(names, (0.252, 0.043, 2.004), (0.006, 0.001, 0.010)),
        "tf-idf + logistic regression": cells(names, (0.298, 0.152, 1.884), (0.004, 0.005, 0.012)),
    }
    users = (1_211, 3_402, 5_988, 7_584, 5_523, 3_101, 1_502, 702, 611, 641)
    return TaskRecord(
        facts=TaskFacts(
            name="age",
            kind="classification",
            users={"train": 21_201, "valid": 908, "test": 8_156},
            median_history=13.5,
            classes=[ClassFacts(name=name, users=n) for name, n in zip(AGES, users, strict=True)],
        ),
        bundles=[
            bundle("patch", 10, curve("log_loss", 2.03, 1.904, 8, 3, accuracy=0.288)),
            bundle("head", 10, curve("log_loss", 2.05, 1.935, 8, 3, accuracy=0.281)),
        ],
        evaluation=evaluation("age", "classification", "accuracy", table, users=8_156, outputs=10),
    )


def new_department() -> TaskRecord:
    """A ranking task that patch wins clearly."""
    full, sampled = ("hr@5", "mrr@5", "ndcg@5"), ("hr@5 sampled-99", "mrr@5 sampled-99", "ndcg@5 sampled-99")

    def row(mrr: float) -> dict[str, tuple[float, float]]:
        values = {"hr@5": 2.1 * mrr, "mrr@5": mrr, "ndcg@5": 1.3 * mrr}
        values |= {"hr@5 sampled-99": 0.25 + 2 * mrr, "mrr@5 sampled-99": 0.1 + mrr, "ndcg@5 sampled-99": 0.12 + mrr}
        return {name: (values[name], 0.004) for name in (*full, *sampled)}

    names = ("patch", "head", "popularity", "item-to-item cosine", "ridge across domains")
    table = {name: row(mrr) for name, mrr in zip(names, (0.0712, 0.0634, 0.0391, 0.0558, 0.0617), strict=True)}
    return TaskRecord(
        facts=TaskFacts(
            name="new-department",
            kind="ranking",
            users={"train": 3_913, "valid": 171, "test": 1_502},
            median_history=9.0,
            targets=1_012,
            pairs=9_377,
            steps=[
                Step(
                    description="users with a target",
                    remaining=5_586,
                    dropped=24_679,
                    reason="never in the target domain",
                )
            ],
        ),
        bundles=[
            bundle("patch", 1_012, curve("mrr", 0.031, 0.079, 8, 5)),
            bundle("head", 1_012, curve("mrr", 0.028, 0.071, 8, 7)),
        ],
        evaluation=evaluation("new-department", "ranking", "mrr@5", table, users=1_502, outputs=1_012),
    )


def run_record(**changes: Any) -> RunRecord:
    """The whole run, with some of its fields changed."""
    pretraining = curve("valid_loss", 8.6, 7.42, 6, 4, **{"hr@10": 0.1234, "mrr@10": 0.0456})
    record = RunRecord(
        title="Ta Feng groceries",
        command="peterrec run configs/demo.yaml --out runs/demo",
        date="2025-11-24T17:45:12+00:00",
        machine=Machine(cpu="AMD EPYC 7B13", cores=2, device="cpu", system="Linux x86_64", **VERSIONS),
        seeds={"split of a task's users (salt)": "peterrec", "pre-training": 0, "adaptation": 0, "evaluation": 0},
        stages=[
            Stage(name="fetch", seconds=3.21, reused=False),
            Stage(name="prepare", seconds=6.4, reused=False),
            Stage(name="pretrain", seconds=0.21, reused=True),
            Stage(name="adapt returns (patch)", seconds=94.8, reused=False),
            Stage(name="adapt returns (head)", seconds=41.2, reused=False),
            Stage(name="evaluate returns", seconds=12.7, reused=False),
        ],
        data=data_facts(),
        backbone=BackboneFacts(
            parameters=BACKBONE,
            item_table=936_576,
            channels=64,
            kernel_size=3,
            dilations=[1, 4, 1, 4, 1, 4, 1, 4],
            receptive_field=121,
            max_length=100,
            users=29_357,
            windows=30_101,
            loss="sampled softmax with 2048 shared negatives",
            fingerprint="b" * 64,
            bytes=4_871_221,
            curve=pretraining,
        ),
        tasks=[returns(), age(), new_department()],
        config="title: Ta Feng groceries\npretrain:\n  epochs: 6\n",
    )
    return record.model_copy(update=changes)


def data_facts() -> DataFacts:
    return DataFacts(
        fingerprint="c" * 64,
        catalogue_fingerprint="d" * 64,
        users=30_265,
        events=612_345,
        items=14_630,
        rare_items="drop",
        inputs=[InputFile(path="runs/data/ta-feng/events.parquet", bytes=5_412_000)],
        steps=[
            Step(description="read", remaining=817_741, dropped=0, reason=""),
            Step(description="before 2001-02-01", remaining=634_511, dropped=183_230, reason="source.before"),
            Step(
                description="items with 5 events or more",
                remaining=612_345,
                dropped=22_166,
                reason="source.min_item_events",
            ),
        ],
        history_length=Histogram(
            edges=[1, 2, 3, 5, 10, 20, 50, 100], counts=[2_911, 2_713, 4_404, 7_251, 6_402, 4_803, 1_241, 540]
        ),
        item_events=Histogram(edges=[5, 10, 20, 50, 100, 200, 500], counts=[4_513, 3_604, 3_402, 1_701, 811, 452, 147]),
        median_history=11.0,
        top_share={"1": 0.1834, "10": 0.5527},
        first="2000-11-01",
        last="2001-01-31",
    )


@pytest.fixture(scope="session")
def make_record() -> Callable[..., RunRecord]:
    return run_record


@pytest.fixture(scope="session")
def record() -> RunRecord:
    return run_record()


@pytest.fixture(scope="session")
def make_evaluation() -> Callable[..., TaskEvaluation]:
    return evaluation


@pytest.fixture(scope="session")
def make_curve() -> Callable[..., Curve]:
    return curve
