"""The graph that is exported answers what the library does: every kind of backbone, bundle, length and padding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from export_cases import BACKBONES, LONGEST, ROWS, bundles_of, check_answers, model_of, rows_of
from peterrec.data.sequences import Sequences
from peterrec.export.graph import answer_graph, library_answers
from peterrec.model import UserModel


def check_graph(model: UserModel) -> None:
    graph = answer_graph(model)
    expected = library_answers(model, graph, Sequences.from_rows(ROWS))
    for before in (False, True):
        tokens = rows_of(graph, before=before)
        with torch.inference_mode():
            check_answers({name: values.numpy() for name, values in graph(tokens).items()}, expected)
            for row in range(len(ROWS)):
                alone = {name: values.numpy() for name, values in graph(tokens[row : row + 1]).items()}
                check_answers(alone, {name: values[row : row + 1] for name, values in expected.items()})


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_graph_answers_what_the_library_does(backbone: str) -> None:
    check_graph(model_of(backbone))
    check_graph(model_of(backbone, bundles=False, retired=("item-1", "item-4")))


def test_names_say_what_is_answered() -> None:
    assert answer_graph(model_of()).names == [
        "age.probabilities", "shop.scores", "cold.probabilities", "warm.probabilities", "curved.probabilities",
        "labels.label_probabilities", "spend.numbers", "years.numbers", "forked.probabilities", "known_events",
    ]  # fmt: skip
    assert answer_graph(model_of(bundles=False)).names == ["representation", "next_item_scores", "known_events"]
    contrastive = model_of(bundles=False, training={"objective": "contrastive"})
    assert answer_graph(contrastive).names == ["representation", "known_events"]


def test_bundles_of_before_a_backbone_grew_are_in_the_graph() -> None:
    before = tiny_pretrained()
    grown = tiny_pretrained(tiny_catalogue(15), grown_from=(before.identity,), max_length=LONGEST)
    model = UserModel(grown, "cpu")
    for bundle in bundles_of(before):
        model.add_bundle(bundle)
    model.add_bundle(replace(tiny_bundle(grown, seed=7), name="later"))
    check_graph(model)
