"""How the numbers of a grid were made, in words."""

from __future__ import annotations

from peterrec.report.formatting import join, plural, share
from peterrec.report.grid.analysis import Grid

CLASSES = (
    "Accuracy is the share of users whose most probable class is right, AUC the chance that a user of the second of "
    "two classes is scored above one of the first, macro-F1 the mean of the classes' F1, log-loss the mean of minus "
    "the logarithm of the probability given to the right class. AUC and macro-F1 are no means over users: they have no "
    "interval here."
)


def protocol(grid: Grid) -> list[tuple[str, str]]:
    """Return what a reader must know to trust the numbers, as terms and explanations."""
    config = grid.config
    judge, seeds = config.evaluate, [str(seed) for seed in config.seeds]
    kinds = {task.kind for data in config.data.values() for task in data.prepare.tasks}
    confidence = share(judge.confidence)
    found = [
        ("seeds and splits", f"{_seeds(seeds)} {_splits(grid)} Only the numbers of test users are shown."),
        (
            "intervals",
            f"{confidence} intervals over users: the test users are drawn anew {judge.bootstrap:,} times. Who is a "
            "test user in several seeds is drawn, or not, in all of them. An interval tells how far other users could "
            "move a number; the range over the seeds tells how far another split with another training could.",
        ),
        ("better and worse", _verdicts(share(round(1 - judge.confidence, 6)))),
    ]
    if "classification" in kinds:
        found.append(("accuracy and others", CLASSES))
    if "ranking" in kinds:
        found.append((f"HR@{judge.k}, MRR@{judge.k}", f"{_ranks(judge.k)} {_sampled(judge.sampled_negatives)}"))
    groups = [str(bound) for bound in config.event_strata]
    if any("events" in question.sections for question in config.questions):
        found.append(
            (
                "groups of users",
                f"By the number of source events ({join(groups, most=9)} or more begin a group), and by whether the "
                "user's events were used in pre-training. Groups are described, not tested.",
            )
        )
    return found


def _verdicts(level: str) -> str:
    return (
        "Methods are compared on the same users, over the seeds that both have: the mean over these seeds of the "
        "difference. The p-value is two-sided, of the difference divided by the standard deviation over the "
        "resamples (taken as normal, and never below what a sign test could give with the users who differ). "
        "Holm's correction keeps the chance of any false verdict in a question, for one metric and kind of task, "
        f"at {level}. A verdict is given only if the interval leaves out zero too. "
        "It is about users, with the networks trained here: look at the seeds, too. Where another family is meant, "
        "it is what the sentence is about: all methods of the grid and all metrics for the constant baseline, all "
        "methods of a table for the best one."
    )


def _seeds(seeds: list[str]) -> str:
    if len(seeds) == 1:
        return f"One seed ({seeds[0]}): nothing can be said about other splits and other draws of the weights."
    names = f"{plural(len(seeds), 'seed')} ({join(seeds, most=12)})"
    return f"{names}: each is another split of the users and another draw of all weights."


def _splits(grid: Grid) -> str:
    splits = {
        f"{100 * split.train:g}/{100 * split.valid:g}/{100 * split.test:g}"
        for split in (data.prepare.split for data in grid.config.data.values())
    }
    return (
        f"Users, not rows, are split into train/valid/test ({join(sorted(splits))} %). Settings and epochs are chosen "
        "on the valid users; a smaller share of labels leaves out train users only."
    )


def _ranks(k: int) -> str:
    return (
        f"HR is how often the right item is among the first {k} of all; MRR counts 1 divided by its place, and nothing "
        f"beyond {k}."
    )


def _sampled(negatives: int) -> str:
    return (
        f"“Sampled” ranks the right item among {negatives} random others instead. Such numbers are higher, and can put "
        "methods in another order than full ranking does (Krichene and Rendle, On Sampled Metrics for Item "
        "Recommendation, KDD 2020): they are for comparing with the paper, and verdicts are told by full ranking."
    )
