"""What a person sees: a bar on a terminal, a line for each epoch elsewhere, and no chatter of the libraries."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from peterrec.cli.main import execute
from peterrec.config import RunnerConfig
from peterrec.data.corpus import Corpus
from peterrec.training.adapt import adapt
from peterrec.training.callbacks import Curve
from peterrec.training.pretrain import pretrain
from peterrec.training.progress import ProgressBar
from training.small import StopAt, Stopped, adapt_config, pretrain_config

SMALL = ["-s", "backbone.channels=8", "-s", "backbone.dilations=[1]", "-s", "epochs=2", "-s", "runner.accelerator=cpu"]
NUMBER = r"\d+\.\d{4}"


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_a_pretraining_that_nobody_watches_says_a_line_for_each_epoch(
    corpus: Corpus, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert execute(["pretrain", str(corpus.path), "-o", str(out), *SMALL]) == 0
    output = capfd.readouterr()
    assert output.out == ""
    first, *epochs, wrote, following, warning = lines(output.err)
    assert first.startswith("pre-training on ")
    assert [re.sub(r"\d+\.\d s", "s", re.sub(NUMBER, "N", line)) for line in epochs] == [
        f"pre-training, epoch {n} of at most 2: train_loss N, valid_loss N, hr@10 N, mrr@10 N, ndcg@10 N, "
        "contrastive_loss N (s)"
        for n in (1, 2)
    ]
    assert wrote.startswith(f"wrote {out} (valid_loss ")
    assert following.startswith("next: ")
    assert warning.startswith("warning: 5 held-out users are too few to choose an epoch by ")


@pytest.mark.usefixtures("last_epoch_kept")
def test_an_adaptation_that_nobody_watches(
    corpus: Corpus, backbone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--strategy", "all", "-s", "epochs=2", "-s", "runner.accelerator=cpu", "-s", "optim.lr=0.02"]
    assert execute(["adapt", str(backbone), str(corpus.path), "shop", "-o", str(tmp_path / "out"), *options]) == 0
    output = capfd.readouterr()
    assert output.out == ""
    starts = [
        "adapting to 'shop' with strategy 'all' on ",
        "trainable params: ",
        "16 valid users are too few to choose",
    ]
    starts += [f"shop (folds), epoch {n} of at most 2: train_loss " for n in (1, 2)]
    starts += ["for held-out train users best epoch 2: mrr "]
    starts += [f"shop (all), epoch {n} of at most 2: train_loss " for n in (1, 2)]
    starts += ["best epoch 2: mrr ", "wrote ", "next: "]
    assert len(lines(output.err)) == len(starts)
    assert all(line.startswith(start) for line, start in zip(lines(output.err), starts, strict=True)), output.err


@pytest.mark.slow
def test_quiet_says_nothing_but_warnings(
    corpus: Corpus, backbone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert execute(["pretrain", str(corpus.path), "-o", str(tmp_path / "a"), "-q", *SMALL]) == 0
    settings = [*SMALL, "-s", "valid_fraction=0.4"]
    assert execute(["pretrain", str(corpus.path), "-o", str(tmp_path / "b"), "-q", *settings]) == 0
    options = ["--strategy", "all", "-s", "readout=pooled", "-s", "optim.lr=0.02", "-s", "epochs=3"]  # learns something
    bundle = ["cluster", "-o", str(tmp_path / "c")]
    assert execute(["adapt", str(backbone), str(corpus.path), *bundle, "-q", *options]) == 0
    pretrain(corpus, tmp_path / "d", pretrain_config())
    output = capfd.readouterr()
    assert output.out == ""
    assert [line.split(" users")[0] for line in lines(output.err)] == ["warning: 5 held-out", "warning: 49 held-out"]


@pytest.mark.slow
def test_no_warning_escapes(corpus: Corpus, backbone: Path, tmp_path: Path) -> None:
    """Neither as a warning nor into the filters of the program that calls."""
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runner = RunnerConfig(accelerator="cpu", progress=False, logger="csv", precision="16-mixed")
        pretrain(corpus, tmp_path / "a", pretrain_config(runner=runner, checkpoint_every=1))
        adapt(backbone, corpus, "shop", tmp_path / "b", adapt_config(checkpoint_every=1))
    assert [str(warning.message) for warning in caught] == []
    assert warnings.filters == filters


# ---------------------------------------------------------------- the bar


class Trainer:
    """As much of a trainer as a bar looks at."""

    sanity_checking = False
    estimated_stepping_batches = 2400
    max_epochs = 20
    current_epoch = 9
    global_step = 1234


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, force_interactive=True, width=80, color_system=None)


def drawn(bar: ProgressBar) -> str:
    paper = Console(file=io.StringIO(), width=80, color_system=None)
    with paper.capture() as capture:
        paper.print(bar.bar.get_renderable())
    return capture.get().rstrip("\n")


@pytest.mark.parametrize("label", ["pre-training", "a [bold] task with quite a name (patch)"])
def test_the_bar_says_where_it_is_and_fits_a_terminal(terminal: Console, label: str) -> None:
    curve = Curve("valid_loss", "min")
    curve.rows.append({"epoch": 8, "valid_loss": 4.74331, "hr@10": 0.5})
    bar = ProgressBar(label, curve, ("valid_loss", "hr@10"), terminal)
    bar.on_train_start(Trainer, None)
    bar.on_train_batch_end(Trainer, None, None, None, 0)
    text = drawn(bar)
    assert "\n" not in text
    assert text.startswith(label[:12])
    assert len(text) <= 80
    assert re.match(r"\S.*, epoch 10/20 ━+.* 1234/2400 \S+ +valid_loss 4.7433", text), text
    bar.on_validation_start(Trainer, None)
    assert "1234/2400" in drawn(bar)
    assert drawn(bar).rstrip().endswith("validating")
    bar.on_validation_end(Trainer, None)
    assert drawn(bar).rstrip().endswith("valid_loss 4.7433")
    bar.on_train_end(Trainer, None)
    bar.on_exception(Trainer, None, KeyboardInterrupt())  # once more does no harm


def test_the_start_is_judged_without_a_bar_or_a_line(terminal: Console) -> None:
    class Checking(Trainer):
        sanity_checking = True

    for console in (terminal, Console(file=io.StringIO())):
        bar = ProgressBar("a task", Curve("valid_loss", "min"), ("valid_loss",), console)
        bar.on_validation_start(Checking, None)
        bar.on_validation_end(Checking, None)
        assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_the_bar_is_removed_when_training_stops(
    corpus: Corpus, watched: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: Console
) -> None:
    monkeypatch.setattr("peterrec.training.progress.Console", lambda **_: terminal)
    watched(StopAt("batch start", 3))
    with pytest.raises(Stopped):
        pretrain(corpus, tmp_path / "out", pretrain_config(runner=RunnerConfig(accelerator="cpu")))
    output = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[?25l" in output  # the cursor was hidden
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")  # and is shown again


def run_in_terminal(arguments: list[str]) -> tuple[int, str]:
    """Run a command with a pseudo-terminal of 80 columns as its standard error."""
    terminal, command_end = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(arguments, stdout=command_end, stderr=command_end, env=environment) as run:
        os.close(command_end)
        output = b""
        while True:
            try:
                piece = os.read(terminal, 65536)
            except OSError:  # Linux says it so when the other end is closed
                break
            if not piece:
                break
            output += piece
        status = run.wait(60)
    os.close(terminal)
    return status, output.decode()


def shown(text: str) -> list[str]:
    """What stays on the screen, line by line: a tiny terminal that knows what a bar needs."""
    screen, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            row += 1
            screen += [""] * (row + 1 - len(screen))
        elif re.fullmatch(r"\x1b\[\d*A", part):
            row -= int(part[2:-1] or 1)
        elif part in ("\x1b[2K", "\r"):
            screen[row] = "" if part == "\x1b[2K" else screen[row]
        elif not part.startswith("\x1b"):
            screen[row] += part
    return screen


@pytest.mark.slow
def test_a_terminal_is_left_tidy(corpus: Corpus, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "peterrec",
        "pretrain",
        str(corpus.path),
        "-o",
        "out",
        *SMALL,
        "-s",
        "batch_size=1",
    ]
    status, text = run_in_terminal(["env", "-C", str(tmp_path), *command])
    assert status == 0
    assert re.search(
        r"pre-training, epoch 2/2.*\d+/\d+.*valid_loss \d\.\d{4}", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    )
    stays = shown(text)
    assert [line.split(" ")[0] for line in stays if line] == ["pre-training", "wrote", "next:", "warning:"]
    assert "" not in stays[:4]
    assert "ightning" not in text
