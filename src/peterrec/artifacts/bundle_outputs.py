"""The outputs of a bundle's head on disk: one file, whose form depends on the kind of task."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from peterrec.artifacts.tensors import names_fingerprint
from peterrec.config import TaskKind
from peterrec.data.catalogue import Catalogue
from peterrec.data.decision import Decision
from peterrec.data.number_outputs import NumberOutputs
from peterrec.nn.calibration import Calibration
from peterrec.nn.heads import ClassificationHead, Head, ItemHead, MultilabelHead, RegressionHead
from peterrec.storage import description_errors, read_json, write_json


class Outputs(NamedTuple):
    """Meaning of the outputs of a head; of each kind of task other fields say it.

    Attributes:
        class_names: of a classification task; of a multilabel task the names of its labels.
        class_priors: share of each class, or of users with each label, among the train users.
        targets: catalogue of a ranking task.
        numbers: scale and quantiles of a regression task.
        calibration: of the probabilities of classes or labels; None: they are what the network says.
        decision: thresholds that labels are answered by, and sets of classes; None: the most probable is answered.
    """

    class_names: tuple[str, ...] = ()
    class_priors: tuple[float, ...] | None = None
    targets: Catalogue | None = None
    numbers: NumberOutputs | None = None
    calibration: Calibration | None = None
    decision: Decision | None = None


@dataclass(frozen=True)
class OutputFormat:
    """Form of the outputs of one kind of task.

    Attributes:
        file: name in the folder of a bundle.
        noun: what the outputs are called.
        head: class of the head.
        read: reads the file.
        write: writes the file.
        count: number of outputs.
        fingerprint: of what a head scores.
    """

    file: str
    noun: str
    head: type[Head]
    read: Callable[[Path], Outputs]
    write: Callable[[Path, Outputs], None]
    count: Callable[[Outputs], int]
    fingerprint: Callable[[Outputs], str]


def output_format(kind: str) -> OutputFormat:
    """Return the form of the outputs of a kind of task.

    Raises:
        ValueError: there is no such kind.
    """
    for name, form in OUTPUT_FORMATS.items():
        if name == kind:
            return form
    raise ValueError(f"kind_of_task is {kind!r}, none of {', '.join(OUTPUT_FORMATS)}")


def check_distinct(names: tuple[str, ...]) -> None:
    """Refuse classes of one name.

    Raises:
        ValueError: two classes have it.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"two classes are named {twice[0]!r}")


def _read_labels(path: Path, *, exclusive: bool = True) -> Outputs:
    """Read class names, class priors, which bundles of before they were kept lack, and what valid users decided.

    Of classes that are not exclusive, labels, each user may have several: their shares have no sum.
    """
    with description_errors(path):
        labels = read_json(path)
        names, class_priors = tuple(labels["class_names"]), labels.get("class_priors")
        check_distinct(names)
        calibration, decision = labels.get("calibration"), labels.get("decision")
        outputs = Outputs(
            names,
            calibration=None if calibration is None else Calibration.from_json(calibration, len(names)),
            decision=None if decision is None else Decision.from_json(decision, len(names)),
        )
        if class_priors is None:
            return outputs
        class_priors = tuple(float(prior) for prior in class_priors)
        if (
            len(class_priors) != len(names)
            or min(class_priors) < 0
            or max(class_priors) > 1
            or (exclusive and not math.isclose(sum(class_priors), 1, abs_tol=1e-6))
        ):
            raise ValueError("class_priors are not one share for each class")
        return outputs._replace(class_priors=class_priors)


def _write_labels(path: Path, outputs: Outputs) -> None:
    tree: dict[str, Any] = {"class_names": list(outputs.class_names)}
    if outputs.class_priors is not None:
        tree["class_priors"] = list(outputs.class_priors)
    if outputs.calibration is not None:
        tree["calibration"] = outputs.calibration.to_json()
    if outputs.decision is not None:
        tree["decision"] = outputs.decision.to_json()
    write_json(path, tree)


def _targets(outputs: Outputs) -> Catalogue:
    assert outputs.targets is not None
    return outputs.targets


def _numbers(outputs: Outputs) -> NumberOutputs:
    assert outputs.numbers is not None
    return outputs.numbers


def _read_numbers(path: Path) -> Outputs:
    with description_errors(path):
        return Outputs(numbers=NumberOutputs.from_json(read_json(path)))


OUTPUT_FORMATS: Mapping[TaskKind, OutputFormat] = {
    "classification": OutputFormat(
        "labels.json", "labels", ClassificationHead,
        read=_read_labels,
        write=_write_labels,
        count=lambda outputs: len(outputs.class_names),
        fingerprint=lambda outputs: names_fingerprint(outputs.class_names),
    ),
    "ranking": OutputFormat(
        "targets.parquet", "targets", ItemHead,
        read=lambda path: Outputs(targets=Catalogue.read(path)),
        write=lambda path, outputs: _targets(outputs).write(path),
        count=lambda outputs: len(_targets(outputs)),
        fingerprint=lambda outputs: _targets(outputs).fingerprint,
    ),
    "regression": OutputFormat(
        "numbers.json", "numbers", RegressionHead,
        read=_read_numbers,
        write=lambda path, outputs: write_json(path, _numbers(outputs).to_json()),
        count=lambda outputs: _numbers(outputs).count,
        fingerprint=lambda outputs: names_fingerprint([repr(_numbers(outputs).to_json())]),
    ),
    "multilabel": OutputFormat(
        "labels.json", "labels", MultilabelHead,
        read=partial(_read_labels, exclusive=False),
        write=_write_labels,
        count=lambda outputs: len(outputs.class_names),
        fingerprint=lambda outputs: names_fingerprint(outputs.class_names),
    ),
}  # fmt: skip
