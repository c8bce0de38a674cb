"""`peterrec convert`, and that `prepare` reads what it writes, as the documents say."""

from __future__ import annotations

import random
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import peterrec
from peterrec.cli.main import execute

ROOT = Path(__file__).resolve().parents[2]
USERS = 80


def sequences(seed: int) -> list[list[int]]:
    """Return a sequence of 3 to 8 of 12 items for each user; no two are the same."""
    draw = random.Random(seed)
    return [[1 + n % 12, 1 + n // 12, *draw.choices(range(1, 13), k=draw.randint(1, 6))] for n in range(USERS)]


def authors(folder: Path) -> None:
    lines = [",".join(map(str, [0] * (8 - len(items)) + items)) for items in sequences(1)]
    (folder / "coldrec2_pre.csv").write_text("".join(f"{line}\n" for line in lines))
    (folder / "coldrec2_fine.csv").write_text("".join(f"{li},,{1 + n % 3},{5 + n % 2}\n" for n, li in enumerate(lines)))
    (folder / "gender.csv").write_text("".join(f"{line},,{n % 2}\n" for n, line in enumerate(lines)))


def tenrec(folder: Path) -> None:
    head, values = "user_id,item_id,click,follow,like,share,video_category,watching_times,gender,age", "0,0,0,1,1"
    profile = [f"{values},{n % 3},{n % 4}" for n in range(USERS)]
    rows = [f"{n},{item},1,{profile[n]}\n" for n, items in enumerate(sequences(2)) for item in items]
    (folder / "sbr_data_1M.csv").write_text(f"{head}\n{''.join(rows)}")
    rows = [f"{n},{900 + n % 4},{i},{profile[n]}\n" for n in range(USERS) for i in (0, 1)]
    (folder / "QB-video.csv").write_text(f"{head}\n{''.join(rows)}")


def amazon(folder: Path) -> None:
    for name, seed, first in (("ratings_Home_and_Kitchen.csv", 4, 0), ("ratings_Grocery_and_Gourmet_Food.csv", 5, 500)):
        rows = [
            f"A{n:013d},B{first + item:09d},{3 + i % 3}.0,{1300000000 + 86400 * i}\n"
            for n, items in enumerate(sequences(seed))
            for i, item in enumerate(items)
        ]
        (folder / name).write_text("".join(rows))
    (folder / "meta_Home_and_Kitchen.json").write_text(
        "".join(f"{{'asin': 'B{item:09d}', 'title': 'Pan {item}'}}\n" for item in range(1, 13))
    )


def recbole(folder: Path) -> None:
    place = folder / "ml-100k"
    place.mkdir()
    rows = [
        f"{n}\t{item}\t{3 + i}\t{100 * i}\n" for n, items in enumerate(sequences(3)) for i, item in enumerate(items)
    ]
    (place / "ml-100k.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "".join(rows)
    )
    people = [f"{n}\t{n % 50}\t{'MF'[n % 2]}\n" for n in range(USERS)]
    (place / "ml-100k.user").write_text("user_id:token\tage:token\tgender:token\n" + "".join(people))


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for make in (amazon, authors, tenrec, recbole):
        make(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def histories(corpus: str) -> dict[str, list[int]]:
    """Return the items of each user, as the corpus has them."""
    catalogue = pq.read_table(f"{corpus}/catalogue.parquet").to_pylist()
    ids = {row["index"]: row["item_id"] for row in catalogue}
    rows = pq.read_table(f"{corpus}/sequences").to_pylist()
    return {row["user_id"]: [ids[index] for index in row["sequence"]] for row in rows}


def targets(corpus: str, task: str) -> list[int]:
    item_ids: list[int] = sorted(pq.read_table(f"{corpus}/tasks/{task}/targets.parquet")["item_id"].to_pylist())
    return item_ids


@pytest.mark.slow
def test_authors_files_through_prepare(working_folder: Path) -> None:
    files = ["coldrec2_pre.csv", "coldrec2_fine.csv"]
    assert execute(["convert", "peterrec", *files, "--targets", "items", "-o", "rec", "-q"]) == 0
    rank = ["--domain", "domain", "--rank", "target"]
    assert execute(["prepare", "rec/events.parquet", *rank, "-o", "ranks", "-s", "source.min_user_events=1", "-q"]) == 0
    expected = {f"u{n}": items for n, items in enumerate(sequences(1), start=1)}
    assert histories("ranks") == expected
    assert targets("ranks", "target") == [1, 2, 3, 5, 6]  # which are items of the source too: others, of that number
    assert execute(["convert", "peterrec", files[0], "gender.csv", "--targets", "labels", "-o", "sex", "-q"]) == 0
    classify = ["--classify", "sex/users.parquet:label"]
    assert execute(["prepare", "sex/events.parquet", *classify, "-o", "classes", "-q"]) == 0
    assert histories("classes") == expected
    assert peterrec.Corpus.open("classes").task("label").class_names == ("0", "1")
    # So a backbone of one corpus can be adapted to the task of the other.
    catalogues = [(Path(name) / "catalogue.parquet").read_bytes() for name in ("ranks", "classes")]
    assert catalogues[0] == catalogues[1]


@pytest.mark.slow
def test_tenrec_through_prepare(working_folder: Path) -> None:
    assert execute(["convert", "tenrec", "sbr_data_1M.csv", "QB-video.csv", "-o", "feeds", "-q"]) == 0
    tasks = ["--domain", "domain", "--rank", "QB-video", "--classify", "feeds/users.parquet:gender"]
    assert execute(["prepare", "feeds/events.parquet", *tasks, "-o", "corpus", "-q"]) == 0
    assert histories("corpus") == {str(n): items for n, items in enumerate(sequences(2))}
    assert peterrec.Corpus.open("corpus").task("gender").class_names == ("1", "2")  # 0 is no class
    assert targets("corpus", "QB-video") == [900, 901, 902, 903]


@pytest.mark.slow
def test_amazon_through_prepare(working_folder: Path) -> None:
    files = ["kitchen=ratings_Home_and_Kitchen.csv", "food=ratings_Grocery_and_Gourmet_Food.csv"]
    assert execute(["convert", "amazon", *files, "--users", "shared", "--min-rating", "4", "-o", "pair", "-q"]) == 0
    rank = ["--domain", "domain", "--rank", "food"]
    assert (
        execute(["prepare", "pair/events.parquet", *rank, "-o", "corpus", "-s", "source.min_item_events=1", "-q"]) == 0
    )
    bought = {f"A{n:013d}": [item for i, item in enumerate(items) if i % 3] for n, items in enumerate(sequences(4))}
    assert histories("corpus") == {user: [f"B{item:09d}" for item in items] for user, items in bought.items()}
    assert set(targets("corpus", "food")) <= {f"B{500 + item:09d}" for item in range(1, 13)}  # type: ignore[comparison-overlap]


@pytest.mark.slow
def test_recbole_through_prepare(working_folder: Path) -> None:
    assert execute(["convert", "recbole", "ml-100k", "-o", "films", "-q"]) == 0
    classify = ["--classify", "films/users.parquet:gender"]
    assert execute(["prepare", "films/events.parquet", *classify, "-o", "corpus", "-q"]) == 0
    assert histories("corpus") == {str(n): items for n, items in enumerate(sequences(3))}
    assert peterrec.Corpus.open("corpus").task("gender").class_names == ("F", "M")


@pytest.mark.slow
def test_the_examples_of_the_documents_work_as_written(working_folder: Path) -> None:
    section = (ROOT / "docs" / "data.md").read_text().partition("## Other formats")[2].partition("\n## ")[0]
    text = section.replace("\\\n", " ")
    commands = re.findall(r"^peterrec (.+)$", text, flags=re.MULTILINE)
    assert [command.split()[1] for command in commands if command.startswith("convert")] == [
        "amazon", "peterrec", "peterrec", "tenrec", "recbole",
    ]  # fmt: skip
    for command in commands:
        assert execute([*shlex.split(command), "--quiet"]) == 0, command


def test_convert_says_what_it_found(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["convert", "tenrec", "QB-video.csv", "--out", "out"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"rows: {2 * USERS}; left out because they were not clicked: {USERS}" in captured.err
    assert f"out holds {USERS} events of {USERS} users with 4 items" in captured.err
    assert execute(["convert", "tenrec", "QB-video.csv", "-o", "out", "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["yelp", "gender.csv"], "no format is called 'yelp'"),
        (["amazon", "gender.csv"], "'gender.csv' does not say which domain it is"),
        (["amazon", "kitchen=gender.csv"], "gender.csv: has"),
        (["amazon", "kitchen=gender.csv", "--users", "some"], "users: Input should be 'all' or 'shared'"),
        (["amazon", "kitchen=gender.csv", "--set", "rating=4"], "rating: there is no such setting"),
        (["tenrec", "gender.csv", "--min-rating", "4"], "the format tenrec has no settings"),
        (["peterrec", "gender.csv"], "write --targets items"),
        (["peterrec", "gender.csv", "--targets", "both"], "targets cannot be 'both'"),
        (["peterrec", "nowhere.csv"], "nowhere.csv: there is no such file"),
        (["tenrec", "gender.csv"], "gender.csv: does not have the column user_id and item_id"),
        (["recbole", "gender.csv"], "gender.csv: does not end in .inter"),
    ],
)
def test_mistakes_get_one_message(
    working_folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before = sorted(working_folder.rglob("*"))
    assert execute(["convert", *arguments, "--out", "out"]) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ")
    assert message in stderr
    assert "What to do: " in stderr
    assert sorted(working_folder.rglob("*")) == before


def test_what_may_not_be_read(
    working_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert execute(["convert", "peterrec", "coldrec2_pre.csv", "--out", "out"]) == 2
    assert "coldrec2_pre.csv: cannot be read (Permission denied)" in capsys.readouterr().err
