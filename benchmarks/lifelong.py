"""Tasks that come one after the other: what earlier ones are worth after each, by patches and by fine-tuning.

    python benchmarks/lifelong.py CORPUS BACKBONE gender age occupation --set epochs=6

Patches: each task gets a patch on the same frozen backbone. Fine-tuning in sequence: each task trains a copy of the
network that the task before left behind, its head kept; what an earlier head says is then read of the newer network.
Both are adapted with the same settings but for the strategy. Forgetting is the log-loss of the test users at the end,
less that when the task was learned.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import peterrec
from peterrec.artifacts.bundle_io import Bundle
from peterrec.model import UserModel

Losses = dict[str, list[float]]
"""By task: log-loss of its test users after each task that was learned, from its own on."""


def main() -> None:
    """Learn the tasks in order, and print the tables."""
    peterrec.tune_process()
    options = _options()
    settings = peterrec.load_config(peterrec.AdaptConfig, None, [*options.set, "runner.progress=false"])
    corpus = peterrec.Corpus.open(options.corpus)
    results = {
        "patches": patches(options.backbone, corpus, options.tasks, settings),
        "fine-tuning in sequence": sequence(options.backbone, corpus, options.tasks, settings),
    }
    for name, losses in results.items():
        print(f"\n{name}\n\n| task | {' | '.join(f'after {task}' for task in options.tasks)} | forgetting |")
        print("|---" * (len(options.tasks) + 2) + "|")
        for place, task in enumerate(options.tasks):
            row = [""] * place + [f"{loss:.4f}" for loss in losses[task]]
            print(f"| {task} | {' | '.join(row)} | {losses[task][-1] - losses[task][0]:+.4f} |")
    if options.out is not None:
        options.out.write_text(json.dumps(results, indent=1))


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("backbone", type=Path)
    parser.add_argument("tasks", nargs="+", help="classification tasks, in the order in which they come")
    parser.add_argument("--set", action="append", default=[], help="setting of adapt, as KEY=VALUE")
    parser.add_argument("--out", type=Path, help="JSON file of the log-losses")
    return parser.parse_args()


def patches(backbone: Path, corpus: peterrec.Corpus, tasks: list[str], settings: peterrec.AdaptConfig) -> Losses:
    """Return the losses of a patch for each task; no answer of an earlier one changes by a bit."""
    model = UserModel.from_pretrained(backbone)
    losses: Losses = {}
    first_answers: dict[str, Any] = {}
    for task in tasks:
        with tempfile.TemporaryDirectory() as folder:
            bundle = peterrec.adapt(model, corpus, task, Path(folder) / "bundle", settings, strategy="patch")
        model.add_bundle(bundle, task)
        for earlier in [*losses, task]:
            answers = model.probabilities(corpus.task(earlier).part("test").sequences, earlier)
            first_answers.setdefault(earlier, answers)
            assert np.array_equal(answers, first_answers[earlier]), "a frozen patch forgets nothing"
            losses.setdefault(earlier, []).append(log_loss(answers, corpus, earlier))
    return losses


def sequence(backbone: Path, corpus: peterrec.Corpus, tasks: list[str], settings: peterrec.AdaptConfig) -> Losses:
    """Return the losses of one network that is trained on one task after the other, with a head for each."""
    pretrained = UserModel.from_pretrained(backbone).pretrained
    losses: Losses = {}
    learned: dict[str, Bundle] = {}
    for task in tasks:
        model = UserModel(pretrained)
        with tempfile.TemporaryDirectory() as folder:
            bundle = peterrec.adapt(model, corpus, task, Path(folder) / "bundle", settings, strategy="all")
        learned[task] = bundle
        assert bundle.backbone is not None
        for earlier, first_bundle in learned.items():
            of_now = replace(first_bundle, backbone=bundle.backbone, backbone_fingerprint=model.fingerprint)
            model.add_bundle(of_now, earlier)
            answers = model.probabilities(corpus.task(earlier).part("test").sequences, earlier)
            losses.setdefault(earlier, []).append(log_loss(answers, corpus, earlier))
        network = copy.deepcopy(pretrained.network)
        network.backbone = copy.deepcopy(bundle.backbone)
        pretrained = replace(pretrained, network=network)
    return losses


def log_loss(probabilities: Any, corpus: peterrec.Corpus, task: str) -> float:
    """Return the mean log-loss of the test users of a task, in nats."""
    labels = np.asarray(corpus.task(task).part("test").labels)
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.clip(chosen, 1e-15, 1.0)).mean())


if __name__ == "__main__":
    main()
