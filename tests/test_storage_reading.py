"""Reading what was written: errors name the file, and say whether it is damaged, another kind or another version."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from peterrec.errors import ArtifactError, ConfigError, FormatVersionError
from peterrec.storage import check_format, description_errors, read_json, sha256_file, write_json


def test_json_comes_back(tmp_path):
    value = {"text": "naïve 物", "list": [1, 2.5, None, True], "nested": {"": {}}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        (b"", "cannot be read"),
        (b'{"kind": "corpus", "users": 1', "cannot be read"),
        (b'{"kind": "\xff"}', "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[1]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
    ],
)
def test_damaged_json_is_named(tmp_path, content, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.remedy


def test_a_folder_is_no_json(tmp_path):
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_json(tmp_path)


def test_the_kind_and_the_version_must_be_right(tmp_path):
    check_format({"kind": "corpus", "format_version": 2}, "corpus", tmp_path)
    with pytest.raises(FormatVersionError, match="format version 1; this release reads version 2") as old:
        check_format({"kind": "corpus", "format_version": 1}, "corpus", tmp_path)
    assert "make the artifact again" in str(old.value), "settings had other names then"
    with pytest.raises(FormatVersionError, match="format version None"):
        check_format({"kind": "corpus"}, "corpus", tmp_path)
    with pytest.raises(ArtifactError, match="is backbone, not a corpus") as caught:
        check_format({"kind": "backbone", "format_version": 1}, "corpus", tmp_path)
    assert not isinstance(caught.value, FormatVersionError), "what it is matters more than its version"
    with pytest.raises(ArtifactError, match="is not an artifact of peterrec, not a corpus"):
        check_format(json.loads('{"architectures": []}'), "corpus", tmp_path)


@pytest.mark.parametrize("error", [KeyError("items"), TypeError("not a number"), ValueError("x"), ConfigError("x")])
def test_a_description_that_was_changed_is_a_damaged_artifact(error):
    with pytest.raises(ArtifactError) as caught, description_errors(Path("config.json")):
        raise error
    assert caught.value.path == Path("config.json")
    assert "lacks the key 'items'" in str(caught.value) or "cannot be used" in str(caught.value)


def test_the_checksum_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(bytes(3_000_000))
    assert sha256_file(tmp_path / "file") == hashlib.sha256(bytes(3_000_000)).hexdigest()
