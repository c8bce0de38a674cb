"""The verb `export`: a backbone and its bundles as one graph for another runtime."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from peterrec.arguments import checked
from peterrec.artifacts.bundle_io import Bundle
from peterrec.artifacts.hub import artifact_folder
from peterrec.data.preprocessing import differences
from peterrec.data.sequences import FIRST_ITEM, Sequences, pad_windows
from peterrec.errors import ArtifactError, ConfigError
from peterrec.export.description import VOCABULARY_FILE, describe, example_json, readme
from peterrec.export.formats import INPUT, Answers, GraphFormat, graph_format, quiet_exporters
from peterrec.export.graph import AnswerGraph, answer_graph, library_answers
from peterrec.model import UserModel
from peterrec.sequence_model import attach_bundle, with_separate_bundles
from peterrec.storage import DESCRIPTIONS, check_output, new_folder, write_file, write_json

logger = logging.getLogger(__name__)

Format = Literal["torch", "onnx", "openvino"]
TOLERANCE = 1e-4  # of an answer of the written graph beside the library's: fp32 in another order of summing


@checked
def export_model(
    backbone: str | Path | UserModel,
    out: str | Path,
    bundles: Sequence[str | Path | Bundle] = (),
    *,
    format: Format = "torch",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a backbone and its bundles as one graph that another runtime asks without peterrec.

    Its input is a row of item indices a user; special tokens, patches, heads, calibration and the answers about users
    without known events are inside. Before the folder is there, the written graph is asked in its own runtime, and must
    answer what the library does.

    Args:
        backbone: folder of `pretrain` or `grow`, `hf://organization/name`, or a loaded model, whose own bundles are
            left out.
        out: folder to write.
        bundles: of the backbone, as folders or as `adapt` returns them; they share one graph and one table of items.
            None: the backbone's representation, and its scores of next items.
        format: `torch` (torch.export), `onnx` (needs `peterrec[onnx]`) or `openvino` (needs `peterrec[openvino]`).
        overwrite: replace the export at `out`.

    Returns:
        What `graph.json` says: input, outputs, fingerprints, versions.

    Raises:
        ConfigError: an unknown format or one whose packages are missing, two bundles of one task, bundles
            that read other events, or a backbone that reads features of events.
        FingerprintError: a bundle is of another backbone.
        ArtifactError: a folder is missing or damaged, `out` exists, or the written graph answers otherwise.
        StorageError: `out` cannot be written.
    """
    form = graph_format(format)
    check_output(Path(out), overwrite=overwrite, kind="graph")
    model = _model(backbone, bundles)
    graph = answer_graph(model)
    sequences = _example(model, graph.max_length)
    answers = library_answers(model, graph, sequences)
    batches = _batches(sequences, graph.max_length)
    with new_folder(Path(out), overwrite=overwrite, kind="graph") as folder:
        with quiet_exporters():
            form.write(_program(graph, batches[0]), graph.names, folder / form.file)
            _check(form, folder / form.file, batches, answers)
        meta = describe(model, graph, form, format)
        write_json(folder / DESCRIPTIONS["graph"], meta)
        write_json(folder / "example.json", example_json(batches[0], answers))
        model.catalogue.write(folder / VOCABULARY_FILE)
        for output in graph.outputs:
            if output.targets is not None:
                model.targets(output.bundle).write(folder / output.targets)
        write_file(folder / "README.md", readme(meta, form, model).encode())
    return meta


def _model(backbone: str | Path | UserModel, bundles: Sequence[str | Path | Bundle]) -> UserModel:
    """Return a model on the CPU with these bundles only, which one graph can hold."""
    if isinstance(backbone, UserModel):
        if backbone.device.type != "cpu":
            raise ConfigError(
                f"the model is on {backbone.device}", remedy="load it with device='cpu', or name its folder"
            )
        model = with_separate_bundles(backbone)
        model.bundles.clear()
    else:
        model = UserModel.from_pretrained(artifact_folder(backbone, "backbone"), "cpu")
    if model.network.backbone.feature_sizes:
        raise ConfigError(
            "the backbone reads features of events, which a row of items does not tell",
            remedy="ask it by `peterrec predict` or the service, or export a backbone without features",
        )
    for bundle in bundles:
        count = len(model.bundles)
        name = attach_bundle(model, bundle)
        if len(model.bundles) == count:
            raise ConfigError(f"two bundles are of the task {name!r}", remedy="export them to two folders")
        _check_name(name)
    _check_preprocessing(model)
    return model


def _check_name(name: str) -> None:
    if Path(name).name != name:
        raise ConfigError(f"the name {name!r} of a bundle is no name of a file", remedy="give the bundle another name")


def _check_preprocessing(model: UserModel) -> None:
    """Refuse bundles that read other events of a user: one row cannot be right for all of them."""
    names = list(model.bundles)
    for name in names[1:]:
        contradictions = differences(model.preprocessing(names[0]), model.preprocessing(name))
        if contradictions:
            raise ConfigError(
                f"the bundles {names[0]!r} and {name!r} read other events ({'; '.join(contradictions)})",
                remedy="export them to two folders",
            )


def _example(model: UserModel, max_length: int) -> Sequences:
    """Return a user of every kind of length: nothing, an event, half of the most that is read, all of it."""
    rng = np.random.default_rng(0)
    lengths = [0, 1, (max_length + 1) // 2, max_length]
    return Sequences.from_rows([FIRST_ITEM + rng.integers(0, len(model.catalogue), length) for length in lengths])


def _batches(sequences: Sequences, max_length: int) -> list[Tensor]:
    """Return the same users padded behind, padded before, and the last of them alone."""
    starts, lengths = sequences.offsets[:-1], sequences.lengths
    behind = torch.from_numpy(pad_windows(sequences.items, starts, lengths, max_length))
    before = torch.stack([row.roll(max_length - int(length)) for row, length in zip(behind, lengths, strict=True)])
    return [behind, before, behind[-1:]]


def _program(graph: AnswerGraph, tokens: Tensor) -> ExportedProgram:
    """Return the graph as torch exports it, for any number of users."""
    shapes = {INPUT: {0: torch.export.Dim("batch", min=1)}}
    with torch.inference_mode(False), torch.no_grad():
        return torch.export.export(graph, (tokens,), dynamic_shapes=shapes, strict=False)


def _check(form: GraphFormat, path: Path, batches: list[Tensor], expected: Answers) -> None:
    """Ask the written graph, and compare it with the library.

    Raises:
        ArtifactError: it answers otherwise.
    """
    behind, before, alone = form.answers(path, batches)
    for name, values in expected.items():
        pairs = [(behind[name], values), (before[name], values), (alone[name], values[-1:])]
        for actual, wanted in pairs:
            if actual.shape != wanted.shape or not np.allclose(actual, wanted, rtol=TOLERANCE, atol=TOLERANCE):
                raise ArtifactError(
                    f"the graph that was written answers otherwise than the library ({name}); it was not kept",
                    remedy="report it with the versions of torch and of the runtime, or choose another format",
                    path=path.name,
                )
