"""That `runner.compile` and `runner.gradient_checkpointing` arrive where blocks are run, and change no result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peterrec.artifacts.tensors import fingerprint
from peterrec.config import RunnerConfig
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError
from peterrec.nn import execution as run
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.pretrain import pretrain
from training.small import adapt_config, pretrain_config


@pytest.mark.slow
@pytest.mark.parametrize("form", ["compile", "gradient_checkpointing"])
def test_a_form_is_used_and_gives_the_same_bits(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    shapes: list[tuple[int, ...]] = []
    real = run.recomputed_run if form == "gradient_checkpointing" else run.run_blocks

    def spy(*arguments: Any) -> Any:
        shapes.append(tuple(arguments[1].shape[:2]))
        return real(*arguments)

    name = "recomputed_run" if form == "gradient_checkpointing" else "compiled_run"
    monkeypatch.setattr(f"peterrec.nn.backbone.{name}", spy)

    def whole_job(folder: Path, **settings: bool) -> list[tuple[int, str]]:
        """Return, after each training, how often the form was used and what came out."""
        runner, outcomes = RunnerConfig(accelerator="cpu", progress=False, **settings), []
        short = {"max_length": 4, "runner": runner, "epochs": 1, "batch_size": 8}  # so that batches are full
        model = pretrain(corpus, folder / "backbone", pretrain_config(**short))
        outcomes.append((len(shapes), model.fingerprint))
        for strategy in ("patch", "all"):
            shapes.clear()
            bundle = adapt(model, corpus, "cluster", folder / strategy, adapt_config(strategy=strategy, **short))
            outcomes.append((len(shapes), fingerprint(bundle.tensors())))
        shapes.clear()
        joint = adapt_jointly(model, corpus, ["cluster"], folder / "joint", adapt_config(strategy="joint", **short))
        outcomes.append((len(shapes), fingerprint(joint["cluster"].tensors())))
        shapes.clear()
        return outcomes

    plain, used = whole_job(tmp_path / "plain"), whole_job(tmp_path / form, **{form: True})
    assert [count for count, _ in plain] == [0] * 4
    assert all(count > 0 for count, _ in used)
    assert [bits for _, bits in used] == [bits for _, bits in plain]


def test_two_forms_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match="ask for one of them"):
        RunnerConfig(compile=True, gradient_checkpointing=True)
