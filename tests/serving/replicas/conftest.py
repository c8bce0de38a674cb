from __future__ import annotations

import pytest
import redis

from serving.store.servers import RedisServer


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    """A Redis server without keys."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server
