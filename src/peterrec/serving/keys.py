"""Keys of clients, and the scopes of each."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from peterrec.config.unique_keys import TWICE, load_yaml
from peterrec.errors import ConfigError

Scope = Literal["read", "write", "operate"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
MIN_LENGTH = 16
FORM = "write a list of `- {name: web, key: ..., scopes: [read, write]}`"


@dataclass(frozen=True)
class _Key:
    name: str
    digest: bytes = field(repr=False)
    scopes: frozenset[Scope]


class Keys:
    """The keys that clients may present, as sha256 digests: the keys themselves are not in memory.

    Attributes:
        names: of the keys, for logs.
        warnings: lines about an unsafe file, such as one that others may read.
    """

    def __init__(self, keys: Sequence[_Key], warnings: Sequence[str] = ()) -> None:
        self._keys = tuple(keys)
        self.names = tuple(key.name for key in keys)
        self.warnings = list(warnings)

    def __repr__(self) -> str:
        return f"Keys({', '.join(self.names)})"

    def scopes(self, presented: str | None) -> tuple[str, frozenset[Scope]] | None:
        """Return the name of a presented key and what it may do; None if it is not known.

        It is compared with every key, each time as a whole, so that the duration reveals nothing.
        """
        if presented is None:
            return None
        digest = _digest(presented)
        match = None
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                match = key.name, key.scopes
        return match


def read_keys(path: str | Path) -> Keys:
    """Read a YAML list of keys: name, key (16 characters or more) and scopes (read, write, operate) of each.

    Raises:
        ConfigError: the file cannot be read or is not such a list; the message holds no key.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        entries = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", remedy="check the path", path=path) from error
    except (yaml.YAMLError, ValueError) as error:  # what they say quotes the file
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        position = "" if line is None else f" (line {line + 1})"
        problem = "names a key twice" if getattr(error, "problem", "") == TWICE else "is not valid YAML"
        raise ConfigError(f"{problem}{position}", remedy=FORM, path=path) from None
    if mode & 0o022:
        raise ConfigError(
            "others on this machine may write it, and so give themselves any key", remedy="run `chmod 600` on it",
            path=path,
        )  # fmt: skip
    if not isinstance(entries, list) or not entries:
        raise ConfigError("holds no list of keys", remedy=FORM, path=path)
    keys = [_key(entry, place, path) for place, entry in enumerate(entries, 1)]
    for plural, distinct in (("names", {key.name for key in keys}), ("keys", {key.digest for key in keys})):
        if len(distinct) < len(keys):
            raise ConfigError(f"two of its {plural} are the same", remedy="make them distinct", path=path)
    warning = f"{path}: others on this machine may read the keys; run `chmod 600` on the file"
    return Keys(keys, [warning] if mode & 0o044 else [])


def _key(entry: Any, place: int, path: Path) -> _Key:
    def refuse(problem: str, remedy: str = FORM) -> ConfigError:
        return ConfigError(f"entry {place} {problem}", remedy=remedy, path=path)

    if not isinstance(entry, dict) or set(entry) != {"name", "key", "scopes"}:
        raise refuse("does not have exactly name, key and scopes")
    name, key, scopes = entry["name"], entry["key"], entry["scopes"]
    if not isinstance(name, str) or not name.strip():
        raise refuse("has no name")
    if not isinstance(key, str):
        raise refuse("has a key that is not text", "put the key in quotes")
    if len(key) < MIN_LENGTH or not (key.isascii() and key.isprintable()) or " " in key:  # a header has no others
        raise refuse(
            f"has a key of fewer than {MIN_LENGTH} characters, or with others than ASCII's visible ones",
            "make one with `python -c 'import secrets; print(secrets.token_urlsafe(32))'`",
        )
    if not isinstance(scopes, list) or not scopes or any(scope not in SCOPES for scope in scopes):
        raise refuse("has other scopes", f"name one or several of {', '.join(SCOPES)}")
    return _Key(name, _digest(key), frozenset(scopes))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
