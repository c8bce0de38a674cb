"""Backbones and bundles in the pages of their files: the same answers, and no copy of a table in any process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.artifacts.backbone_io import load_backbone, save_backbone
from peterrec.artifacts.bundle_io import load_bundle, save_bundle
from peterrec.errors import UnknownItemsError
from peterrec.model import UserModel

HISTORIES = [["item-1", "item-2", "nowhere"], [], ["item-9"]]
CONFIGS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_weights": False},
    "noncausal": {"kind": "noncausal"},
    "transformer": {"architecture": "transformer", "dilations": None},
}


@pytest.mark.parametrize("config", CONFIGS)
def test_answers_are_the_same(tmp_path, config):
    pretrained = tiny_pretrained(backbone=CONFIGS[config])
    assert pretrained.network.backbone.config.kind == CONFIGS[config].get("kind", "causal")
    bundles = {
        "age": tiny_bundle(pretrained, readout="attention"),
        "shop": tiny_bundle(pretrained, targets=tiny_catalogue(5, first=0)),
    }
    save_backbone(tmp_path / "backbone", pretrained)
    models = [UserModel(load_backbone(tmp_path / "backbone", mapped=mapped), "cpu") for mapped in (False, True)]
    for name, bundle in bundles.items():
        save_bundle(tmp_path / name, bundle)
        for model, mapped in zip(models, (False, True), strict=True):
            loaded = load_bundle(tmp_path / name, model.network.backbone, pretrained.identity, mapped=mapped)
            model.add_bundle(loaded, name)
    plain, mapped_model = models
    assert mapped_model.fingerprint == plain.fingerprint
    for bundle in ("age", "shop", None):
        np.testing.assert_allclose(
            mapped_model.represent(HISTORIES, bundle), plain.represent(HISTORIES, bundle), atol=1e-6
        )
    assert mapped_model.predict(HISTORIES, "age").labels == plain.predict(HISTORIES, "age").labels
    for bundle in ("shop", None):
        assert mapped_model.recommend(HISTORIES, bundle, 3).items == plain.recommend(HISTORIES, bundle, 3).items


MEASURE = """
import sys
from pathlib import Path
from peterrec.artifacts.backbone_io import load_backbone
from peterrec.model import UserModel

def own_bytes():  # of no file
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous"))

before = own_bytes()
model = UserModel(load_backbone(Path(sys.argv[1]), mapped=sys.argv[2] == "mapped"), "cpu")
model.represent([[f"item-{i}"] for i in range(50)])
model.network.output_table()[0].sum()
print(own_bytes() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not count pages of a process")
def test_a_process_has_no_copy_of_the_table(tmp_path):
    pretrained = tiny_pretrained(tiny_catalogue(200_000), backbone={"channels": 128})
    save_backbone(tmp_path / "backbone", pretrained)
    table = pretrained.network.backbone.embedding.weight.nbytes
    grown = {
        form: int(subprocess.check_output([sys.executable, "-c", MEASURE, str(tmp_path / "backbone"), form]))
        for form in ("copied", "mapped")
    }
    assert grown["copied"] - grown["mapped"] > 0.8 * table


def test_strangers_are_refused_unless_they_are_allowed():
    model = UserModel(tiny_pretrained(), "cpu")
    with pytest.raises(UnknownItemsError):
        model.represent([["nowhere"]])
    np.testing.assert_array_equal(model.represent([["nowhere"]], require_known=False), model.represent([[]]))
    with pytest.raises(UnknownItemsError):
        model.represent([["nowhere"]], unknown="error", require_known=False)
