"""What a joint training, and a single one, does not do: one clear error, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peterrec.data.corpus import Corpus
from peterrec.errors import ArtifactError, ConfigError, FingerprintError, TaskError
from peterrec.training.adapt import adapt, adapt_jointly
from training.small import StopAt, Stopped, adapt_config, corpus_of

JOINT = adapt_config(strategy="joint", epochs=1)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("tasks", "message"), [([], "tasks are none"), (["shop", "cluster", "shop"], "tasks are shop, cluster, shop")]
)
def test_tasks_that_are_none_or_named_twice(
    backbone: Path, corpus: Corpus, tmp_path: Path, tasks: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        adapt_jointly(backbone, corpus, tasks, tmp_path / "out", JOINT)
    assert caught.value.remedy == "name each task once, and at least one"
    assert list(tmp_path.iterdir()) == []


def test_each_verb_refuses_the_strategies_of_the_other(backbone: Path, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="strategy patch trains one task") as caught:
        adapt_jointly(backbone, corpus, ["shop"], tmp_path / "out", adapt_config())
    assert "call adapt, once for each task" in caught.value.remedy
    with pytest.raises(ConfigError, match="strategy joint trains several tasks") as caught:
        adapt(backbone, corpus, "shop", tmp_path / "out", JOINT)
    assert "adapt_jointly" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_without_settings_it_is_joint(backbone: Path, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", [[4, 5]] * 9, 3)
    with pytest.raises(FingerprintError, match="its catalogue is"):
        adapt_jointly(backbone, corpus, ["job"], tmp_path / "out")
    assert not (tmp_path / "out.training").exists()


def test_a_task_that_is_not_there_or_has_nobody_to_validate(backbone: Path, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="nothing"):
        adapt_jointly(backbone, corpus, ["shop", "nothing"], tmp_path / "out", JOINT)
    assert list(tmp_path.iterdir()) == []


def test_one_task_alone_may_be_trained_jointly(backbone: Path, corpus: Corpus, tmp_path: Path) -> None:
    (bundle,) = adapt_jointly(backbone, corpus, ["shop"], tmp_path / "out", JOINT).values()
    assert (bundle.strategy, bundle.name) == ("joint", "shop")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.yaml", "joint.json", "shop"]


def test_what_is_there_is_replaced_only_if_asked_and_only_if_joint(
    backbone: Path, corpus: Corpus, tmp_path: Path
) -> None:
    foreign, bundle, mine = tmp_path / "foreign", tmp_path / "bundle", tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    adapt(backbone, corpus, "shop", bundle, adapt_config(epochs=1))
    adapt_jointly(backbone, corpus, ["shop", "cluster"], mine, JOINT)
    before = content(tmp_path)
    for out in (foreign, bundle):
        with pytest.raises(ArtifactError, match="is there and is not a joint"):
            adapt_jointly(backbone, corpus, ["shop"], out, JOINT, overwrite=True)
    for out in (foreign, bundle, mine):
        with pytest.raises(ArtifactError, match="already exists"):
            adapt_jointly(backbone, corpus, ["shop"], out, JOINT)
    with pytest.raises(ArtifactError, match="is there and is not a bundle"):
        adapt(backbone, corpus, "shop", mine, adapt_config(epochs=1), overwrite=True)
    assert content(tmp_path) == before
    adapt_jointly(backbone, corpus, ["shop"], mine, JOINT, overwrite=True)
    assert not (mine / "cluster").exists(), "what was there is gone as a whole"


@pytest.mark.parametrize(
    ("tasks", "seed", "error"),
    [(["cluster", "shop"], 0, "another tasks"), (["shop", "cluster"], 1, "another configuration")],
)
def test_a_run_of_other_tasks_or_settings_is_not_gone_on_with(
    backbone: Path,
    corpus: Corpus,
    watched: Callable[..., None],
    tmp_path: Path,
    tasks: list[str],
    seed: int,
    error: str,
) -> None:
    watched(StopAt("batch start", 3))
    settings = {"strategy": "joint", "epochs": 1, "checkpoint_every": 1}
    with pytest.raises(Stopped):
        adapt_jointly(backbone, corpus, ["shop", "cluster"], tmp_path / "out", adapt_config(**settings))
    watched()
    with pytest.raises((ConfigError, FingerprintError), match=error):
        adapt_jointly(backbone, corpus, tasks, tmp_path / "out", adapt_config(**settings, seed=seed), resume=True)
