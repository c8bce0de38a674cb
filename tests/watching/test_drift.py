"""Users of now beside those of training: made-up shifts are found, users of the same log are not, labels arrive."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from peterrec.artifacts.bundle_io import Bundle, load_bundle
from peterrec.cli.main import execute
from peterrec.data.corpus import Corpus
from peterrec.data.reference import Distribution, Reference
from peterrec.data.synthetic import synthetic
from peterrec.errors import ArtifactError, ConfigError, DataError
from peterrec.evaluation.stability import chance_of_index, compare, stability_index
from peterrec.model import UserModel
from peterrec.training.adapt import adapt
from peterrec.training.pretrain import pretrain
from peterrec.watching.drift import drift
from training.label_sets import label_corpus
from training.small import CHANNELS, LEARNS, adapt_config, pretrain_config

USERS = 600

# ---------------------------------------------------------------- statistics


def test_the_index_by_hand() -> None:
    expected, observed = np.array([50, 30, 20]), np.array([20, 30, 50])
    first, second = (expected + 0.5) / 101.5, (observed + 0.5) / 101.5
    assert stability_index(expected, observed) == pytest.approx(((second - first) * np.log(second / first)).sum())
    assert stability_index(expected, expected) == 0


def test_the_chance_is_that_of_a_permutation() -> None:
    generator = np.random.default_rng(0)
    assert chance_of_index(np.array([500, 500]), np.array([700, 300]), generator) == 1e-4
    assert chance_of_index(np.array([50, 50]), np.array([50, 50]), generator) == 1
    even = [
        chance_of_index(*generator.multinomial(100, [0.2] * 5, size=2), generator)  # type: ignore[arg-type]
        for _ in range(60)
    ]
    assert np.mean(np.array(even) < 0.2) == pytest.approx(0.2, abs=0.15)


def test_bins_hold_as_many_users_each_and_names_are_the_most_frequent_ones() -> None:
    numbers = Distribution.from_values(np.arange(100.0))
    assert numbers.counts == (10,) * 10
    assert numbers.count(np.array([-5.0, 0.0, 99.0, 1e9])).tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    constant = Distribution.from_values(np.full(30, 2.0))
    assert constant.counts == (0, 30, 0)
    assert constant.count(np.array([1.0, 2.0, 2.0, 3.0])).tolist() == [1, 2, 1]
    mostly_zero = Distribution.from_values(np.array([0.0] * 95 + [0.2, 0.3, 0.4, 0.5, 0.6]))
    assert mostly_zero.counts == (95, 5)
    names = Distribution.from_values([f"n{number % 12}" for number in range(120)] + ["n3"])
    assert names.names is not None
    assert (len(names.names), names.names[0], names.counts[0], names.counts[-1]) == (10, "n3", 11, 20)
    assert names.count(["n3", "new"]).tolist() == [1, *[0] * 9, 1]
    assert [names.place(value) for value in ("n3", "new")] == [0, 10]
    for value in (-5.0, 10.0, 15.5, 1e9):
        assert numbers.count(np.array([value]))[numbers.place(value)] == 1


def test_a_reference_is_read_as_it_was_written() -> None:
    quantities = {"a": Distribution.from_values(np.arange(50.0)), "b": Distribution.from_values(["x", "y"])}
    reference = Reference(50, quantities, np.eye(3)[:2], np.arange(3.0))
    assert Reference.from_json(json.loads(json.dumps(reference.to_json()))) == reference
    damaged = reference.to_json()
    damaged["quantities"]["a"]["counts"].pop()
    with pytest.raises(ValueError, match="counts"):
        Reference.from_json(damaged)


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_promised() -> None:
    draws = np.random.default_rng(0)
    alarms = 0
    for _ in range(60):
        users = draws.normal(size=(400, 5))
        reference = {str(column): Distribution.from_values(users[:200, column]) for column in range(5)}
        values = {str(column): users[200:, column] for column in range(5)}
        alarms += any(quantity.shifted for quantity in compare(reference, values, 0.05))
    assert alarms <= 8  # of 60 that each have a chance of 0.05


# ---------------------------------------------------------------- the verb


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    split = {"train": 0.3, "valid": 0.35, "test": 0.35}
    return label_corpus(tmp_path_factory.mktemp("labels"), users=USERS, split=split)


@pytest.fixture(scope="module")
def trunk(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> UserModel:
    path = tmp_path_factory.mktemp("trunk") / "backbone"
    pretrain(corpus, path, pretrain_config(backbone=CHANNELS, epochs=2, **LEARNS))
    return UserModel.from_pretrained(path, "cpu")


@pytest.fixture(scope="module")
def bundle(corpus: Corpus, trunk: UserModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "cluster"
    adapt(trunk, corpus, "cluster", path, adapt_config(epochs=2, head_init="linear-probe", **LEARNS))
    return path


@pytest.fixture(scope="module")
def events(corpus: Corpus) -> pa.Table:
    """Source events of the test users, as the log has them."""
    log = synthetic(users=USERS).events
    log = log.filter(pc.equal(log["domain"], "source"))
    return log.filter(pc.is_in(log["user_id"].cast(pa.string()), corpus.task("cluster").part("test").user_ids))


def test_the_bundle_keeps_what_its_valid_users_were_like(corpus: Corpus, trunk: UserModel, bundle: Path) -> None:
    loaded = load_bundle(bundle, trunk.network.backbone, trunk.identity)
    assert loaded.reference is not None
    valid = corpus.task("cluster").part("valid")
    assert loaded.reference.users == len(valid)
    assert sum(loaded.reference.quantities["known events"].counts) == len(valid)
    names = ["known events", "class", "highest probability", "representation norm"]
    assert list(loaded.reference.quantities) == [*names, *(f"representation {place}" for place in (1, 2, 3))]
    assert loaded.reference.directions.shape == (3, 16)


def test_users_of_the_same_log_sound_no_alarm(trunk: UserModel, bundle: Path, events: pa.Table) -> None:
    report = drift(trunk, bundle, events)
    assert report.shifted == []
    assert report.to_arrow()["quantity"].to_pylist() == [quantity.name for quantity in report.quantities]
    assert report.users == len(pc.unique(events["user_id"]))
    assert (report.unknown_share, report.not_judged) == (0.0, ("unknown items",))


@pytest.mark.slow
def test_made_up_shifts_are_found_and_named(trunk: UserModel, bundle: Path, events: pa.Table, tmp_path: Path) -> None:
    few = drift(trunk, bundle, events.filter(pc.less(row_within_user(events), 4)), tmp_path / "few.html")
    assert "known events" in few.shifted
    like_others = events.filter(pc.is_in(events["item_id"], pc.unique(events["item_id"])[:30]))
    report = drift(trunk, bundle, like_others)
    assert {"class", "representation 1"} & set(report.shifted)
    page, tree = (tmp_path / "few.html").read_text(), json.loads((tmp_path / "few.json").read_text())
    assert tree["shifted"] == few.shifted
    assert "has shifted; index" in page
    assert f"{few.users:,} users, compared with" in page


def row_within_user(events: pa.Table) -> pa.Array:
    users, counts = events["user_id"].to_pylist(), {}  # type: tuple[list[Any], dict[Any, int]]
    rows = []
    for user in users:
        counts[user] = counts.get(user, -1) + 1
        rows.append(counts[user])
    return pa.array(rows)


@pytest.mark.slow
def test_against_a_good_week_unknown_items_are_judged_too(trunk: UserModel, bundle: Path, events: pa.Table) -> None:
    strange = np.random.default_rng(0).random(len(events)) < 0.3
    items = pa.array([f"new-{i}" if new else i for i, new in zip(events["item_id"].to_pylist(), strange, strict=True)])
    shifted = events.set_column(events.column_names.index("item_id"), "item_id", items)
    report = drift(trunk, bundle, shifted, reference=events)
    assert "unknown items" in report.shifted
    assert report.unknown_share == pytest.approx(strange.mean(), abs=0.01)
    assert report.reference_source == "the events that were given"
    assert drift(trunk, bundle, events, reference=events).shifted == []


@pytest.mark.slow
def test_labels_that_arrive_give_the_metric_of_each_period(
    corpus: Corpus, trunk: UserModel, bundle: Path, events: pa.Table, tmp_path: Path
) -> None:
    test, names = corpus.task("cluster").part("test"), corpus.task("cluster").class_names
    labels = [names[label] for label in np.asarray(test.labels)]
    periods = ["2026-11", "2026-12"] * len(labels)
    table = pa.table({"user": test.user_ids, "label": labels, "period": periods[: len(labels)]})
    pacsv.write_csv(table, tmp_path / "labels.csv")
    pq.write_table(table.drop_columns(["period"]), tmp_path / "labels.parquet")
    by_period = drift(trunk, bundle, events, tmp_path / "drift.html", labels=tmp_path / "labels.csv").periods
    assert [(row.period, row.metric) for row in by_period] == [
        (period, metric) for period in ("2026-11", "2026-12") for metric in ("accuracy", "log_loss")
    ]
    (accuracy, _) = drift(trunk, bundle, events, labels=tmp_path / "labels.parquet").periods
    name = trunk.add_bundle(load_bundle(bundle, trunk.network.backbone, trunk.identity))
    expected = (trunk.probabilities(test.sequences, name).argmax(axis=1) == np.asarray(test.labels)).mean()
    assert (accuracy.period, accuracy.users) == ("all", len(labels))
    assert accuracy.low <= accuracy.value <= accuracy.high
    assert accuracy.value == pytest.approx(expected)
    assert "Labels that arrived" in (tmp_path / "drift.html").read_text()
    strange = table.set_column(1, "label", pa.array(["elsewhere"] * len(labels)))
    with pytest.raises(DataError, match=r"'elsewhere', which 'cluster' does not have"):
        drift(trunk, bundle, events, labels=strange)
    with pytest.raises(DataError, match=r"has no column 'label'"):
        drift(trunk, bundle, events, labels=table.drop_columns(["label"]))


@pytest.mark.slow
def test_the_verb_says_what_has_shifted(
    trunk: UserModel, bundle: Path, events: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trunk.save_pretrained(tmp_path / "backbone")
    pq.write_table(events, tmp_path / "good.parquet")
    pq.write_table(events.filter(pc.less(row_within_user(events), 4)), tmp_path / "now.parquet")
    paths = [str(tmp_path / "backbone"), str(bundle)]
    assert execute(["drift", *paths, str(tmp_path / "good.parquet"), "-q"]) == 0
    assert "Shifted against" in capsys.readouterr().out
    out, good = str(tmp_path / "drift.html"), str(tmp_path / "good.parquet")
    assert execute(["drift", *paths, str(tmp_path / "now.parquet"), "--out", out, "--reference", good, "-q"]) == 0
    printed = capsys.readouterr().out
    assert "known events" in printed.splitlines()[-1]
    assert "shifted (large)" in printed
    assert (tmp_path / "drift.json").exists()
    assert execute(["drift", *paths, good, "--out", str(tmp_path / "drift.csv")]) == 2
    assert "ends in .html" in capsys.readouterr().err


def test_what_cannot_be_compared_is_refused(trunk: UserModel, bundle: Path, events: pa.Table, tmp_path: Path) -> None:
    loaded: Bundle = load_bundle(bundle, trunk.network.backbone, trunk.identity)
    with pytest.raises(ArtifactError, match=r"(?s)has no reference.*good week"):
        drift(trunk, replace(loaded, reference=None), events)
    assert drift(trunk, replace(loaded, reference=None), events, reference=events).shifted == []
    for settings in ({"out": tmp_path / "drift.json"}, {"level": 0.0}):
        with pytest.raises(ConfigError, match=r"\.html|level"):
            drift(trunk, loaded, events, **settings)
    assert not list(tmp_path.iterdir())
