"""Asking says what evaluating measured: raw events of test users, through the verbs on files, for every setting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asking.logs import HEADER, VARIATIONS, log_rows, prepared, write_models
from data.prepare.logs import write_csv, write_parquet
from peterrec.config import ColumnsConfig, EventsConfig, HistoryCutConfig, SourceConfig
from peterrec.data.corpus import Corpus
from peterrec.model import UserModel
from peterrec.serving.files import AnswerOptions, embed, predict, recommend

ROWS = log_rows()


def rows_of_test_users(corpus: Corpus, name: str) -> list[tuple[Any, ...]]:
    users = set(corpus.task(name).part("test").user_ids.to_pylist())
    return [row for row in ROWS if row[0] in users]


def assert_asking_equals_evaluating(folder: Path, corpus: Corpus, **options: Any) -> None:
    """Of each task: the answers about raw events of its test users are those about their sequences in the corpus."""
    backbone, bundles = write_models(folder, corpus)
    model = UserModel.from_pretrained(backbone)
    for name, bundle in bundles.items():
        log = write_csv(folder / "asked.csv", rows_of_test_users(corpus, name), HEADER)
        test = corpus.task(name).part("test")
        model.load_bundle(bundle)
        settings = AnswerOptions(**options)
        if name == "group":
            answers = predict(backbone, bundle, str(log), options=settings)
            columns = [f"p({label})" for label in corpus.task(name).class_names]
            outputs = np.stack([answers[column].to_numpy() for column in columns], axis=1)
            wanted = model.probabilities(test.sequences, name)
        else:
            answers = embed(backbone, str(log), bundle=bundle, options=settings)
            outputs = np.stack(answers["vector"].to_pylist())
            wanted = model.representations(test.sequences, name)
        rows = [answers["user"].to_pylist().index(user) for user in test.user_ids.to_pylist()]
        np.testing.assert_allclose(outputs[rows], wanted, atol=1e-5)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("log") / "log.csv", ROWS, HEADER)


def test_every_setting_has_its_test() -> None:
    settings = {f"source.{name}" for name in SourceConfig.model_fields}
    settings |= {f"columns.{name}" for name in ColumnsConfig.model_fields}
    settings |= {f"cut.{name}" for name in HistoryCutConfig.model_fields}
    assert settings == set(VARIATIONS)


CHANGING = [(name, value) for name, value in VARIATIONS.items() if value is not None]
ONLY_UNDERSTOOD = ("columns.ids", "columns.invalid_rows")  # change which files are understood, not what is read of ours
RARE = {"source.min_item_events": 60}


@pytest.fixture(scope="module")
def plain_corpora(tmp_path_factory: pytest.TempPathFactory, log: Path) -> dict[bool, Corpus]:
    """Corpora of the default settings, with and without rare items."""
    folder = tmp_path_factory.mktemp("plain")
    return {rare: prepared(folder / str(rare), log, RARE if rare else {}) for rare in (False, True)}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("name", "value"), [("", None), *CHANGING], ids=str)
def test_raw_events_are_read_as_they_were_prepared(
    name: str, value: Any, tmp_path: Path, log: Path, plain_corpora: dict[bool, Corpus]
) -> None:
    rare = name == "source.rare_items"
    plain = plain_corpora[rare]
    corpus = prepared(tmp_path, log, (RARE if rare else {}) | {name: value}) if name else plain
    changed = corpus.manifest["fingerprint"] != plain.manifest["fingerprint"]
    assert changed == (name not in ("", *ONLY_UNDERSTOOD)), "the setting should do something, or there is no test of it"
    assert_asking_equals_evaluating(tmp_path, corpus)


@pytest.mark.slow
def test_all_at_once(tmp_path: Path, log: Path) -> None:
    settings = {"source.before": "10", "source.after": "1", "source.repeats": "drop", "source.rare_items": "unk"}
    settings |= {"source.min_item_events": 40, "source.max_history": 5, "columns.order": "n"}
    settings |= {"cut.until": "8", "cut.first_events": 4, "cut.last_events": 3}
    assert_asking_equals_evaluating(tmp_path, prepared(tmp_path, log, settings))


@pytest.mark.slow
def test_a_log_without_a_header_line(tmp_path: Path) -> None:
    """Its columns are known from preparation; a file with a header line is understood too."""
    log = write_csv(tmp_path / "log.csv", ROWS, None)
    corpus = prepared(tmp_path, log, {"columns.columns": list(HEADER)})
    assert_asking_equals_evaluating(tmp_path, corpus)
    backbone, bundles = write_models(tmp_path, corpus)
    test_rows = rows_of_test_users(corpus, "group")
    tables = [
        predict(backbone, bundles["group"], str(write_csv(tmp_path / f"{name}.csv", test_rows, columns)))
        for name, columns in {"with": HEADER, "without": None}.items()
    ]
    assert tables[0].equals(tables[1])


def test_columns_may_be_called_otherwise_where_that_is_said(tmp_path: Path, plain_corpora: dict[bool, Corpus]) -> None:
    corpus = plain_corpora[False]
    backbone, bundles = write_models(tmp_path, corpus)
    test_rows = rows_of_test_users(corpus, "group")
    plain = predict(backbone, bundles["group"], str(write_csv(tmp_path / "a.csv", test_rows, HEADER)))
    path = write_csv(tmp_path / "b.csv", test_rows, ("who", "what", "when", "n", "where", "clock"))
    events = EventsConfig(paths=("-",), user="who", item="what", time="when", domain="where")
    assert predict(backbone, bundles["group"], str(path), options=AnswerOptions(events=events)).equals(plain)


@pytest.mark.slow
def test_what_a_file_lacks_is_assumed_and_said(tmp_path: Path, log: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "peterrec")
    corpus = prepared(tmp_path, log, {"source.before": "9", "columns.order": "n"})
    backbone, bundles = write_models(tmp_path, corpus)
    test_rows = [row[:3] for row in rows_of_test_users(corpus, "group")]
    predict(backbone, bundles["group"], str(write_csv(tmp_path / "a.csv", test_rows)))
    messages = "\n".join(caplog.messages)
    assert "there is no column 'n'" in messages
    assert "assumed: all events are of the source domains, none of toys: they tell no domain" in messages
    assert "events are left out" in messages  # times are there
    caplog.clear()
    (tmp_path / "a.jsonl").write_text(json.dumps({"user": "x", "items": ["i1", "i2"]}))
    predict(backbone, bundles["group"], str(tmp_path / "a.jsonl"))
    assert "assumed: all events are before 9: they tell no time" in caplog.messages
    recommend(backbone, bundles["first"], str(tmp_path / "a.jsonl"))
    assert (
        "assumed: all events are before the user's first target event: they do not tell which that is"
        in caplog.messages
    )


@pytest.mark.slow
def test_a_setting_of_the_preparation_can_be_replaced(
    tmp_path: Path, log: Path, plain_corpora: dict[bool, Corpus]
) -> None:
    corpus = prepared(tmp_path, log, {"source.before": "3"})
    unfiltered = plain_corpora[False]
    backbone, bundles = write_models(tmp_path, corpus)
    events_path = str(write_csv(tmp_path / "asked.csv", ROWS, HEADER))
    few, all_of = (
        predict(backbone, bundles["group"], events_path, options=AnswerOptions(overrides=overrides))["known_events"]
        for overrides in ((), ("source.before=null",))
    )
    assert sum(few.to_pylist()) < sum(all_of.to_pylist())
    assert unfiltered.manifest["events"] >= sum(all_of.to_pylist())


@pytest.mark.slow
def test_ids_are_those_of_the_catalogue_whatever_the_file_makes_of_them(tmp_path: Path) -> None:
    """Text ids in Parquet, integers in CSV (case f5): the same events, the same answers."""
    rows = [(user, item.removeprefix("i"), *columns) for user, item, *columns in ROWS]
    log = write_parquet(tmp_path / "log.parquet", rows, HEADER)
    corpus = prepared(tmp_path, log, {})
    backbone, bundles = write_models(tmp_path, corpus)
    as_text = predict(backbone, bundles["group"], str(log))
    assert predict(backbone, bundles["group"], str(write_csv(tmp_path / "log.csv", rows, HEADER))).equals(as_text)
