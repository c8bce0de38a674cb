from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving.store.servers import DURABLE, RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server that loses nothing it acknowledged; tests share it and empty it."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), **DURABLE)
    yield server
    server.kill()
