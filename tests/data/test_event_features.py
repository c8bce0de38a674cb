"""Encodings of what events say beside their items, by hand; and the tokens that carry their codes."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from peterrec.config import EventFeatureConfig, EventsConfig, HistoryCutConfig, MaskingConfig, SourceConfig
from peterrec.data.batching import Windows, last_events
from peterrec.data.event_features import ENCODINGS, EventEncoding, EventFeatureEncoder
from peterrec.data.masking import mask_items
from peterrec.data.sequences import FIRST_ITEM, ITEM_BITS, MASK, PAD, UNK, Sequences, items_of
from peterrec.data.shorten import shorten
from peterrec.errors import ConfigError, DataError

TYPE = EventFeatureConfig(column="type", values=("view", "buy"))
AMOUNT = EventFeatureConfig(column="amount", encoding="log-bins")
GAP, HOUR, WEEKDAY = (EventFeatureConfig(encoding=name) for name in ("gap", "hour", "weekday"))


def encode(feature: EventFeatureConfig, values: object) -> list[int]:
    return ENCODINGS[feature.encoding](feature).encode(values).tolist()


def test_categories_are_numbered_by_how_frequent_they_were() -> None:
    texts = pa.array(["view", None, "buy", "returned", "view"])
    assert encode(TYPE, texts) == [2, 0, 3, 1, 2]  # 0 is missing, 1 any other
    assert ENCODINGS["categories"](TYPE).size == 4


def test_numbers_are_binned_by_doublings_alike_on_both_sides_of_zero() -> None:
    numbers = pa.array(["0", "1", "3", "7.0", "-1", None, "1e300", "-1e300", "0.2"])
    middle = 1 + 64
    bins = [0, 2, 4, 6, -2, None, 64, -64, 0]
    assert encode(AMOUNT, numbers) == [0 if number is None else middle + number for number in bins]
    assert ENCODINGS["log-bins"](AMOUNT).size == middle + 64 + 1


@pytest.mark.parametrize("text", ["many", "nan", "inf", "1,5"])
def test_what_is_no_finite_number_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="no finite number") as refused:
        encode(AMOUNT, pa.array(["1", text]))
    assert "'amount'" in str(refused.value)
    assert repr(text) in str(refused.value)


def test_hours_and_weekdays_are_those_of_utc() -> None:
    moments = np.array([0.0, 3_599.9, 3_600.0, 86_400.0, -1.0, math.nan])  # 1970-01-01 was a Thursday
    assert encode(HOUR, moments) == [1, 1, 2, 1, 24, 0]
    assert encode(WEEKDAY, moments) == [4, 4, 4, 5, 3, 0]


def test_gaps_are_binned_by_doublings_of_seconds() -> None:
    assert encode(GAP, np.array([math.nan, 0.0, 1.0, 3.0, 1e30])) == [0, 1, 3, 5, 62]
    assert ENCODINGS["gap"](GAP).size == 63


def test_all_features_of_an_event_are_one_code_that_can_be_taken_apart() -> None:
    encoder = EventFeatureEncoder([TYPE, GAP, HOUR])
    assert encoder.sizes == (4, 63, 25)
    codes = encoder.encode({0: pa.array(["buy", None])}, np.array([0.0, 7_200.0]), 2)
    codes = encoder.with_gaps(codes, np.array([0.0, 7_200.0]), np.array([True, False]))
    digits = [[code % 4, code // 4 % 63, code // 4 // 63] for code in codes.tolist()]
    assert digits == [[3, 0, 1], [0, 1 + math.floor(2 * math.log2(7_201)), 3]]


def test_what_is_not_told_is_missing() -> None:
    encoder = EventFeatureEncoder([TYPE, AMOUNT, GAP])
    events = [
        None,
        {},
        {"type": "view", "amount": "much"},
        {"amount": 3, "colour": "red"},
        {"type": "", "amount": None},
    ]
    codes = encoder.encode_values(events, None)
    assert codes.tolist() == [0, 0, 2, 4 * (1 + 64 + 4), 0]
    assert encoder.wrong_value({"amount": "much"}) == "the feature 'amount' is 'much', which is no finite number"
    assert encoder.wrong_value({"amount": 2.5, "type": True}) is None


@pytest.mark.parametrize(("value", "text"), [(2, "2"), (2.0, "2"), (2.5, "2.5"), (True, "true"), ("2", "2")])
def test_a_value_is_the_category_that_a_file_would_have_of_it(value: object, text: str) -> None:
    encoder = EventFeatureEncoder([EventFeatureConfig(column="x", values=(text,))])
    assert encoder.encode_values([{"x": value}], None).tolist() == [2]


def test_features_are_named_in_few_words() -> None:
    config = EventsConfig(paths=("x",), features=["type", "amount:log-bins", "time:gap,hour", {"column": "a:b"}])
    names = [feature.name for feature in config.features]
    assert names == ["type:categories", "amount:log-bins", "time:gap", "time:hour", "a:b:categories"]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (["amount:log"], "there is no encoding 'log'"),
        (["type", "type:categories"], "type:categories is named twice"),
        (["amount:gap"], "write time:gap"),
    ],
)
def test_features_that_cannot_be_are_refused(features: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EventFeatureEncoder(EventsConfig(paths=("x",), features=features).features)


def test_more_combinations_than_a_code_holds_are_refused() -> None:
    many = [EventFeatureConfig(column=name, values=tuple(map(str, range(1_000)))) for name in "abcd"]
    assert EventFeatureEncoder(many[:3]).sizes == (1_002, 1_002, 1_002)
    with pytest.raises(ConfigError, match="more than 2,147,483,647 combinations"):
        EventFeatureEncoder(many)


def test_another_encoding_is_one_class() -> None:
    class Length(EventEncoding):
        """Letters of a text."""

        name = "length"
        reads = "text"
        size = 10

        def encode(self, values: pa.Array) -> np.ndarray:
            return np.array([0 if text is None else min(9, len(text)) for text in values.to_pylist()])

    try:
        encoder = EventFeatureEncoder(EventsConfig(paths=("x",), features=["title:length"]).features)
        assert encoder.encode_values([{"title": "abc"}, None], None).tolist() == [3, 0]
    finally:
        del ENCODINGS["length"]


# ---------------------------------------------------------------- sequences and tokens


def sequences() -> Sequences:
    """Two users; times of the events are those of gaps."""
    items, offsets = np.array([4, 5, 5, 6, -1, 4]), np.array([0, 4, 6])
    seconds = np.array([0.0, 1.0, 2.0, 5.0, 7.0, 7.0])
    return Sequences(items, offsets, np.array([2, 3, 2, 0, 1, 2]), seconds)


def test_gaps_are_those_between_the_events_that_are_read() -> None:
    encoder = EventFeatureEncoder([TYPE, GAP])
    config = SourceConfig(repeats="drop", max_history=2)
    read = shorten(sequences(), config, encoder=encoder)
    assert read.items.tolist() == [5, 6, UNK, 4]
    # The repeat of 5 is no event: 6 comes 4 seconds after the first one. 5 has its gap though what is before it is cut.
    gaps = [1 + math.floor(2 * math.log2(1 + gap)) for gap in (1, 4)]
    assert read.features is not None
    assert (read.features // 4).tolist() == [*gaps, 0, 1]
    assert (read.features % 4).tolist() == [3, 0, 1, 2]
    assert read.seconds is None
    first = shorten(sequences(), config, None, HistoryCutConfig(first_events=1), encoder)
    assert first.features is not None
    assert first.features.tolist() == [2, 1]


def test_tokens_have_the_codes_above_the_items() -> None:
    read = shorten(sequences(), SourceConfig(), encoder=EventFeatureEncoder([TYPE]))
    tokens = last_events(read, np.arange(2), 3)
    assert items_of(tokens).tolist() == [[5, 5, 6], [UNK, 4, PAD]]
    assert (tokens >> ITEM_BITS).tolist() == [[3, 2, 0], [1, 2, 0]]
    windows = Windows.over(read, np.arange(2), 2).tokens(np.arange(3))
    assert items_of(windows).tolist() == [[5, 5, 6], [4, 5, PAD], [UNK, 4, PAD]]
    assert (windows >> ITEM_BITS).tolist() == [[3, 2, 0], [2, 3, 0], [1, 2, 0]]
    rebuilt = Sequences.from_token_rows([tokens[0], tokens[1][:2]])
    assert rebuilt.features is not None
    assert rebuilt.items.tolist() == [5, 5, 6, UNK, 4]
    assert rebuilt.features.tolist() == [3, 2, 0, 1, 2]
    assert Sequences.from_token_rows([items_of(tokens[0])]).features is None
    assert read.take(np.array([1])).features.tolist() == [1, 2]  # type: ignore[union-attr]


def test_a_mask_hides_features_and_a_random_item_keeps_them() -> None:
    tokens = (np.arange(4, 14) | 7 << ITEM_BITS)[None].repeat(50, axis=0)
    config = MaskingConfig(mask_replace_fraction=0.5, keep_fraction=0.0, random_replace_fraction=0.5, max_masked=10)
    masked, chosen = mask_items(tokens, 0.5, config, 10, np.random.default_rng(0))
    assert chosen.sum() == 250
    hidden = masked[chosen]
    assert (hidden[items_of(hidden) == MASK] == MASK).all()
    exchanged = hidden[items_of(hidden) >= FIRST_ITEM]
    assert len(exchanged) > 80
    assert (exchanged >> ITEM_BITS == 7).all()
    assert (masked[~chosen] == tokens[~chosen]).all()
