"""The audit: finds what is there, finds nothing where nothing is, and says how groups are served."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import peterrec
from peterrec.artifacts.bundle_io import Bundle
from peterrec.auditing import groups
from peterrec.auditing.probes import linear, nonlinear, out_of_fold
from peterrec.cli.main import execute
from peterrec.data.corpus import Corpus
from peterrec.data.hashing import id_hash
from peterrec.data.splits import assign_folds
from peterrec.data.synthetic import planted
from peterrec.errors import PeterRecError
from peterrec.evaluation.audit_results import AuditResult, ProbeResult
from peterrec.model import UserModel
from peterrec.storage import read_json
from report.html_page import Page
from training.small import CHANNELS, QUIET, adapt_config, pretrain_config

QUICK: dict[str, Any] = {"bootstrap": 100, "folds": 3, "min_class_users": 10}
World = tuple[Corpus, UserModel, Path]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A corpus whose users have a taste (it shows), a `group` that follows from it mostly, and `noise`."""
    folder = tmp_path_factory.mktemp("audit")
    data = planted(users=300, items=40, clusters=4, mean_events=10, seed=3)
    users = data.users.to_pandas()
    flipped = np.random.default_rng(0).random(len(users)) < 0.1
    users["group"] = np.where(users["cluster"].isin(["c0", "c1"]) ^ flipped, "left", "right")
    corpus = peterrec.prepare(
        data.events, folder / "corpus", domain="domain", source={"domains": ["source"]}, users=users,
        classify=["cluster", "group", "noise"], rank="target", split={"train": 0.4, "valid": 0.1, "test": 0.5},
    )  # fmt: skip
    with (folder / "users.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["user_id", "side", "rare"])
        rows.writerows([[user, side, "x"] for user, side in zip(users["user_id"], users["group"], strict=True)])
        rows.writerows([["nobody", "left", "y"], ["nobody either", "", ""]])
    model = peterrec.pretrain(corpus, folder / "backbone", pretrain_config(backbone=CHANNELS, epochs=1))
    return corpus, UserModel(model.pretrained, "cpu"), folder


@pytest.fixture(scope="module")
def bundles(world: World) -> dict[str, Bundle]:
    corpus, model, folder = world
    config = adapt_config(readout="both", head_init="linear-probe", epochs=2)
    return {name: peterrec.adapt(model, corpus, name, folder / name, config) for name in ("cluster", "target")}


def row(result: AuditResult, reads: str, probe: str = "linear", bundle: str | None = None) -> ProbeResult:
    (match,) = [p for p in result.probes if (p.reads, p.probe, p.bundle) == (reads, probe, bundle)]
    return match


@pytest.mark.slow
def test_what_shows_is_found(world: World, bundles: dict[str, Bundle]) -> None:
    corpus, model, folder = world
    result = peterrec.audit(model, corpus, "group", bundles, folder / "group.json", **QUICK)
    assert result.users == len(corpus.task("group").part("test"))
    assert [p.family for p in result.probes][:1] + [p.family for p in result.probes][-1:] == ["floor", "ceiling"]
    for reads, probe, bundle in (
        ("backbone", "linear", None), ("backbone", "nonlinear", None), ("bag of items", "linear", None),
        ("readout", "linear", "cluster"), ("answers", "nonlinear", "cluster"), ("answers", "linear", "target"),
    ):  # fmt: skip
        probed = row(result, reads, probe, bundle)
        assert probed.values["auc"].value > 0.7, (reads, probe, bundle)
        assert probed.verdict == "better"
    floor = row(result, "nothing", "majority")
    assert floor.verdict is None
    assert floor.values["accuracy"].value == pytest.approx(max(result.classes.values()) / result.users)
    assert AuditResult.model_validate(read_json(folder / "group.json")) == result
    assert list(model.bundles) == []


def test_noise_is_not_found(world: World) -> None:
    corpus, model, _ = world
    result = peterrec.audit(model, corpus, "noise", nonlinear=False, **QUICK)
    for probe in result.probes:
        assert probe.values["auc"].value == pytest.approx(0.5, abs=0.15)
        assert probe.verdict in (None, "no clear difference")


@pytest.mark.slow
def test_a_column_of_a_table_is_an_attribute(world: World) -> None:
    corpus, model, folder = world
    settings = {**QUICK, "nonlinear": False}
    result = peterrec.audit(model, corpus, f"{folder / 'users.csv'}:side", **settings)
    assert (result.attribute, result.users) == ("side", 300)
    assert result.notes == ["1 users of the table are not in the corpus"]
    assert row(result, "backbone").values["auc"].value > 0.8


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("target", "groups are classes"), ("grup", "group"),
        ("{}/users.csv:sid", "side"), ("{}/none.csv:side", "no file"), ("{}/users.csv:rare", "fewer than two of its"),
        ("{}/corpus/manifest.json:side", "no column|cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_attribute_is_refused(world: World, tmp_path: Path, attribute: str, message: str) -> None:
    corpus, model, folder = world
    with pytest.raises(PeterRecError, match=message):
        peterrec.audit(model, corpus, attribute.format(folder), out=tmp_path / "a.json", **QUICK)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_erased_attribute_is_not_read_by_a_linear_probe(
    world: World, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    pytest.importorskip("concept_erasure", reason="erasing needs concept-erasure (peterrec[audit])")
    corpus, model, _ = world
    config = adapt_config(readout="both", erase="group", epochs=2, runner=QUIET)
    erased = peterrec.adapt(model, corpus, "cluster", tmp_path / "erased", config)
    settings = {**QUICK, "nonlinear": False}
    result = peterrec.audit(model, corpus, "group", {"plain": bundles["cluster"], "erased": erased}, **settings)
    assert row(result, "readout", bundle="plain").values["auc"].value > 0.8
    assert row(result, "readout", bundle="erased").values["auc"].value < 0.65


def test_users_are_guessed_by_models_that_have_not_seen_them() -> None:
    folds = assign_folds(id_hash([f"u{i}" for i in range(50)]), 5, "x")

    def fit_predict(fitted: Any, guessed: Any) -> Any:
        assert not set(fitted) & set(guessed)
        assert len(fitted) + len(guessed) == 50
        return np.repeat(guessed[:, None], 2, axis=1)

    np.testing.assert_array_equal(out_of_fold(folds, 2, fit_predict)[:, 0], np.arange(50))


def test_the_nonlinear_probe_finds_what_no_line_separates() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(600, 2))
    labels = (vectors.prod(axis=1) > 0).astype(np.int64)
    hashes = id_hash([f"u{i}" for i in range(600)])
    folds = assign_folds(hashes, 3, "x", labels)
    line = out_of_fold(folds, 2, linear(vectors, labels, 2, hashes)).argmax(1)
    network = out_of_fold(folds, 2, nonlinear(vectors, labels, 2, 0)).argmax(1)
    assert (line == labels).mean() < 0.6
    assert (network == labels).mean() > 0.85


@pytest.mark.slow
def test_groups_are_compared_as_by_hand(world: World, bundles: dict[str, Bundle]) -> None:
    pytest.importorskip("fairlearn", reason="differences need Fairlearn (peterrec[audit])")
    corpus, model, _ = world
    result = peterrec.audit(model, corpus, "group", bundles, nonlinear=False, **QUICK)
    (difference,) = [d for d in result.differences if (d.bundle, d.metric) == ("cluster", "accuracy")]
    model.add_bundle(bundles["cluster"], "by hand")
    part = corpus.task("cluster").part("test")
    right = model.probabilities(part.sequences, "by hand").argmax(1) == np.asarray(part.labels)
    model.delete_bundle("by hand")
    group_of: dict[str, str] = {}
    for name in ("train", "valid", "test"):
        users = corpus.task("group").part(name)  # type: ignore[arg-type]
        names = [corpus.task("group").class_names[label] for label in np.asarray(users.labels)]
        group_of |= dict(zip(users.user_ids.to_pylist(), names, strict=True))
    groups_of_users = np.array([group_of[user] for user in part.user_ids.to_pylist()])
    expected = {name: float(right[groups_of_users == name].mean()) for name in ("left", "right")}
    assert difference.groups == pytest.approx(expected)
    assert difference.difference.value == pytest.approx(abs(expected["left"] - expected["right"]))
    assert {d.metric for d in result.differences if d.bundle == "target"} >= {"hr@5", "mrr@5"}


@pytest.mark.slow
def test_without_fairlearn_it_says_what_to_install(
    world: World, bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, model, _ = world
    monkeypatch.setattr(groups, "MetricFrame", None)
    settings = {**QUICK, "nonlinear": False}
    result = peterrec.audit(model, corpus, "group", {"cluster": bundles["cluster"]}, **settings)
    assert result.differences == []
    assert "peterrec[audit]" in result.notes[0]


@pytest.mark.slow
def test_the_verb_prints_a_table_and_writes_a_page(
    world: World, bundles: dict[str, Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, _, folder = world
    sets = [part for name, value in QUICK.items() for part in ("--set", f"{name}={value}")]
    arguments = ["audit", str(folder / "backbone"), str(corpus.path), "--attribute", "group", "--bundle"]
    assert execute([*arguments, str(folder / "cluster"), "--out", str(folder / "verb.json"), *sets]) == 0
    printed = capsys.readouterr()
    assert "bag of items" in printed.out
    assert "cluster readout" in printed.out
    page = Page((folder / "verb.html").read_text())
    assert "What can be told about group" in page.text
    assert "bundle cluster" in page.text
    assert "no proof that nobody can" in page.text
    assert execute([*arguments, str(folder / "cluster"), "--out", str(folder / "verb.txt")]) == 2
    assert ".json" in capsys.readouterr().err
