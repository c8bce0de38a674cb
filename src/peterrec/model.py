"""`UserModel`: a pre-trained backbone with the bundles loaded on it; external ids in and out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self

from peterrec.answers import (
    AskedUsers,
    Embeddings,
    FloatArray,
    LabelPredictions,
    NumberPredictions,
    Predictions,
    Recommendations,
    history_target_positions,
)
from peterrec.arguments import check, checked
from peterrec.artifacts.backbone_io import load_backbone, save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.artifacts.hub import HubAccess, pretrained_folder
from peterrec.artifacts.hub_push import push
from peterrec.config import PreprocessingConfig
from peterrec.data.encoding import Encoded, Histories, Unknown, encode_histories
from peterrec.data.frames import is_dataframe
from peterrec.data.histories import frame_histories
from peterrec.data.ids import HistoryFeatures, as_histories
from peterrec.data.preprocessing import encoder_of
from peterrec.data.sequences import Sequences
from peterrec.data.shorten import UNCUT
from peterrec.display import facts_html, shown
from peterrec.errors import ConfigError
from peterrec.sequence_model import SequenceModel

logger = logging.getLogger(__name__)


class UserModel(SequenceModel):
    """One user model, reused for many tasks (paper, section 3).

    Args:
        pretrained: backbone, catalogue and settings.
        device: `auto`, `cpu`, `cuda`, ...
        precision: of the network: `fp32`, or `bf16`, faster where the machine has it. Items are scored in fp32.
        compile: whether torch compiles the network for batches of the longest histories: a minute at first.

    Raises:
        ConfigError: no such device, or the precision is not possible on it.
    """

    @classmethod
    @checked
    def from_pretrained(
        cls,
        path: str | Path,
        device: str = "auto",
        *,
        subfolder: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        endpoint: str | None = None,
        **options: Any,
    ) -> Self:
        """Load a backbone: a folder written by `pretrain`, or a repository of the Hugging Face Hub.

        Args:
            path: the folder; or, where there is none of this name, a repository, as `organization/name` or
                `hf://organization/name[@revision][/subfolder]`.
            device: as for the class.
            subfolder: of the folder or the repository.
            revision: branch, tag or commit of the repository; None: its main branch.
            cache_dir: where files of the Hub are kept; None: where its client keeps them (`HF_HOME`).
            token: for the Hub; None: the stored one (`HF_TOKEN`, `hf auth login`).
            local_files_only: read that cache and ask nobody.
            endpoint: address of the Hub; None: the client's (`HF_ENDPOINT`).
            options: `precision` and `compile`, as for the class.

        Returns:
            The model, without a bundle.

        Raises:
            ArtifactError: missing, damaged, of another format version, or with fingerprints that do not match.
            HubError: the Hub lacks it, refuses it, or cannot be reached and the cache does not have it.
            ConfigError: as for the class, or huggingface_hub is not installed.
        """
        access = HubAccess(cache_dir, token, local_files_only, endpoint)
        folder, repo_id = pretrained_folder(path, "backbone", subfolder, revision, access)
        model = cls(load_backbone(folder), device, **options)
        model.repo_id = repo_id
        return model

    @checked
    def save_pretrained(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the backbone (not the bundles) to a folder, atomically.

        Args:
            path: the folder to make.
            overwrite: whether a backbone that is there may be replaced.

        Raises:
            ArtifactError: the folder exists and `overwrite` is false, or it is no backbone.
            StorageError: the disk is full or the place is not writable.
        """
        save_backbone(Path(path), self.pretrained, overwrite=overwrite)

    @checked
    def push_to_hub(
        self,
        repo_id: str,
        bundle: str | None = None,
        *,
        subfolder: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        license: str | None = None,
        datasets: Sequence[str] = (),
        base_model: str | None = None,
        message: str | None = None,
        token: str | bool | None = None,
        endpoint: str | None = None,
    ) -> str:
        """Publish the backbone, or one bundle, on the Hugging Face Hub, as one commit; see `push`.

        Args:
            repo_id: the repository, as `organization/name`; made where it is not there.
            bundle: a loaded one; None: the backbone.
            subfolder: of the repository; None: its root.
            revision: branch to commit to, made where it is not there; None: the main one.
            private: whether a repository that is made is private; None: as the organization has it.
            license: identifier of the Hub's, such as `cc-by-4.0`.
            datasets: repositories of data on the Hub that it was trained on.
            base_model: of a bundle: repository of its backbone; None: where the backbone was loaded from or pushed to.
            message: of the commit.
            token: for the Hub; None: the stored one (`HF_TOKEN`, `hf auth login`).
            endpoint: address of the Hub; None: the client's (`HF_ENDPOINT`).

        Returns:
            The commit, 40 hexadecimal digits, to be used as a `revision`.

        Raises:
            ConfigError: no bundle of that name is loaded, or as in `push`.
            HubError: as in `push`; nothing was changed.
        """
        publication: dict[str, Any] = {
            "subfolder": subfolder, "revision": revision, "private": private, "license": license,
            "datasets": datasets, "message": message, "token": token, "endpoint": endpoint,
        }  # fmt: skip
        with TemporaryDirectory(prefix="peterrec-push-") as work:
            folder = Path(work) / "artifact"
            if bundle is not None:
                save_bundle(folder, self.bundle(bundle))
                return push(folder, repo_id, base_model=base_model or self.repo_id, **publication)
            save_backbone(folder, self.pretrained)
            commit = push(folder, repo_id, base_model=base_model, **publication)
        self.repo_id = repo_id
        return commit

    def __repr__(self) -> str:
        return f"UserModel({', '.join(f'{name}={shown(value)}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        training = self.pretrained.training
        curve = [row[training["monitor"]] for row in training.get("curve", []) if "monitor" in training]
        return facts_html("UserModel", self._facts(), curve)

    def _facts(self) -> dict[str, Any]:
        config = self.network.backbone.config
        return {
            "kind": config.kind,
            "channels": config.channels,
            "items": len(self.catalogue),
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "max_length": self.pretrained.max_length,
            "device": str(self.device),
            "bundles": tuple(self.bundles) or "none",
        }

    def preprocessing(self, bundle: str | None = None) -> PreprocessingConfig | None:
        """Return how the events were prepared that a bundle, or the backbone, was trained on.

        Args:
            bundle: a loaded one; None for the backbone.

        Returns:
            The settings; None where they are not known.

        Raises:
            ConfigError: no bundle of that name is loaded.
        """
        provenance = None if bundle is None else self.bundle(bundle).provenance
        bundle_preprocessing = None if provenance is None else provenance.preprocessing
        return self.pretrained.preprocessing if bundle_preprocessing is None else bundle_preprocessing

    def excludes_seen(self, bundle: str | None = None) -> bool:
        """Return whether `recommend` leaves out items of the user's own history by default.

        It does where training showed that hardly anybody comes back to an item, and source and targets share their ids.

        Args:
            bundle: a loaded one; None for the source catalogue.

        Returns:
            The default of `exclude_seen`.

        Raises:
            ConfigError: no bundle of that name is loaded.
        """
        return self.pretrained.exclude_seen if bundle is None else self.bundle(bundle).exclude_seen

    def encode(
        self,
        histories: Histories,
        bundle: str | None = None,
        *,
        unknown: Unknown | None = None,
        preprocessing: PreprocessingConfig | None = None,
        require_known: bool = True,
        features: HistoryFeatures | None = None,
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
            require_known: refuse histories of which not one item is known. False for some users of many, who may all
                be strangers.
            features: of the events, as a reader of events has them; None: these do not tell any.

        Returns:
            N sequences of indices, and how many events of each user are known.

        Raises:
            UnknownItemsError: `unknown="error"` and there are some; or no item is known at all, and `require_known`.
            ConfigError: no bundle of that name is loaded.
        """
        settings = preprocessing or self.preprocessing(bundle)
        source = None if settings is None else settings.source
        if unknown is None:
            unknown = self.pretrained.unknown if source is None else "unk" if source.rare_items == "unk" else "skip"
        return encode_histories(
            self.catalogue, histories, unknown, source, UNCUT if settings is None else settings.cut,
            require_known=require_known, encoder=encoder_of(settings), features=features,
        )  # fmt: skip

    def represent(self, histories: Any, bundle: str | None = None, **options: Any) -> FloatArray:
        """Compute one vector per user: the hidden state at [TCL] (paper, section 3.3).

        Users without known events have the vector of an empty sequence, which training never saw: `encode` tells who
        they are (`known_events` is 0).

        Args:
            histories: as in `predict`.
            bundle: with this bundle's patch, and what its head reads: two, three or eight times the channels where
                `readout` is `pooled`, `both` or `attention`. None for the plain backbone.
            options: as in `predict`; `readout`, of the plain backbone: `token` ([TCL], by default), `pooled` (sums over
                the events) or `both`.

        Returns:
            (N, channels) float32, or (N, 2, 3 or 8 x channels) with such a readout or bundle.

        Raises:
            ConfigError: no bundle of that name is loaded.
            UnknownItemsError: as in `encode`.
        """
        return self.embed(histories, bundle, **options).vectors

    def embed(self, histories: Any, bundle: str | None = None, **options: Any) -> Embeddings:
        """Compute one vector per user, as `represent` does, with who the users are.

        Args:
            histories: as in `predict`.
            bundle: as in `represent`.
            options: as in `represent`.

        Returns:
            (N, R) vectors, and the known events of each user.

        Raises:
            ConfigError, DataError, UnknownItemsError: as in `predict`.
        """
        readout = options.pop("readout", None)
        check("readout", readout, str | None)
        inputs = self._read(histories, bundle, options)
        vectors = self.representations(inputs.sequences, bundle, readout=readout, batch_size=inputs.batch_size)
        return Embeddings(vectors, inputs.sequences.item_counts, inputs.users)

    def predict(
        self, histories: Any, bundle: str, **options: Any
    ) -> Predictions | NumberPredictions | LabelPredictions:
        """Predict a class, a number or labels for each user (paper, section 3.3).

        A user without known events is answered with the class or label shares of the train users, or with the mean, the
        median or the quantiles of their numbers.

        Args:
            histories: N sequences of external item ids, oldest first; or a DataFrame of events, which are filtered and
                ordered as those that were prepared. Then users come in the order of their ids as texts, and answers
                have the ids in the type of that column.
            bundle: of a classification, a regression or a multilabel task.
            options: `columns`, for a DataFrame whose columns are not called as those that were prepared, such as
                `{"user": "customer"}`; `unknown`, `preprocessing` and `require_known`, as in `encode`; `batch_size`.

        Returns:
            Names of classes or labels and (N, K) probabilities, or (N,) predictions and (N, Q) quantiles; and the known
            events of each user.

        Raises:
            ConfigError: the bundle is not loaded, or is of a ranking task.
            DataError: the histories or events cannot be used as they are.
            UnknownItemsError: as in `encode`.
        """
        inputs = self._read(histories, bundle, options)
        if (numbers := self.bundle(bundle).numbers) is not None:
            values = self.numbers(inputs.sequences, bundle, batch_size=inputs.batch_size)
            quantiles = values if numbers.quantiles else values[:, :0]
            predictions, known_events = values[:, numbers.prediction], inputs.sequences.item_counts
            return NumberPredictions(predictions, numbers.quantiles, quantiles, known_events, inputs.users)
        if self.bundle(bundle).kind == "multilabel":
            names, known_events = self.bundle(bundle).class_names, inputs.sequences.item_counts
            shares = self.label_probabilities(inputs.sequences, bundle, batch_size=inputs.batch_size)
            return LabelPredictions(names, shares, known_events, inputs.users, self.bundle(bundle).decision)
        probabilities = self.probabilities(inputs.sequences, bundle, batch_size=inputs.batch_size)
        loaded, known_events = self.bundle(bundle), inputs.sequences.item_counts
        return Predictions(loaded.class_names, probabilities, known_events, inputs.users, loaded.decision)

    def recommend(
        self,
        histories: Any,
        bundle: str | None = None,
        k: int = 10,
        *,
        exclude_seen: bool | None = None,
        **options: Any,
    ) -> Recommendations:
        """Recommend the k best items to each user: targets of a bundle, or next items of the source catalogue.

        A user without known events gets the most popular ones, scored by the log of their share of all events.

        Args:
            histories: as in `predict`.
            bundle: of a ranking task; None recommends from the source catalogue with the pre-training head.
            k: items per user; fewer come back where the catalogue has fewer that are allowed.
            exclude_seen: leave out items that stand in the user's own history; None: see `excludes_seen`.
            options: as in `predict`.

        Returns:
            External ids, best first, with scores (higher is better), and the known events of each user.

        Raises:
            ConfigError: the bundle is not loaded or is of a classification task, or k < 1.
            DataError, UnknownItemsError: as in `predict`.
        """
        check("k", k, int)
        check("exclude_seen", exclude_seen, bool | None)
        if k < 1:
            raise ConfigError(f"k is {k}", remedy="ask for at least one item")
        inputs = self._read(histories, bundle, options)
        targets = self.targets(bundle)
        excludes = self.excludes_seen(bundle) if exclude_seen is None else exclude_seen
        excluded = history_target_positions(targets, inputs.histories) if excludes else None
        top = self.top_k(inputs.sequences, k, bundle, excluded=excluded, batch_size=inputs.batch_size)
        return Recommendations.from_top_items(top, targets, inputs.sequences.item_counts, inputs.users)

    def _read(self, histories: Any, bundle: str | None, options: dict[str, Any]) -> _Inputs:
        batch_size: int = options.pop("batch_size", 256)
        check("batch_size", batch_size, int)
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}", remedy="take at least one user at once")
        columns = options.pop("columns", None)
        check("columns", columns, Mapping[str, str] | None)
        users = AskedUsers()
        if is_dataframe(histories):
            preprocessing = options.get("preprocessing") or self.preprocessing(bundle)
            read = frame_histories(histories, columns, preprocessing)
            for note in read.notes:
                logger.info(note)
            users = AskedUsers(read.user_ids, read.columns.user, read.columns.item)
            histories, options["features"] = read.items, read.features
        elif columns is not None:
            raise ConfigError("columns are of a DataFrame, and histories are none", remedy="leave columns out")
        histories = as_histories(histories)
        return _Inputs(histories, self.encode(histories, bundle, **options).sequences, users, batch_size)


class _Inputs(NamedTuple):
    histories: Histories
    sequences: Sequences
    users: AskedUsers
    batch_size: int
