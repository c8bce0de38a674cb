"""Reading what was written: errors name the file, and say whether it is damaged, another kind or another version."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from peterrec.errors import ArtifactError, ConfigError, FormatVersionError
from peterrec.storage import (
    DESCRIPTIONS,
    FORMAT_VERSION,
    MAKERS,
    check_format,
    description_errors,
    read_artifact,
    read_json,
    sha256_file,
    write_json,
)


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
    with pytest.raises(ArtifactError, match="is a backbone; a corpus is wanted") as caught:
        check_format({"kind": "backbone", "format_version": 1}, "corpus", tmp_path)
    assert not isinstance(caught.value, FormatVersionError), "what it is matters more than its version"
    with pytest.raises(ArtifactError, match="is no artifact of peterrec; a corpus is wanted"):
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


@pytest.mark.parametrize("actual", ["backbone", "bundle", "benchmark", "corpus"])
@pytest.mark.parametrize("wanted", ["corpus", "backbone", "bundle", "benchmark"])
def test_a_folder_of_another_kind_is_called_what_it_is(tmp_path: Path, actual: str, wanted: str) -> None:
    meta = {"kind": actual, "format_version": FORMAT_VERSION}
    (tmp_path / DESCRIPTIONS[actual]).write_text(json.dumps(meta))
    if actual == wanted:
        assert read_artifact(tmp_path, wanted) == meta
        return
    with pytest.raises(ArtifactError, match=f"is a {actual}; a {wanted} is wanted") as caught:
        read_artifact(tmp_path, wanted)
    assert MAKERS[wanted] in caught.value.remedy
    assert caught.value.path == tmp_path


def test_what_is_no_artifact_is_said_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "run" / "corpus").mkdir(parents=True)
    meta = json.dumps({"kind": "corpus", "format_version": FORMAT_VERSION})
    (tmp_path / "run" / "corpus" / "manifest.json").write_text(meta)
    (tmp_path / "empty").mkdir()
    (tmp_path / "late.training").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text('{"model_type": "of another library"}')
    for name, problem, remedy in (
        ("nothing", "is missing; a corpus is wanted", "peterrec prepare"),
        ("empty", "manifest.json: is missing, so this is no corpus", "peterrec prepare"),
        ("foreign", "manifest.json: is missing, so this is no corpus", "peterrec prepare"),
        ("file", "is a file; a corpus, which is a folder, is wanted", "peterrec prepare"),
        ("late", "is not finished: only its resume point is there", "--resume"),
        ("run", "is no corpus, but has one in it", str(tmp_path / "run" / "corpus")),
    ):
        with pytest.raises(ArtifactError, match=problem) as caught:
            read_artifact(tmp_path / name, "corpus")
        assert remedy in caught.value.remedy


def test_a_damaged_description_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"manifest.json: cannot be read"):
        read_artifact(tmp_path, "corpus")
