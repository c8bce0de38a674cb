"""The header of a card, read by the library of those who read it on the Hub."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from builders import tiny_bundle, tiny_pretrained
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.artifacts.card_metadata import Publication
from peterrec.artifacts.cards import backbone_card, bundle_card
from peterrec.storage import read_json

huggingface_hub = pytest.importorskip("huggingface_hub")
PUBLICATION = Publication(
    "org/ages", license="cc-by-4.0", datasets=("org/data",), base_model="org/backbone", owner_fields={"language": "en"}
)
METRICS = {"valid": {"accuracy": 0.5, "macro_f1": 0.25, "auc": 0.75, "log_loss": float("nan"), "users": 40}}


def header_of(card: str) -> str:
    return card[: card.index("\n---\n", 4) + 5]


def test_a_header_is_what_the_library_would_write(tmp_path: Path) -> None:
    save_bundle(tmp_path / "bundle", tiny_bundle(tiny_pretrained(), metrics=METRICS))
    meta = read_json(tmp_path / "bundle" / "adapter_config.json")
    meta["provenance"] = {"corpus_fingerprint": "c" * 64}
    text = bundle_card(meta, METRICS, PUBLICATION)
    evaluation = {
        "task_type": "classification", "task_name": "age", "dataset_type": "org/data", "dataset_name": "org/data",
        "dataset_split": "validation", "dataset_args": {"corpus_fingerprint": "c" * 64},
    }  # fmt: skip
    measured = [("accuracy", 0.5, "accuracy"), ("f1", 0.25, "macro_f1"), ("roc_auc", 0.75, "auc")]
    data = huggingface_hub.ModelCardData(
        base_model="org/backbone", datasets=["org/data"], library_name="peterrec", license="cc-by-4.0",
        tags=["peterrec", "recommendation", "user-modeling", "adapter"], language="en", model_name="ages",
        eval_results=[
            huggingface_hub.EvalResult(metric_type=kind, metric_value=value, metric_name=name, **evaluation)
            for kind, value, name in measured
        ],
    )  # fmt: skip
    card = huggingface_hub.ModelCard(text)
    assert card.data.to_dict() == data.to_dict()
    assert header_of(text) == f"---\n{card.data.to_yaml(original_order=list(data.to_dict()))}\n---\n"
    assert card.text.startswith("\n# Adapter bundle `age`")


def test_a_card_of_a_folder_says_no_more_than_is_so(tmp_path: Path) -> None:
    save_backbone(tmp_path / "backbone", tiny_pretrained())
    card = huggingface_hub.ModelCard.load(tmp_path / "backbone" / "README.md")
    results = card.data.to_dict().pop("model-index")[0]["results"]
    assert results[0]["metrics"] == [{"type": "mrr@10", "value": 0.25, "name": "mrr@10"}]
    assert results[0]["dataset"] == {"name": "a corpus of peterrec", "type": "peterrec-corpus", "split": "validation"}
    tags = ["peterrec", "recommendation", "user-modeling", "sequential-recommendation"]
    assert {name: value for name, value in card.data.to_dict().items() if name != "model-index"} == {
        "library_name": "peterrec",
        "tags": tags,
    }


def test_without_metrics_there_is_no_index(tmp_path: Path) -> None:
    save_backbone(tmp_path / "backbone", tiny_pretrained(training={}))
    assert "model-index" not in huggingface_hub.ModelCard.load(tmp_path / "backbone" / "README.md").data.to_dict()


def test_the_same_bytes_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_backbone(tmp_path / "with", tiny_pretrained())
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    save_backbone(tmp_path / "without", tiny_pretrained())
    assert (tmp_path / "with" / "README.md").read_bytes() == (tmp_path / "without" / "README.md").read_bytes()


def test_no_text_breaks_out_of_its_field(tmp_path: Path) -> None:
    save_backbone(tmp_path / "backbone", tiny_pretrained())
    publication = Publication("org/model", license="x\n---\ntags: [y]", datasets=("a: b",))
    text = backbone_card(read_json(tmp_path / "backbone" / "config.json"), publication)
    fields = huggingface_hub.ModelCard(text).data.to_dict()
    assert (fields["license"], fields["datasets"]) == ("x\n---\ntags: [y]", ["a: b"])
