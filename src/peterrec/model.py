"""`UserModel`: a pre-trained backbone with the bundles loaded on it; external ids in and out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import torch

from peterrec.answers import FloatArray, Predictions, Recommendations, TopItems, own_targets
from peterrec.arguments import check, checked
from peterrec.artifacts.backbone_io import PretrainedBackbone, load_backbone, save_backbone
from peterrec.artifacts.bundle_io import Bundle, check_owner, load_bundle
from peterrec.artifacts.popularity import Popularity
from peterrec.config import PreprocessingConfig
from peterrec.data.catalogue import Catalogue
from peterrec.data.encoding import Encoded, Histories, Unknown, encode_histories
from peterrec.data.ids import as_histories
from peterrec.data.sequences import Sequences
from peterrec.errors import ConfigError
from peterrec.inference import Inference, ItemScorer
from peterrec.nn.device import find_device
from peterrec.nn.heads import ClassificationHead
from peterrec.nn.precision import Precision, checked_precision
from peterrec.nn.readout import represent, representation_width


class UserModel:
    """One user model, reused for many tasks (paper, section 3).

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

    @classmethod
    @checked
    def from_pretrained(cls, path: str | Path, device: str = "auto", **options: Any) -> Self:
        """Load a backbone folder written by `pretrain`.

        Args:
            path: the folder.
            device: as for the class.
            options: `precision` and `compile`, as for the class.

        Raises:
            ArtifactError: missing, damaged, of another format version, or with fingerprints that do not match.
            ConfigError: as for the class.
        """
        return cls(load_backbone(Path(path)), device, **options)

    @checked
    def save_pretrained(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the backbone (not the bundles) to a folder, atomically.

        Raises:
            ArtifactError: the folder exists and `overwrite` is false.
        """
        save_backbone(Path(path), self.pretrained, overwrite=overwrite)

    @property
    def catalogue(self) -> Catalogue:
        """The source catalogue."""
        return self.pretrained.catalogue

    @cached_property
    def _popularity(self) -> Popularity:
        return Popularity(self.catalogue.counts)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the backbone's tensors. The backbone is frozen, so it is computed once."""
        return self.pretrained.fingerprint

    @checked
    def load_bundle(self, path: str | Path, name: str | None = None) -> str:
        """Load an adapter bundle; returns its name, which is the task's unless given.

        Raises:
            FingerprintError: it belongs to another backbone or catalogue.
            ArtifactError: missing or damaged.
        """
        fingerprints = (self.fingerprint, self.catalogue.fingerprint)
        return self.add_bundle(load_bundle(Path(path), self.network.backbone, fingerprints), name)

    @checked
    def add_bundle(self, bundle: Bundle, name: str | None = None) -> str:
        """Attach a bundle that is in memory; a bundle of the same name is replaced.

        Raises:
            FingerprintError: it belongs to another backbone or catalogue.
        """
        fingerprints = (self.fingerprint, self.catalogue.fingerprint)
        check_owner(bundle.backbone_fingerprint, bundle.catalogue_fingerprint, fingerprints)
        bundle = bundle.on(self.network.backbone)
        bundle.modules().to(self.device).eval().requires_grad_(False)
        self.bundles[name or bundle.name] = bundle
        return name or bundle.name

    def delete_bundle(self, name: str) -> None:
        """Forget a loaded bundle; its folder stays.

        Raises:
            ConfigError: no bundle of that name is loaded.
        """
        self.bundle(name)
        del self.bundles[name]

    def bundle(self, name: str) -> Bundle:
        """Return a loaded bundle.

        Raises:
            ConfigError: no bundle of that name is loaded.
        """
        check("bundle", name, str)
        if name not in self.bundles:
            loaded = ", ".join(self.bundles) or "none"
            raise ConfigError(f"no bundle {name!r} is loaded (loaded: {loaded})", remedy="call load_bundle(path) first")
        return self.bundles[name]

    # ------------------------------------------------------------ external ids in and out

    def preprocessing(self, bundle: str | None = None) -> PreprocessingConfig | None:
        """Return how the events were prepared that a bundle, or the backbone, was trained on.

        None where artifacts of earlier releases do not tell.

        Raises:
            ConfigError: no bundle of that name is loaded.
        """
        provenance = None if bundle is None else self.bundle(bundle).provenance
        of_bundle = None if provenance is None else provenance.preprocessing
        return self.pretrained.preprocessing if of_bundle is None else of_bundle

    def excludes_seen(self, bundle: str | None = None) -> bool:
        """Return whether `recommend` leaves out items of the user's own history unless it is told otherwise.

        It does where training showed that hardly anybody comes back to an item, and source and targets share their ids.
        """
        return self.pretrained.exclude_seen if bundle is None else self.bundle(bundle).exclude_seen

    def encode(
        self,
        histories: Histories,
        bundle: str | None = None,
        *,
        unknown: Unknown | None = None,
        preprocessing: PreprocessingConfig | None = None,
    ) -> Encoded:
        """Turn histories (external ids, oldest first) into indices, as `prepare` did for training.

        Repeats and the longest history are treated as in preparation. Ids have neither times nor domains: all events
        are taken for ones of the source.

        Args:
            histories: N sequences of item ids; one may be empty (a user of whom nothing is known).
            bundle: that will be asked; None for the backbone.
            unknown: what to do with items outside the catalogue: `skip`, `unk` (keep their place as [UNK]) or
                `error`. By default as the backbone was trained.
            preprocessing: in place of that of the bundle or the backbone.

        Raises:
            UnknownItemsError: `unknown="error"` and there are some, or not one item of all histories is known.
            ConfigError: no bundle of that name is loaded.
        """
        settings = preprocessing or self.preprocessing(bundle)
        if settings is None:
            return encode_histories(self.catalogue, histories, self.pretrained.unknown if unknown is None else unknown)
        prepared: Unknown = "unk" if settings.source.rare_items == "unk" else "skip"
        return encode_histories(self.catalogue, histories, prepared if unknown is None else unknown, settings.source)

    def represent(self, histories: Histories, bundle: str | None = None, **options: Any) -> FloatArray:
        """Return one vector per user, (N, channels) float32: the hidden state at [TCL] (paper, section 3.3).

        Users without known events have the vector of an empty sequence, which training never saw: `encode` tells who
        they are (`known` is 0).

        Args:
            histories: N sequences of external item ids, oldest first.
            bundle: with this bundle's patch, and what its head reads: two or three times the channels where `readout`
                is `pooled` or `both`. None for the plain backbone.
            options: `unknown` and `preprocessing`, as in `encode`; `batch_size`.
        """
        sequences, batch_size = self._read(histories, bundle, options)
        return self.representations(sequences, bundle, batch_size=batch_size)

    def predict(self, histories: Histories, bundle: str, **options: Any) -> Predictions:
        """Return class probabilities for each user; of one without known events, the class shares of the train users.

        Raises:
            ConfigError: the bundle is not loaded, or is of a ranking task.
        """
        sequences, batch_size = self._read(histories, bundle, options)
        probabilities = self.probabilities(sequences, bundle, batch_size=batch_size)
        return Predictions(self.bundle(bundle).class_names, probabilities, sequences.item_counts)

    def recommend(
        self,
        histories: Histories,
        bundle: str | None = None,
        k: int = 10,
        *,
        exclude_seen: bool | None = None,
        **options: Any,
    ) -> Recommendations:
        """Return the k best items for each user: targets of a bundle, or next items of the source catalogue.

        A user without known events gets the most popular ones, scored by the log of their share of all events.

        Args:
            histories: N sequences of external item ids, oldest first.
            bundle: of a ranking task; None recommends from the source catalogue with the pre-training head.
            k: items per user; fewer come back where the catalogue has fewer that are allowed.
            exclude_seen: leave out items that stand in the user's own history; None: see `excludes_seen`.
            options: `unknown` and `preprocessing`, as in `encode`; `batch_size`.

        Raises:
            ConfigError: the bundle is not loaded or is of a classification task, or k < 1.
        """
        check("k", k, int)
        check("exclude_seen", exclude_seen, bool | None)
        if k < 1:
            raise ConfigError(f"k is {k}", remedy="ask for at least one item")
        histories = as_histories(histories)
        sequences, batch_size = self._read(histories, bundle, options)
        targets = self.targets(bundle)
        excludes = self.excludes_seen(bundle) if exclude_seen is None else exclude_seen
        seen = own_targets(targets, histories) if excludes else None
        top = self.top_k(sequences, k, bundle, seen=seen, batch_size=batch_size)
        return Recommendations.of(top, targets, sequences.item_counts)

    # ------------------------------------------------------------ indices in, arrays out

    def representations(self, sequences: Sequences, bundle: str | None = None, *, batch_size: int = 256) -> FloatArray:
        """Return (N, R) float32 for sequences of indices, as `represent` does for histories."""
        plain = self.network.backbone
        if bundle is None:
            length, width = self.pretrained.max_length, plain.config.channels
            return self.inference.vectors(sequences, represent, width, plain, length, batch_size)
        own = self.bundle(bundle)
        read = partial(represent, patch=own.patch, readout=own.readout)
        width = representation_width(plain.config.channels, own.readout)
        return self.inference.vectors(sequences, read, width, own.backbone or plain, own.max_length, batch_size)

    @torch.inference_mode()
    def probabilities(self, sequences: Sequences, bundle: str, *, batch_size: int = 256) -> FloatArray:
        """Return (N, K) float32 class probabilities for sequences of indices.

        Raises:
            ConfigError: the bundle is of a ranking task.
        """
        head, shares = self.bundle(bundle).head, self.bundle(bundle).class_priors
        if not isinstance(head, ClassificationHead):
            raise ConfigError(f"bundle {bundle!r} is of a ranking task", remedy="use recommend")
        vectors = torch.from_numpy(self.representations(sequences, bundle, batch_size=batch_size))
        probabilities: FloatArray = head(vectors.to(self.device)).softmax(dim=1).cpu().numpy()
        if shares is not None:
            probabilities[sequences.item_counts == 0] = shares
        return probabilities

    def score_batches(
        self, sequences: Sequences, bundle: str | None = None, *, batch_size: int = 256
    ) -> Iterator[FloatArray]:
        """Yield (B, n) float32 scores of all targets, rows in order; without a bundle, of next source items.

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
        seen: Sequences | None = None,
        batch_size: int = 256,
    ) -> TopItems:
        """Return the k best of all targets for sequences of indices; fewer where there are not as many.

        Args:
            sequences: N rows of source indices.
            k: items per user.
            bundle: of a ranking task; None ranks the source catalogue with the pre-training head.
            seen: N rows of 0-based positions of targets to leave out; negative ones are not looked at.
            batch_size: users at once.

        Raises:
            ConfigError: the bundle is of a classification task.
        """
        return self._scorer(sequences, bundle, batch_size).top_k(k, seen, batch_size)

    def _scorer(self, sequences: Sequences, bundle: str | None, batch_size: int) -> ItemScorer:
        self.targets(bundle)  # refuses a bundle that has none
        if bundle is not None:
            head, popularity = self.bundle(bundle).head, self.bundle(bundle).popularity
            assert popularity is not None
            vectors = self.representations(sequences, bundle, batch_size=batch_size)
            return ItemScorer(vectors, head.weight, head.bias, popularity, sequences.item_counts)
        # What pre-training taught: the state at the last event, not that at [TCL].
        network, length = self.network, self.pretrained.max_length
        read = network.next_item_vectors
        width = network.backbone.config.channels
        vectors = self.inference.vectors(sequences, read, width, network.backbone, length, batch_size)
        return ItemScorer(vectors, *network.output_table(), self._popularity, sequences.item_counts)

    def targets(self, bundle: str | None = None) -> Catalogue:
        """Return what `recommend` chooses from: the targets of a bundle, or the source catalogue.

        Raises:
            ConfigError: the bundle is of a classification task.
        """
        if bundle is None:
            return self.catalogue
        targets = self.bundle(bundle).targets
        if targets is None:
            raise ConfigError(f"bundle {bundle!r} is of a classification task", remedy="use predict")
        return targets

    def _read(self, histories: Histories, bundle: str | None, options: dict[str, Any]) -> tuple[Sequences, int]:
        batch_size: int = options.pop("batch_size", 256)
        check("batch_size", batch_size, int)
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}", remedy="take at least one user at once")
        return self.encode(histories, bundle, **options).sequences, batch_size
