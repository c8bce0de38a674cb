"""What valid users decided, and what they were like, comes back with the bundle; what was damaged is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import CLASSES, tiny_bundle, tiny_pretrained
from peterrec.artifacts.bundle_io import Bundle, load_bundle, save_bundle
from peterrec.data.decision import Decision
from peterrec.data.reference import Distribution, Reference
from peterrec.errors import ArtifactError
from peterrec.nn.calibration import Calibration, Curve

PRETRAINED = tiny_pretrained()
CURVES = tuple(Curve((0.1, 0.6), (0.2, 0.5 + place / 10)) for place in range(3))
CALIBRATIONS = [Calibration("temperature", 120, temperature=1.7), Calibration("isotonic", 1200, curves=CURVES)]
REFERENCE = Reference(60, {"known events": Distribution.from_values(np.arange(60.0))}, np.eye(8)[:2], np.zeros(8))
DECISION = Decision(120, (None, None, 0.4), (("precision", 0.8),), conformal=0.1, least=0.25, conformal_users=110)


def load(path: Path) -> Bundle:
    return load_bundle(path, PRETRAINED.network.backbone, PRETRAINED.identity)


@pytest.mark.parametrize("calibration", CALIBRATIONS, ids=lambda calibration: calibration.method)
def test_decisions_and_the_reference_come_back(tmp_path: Path, calibration: Calibration) -> None:
    bundle = tiny_bundle(PRETRAINED, calibration=calibration, decision=DECISION, reference=REFERENCE)
    save_bundle(tmp_path / "b", bundle)
    read = load(tmp_path / "b")
    assert (read.calibration, read.decision, read.reference) == (calibration, DECISION, REFERENCE)
    assert read.class_names == CLASSES
    assert read.class_priors == bundle.class_priors


@pytest.mark.parametrize(
    "damage",
    [
        {"calibration": {"method": "temperature", "users": 5, "temperature": -1}},
        {"calibration": {"method": "isotonic", "users": 5, "curves": []}},
        {"calibration": {"users": 5}},
        {"decision": {"thresholds": {"values": [0.5], "users": 5, "aim": {}}}},
        {"decision": {"thresholds": {"values": [None, None, None], "users": 5, "aim": {}}}},
        {"decision": {"conformal": {"miss": 0.1}}},
    ],
)
def test_damaged_decisions_are_refused(tmp_path: Path, damage: dict[str, Any]) -> None:
    save_bundle(tmp_path / "b", tiny_bundle(PRETRAINED))
    file = tmp_path / "b" / "labels.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(ArtifactError, match=r"labels\.json"):
        load(tmp_path / "b")


def test_a_damaged_reference_is_refused(tmp_path: Path) -> None:
    save_bundle(tmp_path / "b", tiny_bundle(PRETRAINED, reference=REFERENCE))
    file = tmp_path / "b" / "reference.json"
    tree = json.loads(file.read_text())
    tree["quantities"]["known events"]["counts"].pop()
    file.write_text(json.dumps(tree))
    with pytest.raises(ArtifactError, match=r"reference\.json"):
        load(tmp_path / "b")
