"""Nothing of new users is in a backbone, and what is adapted on it says on whom it was not pre-trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.prepare.logs import prepare_log, write_csv
from peterrec.artifacts.backbone_io import load_backbone
from peterrec.artifacts.inspection import inspect
from peterrec.config import EvaluateConfig
from peterrec.data.corpus import PARTS, Corpus
from peterrec.data.hashing import id_hash
from peterrec.data.pretraining_users import split_users, unlabelled_sequences
from peterrec.data.splits import assign_parts
from peterrec.evaluation.bundles import evaluate
from peterrec.evaluation.results import TaskEvaluation
from peterrec.model import UserModel
from peterrec.training.adapt import adapt
from peterrec.training.pretrain import pretrain
from training.small import adapt_config, pretrain_config

USERS = [f"u{number}" for number in range(120)]
QUICK = EvaluateConfig(bootstrap=20)


def log_rows(seed_of_new: int, new: set[str]) -> list[tuple[str, str, int]]:
    """Events of every user from a draw of its own, which for new users depends on a seed."""
    rows = []
    for number, user in enumerate(USERS):
        rng = np.random.default_rng([number, seed_of_new if user in new else 0])
        items = rng.integers(0, 12, rng.integers(3, 9)).tolist()
        rows += [(user, f"i{item}", time) for time, item in enumerate(items)]
    return rows


def prepared(folder: Path, rows: list[Any], **settings: Any) -> Corpus:
    labels = write_csv(folder / "labels.csv", [(user, "ab"[n % 2]) for n, user in enumerate(USERS)], ("user_id", "is"))
    tasks = [{"name": "is", "kind": "classification", "labels": {"path": str(labels), "label": "is"}}]
    return prepare_log(write_csv(folder / "log.csv", rows), folder / "corpus", tasks=tasks, **settings)


@pytest.fixture(scope="module")
def kept_out(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepared(tmp_path_factory.mktemp("kept-out"), log_rows(0, set()), new_users={"parts": ["test"]})


@pytest.fixture(scope="module")
def model(kept_out: Corpus) -> UserModel:
    settings = pretrain_config(epochs=1, item_init="co-occurrence")
    return pretrain(kept_out, kept_out.path.parent / "backbone", settings)


def test_other_events_of_new_users_change_no_weight(tmp_path: Path, kept_out: Corpus, model: UserModel) -> None:
    """Item factors, catalogue, counts, training and the choice of the epoch: all of them would change the weights."""
    test_users = set(kept_out.task("is").part("test").user_ids.to_pylist())
    assert 10 < len(test_users) < 60
    changed = prepared(tmp_path, log_rows(1, test_users), new_users={"parts": ["test"]})
    assert changed.manifest["fingerprint"] != kept_out.manifest["fingerprint"]
    assert (changed.path / "catalogue.parquet").read_bytes() == (kept_out.path / "catalogue.parquet").read_bytes()
    repeated = pretrain(changed, tmp_path / "backbone", pretrain_config(epochs=1, item_init="co-occurrence"))
    assert repeated.fingerprint == model.fingerprint
    curves = [
        [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in trained.pretrained.training["curve"]
        ]
        for trained in (repeated, model)
    ]
    assert curves[0] == curves[1]


def test_new_users_are_neither_trained_on_nor_held_out(kept_out: Corpus) -> None:
    train, valid = split_users(kept_out, pretrain_config())
    parts = assign_parts(kept_out.user_hashes, kept_out.provenance().split)  # type: ignore[arg-type]
    assert set(parts[np.concatenate([train, valid])]) == {0, 1}
    assert len(train) + len(valid) == len(kept_out.pretraining_rows) < len(USERS)


def test_baselines_learn_nothing_of_new_users(kept_out: Corpus) -> None:
    unlabelled = unlabelled_sequences(kept_out)
    expected = kept_out.sequences.take(np.flatnonzero(~kept_out.new_users))
    assert len(unlabelled) < len(kept_out.sequences)
    np.testing.assert_array_equal(unlabelled.items, expected.items)
    np.testing.assert_array_equal(unlabelled.offsets, expected.offsets)


def test_backbone_and_bundle_remember_who_was_kept_out(tmp_path: Path, kept_out: Corpus, model: UserModel) -> None:
    backbone = kept_out.path.parent / "backbone"
    loaded = load_backbone(backbone)
    assert loaded.new_users == model.pretrained.new_users == kept_out.kept_out_users
    assert loaded.new_users is not None
    adapt(model, kept_out, "is", tmp_path / "bundle", adapt_config(epochs=1))
    assert inspect(tmp_path / "bundle")["new_users"] == inspect(backbone)["new_users"]
    name = model.load_bundle(tmp_path / "bundle")
    assert model.bundle(name).new_users == loaded.new_users
    model.delete_bundle(name)
    line = f"Pre-trained without any event of {loaded.new_users.users} new users: the test users of the split"
    for folder in (backbone, tmp_path / "bundle"):
        assert line in (folder / "README.md").read_text()
    model.save_pretrained(tmp_path / "copy")
    assert load_backbone(tmp_path / "copy").new_users == loaded.new_users


@pytest.fixture(scope="module")
def bundle(kept_out: Corpus, model: UserModel) -> Path:
    adapt(model, kept_out, "is", kept_out.path.parent / "bundle", adapt_config(epochs=1))
    return kept_out.path.parent / "bundle"


def overlap(evaluation: TaskEvaluation) -> tuple[int, int, int]:
    assert evaluation.pretraining_overlap is not None
    counts = evaluation.pretraining_overlap
    assert TaskEvaluation.from_json(evaluation.to_json()) == evaluation
    assert counts.new + counts.pretrained + counts.unknown == evaluation.users
    return counts.new, counts.pretrained, counts.unknown


def test_evaluating_says_that_test_users_are_new(kept_out: Corpus, model: UserModel, bundle: Path) -> None:
    evaluation = evaluate(model, kept_out, [bundle], config=QUICK)
    users = evaluation.users
    assert overlap(evaluation) == (users, 0, 0)
    assert f"{users} of {users} test users are new: no event of theirs was in pre-training." in evaluation.sentence


@pytest.mark.slow
def test_users_of_another_split_are_told_by_their_id(
    tmp_path: Path, kept_out: Corpus, model: UserModel, bundle: Path
) -> None:
    """Those of another corpus who were not kept out may have been in pre-training, or not: nobody knows."""
    resplit = prepared(
        tmp_path, log_rows(0, set()), catalogue=str(kept_out.path),
        split={"train": 0.3, "valid": 0.1, "test": 0.6, "salt": "x"},
    )  # fmt: skip
    evaluation = evaluate(model, resplit, [bundle], config=QUICK)
    ids = resplit.task("is").part("test").user_ids.to_pylist()
    was_test = assign_parts(id_hash(ids), kept_out.provenance().split) == PARTS.index("test")  # type: ignore[arg-type]
    assert overlap(evaluation) == (was_test.sum(), 0, 0)  # the others were trained on, or chosen by: they do not count
    by_split = evaluate(model, prepared(tmp_path / "same", log_rows(1, set(USERS)), catalogue=str(kept_out.path)),
                        [bundle], config=QUICK)  # fmt: skip
    assert overlap(by_split)[1:] == (0, 0)
    assert by_split.sentence.count("are new") == 1


@pytest.mark.slow
def test_of_a_backbone_that_kept_nobody_out_all_were_pretrained_on(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, log_rows(0, set()))
    plain = pretrain(corpus, tmp_path / "backbone", pretrain_config(epochs=1))
    adapt(plain, corpus, "is", tmp_path / "bundle", adapt_config(epochs=1))
    for folder in ("backbone", "bundle"):
        assert "new_users" not in inspect(tmp_path / folder)
        assert "new users" not in (tmp_path / folder / "README.md").read_text()
    evaluation = evaluate(plain, corpus, [tmp_path / "bundle"], config=QUICK)
    assert overlap(evaluation) == (0, evaluation.users, 0)
    assert "test users were pre-trained on without their labels." in evaluation.sentence
    elsewhere = prepared(tmp_path / "elsewhere", log_rows(1, set(USERS)), catalogue=str(corpus.path))
    unknown = evaluate(plain, elsewhere, [tmp_path / "bundle"], config=QUICK)
    assert overlap(unknown) == (0, 0, unknown.users)
    assert "test users were pre-trained on is not known: this is another corpus" in unknown.sentence


@pytest.mark.slow
def test_who_came_later_is_known_on_the_corpus_of_pretraining_alone(tmp_path: Path) -> None:
    rows = [(user, item, time + 10 * (n % 4 == 0)) for n, user in enumerate(USERS)
            for time, item in enumerate(["a", "b", "a", "c"])]  # fmt: skip
    corpus = prepared(tmp_path, rows, new_users={"first_event_after": "10"})
    assert [user for user, new in zip(sorted(USERS), corpus.new_users, strict=True) if new] == sorted(USERS[::4])
    late = pretrain(corpus, tmp_path / "backbone", pretrain_config(epochs=1))
    adapt(late, corpus, "is", tmp_path / "bundle", adapt_config(epochs=1))
    assert "those who came at or after 10" in (tmp_path / "backbone" / "README.md").read_text()
    evaluation = evaluate(late, corpus, [tmp_path / "bundle"], config=QUICK)
    test_users = corpus.task("is").part("test").user_ids
    new = pa.array(USERS[::4]).to_pylist()
    expected = sum(user in new for user in test_users.to_pylist())
    assert overlap(evaluation) == (expected, len(test_users) - expected, 0)
    assert expected > 0
    elsewhere = prepared(tmp_path / "elsewhere", [*rows, ("u0", "a", 99)], catalogue=str(corpus.path))
    assert overlap(evaluate(late, elsewhere, [tmp_path / "bundle"], config=QUICK)) == (0, 0, len(test_users))
