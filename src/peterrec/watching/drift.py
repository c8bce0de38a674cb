"""The verb `drift`: are the users of now like those that a bundle was judged by?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from peterrec.arguments import check, checked
from peterrec.artifacts.bundle_io import Bundle
from peterrec.data.frames import is_dataframe
from peterrec.data.reference import Distribution, Reference, Values
from peterrec.data.sequences import UNK, Sequences
from peterrec.errors import ArtifactError, ConfigError
from peterrec.evaluation.observed import observe, unknown_shares_of
from peterrec.evaluation.stability import compare
from peterrec.model import UserModel
from peterrec.report.drift import write_drift_page
from peterrec.serving.files import AnswerOptions, FileQuestion, open_question
from peterrec.storage import write_json
from peterrec.watching.period_metrics import Labels
from peterrec.watching.result import DriftReport

USERS_AT_ONCE = 100_000


@checked
def drift(
    backbone: str | Path | UserModel,
    bundle: str | Path | Bundle,
    source: Any,
    out: str | Path | None = None,
    options: AnswerOptions | None = None,
    *,
    reference: Any = None,
    labels: Any = None,
    level: float = 0.01,
    seed: int = 0,
    **settings: Any,
) -> DriftReport:
    """Compare the users of `source`, and what the bundle says of them, with the valid users of its training.

    Of each quantity (how many events are known of users, the share of unknown items, classes, probabilities, numbers,
    best items, representations) the population stability index, and whether users of one and the same population would
    have such an index: by a permutation test, adjusted for the number of quantities (Holm). So alarms that are false
    have the chance `level`, of few users and of many.

    Args:
        backbone: a folder written by `pretrain` or `hf://organization/name`, or a loaded model.
        bundle: as `adapt` returns it or a folder that it wrote, or `hf://...`.
        source: events of the users of now, as in `predict`.
        out: page to write, `.html`, beside which the same is written as `.json`; None writes none.
        options: reading, as in `predict`.
        reference: events of users that the others are compared with, such as those of a good week, in place of the
            valid users; read as `source` is.
        labels: labels that arrived of users of `source`: a .parquet or .csv file, or a DataFrame, with columns `user`,
            `label` and perhaps `period`; the metric of each period is in the result.
        level: chance of any false alarm.
        seed: of the draws of the test.
        settings: as in `predict`.

    Returns:
        What has shifted, with the index, its p-value and the shares of users in bins, of each quantity.

    Raises:
        ArtifactError: the bundle has no reference, and none is given.
        ConfigError: `out` is no .html file, or `level` is none.
        DataError, UnknownItemsError, FingerprintError, StorageError: as in `predict`.
    """
    if out is not None and Path(out).suffix != ".html":
        raise ConfigError(f"cannot write {Path(out).name}", remedy="name a file that ends in .html")
    if labels is not None and not is_dataframe(labels):
        check("labels", labels, str | Path)
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}", remedy="give a chance between 0 and 1, such as 0.01")
    with open_question(backbone, bundle, source, None, options, settings) as question:
        loaded = _bundle(question)
        stored = _stored_reference(loaded, wanted=reference is None)
        arrived = None if labels is None else Labels(labels, loaded)
        now = _observed(question, stored, arrived)
    expected, source_name = stored.quantities, "valid users"
    reference_users = stored.users
    if reference is not None:
        with open_question(backbone, bundle, reference, None, options, settings) as question:
            before = _observed(question, stored, None)
        expected, reference_users = (
            {name: Distribution.from_values(column) for name, column in before.values.items()},
            before.users,
        )
        source_name = "the events that were given"
    report = DriftReport(
        loaded.name, now.users, now.events, now.unknown_events / max(1, now.events), now.users_without_events,
        reference_users, source_name, level, tuple(compare(expected, now.values, level, seed)),
        tuple(name for name in now.values if name not in expected),
        () if arrived is None else tuple(arrived.metrics(now.answers)),
    )  # fmt: skip
    if out is not None:
        write_json(Path(out).with_suffix(".json"), report.to_json())
        write_drift_page(Path(out), report.to_json())
    return report


@dataclass
class _Observed:
    """Users that were looked at, and what was counted of them."""

    users: int = 0
    events: int = 0
    unknown_events: int = 0
    users_without_events: int = 0
    pieces: list[dict[str, Values]] = field(default_factory=list)
    answers: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Values]:
        """Values of all users, by quantity."""
        names = dict.fromkeys(name for piece in self.pieces for name in piece)
        columns: dict[str, Values] = {}
        for name in names:
            parts = [piece[name] for piece in self.pieces if name in piece]
            if isinstance(parts[0], list):
                columns[name] = [value for part in parts for value in part]
            else:
                columns[name] = np.concatenate(parts)
        return columns


def _bundle(question: FileQuestion) -> Bundle:
    assert question.bundle is not None
    return question.model.bundle(question.bundle)


def _stored_reference(bundle: Bundle, *, wanted: bool) -> Reference:
    """Return the reference of a bundle; an empty one where another is given."""
    if bundle.reference is not None:
        return bundle.reference
    if wanted:
        raise ArtifactError(
            f"the bundle {bundle.name!r} has no reference: it is of before they were kept, or had too few valid users",
            remedy="give the events of a good week as the reference, or adapt again with more valid users",
        )
    return Reference(0, {})


def _observed(question: FileQuestion, stored: Reference, labels: Labels | None) -> _Observed:
    observed, name, model = _Observed(), question.bundle, question.model
    assert name is not None
    batch_size = question.settings["batch_size"]
    for ids, sequences, unknown in _encoded(question):
        known_counts = sequences.item_counts
        observed.users += len(sequences)
        observed.events += int(known_counts.sum() + unknown.sum())
        observed.unknown_events += int(unknown.sum())
        observed.users_without_events += int((known_counts == 0).sum())
        if bool((np.asarray(sequences.items) == UNK).any()):
            shares = unknown_shares_of(sequences)
        else:
            shares = unknown / np.maximum(known_counts + unknown, 1)
        observed.pieces.append(
            observe(
                model, name, sequences, stored.directions, stored.centre, unknown_shares=shares, batch_size=batch_size
            )
        )
        if labels is not None:
            observed.answers |= _answers(model, name, ids, sequences, set(labels.users))
    return observed


def _encoded(question: FileQuestion) -> Iterator[tuple[list[str], Sequences, np.ndarray]]:
    """Yield ids, sequences and numbers of unknown events of some users at a time."""
    reading = {name: value for name, value in question.settings.items() if name != "batch_size"}
    for piece in question.histories:
        for users in piece.split(USERS_AT_ONCE):
            encoded = question.model.encode(users.items, question.bundle, features=users.features, **reading)
            yield list(map(str, users.user_ids)), encoded.sequences, encoded.unknown_counts


def _answers(
    model: UserModel, bundle: str, ids: list[str], sequences: Sequences, labelled: set[str]
) -> dict[str, np.ndarray]:
    """Return what is answered about labelled users: probabilities of classes, or the prediction."""
    rows = np.array([place for place, user in enumerate(ids) if user in labelled], dtype=np.int64)
    if not len(rows):
        return {}
    numbers = model.bundle(bundle).numbers
    if numbers is not None:
        answers = model.numbers(sequences.take(rows), bundle)[:, [numbers.prediction]]
    else:
        answers = model.probabilities(sequences.take(rows), bundle).astype(np.float64)
    return {ids[row]: answer for row, answer in zip(rows.tolist(), answers, strict=True)}
