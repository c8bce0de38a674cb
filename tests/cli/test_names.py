"""Names of tasks out of columns and domains in any script, and paths that have an = in them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peterrec.cli.main import execute
from peterrec.config.base import check_name
from peterrec.config.shortcuts import task_name
from peterrec.data.corpus import Corpus

COLUMNS = ("性别", "लिंग", "возраст", "naïve", "a b")
TASKS = ["性别", "लिंग", "возраст", "naïve", "a-b"]
USERS = [f"u{n}" for n in range(200)]


def tables(folder: Path, place: str = "users.csv") -> tuple[str, str]:
    """Write events, and a table of users with a column of each script."""
    folder.mkdir(exist_ok=True)
    events, users = folder / "events.csv", folder / place
    users.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{user},i{number % 5},{number}" for user in USERS for number in range(3)]
    events.write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n", encoding="utf-8")
    labels = [",".join([user, *("ab"[number % 2] * len(COLUMNS))]) for number, user in enumerate(USERS)]
    users.write_text("\n".join([",".join(("user_id", *COLUMNS)), *labels]) + "\n", encoding="utf-8")
    return str(events), str(users)


def prepared(out: Path, events: str, *classify: str) -> list[str]:
    options = [part for text in classify for part in ("--classify", text)]
    assert execute(["prepare", events, *options, "-o", str(out), "-q", "--overwrite"]) == 0
    return Corpus.open(out).task_names


@pytest.mark.slow
def test_columns_of_any_script_name_tasks_and_folders(tmp_path: Path) -> None:
    events, users = tables(tmp_path / "in")
    names = prepared(tmp_path / "out", events, *(f"{users}:{column}" for column in COLUMNS))
    assert names == TASKS
    assert {path.name for path in (tmp_path / "out" / "tasks").iterdir()} == set(TASKS)
    assert len(Corpus.open(tmp_path / "out").task("性别").part("train")) > 0


def test_two_columns_of_one_name_are_told_by_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events, users = tables(tmp_path / "in")
    options = ["--classify", f"{users}:性别", "--classify", f"性别={users}:लिंग"]
    assert execute(["prepare", events, *options, "-o", str(tmp_path / "out")]) == 2
    assert "two tasks have the name '性别': name one otherwise" in capsys.readouterr().err


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("name", ["", "plan="])
def test_a_path_may_have_an_equals_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool, name: str
) -> None:
    events, users = tables(tmp_path, "dt=2024-01-01/country=jp/users.csv")
    monkeypatch.chdir(tmp_path)
    place = str(Path(users).relative_to(tmp_path)) if relative else users
    assert prepared(tmp_path / "out", events, f"{name}{place}:性别") == [name[:-1] or "性别"]


def test_what_is_no_file_and_no_name_is_told_as_the_path_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events, _ = tables(tmp_path)
    assert execute(["prepare", events, "--classify", "/data/dt=1/none.csv:a", "-o", str(tmp_path / "out")]) == 2
    assert "/data/dt=1/none.csv: there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["../a", ".a", "", "a/b", "a b", "a\nb", "a\x00", "-a", "\ud800", "a\u202eb", "性" * 67]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="a name is made of letters and digits of any script"):
        check_name(name)


def test_a_name_is_one_however_it_was_typed() -> None:
    assert check_name(unicodedata.normalize("NFD", "naïve-é")) == unicodedata.normalize("NFC", "naïve-é")
    assert check_name("性" * 66) == "性" * 66


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_makes_a_name(text: str) -> None:
    name = task_name(text)
    assert check_name(name) == name
