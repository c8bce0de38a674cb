"""The verb `push`: a folder of a backbone or a bundle becomes one commit on the Hugging Face Hub."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from peterrec._version import __version__
from peterrec.arguments import checked
from peterrec.artifacts.backbone_io import load_backbone
from peterrec.artifacts.bundle_io import read_description
from peterrec.artifacts.card_metadata import Publication
from peterrec.artifacts.cards import backbone_card, bundle_card
from peterrec.artifacts.hub import FILES, REPOSITORY, HubLocation, Kind, hub_client
from peterrec.artifacts.hub_errors import hub_errors
from peterrec.errors import ArtifactError, ConfigError
from peterrec.storage import DESCRIPTIONS, read_json

CARD = "README.md"
OWNER_FIELDS = ("language", "license_name", "license_link")  # of a card, which are its owner's, too


@checked
def push(
    path: str | Path,
    repo_id: str,
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
    """Publish a backbone or a bundle on the Hugging Face Hub: one commit, after which it can be loaded from there.

    The files of the artifact go there and no others; those that it had there and no longer has are removed. Its card is
    made anew with what is said here; what is not said stays as the card there says it, and text that was written into
    the README.md of the folder is taken over. A push that does not end well leaves the repository as it was.

    Args:
        path: folder written by `pretrain` or `adapt`.
        repo_id: the repository, as `organization/name`; made where it is not there.
        subfolder: of the repository; None: its root. A backbone and bundles can share a repository so.
        revision: branch to commit to, made where it is not there; None: the main one.
        private: whether a repository that is made is private; None: as the organization has it. One that is there
            stays as it is, and True is refused if it is public.
        license: identifier of the Hub's, such as `cc-by-4.0`; of your model, which nobody else knows.
        datasets: repositories of data on the Hub that it was trained on.
        base_model: of a bundle: repository of its backbone.
        message: of the commit.
        token: for the Hub; None: the stored one (`HF_TOKEN`, `hf auth login`).
        endpoint: address of the Hub; None: the client's (`HF_ENDPOINT`).

    Returns:
        The commit, 40 hexadecimal digits, to be used as a `revision`.

    Raises:
        ArtifactError: no backbone or bundle, or damaged.
        ConfigError: huggingface_hub is not installed, no repository can have this name, an artifact of another kind is
            there, or it is to be private and is not.
        HubError: the Hub refuses it, cannot be reached, or the repository changed meanwhile; nothing was changed.
    """
    if not REPOSITORY.fullmatch(repo_id):
        raise ConfigError(f"{repo_id!r} is no repository", remedy="name it as ORGANIZATION/NAME or USER/NAME")
    artifact = _read(Path(path))
    if base_model is not None and artifact.kind == "backbone":
        raise ConfigError("base_model is of bundles", remedy="leave it out for a backbone")
    location = HubLocation(repo_id, subfolder or "", revision)
    publication = Publication(repo_id, location.subfolder, license, tuple(datasets), base_model)
    hub = hub_client(location)
    api = hub.HfApi(endpoint=endpoint, token=token, library_name="peterrec", library_version=__version__)
    with hub_errors(location, endpoint):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        info = api.repo_info(repo_id, revision=revision)
        _check_place(artifact.kind, location, info, private)
        return _commit(hub, api, artifact, location, publication, info, message)


@dataclass(frozen=True)
class _Artifact:
    """A folder that was checked, with its descriptions; `metrics` are a bundle's."""

    path: Path
    kind: Kind
    meta: dict[str, Any]
    metrics: dict[str, Any]

    def card(self, publication: Publication) -> str:
        if self.kind == "backbone":
            return backbone_card(self.meta, publication)
        return bundle_card(self.meta, self.metrics, publication)

    def written_card(self) -> str | None:
        """Return the README.md of the folder, if somebody wrote into it."""
        file = self.path / CARD
        text = file.read_text(encoding="utf-8") if file.is_file() else None
        return None if text == self.card(Publication()) else text


def _read(path: Path) -> _Artifact:
    """Return an artifact that is whole: nobody is to find out elsewhere that it is not."""
    if (path / DESCRIPTIONS["bundle"]).is_file():
        return _Artifact(path, "bundle", read_description(path), read_json(path / "metrics.json"))
    if (path / DESCRIPTIONS["backbone"]).is_file():
        load_backbone(path)
        return _Artifact(path, "backbone", read_json(path / DESCRIPTIONS["backbone"]), {})
    if (path / DESCRIPTIONS["joint"]).is_file():
        remedy = "push the folder of each task in it"
        raise ArtifactError("is a joint training of several tasks", remedy=remedy, path=path)
    raise ArtifactError("is no backbone and no bundle", remedy="name the folder of one", path=path)


def _commit(
    hub: ModuleType,
    api: Any,
    artifact: _Artifact,
    location: HubLocation,
    publication: Publication,
    info: Any,
    message: str | None,
) -> str:
    """Replace the artifact at the location, on top of the commit that `info` is of, or not at all."""
    names, former = _names(info), None
    if location.path_of(CARD) in names:
        former = Path(api.hf_hub_download(location.repo_id, location.path_of(CARD), revision=info.sha)).read_text(
            "utf-8"
        )
    card = _card(hub, artifact, publication, former)
    operations: list[Any] = [hub.CommitOperationAdd(location.path_of(CARD), card.encode())]
    for name in FILES[artifact.kind]:
        file = artifact.path / name
        if name != CARD and file.is_file():
            operations.append(hub.CommitOperationAdd(location.path_of(name), str(file)))
        elif name != CARD and location.path_of(name) in names:
            operations.append(hub.CommitOperationDelete(location.path_of(name)))
    with warnings.catch_warnings():  # the catalogue is a table, but no data set
        warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
        commit = api.create_commit(
            location.repo_id, operations, commit_message=message or f"Upload {artifact.kind} with peterrec",
            revision=location.revision, parent_commit=info.sha,
        )  # fmt: skip
    return str(commit.oid)


def _names(info: Any) -> set[str]:
    return {sibling.rfilename for sibling in info.siblings or ()}


def _check_place(kind: Kind, location: HubLocation, info: Any, private: bool | None) -> None:
    """Refuse a place that has an artifact of another kind, whose card has the same name, or that all can read."""
    if private and info.private is False:
        raise ConfigError(
            "the repository was there before, and it is public",
            remedy="make it private in its settings on the Hub, name another, or leave out private",
            path=str(location),
        )
    actual: Kind = "bundle" if kind == "backbone" else "backbone"
    if location.path_of(DESCRIPTIONS[actual]) in _names(info):
        raise ConfigError(
            f"a {actual} is there, which a {kind} must not be mixed with",
            remedy="name a subfolder, or another repository",
            path=str(location),
        )


def _card(hub: ModuleType, artifact: _Artifact, publication: Publication, former: str | None) -> str:
    """Return the card to publish: what is not said of it now is as the owner wrote it, into the folder or before."""
    written = artifact.written_card()
    source = former if written is None else written
    if source is not None:
        fields = hub.ModelCard(source, ignore_metadata_errors=True).data.to_dict()
        publication = replace(
            publication,
            license=publication.license or fields.get("license"),
            datasets=publication.datasets or _as_tuple(fields.get("datasets")),
            base_model=publication.base_model or fields.get("base_model"),
            owner_fields={name: fields[name] for name in OWNER_FIELDS if name in fields},
        )
    card = artifact.card(publication)
    if written is None:
        return card
    body: str = hub.ModelCard(written, ignore_metadata_errors=True).text
    return card.removesuffix(hub.ModelCard(card).text) + body


def _as_tuple(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())
