"""Bad input gets one clear message with the file and the remedy, status 2, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peterrec.cli.main import execute

from .conftest import SMALL, Job

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command line that must be refused; returns what it says."""

    def check(*arguments: str, status: int = 2) -> str:
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert execute([*arguments]) == status
        out = capsys.readouterr()
        assert out.out == ""
        assert "Traceback" not in out.err
        assert [line.startswith("error: ") for line in out.err.splitlines()].count(True) == 1
        assert "What to do:" in out.err
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
        return out.err

    return check


def events_file(folder: Path, name: str = "events.parquet", **columns: object) -> str:
    table = {
        "user_id": [f"u{i % 60}" for i in range(600)],
        "item_id": [f"i{i * 7 % 11}" for i in range(600)],
        "timestamp": list(range(600)),
    } | columns
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table(table), path)
    else:
        rows = zip(*table.values(), strict=True)
        path.write_text("\n".join([",".join(table), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return str(path)


BAD_EVENTS: list[tuple[str, dict[str, object], str]] = [
    ("events.parquet", {"item_id": [1.5] * 600}, "ids are text or integers"),
    ("events.parquet", {"timestamp": [True] * 600}, "must be a number, a date, a time or text"),
    ("events.parquet", {"timestamp": [1.0, float("nan"), float("inf")] + [2.0] * 597}, "2 without a readable, finite"),
    ("events.csv", {"timestamp": ["soon"] * 600}, "neither numbers nor dates"),
    ("events.csv", {"item_id": ["a"] * 599 + [""]}, "1 row cannot be used: 1 without an item id"),
]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("name", "columns", "message"), BAD_EVENTS)
def test_columns_of_the_wrong_type(
    tmp_path: Path, refused: Refused, name: str, columns: dict[str, object], message: str
) -> None:
    path = events_file(tmp_path, name, **columns)
    stderr = refused("prepare", path, "-o", str(tmp_path / "corpus"))
    assert message in stderr
    assert path in stderr


def test_a_missing_column(tmp_path: Path, refused: Refused) -> None:
    path = events_file(tmp_path)
    message = refused("prepare", path, "--item", "sku", "-o", str(tmp_path / "corpus"))
    assert f"{path}: does not have the column 'sku'; it has 'user_id', 'item_id', 'timestamp'" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"user_id,item_id,timestamp\n", "no events"), (b"\xff\xfe\x00", "is not UTF-8")],
)
def test_files_without_events(tmp_path: Path, refused: Refused, content: bytes, message: str) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(content)
    stderr = refused("prepare", str(path), "-o", str(tmp_path / "corpus"))
    assert f"{path}: " in stderr
    assert message in stderr


def test_a_truncated_parquet_file(tmp_path: Path, refused: Refused) -> None:
    path = Path(events_file(tmp_path))
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{path}: cannot be read as Parquet" in refused("prepare", str(path), "-o", str(tmp_path / "corpus"))


@pytest.mark.slow
def test_item_ids_that_are_numbers_in_one_file_and_text_in_another(tmp_path: Path, refused: Refused) -> None:
    first = events_file(tmp_path, "a.parquet", item_id=[i % 11 for i in range(600)])
    second = events_file(tmp_path, "b.csv", item_id=[f"0{i % 11}" for i in range(600)])
    message = refused("prepare", first, second, "-o", str(tmp_path / "corpus"))
    assert f"{second}: item ids are text here but integers in {first}" in message
    assert execute(["prepare", first, second, "--ids", "text", "-o", str(tmp_path / "corpus"), "-q"]) == 0


def labels(folder: Path, users: list[str], values: list[str]) -> str:
    path = folder / "labels.csv"
    path.write_text("user_id,plan\n" + "".join(f"{u},{v}\n" for u, v in zip(users, values, strict=True)))
    return str(path)


USERS = [f"u{i}" for i in range(60)]


@pytest.mark.slow
def test_labels_that_cannot_be_learned(tmp_path: Path, refused: Refused) -> None:
    events = events_file(tmp_path)

    def prepare(users: list[str], values: list[str]) -> str:
        path = labels(tmp_path, users, values)
        return refused("prepare", events, "--classify", f"{path}:plan", "-o", str(tmp_path / "corpus"))

    assert "users more than once, such as 'u3'" in prepare([*USERS, "u3"], ["a", "b"] * 30 + ["a"])
    assert "all users of task 'plan' have the label 'a'" in prepare(USERS, ["a"] * 60)
    assert "no labelled user has source events" in prepare([f"x{i}" for i in range(60)], ["a", "b"] * 30)
    only_in_test = next(
        values
        for chosen in range(60)
        if (values := ["rare" if i == chosen else "ab"[i % 2] for i in range(60)]) and part_of(f"u{chosen}") == 2
    )
    assert "the label 'rare' of task 'plan' occurs only among valid or test users" in prepare(USERS, only_in_test)


def part_of(user: str) -> int:
    from peterrec.config import SplitConfig
    from peterrec.data.hashing import id_hash
    from peterrec.data.splits import assign_parts

    return int(assign_parts(id_hash([user]), SplitConfig())[0])


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"user": "a", "items": []}', "line 1: user 'a' has no items"),
        ('{"user": "a", "items": ["never", "heard"]}', "2 of 2 items are not in the catalogue"),
        ('{"user": "a", "items": "s0001"}', "line 1: `items` is not a list"),
        ("", "there are no histories"),
    ],
)
def test_histories_without_known_events(job: Job, tmp_path: Path, refused: Refused, line: str, message: str) -> None:
    path = tmp_path / "histories.jsonl"
    path.write_text(line)
    stderr = refused("predict", job.backbone, job.bundle("cluster"), str(path), "-o", str(tmp_path / "out.csv"))
    assert message in stderr


def test_artifacts_that_are_damaged_or_do_not_belong(job: Job, tmp_path: Path, refused: Refused) -> None:
    bundle, backbone = Path(shutil.copytree(job.bundle("cluster"), tmp_path / "b")), tmp_path / "backbone"
    shutil.copytree(job.backbone, backbone)
    arguments = ["evaluate", str(backbone), job.corpus, str(bundle), "-o", str(tmp_path / "out.json"), "-q"]

    def cut(path: Path) -> bytes:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        return content

    content = cut(backbone / "model.safetensors")
    assert f"{backbone / 'model.safetensors'}: is damaged" in refused(*arguments)
    (backbone / "model.safetensors").write_bytes(content)
    content = cut(bundle / "adapter_model.safetensors")
    assert f"{bundle / 'adapter_model.safetensors'}: is damaged" in refused(*arguments)
    (bundle / "adapter_model.safetensors").write_bytes(content)
    meta = json.loads((bundle / "adapter_config.json").read_text())
    (bundle / "adapter_config.json").write_text(json.dumps(meta | {"format_version": 99}))
    assert "has format version 99; this release reads version 2" in refused(*arguments)
    (bundle / "adapter_config.json").write_text(json.dumps(meta | {"backbone_fingerprint": "of-another"}))
    message = refused(*arguments)
    assert f"was made for another backbone than this one (of-another, {meta['backbone_fingerprint'][:12]})" in message


def test_a_backbone_of_another_catalogue(job: Job, tmp_path: Path, refused: Refused) -> None:
    events, corpus = events_file(tmp_path), str(tmp_path / "corpus")
    assert execute(["prepare", events, "-o", corpus, "-q"]) == 0
    message = refused("adapt", job.backbone, corpus, "cluster", "-o", str(tmp_path / "bundle"))
    assert "its catalogue is" in message
    assert "prepare --catalogue" in message


def test_what_exists_is_not_replaced_unless_told(job: Job, refused: Refused) -> None:
    before = sorted(path.stat().st_mtime_ns for path in job.root.rglob("*"))
    assert "already exists" in refused("prepare", job.events, "-o", job.corpus)
    assert "already exists" in refused("pretrain", job.corpus, "-o", job.backbone)
    assert "already exists" in refused("adapt", job.backbone, job.corpus, "shop", "-o", job.bundle("shop"))
    assert sorted(path.stat().st_mtime_ns for path in job.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=3", "epoch: there is no such setting (did you mean 'epochs'?)"),
        ("epochs=0", "epochs: Input should be greater than 0"),
        ("backbone.channels=many", "backbone.channels: Input should be a valid integer"),
        ("epochs", "is not KEY=VALUE"),
    ],
)
def test_settings_that_do_not_exist(job: Job, tmp_path: Path, refused: Refused, setting: str, message: str) -> None:
    assert message in refused("pretrain", job.corpus, "-o", str(tmp_path / "b"), "--set", setting)


def test_an_unknown_verb_and_a_forgotten_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["pretend"]) == 2
    assert execute(["pretrain"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_debug_shows_where(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "peterrec", "--debug", "inspect", str(tmp_path)]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" in completed.stderr
    assert "ArtifactError" in completed.stderr


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from peterrec.cli.main import execute
sys.exit(execute(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["prepare", "pretrain", "adapt", "embed"])
def test_a_full_disk(job: Job, tmp_path: Path, verb: str) -> None:
    (tmp_path / "h.jsonl").write_text("".join(f'{{"user": {n}, "items": ["s0001"]}}\n' for n in range(500)))
    out = str(tmp_path / "out")
    arguments = {
        "prepare": ["prepare", job.events, "--domain", "domain", "-o", out],
        "pretrain": ["pretrain", job.corpus, "-o", out, *SMALL],
        "adapt": ["adapt", job.backbone, job.corpus, "shop", "-o", out, "-q", "-s", "epochs=1"],
        "embed": ["embed", job.backbone, str(tmp_path / "h.jsonl"), "-o", f"{out}.csv"],
    }[verb]
    completed = subprocess.run(
        [sys.executable, "-c", LIMITED, "3000", *arguments], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 1, completed.stderr
    assert "the disk is full" in completed.stderr
    assert "Traceback" not in completed.stderr
    remaining = {path.name for path in tmp_path.iterdir()} - {"h.jsonl"}
    assert remaining <= {"out.training"}  # a training that stopped can be resumed; the artifact is not there


def test_overwrite_replaces_only_what_it_would_write(job: Job, tmp_path: Path, refused: Refused) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    (mine / "config.json").write_text('{"model_type": "of another library"}')
    table = tmp_path / "table.csv"
    table.write_text("a\n1\n")
    corpus, backbone = shutil.copytree(job.corpus, tmp_path / "c"), shutil.copytree(job.backbone, tmp_path / "b")
    for out in (mine, table, corpus):
        message = refused("pretrain", str(corpus), "-o", str(out), "--overwrite", "-q")
        assert f"{out}: is there and is not a backbone" in message
    for out in (mine, table, corpus, backbone):
        message = refused("adapt", str(backbone), str(corpus), "shop", "-o", str(out), "--overwrite", "-q")
        assert f"{out}: is there and is not a bundle" in message
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert execute(["pretrain", str(corpus), "-o", str(backbone), "--overwrite", *SMALL]) == 0


def test_evaluate_writes_json_and_nothing_else(job: Job, tmp_path: Path, refused: Refused) -> None:
    message = refused("evaluate", job.backbone, job.corpus, job.bundle("cluster"), "-o", str(tmp_path / "table.csv"))
    assert "name a file that ends in .json" in message


def test_labels_that_are_not_utf8(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(b"user_id,city\n" + b"".join(f"u{i},M\xfcnchen\n".encode("latin-1") for i in range(60)))
    message = refused("prepare", events_file(tmp_path), "--classify", f"{path}:city", "-o", str(tmp_path / "corpus"))
    assert "UTF-8" in message
