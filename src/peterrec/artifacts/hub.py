"""Backbones and bundles of the Hugging Face Hub: references to them, and their files in its client's cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal
from urllib.parse import unquote

from peterrec._version import __version__
from peterrec.artifacts.hub_errors import hub_errors, not_cached
from peterrec.errors import ConfigError, HubError
from peterrec.storage import DESCRIPTIONS, storage_errors

Kind = Literal["backbone", "bundle"]

# What is read of a repository. Whatever else is in it, such as weights in pickle, is never fetched.
REQUIRED: dict[Kind, tuple[str, ...]] = {
    "backbone": ("config.json", "model.safetensors", "catalogue.parquet"),
    "bundle": ("adapter_config.json", "adapter_model.safetensors", "metrics.json"),
}
FILES: dict[Kind, tuple[str, ...]] = {
    "backbone": (
        *REQUIRED["backbone"],
        "item_content.json",
        "item_content.safetensors",
        "README.md",
        "config.yaml",
    ),
    "bundle": (
        *REQUIRED["bundle"],
        "labels.json",
        "targets.parquet",
        "numbers.json",
        "reference.json",
        "README.md",
        "config.yaml",
    ),
}

SCHEME = "hf://"
NAME = r"[A-Za-z0-9_.-]+"
REPOSITORY = re.compile(rf"{NAME}/{NAME}")
REFERENCE = re.compile(rf"{SCHEME}({NAME}/{NAME})(?:@([^/@]+))?(?:/(.+?)/?)?")
SUBFOLDER = re.compile(rf"{NAME}(?:/{NAME})*")


@dataclass(frozen=True)
class HubAccess:
    """How the Hub is asked.

    Attributes:
        cache_dir: folder of the client's cache; None: its own (`HF_HOME`).
        token: of the user; None or True: the one that is stored (`HF_TOKEN`, `hf auth login`); False: none.
        local_files_only: read the cache and ask nobody.
        endpoint: address of the Hub; None: the client's own (`HF_ENDPOINT`).
    """

    cache_dir: str | Path | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    endpoint: str | None = None


@dataclass(frozen=True)
class HubLocation:
    """A folder in a repository of the Hub.

    Attributes:
        repo_id: `organization/name`.
        subfolder: in it; empty: its root.
        revision: branch, tag or commit; None: its main branch.
    """

    repo_id: str
    subfolder: str = ""
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.subfolder and (not SUBFOLDER.fullmatch(self.subfolder) or {".", ".."} & set(self.subfolder.split("/"))):
            raise ConfigError(
                f"{self.subfolder!r} is no folder of a repository", remedy="name it like bundles/age, from the root on"
            )

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{SCHEME}{self.repo_id}{revision}{'/' + self.subfolder if self.subfolder else ''}"

    def path_of(self, name: str) -> str:
        """Return where a file of the folder is in the repository."""
        return f"{self.subfolder}/{name}" if self.subfolder else name


def find_location(
    reference: str | Path, subfolder: str | None = None, revision: str | None = None
) -> HubLocation | None:
    """Return where on the Hub a reference leads; None: it is a folder of this machine.

    A folder that is there wins over a repository of the same name; `hf://organization/name[@revision][/subfolder]` is
    always of the Hub. A revision with slashes has them as `%2F` there.

    Raises:
        ConfigError: it says two things at once, or a revision of a folder.
    """
    text = str(reference)
    if isinstance(reference, str) and text.startswith(SCHEME):
        return _parsed(text, subfolder, revision)
    if isinstance(reference, Path) or Path(text).exists() or not REPOSITORY.fullmatch(text):
        if revision is not None:
            raise ConfigError(
                f"is a folder of this machine, which has no revision {revision!r}",
                remedy=f"leave out the revision, or write {SCHEME}ORGANIZATION/NAME for a repository of the Hub",
                path=text,
            )
        return None
    return HubLocation(text, subfolder or "", revision)


def _parsed(text: str, subfolder: str | None, revision: str | None) -> HubLocation:
    match = REFERENCE.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"{text!r} does not say where on the Hub", remedy=f"write {SCHEME}ORGANIZATION/NAME[@REVISION][/SUBFOLDER]"
        )
    repo_id, written_revision, written_subfolder = match.groups()
    for name, written, argument in (
        ("subfolder", written_subfolder, subfolder),
        ("revision", written_revision, revision),
    ):
        if written and argument:
            raise ConfigError(f"{text!r} and {name}={argument!r} say it twice", remedy=f"leave out {name}")
    revision = unquote(written_revision) if written_revision else revision
    return HubLocation(repo_id, written_subfolder or subfolder or "", revision)


def artifact_folder(reference: str | Path, kind: Kind) -> Path:
    """Return the folder of an artifact that a verb was given: as it is, or fetched if it is `hf://...`.

    A plain name is a folder: a slip in a path asks nobody.

    Raises:
        ConfigError, HubError: as in `fetch_folder`.
    """
    if isinstance(reference, str) and reference.startswith(SCHEME):
        return fetch_folder(_parsed(reference, None, None), kind)
    return Path(reference)


def pretrained_folder(
    reference: str | Path, kind: Kind, subfolder: str | None, revision: str | None, access: HubAccess
) -> tuple[Path, str | None]:
    """Return the folder of an artifact that a method was given, and the repository it is of; None: of none.

    Raises:
        ConfigError: as in `find_location`, or huggingface_hub is not installed.
        HubError: as in `fetch_folder`.
    """
    location = find_location(reference, subfolder, revision)
    if location is None:
        return Path(reference) / (subfolder or ""), None
    return fetch_folder(location, kind, access), location.repo_id


def fetch_folder(location: HubLocation, kind: Kind, access: HubAccess | None = None) -> Path:
    """Return a folder with the files of an artifact of the Hub: all of one commit, in the client's cache.

    Args:
        location: repository, folder in it and revision.
        kind: of the artifact.
        access: how the Hub is asked; None: as its client does by itself.

    Raises:
        ConfigError: huggingface_hub is not installed, or no repository can have this name.
        HubError: no such repository or revision, no artifact of this kind there, no access, the Hub cannot be reached
            and the cache does not have it.
        StorageError: the cache cannot be written.
    """
    access = access or HubAccess()
    hub = hub_client(location)
    from huggingface_hub import constants  # noqa: PLC0415

    names = {*FILES[kind], DESCRIPTIONS["backbone"], DESCRIPTIONS["bundle"]}  # both tell what is there in its place
    with hub_errors(location, access.endpoint), storage_errors(Path(access.cache_dir or constants.HF_HUB_CACHE)):
        snapshot = hub.snapshot_download(
            location.repo_id,
            revision=location.revision,
            cache_dir=access.cache_dir,
            token=access.token,
            local_files_only=access.local_files_only,
            endpoint=access.endpoint,
            allow_patterns=[location.path_of(name) for name in sorted(names)],
            library_name="peterrec",
            library_version=__version__,
        )
    folder = Path(snapshot) / location.subfolder
    missing = [name for name in REQUIRED[kind] if not (folder / name).is_file()]
    if missing:
        raise _absence(location, kind, folder, missing, offline=access.local_files_only or constants.HF_HUB_OFFLINE)
    return folder


def _absence(location: HubLocation, kind: Kind, folder: Path, missing: list[str], *, offline: bool) -> HubError:
    actual: Kind = "bundle" if kind == "backbone" else "backbone"
    if (folder / DESCRIPTIONS[actual]).is_file() and not (folder / DESCRIPTIONS[kind]).is_file():
        methods = {"backbone": "UserModel.from_pretrained", "bundle": "load_bundle, on the backbone it was made for"}
        return HubError(f"is a {actual}, not a {kind}", remedy=f"load it with {methods[actual]}", path=str(location))
    if offline:
        return not_cached(location)
    return HubError(
        f"has no {kind} there: {', '.join(missing)} missing",
        remedy="name the subfolder that it is in, and the revision",
        path=str(location),
    )


def hub_client(location: HubLocation) -> ModuleType:
    """Return huggingface_hub, which is imported only where the Hub is asked for.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import huggingface_hub  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "is no folder here, and to ask the Hugging Face Hub takes huggingface_hub, which is not installed",
            remedy="check the path, or pip install 'peterrec[hub]'",
            path=str(location),
        ) from error
    return huggingface_hub
