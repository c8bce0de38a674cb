"""Bundles on a backbone: sequences of indices in, arrays out."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from peterrec.answers import FloatArray, TopItems
from peterrec.arguments import check, checked, names_there
from peterrec.artifacts.backbone_io import PretrainedBackbone
from peterrec.artifacts.bundle_io import Bundle, load_bundle
from peterrec.artifacts.hub import HubAccess, artifact_folder, pretrained_folder
from peterrec.artifacts.identity import BackboneIdentity
from peterrec.data.catalogue import Catalogue
from peterrec.data.sequences import Sequences
from peterrec.errors import ConfigError
from peterrec.inference import Inference, ItemScorer
from peterrec.nn.device import find_device
from peterrec.nn.heads import ClassificationHead, MultilabelHead
from peterrec.nn.precision import Precision, checked_precision
from peterrec.nn.readout import readout_named, represent

ModelT = TypeVar("ModelT", bound="SequenceModel")


class SequenceModel:
    """A frozen backbone with the bundles that are loaded on it, asked with indices of items.

    Args:
        pretrained: backbone, catalogue and settings.
        device: `auto`, `cpu`, `cuda`, ...
        precision: of the network: `fp32`, or `bf16`, faster where the machine has it. Items are scored in fp32.
        compile: whether torch compiles the network for batches of the longest histories: a minute at first.

    Raises:
        ConfigError: no such device, or the precision is not possible on it.
    """

    @checked
    def __init__(
        self,
        pretrained: PretrainedBackbone,
        device: str = "auto",
        *,
        precision: Precision = "fp32",
        compile: bool = False,
    ) -> None:
        self.pretrained = pretrained
        self.device = find_device(device)
        self.inference = Inference(self.device, checked_precision(precision, self.device), compile)
        self.network = pretrained.network.to(self.device).eval().requires_grad_(False)
        self.bundles: dict[str, Bundle] = {}
        self.repo_id: str | None = None  # on the Hub, where the backbone was loaded from it or pushed to it

    @property
    def catalogue(self) -> Catalogue:
        """The source catalogue."""
        return self.pretrained.catalogue

    @cached_property
    def identity(self) -> BackboneIdentity:
        """Identity of the backbone. It is frozen, so its tensors are read once for it."""
        return self.pretrained.identity

    @property
    def fingerprint(self) -> str:
        """sha256 of the backbone's tensors."""
        return self.identity.fingerprint

    @checked
    def load_bundle(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        subfolder: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        endpoint: str | None = None,
    ) -> str:
        """Load an adapter bundle, of a folder or the Hugging Face Hub; a loaded bundle of the same name is replaced.

        Args:
            path: folder written by `adapt`; or, where there is none of this name, a repository, as
                `organization/name` or `hf://organization/name[@revision][/subfolder]`.
            name: to ask for it by; None: the name of its task.
            subfolder: of the folder or the repository.
            revision: branch, tag or commit of the repository; None: its main branch.
            cache_dir: where files of the Hub are kept; None: where its client keeps them (`HF_HOME`).
            token: for the Hub; None: the stored one (`HF_TOKEN`, `hf auth login`).
            local_files_only: read that cache and ask nobody.
            endpoint: address of the Hub; None: the client's (`HF_ENDPOINT`).

        Returns:
            The name.

        Raises:
            FingerprintError: it belongs to another backbone or catalogue.
            ArtifactError: missing or damaged.
            HubError: the Hub lacks it, refuses it, or cannot be reached and the cache does not have it.
            ConfigError: huggingface_hub is not installed.
        """
        access = HubAccess(cache_dir, token, local_files_only, endpoint)
        folder, _ = pretrained_folder(path, "bundle", subfolder, revision, access)
        return self.add_bundle(load_bundle(folder, self.network.backbone, self.identity), name)

    @checked
    def add_bundle(self, bundle: Bundle, name: str | None = None) -> str:
        """Attach a bundle that is in memory; a loaded bundle of the same name is replaced.

        Args:
            bundle: as `adapt` returns it.
            name: to ask for it by; None: the name of its task.

        Returns:
            The name.

        Raises:
            FingerprintError: it belongs to another backbone or catalogue.
        """
        self.identity.owner(bundle.backbone_fingerprint, bundle.catalogue_fingerprint)
        bundle = bundle.on(self.network.backbone)
        bundle.modules().to(self.device).eval().requires_grad_(False)
        self.bundles[name or bundle.name] = bundle
        return name or bundle.name

    def delete_bundle(self, name: str) -> None:
        """Unload a bundle; its folder stays.

        Args:
            name: that it was loaded by.

        Raises:
            ConfigError: no bundle of that name is loaded.
        """
        self.bundle(name)
        del self.bundles[name]

    def bundle(self, name: str) -> Bundle:
        """Return a loaded bundle.

        Args:
            name: that it was loaded by.

        Returns:
            Patch, head, classes or targets, and the metrics of its training.

        Raises:
            ConfigError: no bundle of that name is loaded.
        """
        check("bundle", name, str)
        if name not in self.bundles:
            loaded = names_there(name, self.bundles, "loaded")
            raise ConfigError(f"no bundle {name!r} is loaded{loaded}", remedy="call load_bundle(path) first")
        return self.bundles[name]

    def representations(
        self,
        sequences: Sequences,
        bundle: str | None = None,
        *,
        readout: str | None = None,
        batch_size: int = 256,
    ) -> FloatArray:
        """Compute one vector per user from sequences of indices, as `represent` does from histories.

        Args:
            sequences: N rows of source indices, oldest first.
            bundle: with this bundle's patch and readout; None for the plain backbone.
            readout: of the plain backbone: `token` ([TCL], by default), `pooled` or `both`.
            batch_size: users at once.

        Returns:
            (N, R) float32; R is the channels, or a multiple of them, by the readout. Without the attribute that was
            erased, where the bundle has an eraser.

        Raises:
            ConfigError: no bundle of that name is loaded; or a readout that is unknown or trained, or given beside a
                bundle, which has its own.
        """
        plain = self.network.backbone
        if bundle is None:
            readout = readout or "token"
            length, width = self.pretrained.max_length, readout_named(readout).width(plain.config.channels)
            read = partial(represent, readout=readout)
            return self.inference.vectors(sequences, read, width, plain, length, batch_size)
        if readout is not None:
            raise ConfigError(
                "a bundle has a readout of its own", remedy="leave readout out, or ask without the bundle"
            )
        vectors, eraser = self._head_inputs(sequences, bundle, batch_size), self.bundle(bundle).eraser
        if eraser is None:
            return vectors
        with torch.inference_mode():
            erased: FloatArray = eraser(torch.from_numpy(vectors).to(self.device)).cpu().numpy()
        return erased

    def _head_inputs(self, sequences: Sequences, bundle: str, batch_size: int) -> FloatArray:
        """Compute what the head of a bundle is given, (N, R) float32; an attribute is erased by the head itself."""
        plain, loaded = self.network.backbone, self.bundle(bundle)
        read = partial(represent, patch=loaded.patch, readout=loaded.readout, module=loaded.readout_module)
        width = readout_named(loaded.readout).width(plain.config.channels)
        return self.inference.vectors(sequences, read, width, loaded.backbone or plain, loaded.max_length, batch_size)

    @torch.inference_mode()
    def probabilities(self, sequences: Sequences, bundle: str, *, batch_size: int = 256) -> FloatArray:
        """Compute class probabilities from sequences of indices.

        Args:
            sequences: N rows of source indices, oldest first.
            bundle: of a classification task.
            batch_size: users at once.

        Returns:
            (N, K) float32; rows sum to 1.

        Raises:
            ConfigError: the bundle is of another kind of task.
        """
        loaded = self.bundle(bundle)
        if not isinstance(loaded.head, ClassificationHead):
            remedy = "use recommend" if loaded.kind == "ranking" else "use predict, numbers or label_probabilities"
            raise ConfigError(f"bundle {bundle!r} is of a {loaded.kind} task", remedy=remedy)
        return self._answer_probabilities(sequences, bundle, batch_size)

    def _answer_probabilities(self, sequences: Sequences, bundle: str, batch_size: int) -> FloatArray:
        """Return the probabilities of outputs, (N, K); of users without known events the shares of train users."""
        loaded = self.bundle(bundle)
        outputs = self._outputs(sequences, bundle, batch_size)
        probabilities: FloatArray = loaded.probabilities(outputs).cpu().numpy()
        if loaded.class_priors is not None:
            probabilities[sequences.item_counts == 0] = loaded.class_priors
        return probabilities

    def _outputs(self, sequences: Sequences, bundle: str, batch_size: int) -> Tensor:
        """Return the outputs of the head, (N, K) float32 on the device of the model."""
        vectors = torch.from_numpy(self._head_inputs(sequences, bundle, batch_size))
        outputs: Tensor = self.bundle(bundle).head(vectors.to(self.device)).float()
        return outputs

    @torch.inference_mode()
    def label_probabilities(self, sequences: Sequences, bundle: str, *, batch_size: int = 256) -> FloatArray:
        """Compute how probable each of several labels is, from sequences of indices.

        Args:
            sequences: N rows of source indices, oldest first.
            bundle: of a multilabel task.
            batch_size: users at once.

        Returns:
            (N, K) float32, each in [0, 1]; a user may have any number of the labels, so rows have no sum.

        Raises:
            ConfigError: the bundle is of another kind of task.
        """
        loaded = self.bundle(bundle)
        if not isinstance(loaded.head, MultilabelHead):
            remedy = "use recommend" if loaded.kind == "ranking" else "use predict"
            raise ConfigError(f"bundle {bundle!r} is of a {loaded.kind} task", remedy=remedy)
        return self._answer_probabilities(sequences, bundle, batch_size)

    @torch.inference_mode()
    def numbers(self, sequences: Sequences, bundle: str, *, batch_size: int = 256) -> npt.NDArray[np.float64]:
        """Predict numbers from sequences of indices.

        Args:
            sequences: N rows of source indices, oldest first.
            bundle: of a regression task.
            batch_size: users at once.

        Returns:
            (N, K) float64 in the unit of the numbers: the prediction; or, where it learned quantiles, each of these.

        Raises:
            ConfigError: the bundle is of another kind of task.
        """
        loaded = self.bundle(bundle)
        if loaded.numbers is None:
            remedy = "use recommend" if loaded.kind == "ranking" else "use predict"
            raise ConfigError(f"bundle {bundle!r} is of a {loaded.kind} task", remedy=remedy)
        predictions = loaded.numbers.numbers(self._outputs(sequences, bundle, batch_size).cpu().numpy())
        predictions[sequences.item_counts == 0] = loaded.numbers.constant
        return predictions

    def score_batches(
        self, sequences: Sequences, bundle: str | None = None, *, batch_size: int = 256
    ) -> Iterator[FloatArray]:
        """Score all targets for sequences of indices, or all next source items, batch by batch.

        Args:
            sequences: N rows of source indices, oldest first.
            bundle: of a ranking task; None scores the source catalogue with the pre-training head.
            batch_size: users at once.

        Returns:
            An iterator over (B, n) float32, rows in order.

        Raises:
            ConfigError: the bundle is of a classification task.
        """
        for scores in self._scorer(sequences, bundle, batch_size).blocks(batch_size):
            yield scores.cpu().numpy()

    def top_k(
        self,
        sequences: Sequences,
        k: int,
        bundle: str | None = None,
        *,
        excluded: Sequences | None = None,
        batch_size: int = 256,
    ) -> TopItems:
        """Find the k best of all targets for sequences of indices.

        Args:
            sequences: N rows of source indices.
            k: items per user.
            bundle: of a ranking task; None ranks the source catalogue with the pre-training head.
            excluded: N rows of 0-based positions of targets to leave out; negative ones are not looked at.
            batch_size: users at once.

        Returns:
            (N, k) positions among the targets and (N, k) scores; k is at most the number of targets.

        Raises:
            ConfigError: the bundle is of a classification task.
        """
        return self._scorer(sequences, bundle, batch_size).top_k(k, excluded, batch_size)

    def _scorer(self, sequences: Sequences, bundle: str | None, batch_size: int) -> ItemScorer:
        self.targets(bundle)  # refuses a bundle that has none
        if bundle is not None:
            head, popularity = self.bundle(bundle).head, self.bundle(bundle).popularity
            assert popularity is not None
            vectors = self._head_inputs(sequences, bundle, batch_size)
            return ItemScorer(vectors, head.weight, head.bias, popularity, sequences.item_counts)
        # What pre-training taught: the state at the last event, not that at [TCL].
        network, length = self.network, self.pretrained.max_length
        read = network.next_item_vectors
        width = network.backbone.config.channels
        vectors = self.inference.vectors(sequences, read, width, network.backbone, length, batch_size)
        return ItemScorer(
            vectors, *self.pretrained.next_item_outputs(), self.pretrained.popularity, sequences.item_counts
        )

    def targets(self, bundle: str | None = None) -> Catalogue:
        """Return the items that `recommend` chooses from: the targets of a bundle, or the source catalogue.

        Args:
            bundle: of a ranking task; None for the source catalogue, without items that are retired.

        Returns:
            External ids, in the order of the scores.

        Raises:
            ConfigError: the bundle is of a classification task, or there is none and the backbone predicts no items.
        """
        if bundle is None:
            if self.pretrained.training.get("objective") == "contrastive":
                raise ConfigError(
                    "the backbone was pre-trained to tell users apart, and predicts no items",
                    remedy="name a bundle of a ranking task, or pre-train with prediction_weight above 0",
                )
            return self.pretrained.next_items
        targets = self.bundle(bundle).targets
        if targets is None:
            raise ConfigError(f"bundle {bundle!r} is of a {self.bundle(bundle).kind} task", remedy="use predict")
        return targets


def with_separate_bundles(model: ModelT) -> ModelT:
    """Return the same model with a copy of its bundles: loading one there must not replace one of the caller's."""
    model = copy.copy(model)
    model.bundles = dict(model.bundles)
    return model


def attach_bundle(model: SequenceModel, bundle: str | Path | Bundle, name: str | None = None) -> str:
    """Put a bundle on a model, whether it is in memory, a folder or on the Hub; return its name there.

    Raises:
        FingerprintError, ArtifactError, HubError: as in `SequenceModel.load_bundle`.
    """
    if isinstance(bundle, Bundle):
        return model.add_bundle(bundle, name)
    return model.load_bundle(artifact_folder(bundle, "bundle"), name)
