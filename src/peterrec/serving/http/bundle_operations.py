"""Operations on bundles: what they have in common, whether one service has the bundles or replicas share them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peterrec.errors import PeterRecError, RequestError, UnknownTaskError
from peterrec.serving.http.errors import ApiError, as_api_error
from peterrec.serving.http.logs import Log
from peterrec.serving.requests import Answer, Explanation, FailedBundle, Question, VersionInfo

if TYPE_CHECKING:
    from peterrec.serving.engine import Engine
    from peterrec.serving.registry import Staged


class BundleOperations(ABC):
    """Operations on bundles. Every call may take long, and is made by one thread; those named `check...` are quick.

    Args:
        engine: answers with the bundles.
        root: folder that bundles are loaded from.
        log: gets a line for each change.

    Attributes:
        failed: what could not be loaded, by name. Replaced, not changed: another thread may look through it.
    """

    when_failed = "after a restart"

    def __init__(self, engine: Engine, root: str, log: Log) -> None:
        self._engine, self._log = engine, log
        self._root = Path(root).resolve()
        self.failed: dict[str, FailedBundle] = {}

    @abstractmethod
    def start(self, command_line: Mapping[str, str]) -> None:
        """Load the bundles that are there before the first question.

        Args:
            command_line: folders of its bundles by name, as they are written there.

        Raises:
            PeterRecError: one of the command line cannot be loaded.
        """

    @abstractmethod
    def drop(self, name: str) -> int | None:
        """Forget a bundle; returns the generation of the change, where replicas share it."""

    @abstractmethod
    def _change(self, staged: Staged, *, roll_back: bool) -> VersionInfo:
        """Make a change that a restart will find: a version is loaded, or rolled back to."""

    def close(self) -> None:  # noqa: B027 - nothing is open
        """Close what is open."""

    @property
    def generation(self) -> int | None:
        """Number of changes of the registry that replicas share, as far as they answer here; None: there is none."""
        return None

    def not_ready(self) -> str | None:
        """Return why no question should be sent here; None: nothing is in the way."""
        return None

    def check_answers(self, answers: Sequence[Answer | Explanation]) -> None:  # noqa: B027 - here they all may
        """Refuse answers that may not be given any more.

        Raises:
            ApiError: a version that answered was withdrawn meanwhile (503).
        """

    # ------------------------------------------------------------ of clients

    def find(self, path: str) -> Path:
        """Return the folder that a client means.

        Raises:
            ApiError: it is not below the root (403), or no path at all (422).
        """
        try:
            folder = (self._root / path).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise ApiError(422, "invalid_request", "path: is not a path", "name a folder") from error
        if not folder.is_relative_to(self._root):
            raise ApiError(403, "forbidden", "path: is not below the bundle root", "copy the bundle there, and load it")
        return folder

    def load(self, name: str, path: str) -> VersionInfo:
        """Load or replace a bundle."""
        folder = self.find(path)
        if not _looks_like_bundle(folder):
            raise ApiError(
                404, "no_bundle", "path: there is no bundle in this folder", "name one that has been written"
            )
        try:
            staged = self._engine.stage(name, folder)
        except PeterRecError as error:
            raise self._client_error(error, path) from error
        info = self._change(staged, roll_back=False)
        self._log.write("bundle loaded", name=name, version=info.version, kind=info.kind, index=info.index)
        return info

    def roll_back(self, name: str, version: str | None) -> VersionInfo:
        """Activate another version.

        Raises:
            ApiError: there is no such version (404).
        """
        self.check_loaded([name])
        try:
            staged = self._engine.stage_roll_back(name, version)
        except UnknownTaskError:
            raise
        except RequestError as error:
            raise ApiError(404, "unknown_version", error.message, error.remedy) from error
        info = self._change(staged, roll_back=True)
        self._log.write("bundle rolled back", name=name, version=info.version)
        return info

    def check_questions(self, questions: Sequence[Question]) -> None:
        """Refuse questions that name bundles which cannot answer.

        Raises:
            ApiError: one of them could not be loaded (503).
        """
        if self.failed:
            self.check_loaded(name for question in questions if question.tasks != "*" for name in question.tasks)

    def check_loaded(self, names: Iterable[str]) -> None:
        """Refuse names of bundles that are there but cannot answer.

        Raises:
            ApiError: one of them could not be loaded (503).
        """
        for name in names:
            if name in self.failed:
                message = f"the bundle {name!r} could not be loaded {self.when_failed}"
                raise ApiError(
                    503, "bundle_failed", message, "its operator sees why at GET /v1/bundles and loads it again"
                )

    def _forget_failure(self, name: str) -> None:
        self.failed = {failed_name: failure for failed_name, failure in self.failed.items() if failed_name != name}

    def _can_be_read(self, name: str, version: str, copy: Path) -> bool:
        try:
            self._engine.read(name, copy, version)
        except PeterRecError:
            return False
        return True

    def _client_error(self, error: PeterRecError, path: str) -> ApiError:
        """Return the error with the file it is about, named as the client did: not where the root is."""
        api_error = as_api_error(error)
        client_path = path
        if error.path is not None and Path(error.path).is_relative_to(self._root):
            client_path = str(Path(error.path).relative_to(self._root))
        api_error.message = f"{client_path}: {api_error.message}"
        return api_error


def failed_bundle(name: str, version: str, copy: Path, error: Exception) -> FailedBundle:
    """Describe a version that could not be loaded."""
    if isinstance(error, PeterRecError):
        return FailedBundle(name, version, error.message, error.remedy, str(error.path or copy))
    message = f"cannot be loaded ({type(error).__name__}: {error})"
    return FailedBundle(name, version, message, "load the bundle again", str(copy))


def _looks_like_bundle(folder: Path) -> bool:
    """Return whether it may be a bundle: a description, and nothing that cannot be read to an end, such as a pipe."""
    try:
        content = list(folder.iterdir())
        return any(path.suffix == ".json" for path in content) and all(
            path.is_file() or path.is_dir() for path in content
        )
    except OSError:  # such as a name that is too long
        return False
