"""Tokens that a reader makes of a user's events against plain Python, on random logs and settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from data.prepare.logs import bound
from data.prepare.oracle import Oracle, RefusedError, Row, TaskSettings
from data.prepare.test_against_oracle import Case
from pairwise import FULL
from peterrec.config import ColumnsConfig, FirstTargetConfig, HistoryCutConfig, PreprocessingConfig, SourceConfig
from peterrec.data.catalogue import Catalogue
from peterrec.data.history_reader import HistoryReader, UserEvents, event_codes

KINDS = {"integer": "integer", "float": "float", "decimal": "float"}


def text_of(case: Case, value: int | None) -> str | None:
    """A bound of a setting; times in nanoseconds are no floats, and small integers stand for them here."""
    return str(value) if case.kind == "integer" and value is not None else bound(case.kind, value)


def preprocessing(case: Case, first: TaskSettings | None) -> PreprocessingConfig:
    source: dict[str, Any] = dict(vars(case.settings))
    source |= {"after": text_of(case, source["after"]), "before": text_of(case, source["before"])}
    source = {name: value for name, value in source.items() if name in SourceConfig.model_fields}
    target = None
    if first is not None:
        after, before = text_of(case, first.after), text_of(case, first.before)
        target = FirstTargetConfig(
            domains=first.domains, after=after, before=before, separate_files=first.own_events is not None
        )
    kind: Any = KINDS.get(case.kind, "time")
    cut = HistoryCutConfig()
    if first is not None:
        until = text_of(case, first.until)
        cut = HistoryCutConfig(first_events=first.first_events, last_events=first.last_events, until=until)
    return PreprocessingConfig(time_kind=kind, source=SourceConfig(**source), first_target=target, cut=cut)


def events_of(case: Case, catalogue: Catalogue, rows: list[Row]) -> UserEvents:
    seconds = np.array([row.time if case.kind == "integer" else row.seconds for row in rows], dtype=float)
    domains = [row.domain for row in rows] if case.has_domain else None
    return UserEvents(event_codes(catalogue, [row.item for row in rows]), seconds, domains)


def target_time(case: Case, first: TaskSettings | None, user: str) -> int | None:
    """When the user's first target event was, if it is among the events of the log."""
    if first is None or first.own_events is not None:
        return None
    times = [
        row.time
        for row in case.rows
        if row.user == user
        and (first.domains is None or row.domain in first.domains)
        and row.time >= (first.after or 0)
        and (first.before is None or row.time < first.before)
    ]
    return min(times, default=None)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150 if FULL else 30, phases=[Phase.explicit, Phase.generate])  # a seed has no simpler one
def test_any_user_is_read_as_the_oracle_does(seed: int) -> None:
    case = Case(seed)
    try:
        oracle = Oracle(case.rows, case.settings)
    except RefusedError:
        return
    catalogue = Catalogue(pa.array(oracle.catalogue), np.array(oracle.counts))
    tasks = [task for task in case.tasks if task.labels is None and not task.activity and task.first_only]
    for first in [None, *tasks]:
        reader = HistoryReader.for_model(preprocessing(case, first), "skip")
        for user in {row.user for row in case.rows}:
            rows = sorted((row for row in case.rows if row.user == user), key=Row.key)
            until = target_time(case, first, user)
            expected = oracle.history(oracle.events.get(user, []), until, first)
            reading = reader.read(events_of(case, catalogue, rows))
            assert reading.tokens[-reader.max_history :].tolist() == expected
            assert reading.known_items == sum(token > 3 for token in expected)
            event("first target" if until is not None else f"{case.settings.repeats} {case.settings.rare_items}")


@given(seed=st.integers(0, 2**32))
@settings(max_examples=60 if FULL else 15, phases=[Phase.explicit, Phase.generate])
def test_later_events_add_to_the_tokens_or_take_from_their_end(seed: int) -> None:
    """What a state was made from is how the tokens start, or there are fewer of them."""
    case = Case(seed)
    ids = sorted({str(row.item) for row in case.rows})[:5]
    catalogue = Catalogue(pa.array(ids), np.ones(len(ids), dtype=np.int64))
    tasks = [task for task in case.tasks if task.labels is None and not task.activity and task.first_only]
    for first in [None, *tasks]:
        reader = HistoryReader.for_model(preprocessing(case, first), "skip")
        rows = sorted((row for row in case.rows if row.user == case.rows[0].user), key=Row.key)
        all_tokens = reader.read(events_of(case, catalogue, rows)).tokens.tolist()
        for count in range(len(rows)):
            before = reader.read(events_of(case, catalogue, rows[:count])).tokens.tolist()
            shortest = min(len(before), len(all_tokens))
            assert before[:shortest] == all_tokens[:shortest]


CATALOGUE = Catalogue(pa.array(["a", "b", "c"]), np.ones(3, dtype=np.int64))
SOURCE = SourceConfig(exclude_domains=("53",), after="2001-02-01", before="2001-03-01T00:00:00+01:00")
FEBRUARY = 980985600.0  # the first of it in 2001
MARCH = 983404800.0 - 3600.0


def test_a_bound_with_a_zone_is_a_moment_and_the_first_moment_is_inside() -> None:
    reader = HistoryReader.for_model(PreprocessingConfig(source=SOURCE), "skip")
    times = np.array([FEBRUARY - 1e-6, FEBRUARY, MARCH - 1e-6, MARCH])
    assert reader.chosen(UserEvents(np.arange(4, 8), times)).tolist() == [False, True, True, False]
    assert HistoryReader.for_model(PreprocessingConfig(source=SOURCE), "skip", time_filters=False).chosen(
        UserEvents(np.arange(4, 8), times, ["x", "53", None, "y"])
    ).tolist() == [True, False, True, True]


def test_what_the_events_do_not_tell_is_assumed_and_said() -> None:
    reader = HistoryReader.for_model(PreprocessingConfig(columns=ColumnsConfig(order="line"), source=SOURCE), "skip")
    codes = event_codes(CATALOGUE, ["a", "x", "b", "x", "y"])
    assert codes.tolist() == [4, -1, 5, -1, -2]
    read = reader.read(UserEvents(codes))
    assert (read.tokens.tolist(), read.known_items) == ([4, 5], 2)
    assert ["domain" in line for line in read.assumptions] == [True, False]
    assert reader.read(UserEvents(codes[:0])).assumptions == ()
    times, domains = np.full(5, FEBRUARY), ["shop"] * 5
    assert reader.read(UserEvents(codes, times, domains)).assumptions == ()
    assert "by the column 'line'" in reader.read(UserEvents(codes, times, domains), "r").assumptions[0]
    assert len(reader.read(UserEvents(codes, times, ["shop", None, *domains[:3]])).assumptions) == 1
    assert reader.read(UserEvents(codes, times + np.arange(5), domains), "r").assumptions == ()


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (FirstTargetConfig(domains=("53",)), "first event of 53 on"),
        (FirstTargetConfig(after="2001-03-01"), "first event at or after 2001-03-01 on"),
    ],
)
def test_bounds_are_told_and_can_be_switched_off(bounds: FirstTargetConfig, expected: str) -> None:
    prepared = PreprocessingConfig(source=SOURCE, first_target=bounds)
    lines = HistoryReader.for_model(prepared, "skip").time_filter_notes()
    assert [line.partition(" are left out")[0] for line in lines][:2] == [
        "events before 2001-02-01",
        "events at or after 2001-03-01T00:00:00+01:00",
    ]
    assert len(lines) == 2 + (bounds.after is not None)
    assert bounds.after is None or expected in lines[2]
    without = HistoryReader.for_model(prepared, "skip", time_filters=False)
    assert without.time_filter_notes() == ()
    events = UserEvents(np.array([4, 5, 6]), np.array([MARCH, MARCH + 1, MARCH + 2]), ["shop", "53", "shop"])
    expected_rows = [True, False, False] if bounds.domains is not None else [True, False, True]
    assert without.chosen(events).tolist() == expected_rows


def test_readers_that_read_the_same_have_one_key() -> None:
    def key(
        unknown: Any = "skip", first: FirstTargetConfig | None = None, cut: dict[str, Any] | None = None, **source: Any
    ) -> str:
        return HistoryReader.for_model(
            PreprocessingConfig(source=SourceConfig(**source), first_target=first, cut=cut or {}), unknown
        ).key

    assert (
        key() == key(min_item_events=1) == key(min_user_events=2) == key(first=FirstTargetConfig(separate_files=True))
    )
    variations: list[dict[str, Any]] = [
        {"domains": ("a",)}, {"exclude_domains": ("a",)}, {"after": "2001-02-01"}, {"before": "2001-02-01"},
        {"max_history": 5}, {"repeats": "drop"}, {"rare_items": "unk"}, {"first": FirstTargetConfig(domains=("a",))},
        {"cut": {"first_events": 3}}, {"cut": {"last_events": 3}}, {"cut": {"until": "2001-02-01"}},
    ]  # fmt: skip
    assert len({key(), *(key(**variation) for variation in variations)}) == 1 + len(variations)
    assert len({HistoryReader("skip").key, HistoryReader("unk").key, key()}) == 3
