"""An adaptation that goes on from a bundle begins with exactly its answers, also on a backbone that came later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from builders import tiny_bundle, tiny_pretrained
from peterrec.artifacts.bundle_io import load_bundle, save_bundle
from peterrec.artifacts.tensors import fingerprint
from peterrec.cli.main import execute
from peterrec.config import AdaptConfig, dump_yaml
from peterrec.errors import ConfigError, FingerprintError, PeterRecError, TaskError
from peterrec.nn.heads import ClassificationHead
from peterrec.storage import read_json
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.grow import grow
from peterrec.training.initial_bundle import InitialBundle, moved_to
from training.small import QUIET, StopAt, Stopped
from training.upgrade import NEW_TARGET, TASKS, Upgrade, bundle_config, corpus_of


@pytest.fixture(scope="module")
def upgrade(tmp_path_factory: pytest.TempPathFactory) -> Upgrade:
    return Upgrade(tmp_path_factory.mktemp("upgrade"))


@pytest.mark.parametrize("task", TASKS)
def test_the_same_backbone_and_users_start_where_the_bundle_ended(upgrade: Upgrade, task: str, tmp_path: Path) -> None:
    before = read_json(upgrade.bundles[task] / "metrics.json")
    assert before["best_epoch"] >= 0, "there is nothing to tell from a fresh start"
    config, initial = bundle_config(epochs=1), upgrade.bundles[task]
    bundle = adapt(upgrade.backbone, upgrade.corpus, task, tmp_path / "b", config, initial=initial)
    assert bundle.metrics["start"] == pytest.approx(before["valid"], rel=1e-4)
    monitor = bundle.metrics["monitor"]
    sign = -1 if monitor == "mrr" else 1
    assert sign * bundle.metrics["valid"][monitor] <= sign * bundle.metrics["start"][monitor]
    start = load_bundle(initial, *frozen_parts(upgrade))
    assert bundle.metrics["initial"] == {
        "name": task,
        "fingerprint": fingerprint(start.tensors()),
        "backbone_fingerprint": start.backbone_fingerprint,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "last1"}, {"strategy": "all"}, {"strategy": "scratch"}, {"strategy": "patch-random"},
        {"strategy": "head"}, {"readout": "attention"}, {"readout": "token", "head_init": "random"},
        {"patch": {"bottleneck": 2, "item_rank": 2, "train_norms": True, "train_task_token": True}},
    ],
)  # fmt: skip
def test_whatever_a_bundle_has_is_where_it_starts(upgrade: Upgrade, settings: dict[str, Any], tmp_path: Path) -> None:
    config = bundle_config(**({"optim": {"lr": 0.02}} | settings))
    before = adapt(upgrade.backbone, upgrade.corpus, "cluster", tmp_path / "before", config)
    shorter = AdaptConfig(epochs=1, runner=QUIET, head_init=config.head_init)
    continued = adapt(upgrade.backbone, upgrade.corpus, "cluster", tmp_path / "again", shorter, initial=before)
    assert continued.metrics["start"] == pytest.approx(before.metrics["valid"], rel=1e-4)
    # And on a later backbone the first answers are those of the bundle that was put there.
    later = adapt(upgrade.later_backbone, upgrade.later_corpus, "cluster", tmp_path / "later", shorter, initial=before)
    assert later.metrics["start"]["log_loss"] == pytest.approx(_log_loss_of_moved(upgrade, before), rel=1e-4)


def test_a_later_backbone_starts_with_the_answers_of_the_bundle_put_on_it(upgrade: Upgrade, tmp_path: Path) -> None:
    path = upgrade.bundles["cluster"]
    bundle = adapt(upgrade.later_backbone, upgrade.later_corpus, "cluster", tmp_path / "b", bundle_config(epochs=1),
                   initial=path)  # fmt: skip
    assert bundle.metrics["start"]["log_loss"] == pytest.approx(_log_loss_of_moved(upgrade, path), rel=1e-4)
    _, after = upgrade.models()
    assert after.load_bundle(tmp_path / "b") == "cluster"


def test_settings_of_the_network_are_those_of_the_bundle(upgrade: Upgrade, tmp_path: Path) -> None:
    bundle = adapt(upgrade.later_backbone, upgrade.later_corpus, "cluster", tmp_path / "b", epochs=1,
                   initial=upgrade.bundles["cluster"])  # fmt: skip
    assert bundle.patch_config is not None
    assert (bundle.patch_config.model_dump()["bottleneck"], bundle.max_length) == (4, 30)


def test_targets_that_the_bundle_lacks_start_as_in_a_bundle_made_anew(upgrade: Upgrade) -> None:
    _, after = upgrade.models()
    initial, task = InitialBundle.read(upgrade.bundles["target"], after), upgrade.later_corpus.task("target")
    assert task.targets is not None
    new = task.targets.ids.to_pylist().index(NEW_TARGET)
    assert new in np.flatnonzero(initial.places(task) < 0)
    assert initial.bundle.targets is not None
    names = initial.bundle.targets.ids.to_pylist()
    assert [names[place] if place >= 0 else None for place in initial.places(task)] == [
        name if name in names else None for name in task.targets.ids.to_pylist()
    ]


def test_rows_of_a_head_score_as_those_they_come_from() -> None:
    generator = torch.Generator().manual_seed(0)
    source, head = ClassificationHead(5, 3, generator, bias=torch.randn(3)), ClassificationHead(5, 4, generator)
    vectors = torch.randn(50, 5, generator=generator) * 7 + 3
    vectors[:, 2] = 1.5  # the same of everybody
    head.standardise(vectors)
    untouched = head(vectors)[:, 1].detach()
    rows = torch.tensor([0, 3, 2])
    head.start_rows_at(rows, source.weight.detach(), source.bias.detach())
    torch.testing.assert_close(head(vectors)[:, rows], source(vectors), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(head(vectors)[:, 1], untouched)
    head.fold()
    torch.testing.assert_close(head(vectors)[:, rows], source(vectors), atol=1e-4, rtol=1e-4)


def test_numbers_of_another_scale_are_the_same_numbers(upgrade: Upgrade, tmp_path: Path) -> None:
    spend = upgrade.users["spend"].to_numpy()
    users = upgrade.users.set_column(upgrade.users.schema.get_field_index("spend"), "spend", [spend * 10 + 100])
    corpus = corpus_of(tmp_path / "corpus", upgrade.events, users, catalogue=str(upgrade.backbone))
    config, initial = bundle_config(epochs=1), upgrade.bundles["spend"]
    bundle = adapt(upgrade.backbone, corpus, "spend", tmp_path / "b", config, initial=initial)
    before, _ = upgrade.models()
    name = before.load_bundle(upgrade.bundles["spend"])
    valid = corpus.task("spend").part("valid")
    errors = np.abs(before.numbers(valid.sequences, name)[:, 0] - valid.numbers)
    assert bundle.metrics["start"]["mae"] == pytest.approx(errors.mean(), rel=1e-4)


def test_a_run_that_was_stopped_goes_on_as_if_it_never_was(upgrade: Upgrade, tmp_path: Path) -> None:
    config = bundle_config(checkpoint_every=2)
    arguments: dict[str, Any] = {"config": config, "initial": upgrade.bundles["cluster"]}
    place = (upgrade.later_backbone, upgrade.later_corpus, "cluster")
    uninterrupted = adapt(*place, tmp_path / "uninterrupted", **arguments)
    with pytest.raises(Stopped):
        adapt(*place, tmp_path / "out", callbacks=[StopAt("batch end", 5)], **arguments)
    with pytest.raises(PeterRecError, match=r"another (initial|configuration)"):
        adapt(*place, tmp_path / "out", config, resume=True)
    resumed = adapt(*place, tmp_path / "out", resume=True, **arguments)
    assert fingerprint(resumed.tensors()) == fingerprint(uninterrupted.tensors())
    assert resumed.metrics["start"] == uninterrupted.metrics["start"]


def test_what_does_not_fit_is_refused_before_anything_is_written(upgrade: Upgrade, tmp_path: Path) -> None:
    arguments = (upgrade.later_backbone, upgrade.later_corpus)
    path, out = upgrade.bundles["cluster"], tmp_path / "out"
    with pytest.raises(ConfigError, match="patch is not that of the bundle to go on from"):
        adapt(*arguments, "cluster", out, patch={"bottleneck": 5}, initial=path)
    with pytest.raises(ConfigError, match="readout is not that of the bundle"):
        adapt(*arguments, "cluster", out, readout="token", initial=path)
    with pytest.raises(ConfigError, match="has learned from the train users"):
        adapt(*arguments, "cluster", out, selection="cross-validation", initial=path)
    with pytest.raises(TaskError, match="is a regression task, and the bundle to go on from is of a classification"):
        adapt(*arguments, "spend", out, initial=path)
    with pytest.raises(FingerprintError, match="made for another backbone") as caught:
        adapt(upgrade.backbone, upgrade.corpus, "cluster", out, initial=tiny_bundle(tiny_pretrained()))
    assert "pretrain --from" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_other_classes_and_another_split_are_refused(upgrade: Upgrade, tmp_path: Path) -> None:
    catalogue, path = {"catalogue": str(upgrade.backbone)}, upgrade.bundles["cluster"]
    names = [f"group {name}" for name in upgrade.users["cluster"].to_pylist()]
    renamed = upgrade.users.set_column(upgrade.users.schema.get_field_index("cluster"), "cluster", [names])
    corpus = corpus_of(tmp_path / "renamed", upgrade.events, renamed, **catalogue)
    with pytest.raises(TaskError, match=r"its classes are group c0.* and those of the bundle to go on from are c0"):
        adapt(upgrade.backbone, corpus, "cluster", tmp_path / "out", initial=path)
    corpus = corpus_of(tmp_path / "split", upgrade.events, upgrade.users, split={"salt": "another"}, **catalogue)
    with pytest.raises(TaskError, match="split otherwise than those of the bundle"):
        adapt(upgrade.backbone, corpus, "cluster", tmp_path / "out", initial=path)
    assert {path.name for path in tmp_path.iterdir()} == {"renamed", "split"}


def test_bundles_of_several_tasks_are_no_start(upgrade: Upgrade, tmp_path: Path) -> None:
    arguments = (upgrade.backbone, upgrade.corpus)
    config = bundle_config(epochs=1, strategy="joint")
    adapt_jointly(*arguments, ["cluster", "spend"], tmp_path / "joint", config)
    with pytest.raises(ConfigError, match="trained as several tasks together"):
        adapt(*arguments, "cluster", tmp_path / "out", initial=tmp_path / "joint" / "cluster")


def test_a_moved_bundle_is_saved_and_read_as_one_of_the_later_backbone(upgrade: Upgrade, tmp_path: Path) -> None:
    before, after = upgrade.models()
    config = bundle_config(epochs=1, patch={"item_rank": 2})
    bundle = adapt(before, upgrade.corpus, "cluster", tmp_path / "items", config)
    moved = moved_to(bundle, after)
    save_bundle(tmp_path / "moved", moved)
    after.load_bundle(tmp_path / "moved", "read")
    after.add_bundle(moved, "moved")
    sequences = upgrade.later_corpus.sequences
    np.testing.assert_array_equal(after.probabilities(sequences, "read"), after.probabilities(sequences, "moved"))
    with pytest.raises(FingerprintError):
        before.load_bundle(tmp_path / "moved")


def test_a_backbone_that_grew_after_it_was_continued_knows_all_it_was(upgrade: Upgrade, tmp_path: Path) -> None:
    items = {"item_id": ["s0001", "s0002", "fresh"], "price": [1.0, 2.0, 3.0]}
    grown = grow(upgrade.later_backbone, None, tmp_path / "grown", items=pa.table(items))
    before, after = upgrade.models()
    assert [identity.fingerprint for identity in grown.pretrained.lineage] == [before.fingerprint, after.fingerprint]
    assert InitialBundle.read(upgrade.bundles["cluster"], grown).bundle.backbone_fingerprint == grown.fingerprint


def test_the_command_line_does_the_same(upgrade: Upgrade, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(dump_yaml(bundle_config(epochs=1)))
    place = [str(upgrade.later_backbone), str(upgrade.later_corpus.path), "cluster", "-q"]
    start = ["--from", str(upgrade.bundles["cluster"])]
    assert execute(["adapt", *place, *start, "-c", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "b")]) == 0
    metrics = read_json(tmp_path / "b" / "metrics.json")
    assert metrics["initial"]["name"] == "cluster"
    assert execute(["adapt", *place, *start, "--strategy", "joint", "--out", str(tmp_path / "c")]) == 2


def frozen_parts(upgrade: Upgrade) -> tuple[Any, Any]:
    model = upgrade.models()[0]
    return model.network.backbone, model.identity


def _log_loss_of_moved(upgrade: Upgrade, bundle: Any) -> float:
    _, after = upgrade.models()
    after.add_bundle(InitialBundle.read(bundle, after).bundle, "moved")
    valid = upgrade.later_corpus.task("cluster").part("valid")
    probabilities = after.probabilities(valid.sequences, "moved")
    return float(-np.log(probabilities[np.arange(len(valid)), valid.labels]).mean())
