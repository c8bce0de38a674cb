"""A client of a Redis server whose faults are errors of this package."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from peterrec.errors import ConfigError, StoreError


class RedisClient:
    """Connections to one server; each call is sent once.

    Args:
        url: `redis://user:password@host:port/number`, `rediss://` (TLS) or `unix://path?db=number`.
        timeout: seconds to wait for a connection or an answer.

    Attributes:
        redis: the library's client, to be used within `errors()`.
        address: of the server, without the password.

    Raises:
        ConfigError: not such an address.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._closed = False
        try:
            self.redis = redis.Redis.from_url(
                url,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),  # an append that was sent twice would not say any more what is new
            )
            connection = self.redis.connection_pool.connection_kwargs
            self.address = str(
                connection.get("path") or f"{connection.get('host', 'localhost')}:{connection.get('port', 6379)}"
            )
            self.redis.connection_pool.make_connection()  # options that there are not show here
        except (ValueError, TypeError) as error:  # the message does not repeat the address: it may hold a password
            remedy = "write redis://host:port/number, rediss://... or unix://path"
            raise ConfigError(f"the address of the Redis store is not valid ({error})", remedy=remedy) from None

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        self.redis.close()
        self.redis.connection_pool.disconnect()

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what the server or the network refuses into a `StoreError`."""
        if self._closed:
            raise StoreError("is closed", remedy="open the store again", path=self.address)
        try:
            yield
        except redis.AuthenticationError as error:
            raise self._error("refuses the user or the password", "correct them in its address", error) from error
        except redis.OutOfMemoryError as error:
            raise self._error("has no memory left", "give it more, or erase users", error) from error
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise self._error("does not answer", "see that the server runs and can be reached", error) from error
        except redis.RedisError as error:
            raise self._error("refused", "see the server's log and settings", error) from error

    def _error(self, problem: str, remedy: str, error: Exception) -> StoreError:
        return StoreError(f"the Redis server {problem} ({error})", remedy=remedy, path=self.address)
