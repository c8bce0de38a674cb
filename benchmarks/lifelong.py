"""Tasks that come one after the other: what earlier ones are worth after each, by patches and by other ways to learn.

    python benchmarks/lifelong.py CORPUS BACKBONE gender age occupation --set epochs=6

- `patches`: each task gets a patch on the same frozen backbone.
- `fine-tuning in sequence`: each task trains a copy of the network that the task before left behind, its head kept;
  what an earlier head says is then read of the newer network.
- `conure` (Yuan et al., SIGIR 2021) and `teracon` (Kim et al., KDD 2023): benchmarks/conure.py, benchmarks/teracon.py.

All begin at the same backbone and are trained with the same settings. Forgetting is the log-loss of the test users at
the end, less that when the task was learned. `trained` are the parameters that a task trains, and `stored` those that
have to be stored for it beside the network itself, both as a share of the parameters of the backbone.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from conure import Conure
from lifelong_task import Method
from teracon import Teracon

import peterrec
from peterrec.artifacts.bundle_io import Bundle
from peterrec.model import UserModel
from peterrec.training.strategies import count_parameters

METHODS = ("patches", "fine-tuning in sequence", "conure", "teracon")


@dataclass
class Results:
    """What a method does with tasks in order.

    Attributes:
        losses: by task: log-loss of its test users after each task that was learned, from its own on.
        trained: by task: parameters trained for it, as a share of those of the backbone.
        stored: by task: parameters stored for it beside the network, as such a share.
    """

    losses: dict[str, list[float]] = field(default_factory=dict)
    trained: dict[str, float] = field(default_factory=dict)
    stored: dict[str, float] = field(default_factory=dict)


def main() -> None:
    """Learn the tasks in order, and print the tables."""
    peterrec.tune_process()
    options = _options()
    settings = peterrec.load_config(peterrec.AdaptConfig, None, [*options.set, "runner.progress=false"])
    corpus = peterrec.Corpus.open(options.corpus)
    model = UserModel.from_pretrained(options.backbone)
    size = count_parameters(model.network.backbone)
    results = {}
    for name in options.method or METHODS:
        method = new_method(name, model, corpus, settings, options)
        results[name] = learn_in_order(method, corpus, options.tasks, size)
        print(f"\n{name}\n\n" + "\n".join(table(results[name], options.tasks)), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps({name: asdict(result) for name, result in results.items()}, indent=1))


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("backbone", type=Path)
    parser.add_argument("tasks", nargs="+", help="classification tasks, in the order in which they come")
    parser.add_argument("--set", action="append", default=[], help="setting of adapt, as KEY=VALUE")
    parser.add_argument("--method", action="append", choices=METHODS, help="instead of all; may be repeated")
    parser.add_argument("--pruned", type=float, default=0.5, help="conure: share of a task's weights freed again")
    parser.add_argument("--retention", type=float, default=1.0, help="teracon: weight of the distillation")
    parser.add_argument("--out", type=Path, help="JSON file of the log-losses and shares")
    return parser.parse_args()


def new_method(
    name: str, model: UserModel, corpus: peterrec.Corpus, settings: peterrec.AdaptConfig, options: Any
) -> Method:
    """Return a method that has learned no task; no one changes the backbone of the model."""
    if name == "patches":
        return Patches(model, corpus, settings)
    if name == "conure":
        return Conure(model.pretrained, corpus, settings, options.pruned)
    if name == "teracon":
        return Teracon(model.network.backbone, corpus, settings, options.retention)
    return FineTuning(model, corpus, settings)


def learn_in_order(method: Method, corpus: peterrec.Corpus, tasks: list[str], size: int) -> Results:
    """Return what a method does with tasks; where it forgets nothing, no answer may change by a bit.

    Args:
        method: that has learned nothing yet.
        corpus: of the tasks.
        tasks: in their order.
        size: parameters of the backbone.
    """
    results = Results()
    first_answers: dict[str, Any] = {}
    for task in tasks:
        trained, stored = method.learn(task)
        results.trained[task], results.stored[task] = trained / size, stored / size
        for earlier in [*results.losses, task]:
            answers = method.answers(earlier)
            first = first_answers.setdefault(earlier, answers)
            if not method.forgets and not np.array_equal(answers, first):
                raise AssertionError(f"answers of {earlier} changed when {task} was learned")
            results.losses.setdefault(earlier, []).append(log_loss(answers, corpus, earlier))
    return results


def table(results: Results, tasks: list[str]) -> list[str]:
    """Return the lines of a method's table."""
    lines = [
        f"| task | {' | '.join(f'after {task}' for task in tasks)} | forgetting | trained | stored |",
        "|---" * (len(tasks) + 4) + "|",
    ]
    for place, task in enumerate(tasks):
        losses = results.losses[task]
        row = [""] * place + [f"{loss:.4f}" for loss in losses]
        shares = f"{results.trained[task]:.2%} | {results.stored[task]:.2%}"
        lines.append(f"| {task} | {' | '.join(row)} | {losses[-1] - losses[0]:+.4f} | {shares} |")
    return lines


class Patches:
    """A patch for each task, on the backbone that never changes."""

    forgets = False

    def __init__(self, model: UserModel, corpus: peterrec.Corpus, settings: peterrec.AdaptConfig) -> None:
        self.model, self.corpus, self.settings = UserModel(model.pretrained), corpus, settings

    def learn(self, task: str) -> tuple[float, float]:
        """Adapt the backbone, and put the bundle on the model."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "bundle"
            bundle = peterrec.adapt(self.model, self.corpus, task, out, self.settings, strategy="patch")
        self.model.add_bundle(bundle, task)
        return bundle.trainable_params, bundle.patch_params + bundle.readout_params + bundle.head_params

    def answers(self, task: str) -> Any:
        """Return the class probabilities of test users."""
        return self.model.probabilities(self.corpus.task(task).part("test").sequences, task)


class FineTuning:
    """One network that is trained on one task after the other, with a head for each."""

    forgets = True

    def __init__(self, model: UserModel, corpus: peterrec.Corpus, settings: peterrec.AdaptConfig) -> None:
        self.pretrained, self.corpus, self.settings = model.pretrained, corpus, settings
        self.bundles: dict[str, Bundle] = {}

    def learn(self, task: str) -> tuple[float, float]:
        """Train all of the network; what it was before is stored no longer."""
        model = UserModel(self.pretrained)
        with tempfile.TemporaryDirectory() as folder:
            bundle = peterrec.adapt(model, self.corpus, task, Path(folder) / "bundle", self.settings, strategy="all")
        assert bundle.backbone is not None
        self.bundles[task] = bundle
        network = copy.deepcopy(self.pretrained.network)
        network.backbone = copy.deepcopy(bundle.backbone)
        self.pretrained = replace(self.pretrained, network=network)
        return bundle.trainable_params, bundle.readout_params + bundle.head_params

    def answers(self, task: str) -> Any:
        """Return the class probabilities of test users, by the task's head over the network of now."""
        model = UserModel(self.pretrained)
        of_now = replace(
            self.bundles[task], backbone=self.pretrained.network.backbone, backbone_fingerprint=model.fingerprint
        )
        model.add_bundle(of_now, task)
        return model.probabilities(self.corpus.task(task).part("test").sequences, task)


def log_loss(probabilities: Any, corpus: peterrec.Corpus, task: str) -> float:
    """Return the mean log-loss of the test users of a task, in nats."""
    labels = np.asarray(corpus.task(task).part("test").labels)
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.clip(chosen, 1e-15, 1.0)).mean())


if __name__ == "__main__":
    main()
