"""Lines of the log: nobody waits for who reads them, and what is lost is counted."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

import pytest

from peterrec.serving.http.logs import Log, ServerLines

LINES = 3_000  # more than a pipe holds
# Writes more than the pipe holds, and ends; the log's flush must not wait for ever.
PROGRAM = """
from peterrec.serving.http.logs import Log
log = Log()
for i in range(3000):
    log.write("line", number=i, fill="x" * 200)
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        yield reading, stream
    os.close(reading)


def lines_of(reading: int, until_number: int) -> list[dict[str, Any]]:
    """Read until a line with a number is there."""
    text = b""
    while f'"number": {until_number},'.encode() not in text or not text.endswith(b"\n"):
        text += os.read(reading, 1 << 16)
    return [json.loads(line) for line in text.splitlines()]


def write(log: Log, start: int, stop: int) -> None:
    for i in range(start, stop):
        log.write("line", number=i, fill="x" * 200)


def test_the_server_says_the_same_only_now_and_then() -> None:
    stream = io.StringIO()
    handler = ServerLines(Log(stream))

    def said(message: str, *, at: float, of: int = 1) -> None:
        for _ in range(of):
            record = logging.LogRecord("asyncio", logging.ERROR, "", 1, message, None, None)
            record.created = at
            handler.emit(record)

    said("socket.accept() out of system resource", at=1000.0, of=500)
    said("something else", at=1001.0)
    said("socket.accept() out of system resource", at=1011.0, of=2)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["message"].split()[0], line.get("more")) for line in lines] == [
        ("socket.accept()", None), ("something", None), ("socket.accept()", 499),
    ]  # fmt: skip


def test_another_error_is_told_though_the_server_says_the_same_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peterrec.serving.http.logs.MOST_MESSAGES", 2)
    stream = io.StringIO()
    handler = ServerLines(Log(stream))
    for error in (KeyError(), KeyError(), ValueError(), TypeError(), KeyError()):  # the last one: forgotten meanwhile
        record = logging.LogRecord("uvicorn", logging.ERROR, "", 1, "Exception", None, (type(error), error, None))
        record.created = 1000.0
        handler.emit(record)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["error"] for line in lines] == ["KeyError", "ValueError", "TypeError", "KeyError"]


def test_who_writes_does_not_wait_for_who_reads(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    log = Log(stream)
    began = time.monotonic()
    write(log, 0, LINES)
    log.flush(0.05)
    assert time.monotonic() - began < 5
    found = lines_of(reading, LINES - 1)
    assert [line["number"] for line in found] == list(range(LINES))
    log.flush(5)


def test_what_is_dropped_is_counted(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    log = Log(stream, most=100)
    write(log, 0, LINES)
    text, seen = b"", 0
    while seen < LINES or text[-1:] != b"\n":
        text += os.read(reading, 1 << 16)
        found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith(b"\n")]
        seen = sum(line.get("lost", 1) for line in found)
    assert seen == LINES
    assert len(found) < LINES
    place = 0
    for line in found:  # where lines are lost, a line says so in their place
        assert line.get("number", place) == place
        place += line.get("lost", 1)
    log.write("line", number=LINES, fill="")
    assert [line["event"] for line in lines_of(reading, LINES)] == ["line"]


def test_a_pipe_that_nobody_has(pipe: tuple[int, TextIO]) -> None:
    log = Log(pipe[1])
    broken, end = os.pipe()
    os.close(broken)
    with os.fdopen(end, "w") as stream:
        lonely = Log(stream)
        write(lonely, 0, 10)
        lonely.flush(5)
        assert lonely._written == 10
    lonely.write("closed")
    log.write("line", number=1, fill="")
    assert lines_of(pipe[0], 1)[0]["level"] == "info"


def test_in_memory_a_line_is_there_at_once() -> None:
    stream = io.StringIO()
    Log(stream).write("event", "warning", x=1)
    assert json.loads(stream.getvalue()) == {"time": json.loads(stream.getvalue())["time"], "level": "warning",
                                             "event": "event", "x": 1}  # fmt: skip


def test_the_last_lines_are_written_at_the_end() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, timeout=30, check=True, text=True)
    assert len(ended.stderr.splitlines()) == LINES


def test_a_process_ends_though_nobody_reads() -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE)
    with process:
        assert process.wait(30) == 0
