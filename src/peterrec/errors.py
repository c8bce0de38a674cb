"""The errors that peterrec raises on purpose: what happened, where, and what to do about it."""

from __future__ import annotations

from pathlib import Path

WARNING = "warning: "  # before a line about what is wrong with what was made, but no error


class PeterRecError(Exception):
    """Base of all errors that peterrec raises on purpose.

    Args:
        message: what happened, in one sentence without a full stop.
        remedy: what the user can do about it, as an imperative sentence.
        path: the file or folder concerned, if there is one.
    """

    exit_code: int = 2

    def __init__(self, message: str, *, remedy: str = "", path: str | Path | None = None) -> None:
        self.message = message
        self.remedy = remedy
        self.path = path
        prefix = f"{path}: " if path is not None else ""
        advice = f"\n  What to do: {remedy}" if remedy else ""
        super().__init__(f"{prefix}{message}{advice}")


class ConfigError(PeterRecError):
    """A configuration file, an override or an argument is wrong."""


class DataError(PeterRecError):
    """Events, a table of users or a corpus cannot be used as they are."""


class TaskError(DataError):
    """A task cannot be learned from the labels given."""


class UnknownItemsError(DataError):
    """No item of the input is in the catalogue of the model."""


class FetchError(PeterRecError):
    """A public data set could not be obtained or is not the expected file."""


class HubError(PeterRecError):
    """The Hugging Face Hub lacks what was asked for, refuses it, or cannot be reached."""


class ArtifactError(PeterRecError):
    """An artifact (corpus, backbone, bundle) is missing, damaged or not what was asked for."""


class FormatVersionError(ArtifactError):
    """An artifact was written in a format that this version does not read."""


class FingerprintError(ArtifactError):
    """An artifact belongs to another backbone or catalogue."""


class StorageError(PeterRecError):
    """A file could not be written: the disk is full, or the place is not writable."""

    exit_code = 1


class RequestError(PeterRecError):
    """A question to the engine or the service cannot be answered as it is asked."""


class UnknownTaskError(RequestError):
    """A question names a task that no loaded bundle answers."""


class OptedOutError(RequestError):
    """A question names a task that its user has opted out of."""


class AnswerError(PeterRecError):
    """A bundle answers with what is no number."""

    exit_code = 1


class ClusterError(PeterRecError):
    """Spark could not finish what it was asked to do."""

    exit_code = 1


class StoreError(StorageError):
    """The store of events cannot be read or written."""


class TrainingError(PeterRecError):
    """Training cannot go on, such as a loss that is not finite."""

    exit_code = 1


class InterruptedRun(PeterRecError):  # noqa: N818 - the user did it; it is not a fault
    """The user stopped a run (Ctrl-C)."""

    exit_code = 130
