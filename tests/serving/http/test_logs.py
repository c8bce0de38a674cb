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

from peterrec.serving.http.logs import Log, ServerLogHandler, engine_log_shown

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
    handler = ServerLogHandler(Log(stream))

    def emit_records(message: str, *, at: float, times: int = 1) -> None:
        for _ in range(times):
            record = logging.LogRecord("asyncio", logging.ERROR, "", 1, message, None, None)
            record.created = at
            handler.emit(record)

    emit_records("socket.accept() out of system resource", at=1000.0, times=500)
    emit_records("something else", at=1001.0)
    emit_records("socket.accept() out of system resource", at=1011.0, times=2)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["message"].split()[0], line.get("more")) for line in lines] == [
        ("socket.accept()", None), ("something", None), ("socket.accept()", 499),
    ]  # fmt: skip


def test_another_error_is_told_though_the_server_says_the_same_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peterrec.serving.http.logs.MAX_MESSAGES", 2)
    stream = io.StringIO()
    handler = ServerLogHandler(Log(stream))
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
    lines = lines_of(reading, LINES - 1)
    assert [line["number"] for line in lines] == list(range(LINES))
    log.flush(5)


def test_what_is_dropped_is_counted(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    log = Log(stream, max_waiting=100)
    write(log, 0, LINES)
    text, accounted = b"", 0
    while accounted < LINES or text[-1:] != b"\n":
        text += os.read(reading, 1 << 16)
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith(b"\n")]
        accounted = sum(line.get("lost", 1) for line in lines)
    assert accounted == LINES
    assert len(lines) < LINES
    place = 0
    for line in lines:  # where lines are lost, a line says so in their place
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
        assert not lonely._queue.waiting  # type: ignore[union-attr]
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


def test_the_log_of_the_engine_is_written_while_it_is_shown_and_a_users_handlers_stay() -> None:
    logger, mine = logging.getLogger("peterrec.serving"), logging.NullHandler()
    logger.addHandler(mine)
    stream = io.StringIO()
    log = Log(stream)
    before = logger.level
    try:
        with engine_log_shown(log):
            logging.getLogger("peterrec.serving.index").info("400 targets")
        logging.getLogger("peterrec.serving.index").info("not of the service")
        assert logger.handlers == [mine]
        assert (logger.level, logger.propagate) == (before, True)
    finally:
        logger.removeHandler(mine)
    log.flush()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines if line["event"] == "engine"] == ["400 targets"]
