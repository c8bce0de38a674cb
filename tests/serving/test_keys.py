from __future__ import annotations

import hmac
from pathlib import Path
from typing import Any

import pytest
import yaml

from peterrec.errors import ConfigError
from peterrec.serving.keys import Keys, read_keys

WEB, OPS = "web-0123456789abcdef", "ops-0123456789abcdef"
TWO: list[Any] = [
    {"name": "web", "key": WEB, "scopes": ["read", "write"]},
    {"name": "ops", "key": OPS, "scopes": ["operate", "operate"]},
]


def write(path: Path, entries: Any, mode: int = 0o600) -> Path:
    path.write_text(entries if isinstance(entries, str) else yaml.safe_dump(entries))
    path.chmod(mode)
    return path


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return read_keys(write(tmp_path / "keys.yaml", TWO))


def test_each_key_has_its_name_and_scopes(keys: Keys) -> None:
    assert keys.scopes(WEB) == ("web", frozenset({"read", "write"}))
    assert keys.scopes(OPS) == ("ops", frozenset({"operate"}))
    assert keys.names == ("web", "ops")
    assert keys.warnings == []


@pytest.mark.parametrize(
    "presented", [None, "", WEB[:-1], f"{WEB} ", WEB.upper(), "web", "é" * 20, "\ud800", "x" * 100_000, f"{WEB}\0"]
)
def test_anything_else_is_not_known(keys: Keys, presented: str | None) -> None:
    assert keys.scopes(presented) is None


def test_every_key_is_compared_as_a_whole(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    original = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or original(a, b))
    for presented in (WEB, OPS, "x"):
        keys.scopes(presented)
    assert compared == [(32, 32)] * 6


def test_a_key_is_nowhere_in_memory_that_is_shown(keys: Keys) -> None:
    shown = repr(keys) + repr(vars(keys)) + str(keys)
    assert "0123456789abcdef" not in shown
    assert all(repr(key.digest) not in shown for key in keys._keys)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1)])
def test_a_file_that_others_may_read_is_warned_of(tmp_path: Path, mode: int, warned: int) -> None:
    assert len(read_keys(write(tmp_path / "keys.yaml", TWO, mode)).warnings) == warned


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="others on this machine may write it") as error:
        read_keys(write(tmp_path / "keys.yaml", TWO, mode))
    assert "0123456789abcdef" not in str(error.value)


def test_a_key_that_stands_twice_in_an_entry_is_refused(tmp_path: Path) -> None:
    text = f"- name: web\n  key: {WEB}\n  scopes: [read]\n  scopes: [operate]\n"
    with pytest.raises(ConfigError, match=r"names a key twice \(line 4\)"):
        read_keys(write(tmp_path / "keys.yaml", text))


def changed(**values: Any) -> list[Any]:
    return [TWO[1], TWO[0] | values]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "no list of keys"),
        ("", "no list of keys"),
        ({"web": WEB}, "no list of keys"),
        ([WEB], "entry 1 does not have exactly"),
        (changed(more=1), "entry 2 does not have exactly"),
        ([{"name": "web", "key": WEB}], "entry 1 does not have exactly"),
        (changed(name=7), "entry 2 has no name"),
        (changed(name=" "), "entry 2 has no name"),
        (changed(key=1234567890123456), "not text"),
        (changed(key="hidden-15-chars"), "fewer than 16"),
        (changed(key="hidden with spaces in it"), "visible"),
        (changed(key="hidden-hiddén-hidden"), "visible"),
        (changed(key=OPS), "two of its keys"),
        (changed(name="ops"), "two of its names"),
        (changed(scopes=[]), "other scopes"),
        (changed(scopes="read"), "other scopes"),
        (changed(scopes=["read", "admin"]), "other scopes"),
        (changed(scopes=[["read"]]), "other scopes"),
        (f"- name: web\n  key: {WEB}\n  scopes: [read\n", "not valid YAML"),
        (f"- name: web\n  key: !!python/object:x {WEB}\n", "not valid YAML"),
        ("- key: \x00hidden", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_without_a_key_in_the_message(tmp_path: Path, entries: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        read_keys(write(tmp_path / "keys.yaml", entries))
    assert "What to do" in str(error.value)
    assert not any(secret in str(error.value) for secret in ("0123456789abcdef", "hidden", "1234567890123456"))
    assert error.value.__cause__ is None


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(tmp_path / "keys.yaml")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_keys(tmp_path / "keys.yaml")
