"""Services that may have copies of users tell each other so, on a real Redis server."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from peterrec.errors import StoreError
from peterrec.serving.replicas import readers
from peterrec.serving.replicas.readers import RedisReaders
from serving.store.servers import RedisServer


@pytest.fixture
def pair(server: RedisServer) -> Iterator[tuple[RedisReaders, RedisReaders]]:
    opened = RedisReaders(server.url), RedisReaders(server.url)
    yield opened
    for reader in opened:
        reader._server.close()


def test_who_has_not_followed_is_waited_for_and_nobody_waits_for_itself(
    pair: tuple[RedisReaders, RedisReaders],
) -> None:
    first, second = pair
    first.follow(3)
    second.follow(3)
    assert (first.behind(3), first.behind(4), second.behind(4)) == (0, 1, 1)
    second.follow(4)
    assert (first.behind(4), second.behind(4)) == (0, 1)
    second.follow(12)  # numbers, not texts
    assert first.behind(5) == 0


def test_who_leaves_or_ends_is_not_waited_for(
    pair: tuple[RedisReaders, RedisReaders], monkeypatch: pytest.MonkeyPatch, server: RedisServer
) -> None:
    first, second = pair
    second.follow(0)
    second.close()
    assert first.behind(1) == 0
    monkeypatch.setattr(readers, "READER_SECONDS", 0.2)
    ended = RedisReaders(server.url)
    ended.follow(0)
    assert first.behind(1) == 1
    time.sleep(0.25)
    assert first.behind(1) == 0
    ended.close()


def test_who_does_not_reach_the_server_lapses_before_the_others_stop_waiting(
    pair: tuple[RedisReaders, RedisReaders], monkeypatch: pytest.MonkeyPatch, server: RedisServer
) -> None:
    assert readers.LAPSE_SECONDS + readers.RENEW_SECONDS + readers.TIMEOUT < readers.READER_SECONDS
    first, _ = pair
    assert first.lapsed  # it has told nobody of itself yet
    monkeypatch.setattr(readers, "LAPSE_SECONDS", 0.1)
    monkeypatch.setattr(readers, "RENEW_SECONDS", 0.0)
    first.follow(0)
    assert not first.lapsed
    server.kill()
    try:
        with pytest.raises(StoreError, match="does not answer"):
            first.follow(0)
        time.sleep(0.1)
        assert first.lapsed
    finally:
        server.start()
    first.follow(0)
    assert not first.lapsed
