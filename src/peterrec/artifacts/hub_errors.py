"""Errors of the Hugging Face Hub and its client as errors of ours: what happened, and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from peterrec.errors import ConfigError, HubError, PeterRecError

LOG_IN = "pass token=..., set HF_TOKEN, or run `hf auth login`"
TRANSPORTS = ("httpx", "httpx2", "httpcore", "requests", "urllib3")  # libraries of HTTP under the client, by version


@contextlib.contextmanager
def hub_errors(location: object, endpoint: str | None = None) -> Iterator[None]:
    """Turn what huggingface_hub raises within the block into a `HubError` that names the location.

    Args:
        location: what was asked for, as it is to be shown.
        endpoint: of the Hub; None: the client's own.
    """
    try:
        yield
    except PeterRecError:
        raise
    except Exception as error:
        explained = _explained(error, location, endpoint)
        if explained is None:
            raise
        raise explained from error


def _explained(error: Exception, location: object, endpoint: str | None) -> PeterRecError | None:
    """Return the error that says it to people; None: it is not of the Hub."""
    from huggingface_hub import constants, errors  # noqa: PLC0415

    hub, causes = endpoint or constants.ENDPOINT, list(_causes(error))
    if any(isinstance(cause, errors.HFValidationError) for cause in causes):
        remedy = "name it as ORGANIZATION/NAME, of letters, digits, - _ and ."
        return ConfigError("no repository of the Hub can have this name", remedy=remedy, path=str(location))
    for cause in causes:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(status, int) and status >= 400:
            return _refusal(cause, status, location, hub, causes[0])
    if any(isinstance(cause, errors.LocalTokenNotFoundError) for cause in causes):
        return HubError("no token is stored for the Hub", remedy=LOG_IN, path=str(location))
    return _silence(causes, location, hub)


def _silence(causes: list[BaseException], location: object, hub: str) -> HubError | None:
    """Return the error for what nobody answered; None: it is not of the Hub."""
    from huggingface_hub import errors  # noqa: PLC0415

    if any(isinstance(cause, errors.FileMetadataError) for cause in causes):
        remedy = "check HF_ENDPOINT, and whether a proxy answers in its place"
        return HubError(f"{hub} does not answer as the Hub does", remedy=remedy, path=str(location))
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        return not_cached(location)
    if any(_is_transport(cause) for cause in causes):
        return HubError(
            f"{hub} cannot be reached",
            remedy="check the connection, HF_ENDPOINT and the settings of your proxy, and try again",
            path=str(location),
        )
    if any(isinstance(cause, errors.LocalEntryNotFoundError) for cause in causes):
        return not_cached(location)
    return None


def _refusal(cause: BaseException, status: int, location: object, hub: str, raised: BaseException) -> HubError:
    """Return the error for an answer of the Hub that is one; what was raised for it tells what is wrong with a card."""
    from huggingface_hub import errors  # noqa: PLC0415

    message = raised if type(raised) is ValueError else getattr(cause, "server_message", None)
    reason = f" ({message})" if message else ""
    if isinstance(cause, errors.GatedRepoError):
        problem, remedy = f"its owners give access to it ({status})", f"ask for it on its page at {hub}, then {LOG_IN}"
    elif isinstance(cause, errors.RevisionNotFoundError):
        problem = f"the repository has no such revision ({status})"
        remedy = "name a branch, a tag or a commit of it"
    elif isinstance(cause, errors.RepositoryNotFoundError):
        problem = f"{hub} has no such repository, or it is private and not yours to read ({status})"
        remedy = f"check the name (a folder is looked for first); for a private repository {LOG_IN}"
    elif isinstance(cause, errors.EntryNotFoundError):
        problem, remedy = f"the repository has no such file ({status})", "name another subfolder or revision"
    elif status in (401, 403):
        problem = f"{hub} refuses access ({status}){reason}"
        remedy = f"use a token that may do this, of an account that may: {LOG_IN}"
    elif status in (409, 412):
        problem = f"somebody else changed the repository meanwhile ({status})"
        remedy = "nothing was changed; look at it, and push again"
    elif status == 429:
        problem, remedy = f"{hub} was asked too often ({status})", "wait some minutes, and try again"
    elif status >= 500:
        problem, remedy = f"{hub} has a fault ({status})", "try again later"
    else:
        problem, remedy = f"{hub} refuses it ({status}){reason}", "change what it says is wrong"
    return HubError(problem, remedy=remedy, path=str(location))


def not_cached(location: object) -> HubError:
    """Return the error for what the cache lacks while nobody may be asked."""
    return HubError(
        "the cache does not have it, and the Hub is not asked (local_files_only or HF_HUB_OFFLINE)",
        remedy="load it once with a connection, with the same cache_dir and revision",
        path=str(location),
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _is_transport(error: BaseException) -> bool:
    return isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.partition(".")[0] in TRANSPORTS
