"""Output and files of the verbs when all is well."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import peterrec
from builders import tiny_bundle, tiny_pretrained
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.cli import main
from peterrec.cli.main import VERBS, execute

from .conftest import Job

LINES = '{"user": "new", "items": ["s0001", "s0005", "nobody-knows"]}\n{"user": 7, "items": ["s0002"]}\n'


def answer(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[str, str]:
    capsys.readouterr()
    assert execute(arguments) == 0
    out = capsys.readouterr()
    return out.out, out.err


@pytest.fixture
def histories(tmp_path: Path) -> str:
    path = tmp_path / "histories.jsonl"
    path.write_text(LINES)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "alone"),
    [(["pretrain", "corpus"], None), (["--debug", "adapt"], None), (["serve", "run"], False), (["--help"], False)],
)
def test_trainings_look_whether_the_cores_are_free(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], alone: bool | None
) -> None:
    """And no other verb: whom a service answers may compute on the same machine."""
    values: list[bool | None] = []
    monkeypatch.setattr(main, "tune_process", lambda *, alone: values.append(alone))
    monkeypatch.setattr(main, "execute", lambda _: 0)
    monkeypatch.setattr(sys, "argv", ["peterrec", *arguments])
    with pytest.raises(SystemExit):
        main.run()
    assert values == [alone]
    assert set(main.TRAINING) < set(VERBS)


def test_help_of_every_verb_names_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    overview, _ = answer(capsys, ["--help"])
    for verb in VERBS:
        assert verb in overview
        text, _ = answer(capsys, [verb, "--help"])
        assert "Usage:" in text
        assert len(text.splitlines()) > 8
    assert answer(capsys, ["--version"])[0] == f"peterrec {peterrec.__version__}\n"


@pytest.mark.parametrize(
    ("module", "costly"),
    [
        ("peterrec.cli.main", ("torch", "ibis", "pydantic", "pyarrow")),
        ("peterrec.model", ("sklearn", "scipy", "pandas", "lightning", "ibis")),
    ],
)
def test_what_is_not_needed_is_not_imported(module: str, costly: tuple[str, ...]) -> None:
    code = f"import sys, {module}; sys.exit(' '.join(name for name in {costly} if name in sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr.strip() == ""
    )


def test_the_module_can_be_run() -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "peterrec", "--version"], capture_output=True, text=True, check=True
    )
    assert completed.stdout.startswith("peterrec ")


def test_prepare_says_what_it_kept_and_dropped(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "corpus")
    _, stderr = answer(
        capsys,
        ["prepare", job.events, "--domain", "domain", "--rank", "target", "-o", out, "-s", "source.max_history=3"],
    )
    assert "events outside excluded domains" in stderr
    assert "dropped: domain target is excluded" in stderr
    assert "dropped: more than the last 3 events of a user" in stderr
    assert "task target:" in stderr
    assert f"next: peterrec pretrain {out}" in stderr
    assert peterrec.Corpus.open(out).sequences.lengths.max() == 3


def test_prepare_keeps_new_users_out(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "corpus")
    _, stderr = answer(capsys, ["prepare", job.events, "--new-users", "valid,test", "-o", out])
    corpus = peterrec.Corpus.open(out)
    assert corpus.kept_out_users is not None
    assert corpus.kept_out_users.parts == ("valid", "test")
    assert f"new users: {corpus.new_users.sum()} of them" in stderr
    assert execute(["prepare", job.events, "--new-users", "tests", "-o", out, "--overwrite"]) == 2
    assert "new_users.parts.0" in capsys.readouterr().err


def test_prepare_cuts_the_histories_of_the_tasks(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "corpus")
    arguments = ["prepare", job.events, "--domain", "domain", "--first", "3", "--last", "2", "-o", out, "--overwrite"]
    answer(capsys, [*arguments, "--classify", f"{job.users}:cluster", "--rank", "shop=target", "--until", "9999999999"])
    corpus = peterrec.Corpus.open(out)
    for name in ("cluster", "shop"):
        assert set(corpus.task(name).part("train").sequences.lengths) == {2}
        preprocessing = corpus.provenance(name).preprocessing
        assert preprocessing is not None
        assert preprocessing.cut.model_dump() == {"first_events": 3, "last_events": 2, "until": "9999999999"}
    assert corpus.sequences.lengths.max() > 3
    assert execute(arguments) == 2
    assert "name tasks with --classify, --regress, --multilabel or --rank" in capsys.readouterr().err
    too_many = ["--classify", f"{job.users}:cluster", "--set", "source.max_history=2"]
    assert execute([*arguments, *too_many]) == 2
    assert "first_events of task 'cluster' is 3" in capsys.readouterr().err


def test_adapt_prints_the_trainable_share(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, stderr = answer(
        capsys,
        ["adapt", job.backbone, job.corpus, "cluster", "-o", str(tmp_path / "b"), "-s", "epochs=1", "-s",
         "selection=valid", "-s", "runner.progress=false"],
    )  # fmt: skip
    bundle = peterrec.inspect(tmp_path / "b")
    line = next(text for text in stderr.splitlines() if text.startswith("trainable params:"))
    assert f"trainable params: {bundle['trainable_params']:,} || all params: {bundle['all_params']:,} ||" in line
    assert f"trainable%: {100 * bundle['trainable_fraction']:.4f}" in line


@pytest.mark.slow
def test_evaluate_shows_bundles_beside_baselines(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "evaluation.json"
    bundles = [job.bundle("cluster"), job.bundle("cluster", "head")]
    printed, _ = answer(capsys, ["evaluate", job.backbone, job.corpus, *bundles, "-o", str(out), "-s", "bootstrap=50"])
    evaluation = json.loads(out.read_text())
    assert [method["name"] for method in evaluation["methods"]][:3] == ["patch", "head", "majority"]
    for method in evaluation["methods"]:
        assert method["name"].split()[0] in printed
    assert evaluation["sentence"].split(".")[0].split()[-1] in printed
    ranked, _ = answer(capsys, ["evaluate", job.backbone, job.corpus, job.bundle("shop"), "-s", "bootstrap=50"])
    assert "mrr@5" in ranked
    assert "popularity" in ranked


def test_predict_from_a_file_and_from_standard_input(
    job: Job, histories: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["predict", job.backbone, job.bundle("cluster")]
    printed, stderr = answer(capsys, [*arguments, histories])
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [row["user"] for row in rows] == ["new", "7"]
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["probability"] == max(row["probabilities"].values())
        assert row["probabilities"][row["label"]] == row["probability"]
    assert "1 of items that are unknown" in stderr
    monkeypatch.setattr(sys, "stdin", io.StringIO(LINES))
    assert answer(capsys, [*arguments, "-", "--quiet"]) == (printed, "")


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("verb", ["predict", "recommend", "embed"])
def test_a_file_without_a_header_is_asked_about_as_it_is_prepared(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    rows = ["a,s0001,1", "a,s0002,2", "b,s0003,1", "b,,2"]
    bare, named = tmp_path / "bare.csv", tmp_path / "named.csv"
    bare.write_text("\n".join(rows) + "\n")
    named.write_text("\n".join(["who,what,when", *rows]) + "\n")
    words = [verb, job.backbone, *([job.bundle("cluster")] if verb == "predict" else [])]
    names = ["--user", "who", "--item", "what", "--time", "when", "--ids", "text", "--invalid-rows", "drop", "-q"]
    wanted, _ = answer(capsys, [*words, str(named), *names])
    assert wanted
    assert answer(capsys, [*words, str(bare), *names, "--columns", "who,what,when"])[0] == wanted


@pytest.mark.parametrize(("option", "value"), [("--ids", "numbers"), ("--separator", '"'), ("--invalid-rows", "skip")])
def test_an_option_with_a_value_that_it_does_not_have(
    job: Job, histories: str, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert execute(["predict", job.backbone, job.bundle("cluster"), histories, option, value]) == 2
    assert f"{option[2:].replace('-', '_')}: " in capsys.readouterr().err


def test_recommend_targets_and_next_items(job: Job, histories: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed, _ = answer(capsys, ["recommend", job.backbone, histories, "-b", job.bundle("shop"), "-k", "3"])
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [(row["user"], row["rank"]) for row in rows] == [(u, r) for u in ("new", "7") for r in (1, 2, 3)]
    assert all(row["item"].startswith("t") for row in rows)
    printed, _ = answer(capsys, ["recommend", job.backbone, histories, "-k", "100"])
    assert len([row for row in map(json.loads, printed.splitlines()) if row["user"] == "new"]) == 40  # people come back
    printed, _ = answer(capsys, ["recommend", job.backbone, histories, "-k", "100", "--unseen"])
    items = [row["item"] for row in map(json.loads, printed.splitlines()) if row["user"] == "new"]
    assert len(items) == len(set(items)) == 38  # all but the two in the history
    assert not {"s0001", "s0005"} & set(items)


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_embed_writes_every_format(job: Job, histories: str, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"vectors.{ending}"
    assert execute(["embed", job.backbone, histories, "-o", str(out), "-q"]) == 0
    if ending == "parquet":
        rows = pq.read_table(out).to_pylist()
        vectors = {row["user"]: row["vector"] for row in rows}
    elif ending == "csv":
        table = list(csv.DictReader(io.StringIO(out.read_text())))
        vectors = {row["user"]: [float(row[f"v{i}"]) for i in range(8)] for row in table}
    else:
        vectors = {row["user"]: row["vector"] for row in map(json.loads, out.read_text().splitlines())}
    expected = peterrec.UserModel.from_pretrained(job.backbone).represent([["s0001", "s0005"], ["s0002"]])
    assert vectors["new"] == pytest.approx(expected[0].tolist(), abs=1e-5)
    assert vectors["7"] == pytest.approx(expected[1].tolist(), abs=1e-5)


def test_answers_from_a_table_of_events(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.csv"
    path.write_text("wer;was;wann\nb;s0002;1\na;s0005;2\na;s0001;1\n")
    columns = ["--user", "wer", "--item", "was", "--time", "wann"]
    printed, _ = answer(capsys, ["embed", job.backbone, str(path), *columns])
    rows = {row["user"]: row["vector"] for row in map(json.loads, printed.splitlines())}
    expected = peterrec.UserModel.from_pretrained(job.backbone).represent([["s0001", "s0005"], ["s0002"]])
    assert rows["a"] == pytest.approx(expected[0].tolist(), abs=1e-5)
    assert rows["b"] == pytest.approx(expected[1].tolist(), abs=1e-5)


def test_inspect_tells_each_kind_and_json_has_all(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    for path, wanted in (
        (job.corpus, "users"),
        (job.backbone, "fingerprint"),
        (job.bundle("shop"), "trainable_fraction"),
    ):
        printed, _ = answer(capsys, ["inspect", path])
        assert wanted in printed
        description = json.loads(answer(capsys, ["inspect", path, "--json"])[0])
        assert description == peterrec.inspect(path)


def test_inspect_says_that_a_start_was_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for best_epoch, text in ((-1, "0 (no epoch was better than the start)"), (3, "4")):
        bundle = tiny_bundle(tiny_pretrained(), metrics={"best_epoch": best_epoch})
        save_bundle(tmp_path / str(best_epoch), bundle)
        printed, _ = answer(capsys, ["inspect", str(tmp_path / str(best_epoch))])
        assert re.search(rf"^metrics.best_epoch +{re.escape(text)} *$", printed, re.MULTILINE), printed


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps({"user": n, "items": ["s0001"]}) + "\n" for n in range(5000)))
    command = [sys.executable, "-m", "peterrec", "embed", job.backbone, str(path), "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        printed = process.stderr.read()
        assert process.wait(60) == 0
    assert printed == b""


def test_loading_leaves_the_random_state_alone(job: Job) -> None:
    import torch

    before = torch.random.get_rng_state()
    model = peterrec.UserModel.from_pretrained(job.backbone)
    model.load_bundle(job.bundle("cluster"))
    model.load_bundle(job.bundle("shop"))
    assert torch.equal(torch.random.get_rng_state(), before)
