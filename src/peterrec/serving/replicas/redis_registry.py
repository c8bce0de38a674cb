"""A registry of bundles in Redis, for replicas on several machines."""

from __future__ import annotations

import hashlib
import secrets

from peterrec.errors import StoreError
from peterrec.serving.replicas.base import Entry, Listing, pack_history, unpack_entry
from peterrec.serving.store.redis_client import RedisClient
from peterrec.serving.store.redis_store import PREFIX
from peterrec.serving.versions import VersionHistory

OWNER_DIGITS = 16  # of the digest of a backbone and its catalogue, in names of keys
LOST = -1  # what PUBLISH returns where the registry was emptied

OPEN = """
-- KEYS: of the registry. ARGV: a random name for it. Returns its name.
redis.call('HSETNX', KEYS[2], 'identity', ARGV[1])
return redis.call('HGET', KEYS[2], 'identity')
"""

READ = """
-- KEYS: of the registry. ARGV: a state. Returns identity and state; if the state is another one by now, also the
-- generation and all entries: name, entry, name, entry, ...
local found = redis.call('HMGET', KEYS[2], 'identity', 'state', 'generation')
local identity, state, generation = found[1] or '', found[2] or 'empty', found[3] or '0'
if state == ARGV[1] then
    return {identity, state}
end
return {identity, state, generation, redis.call('HGETALL', KEYS[1])}
"""

PUBLISH = """
-- KEYS: of the registry. ARGV: its identity, name of the bundle, entry that is replaced (empty: none), history as JSON,
-- a random text that no other change has. Returns the generation; 0 if the entry is another one, -1 if the registry is.
if redis.call('HGET', KEYS[2], 'identity') ~= ARGV[1] then
    return -1
end
if (redis.call('HGET', KEYS[1], ARGV[2]) or '') ~= ARGV[3] then
    return 0
end
local generation = redis.call('HINCRBY', KEYS[2], 'generation', 1)
local mark = string.format('%d %s', generation, ARGV[5])
redis.call('HSET', KEYS[1], ARGV[2], mark .. ' ' .. ARGV[4])
redis.call('HSET', KEYS[2], 'state', mark)
return generation
"""


class RedisRegistry:
    """A `SharedRegistry` in a Redis server, beside the events; each change is one Lua script, which nothing interrupts.

    It has two keys: a hash of entries by name of the bundle (`GENERATION RANDOM JSON`), and a hash of `identity`,
    `generation` and `state`. Backbones have registries of their own, so that a new one can be rolled out.

    Args:
        url: of the server, as `RedisStore` has it.
        owner: fingerprints of the backbone and the catalogue that the bundles are for.
        timeout: seconds to wait for a connection or an answer.

    Raises:
        ConfigError: not such an address.
        StoreError: no answer from there.
    """

    def __init__(self, url: str, owner: tuple[str, str], *, timeout: float = 2.0) -> None:
        self._server = RedisClient(url, timeout)
        digest = hashlib.sha256(" ".join(owner).encode()).hexdigest()[:OWNER_DIGITS]
        self._keys = [f"{PREFIX}{kind}:{digest}" for kind in ("bundles", "registry")]
        scripts = (self._server.redis.register_script(script) for script in (OPEN, READ, PUBLISH))
        open_registry, self._read, self._publish = scripts
        with self._server.errors():
            self.identity: str = open_registry(keys=self._keys, args=[secrets.token_hex(8)]).decode()

    def read(self, state: str) -> Listing | None:
        """Return all entries, or None if nothing has changed; see `SharedRegistry`."""
        with self._server.errors():
            identity, *content = self._read(keys=self._keys, args=[state])
        if identity.decode() != self.identity:
            raise self._lost()
        if len(content) == 1:
            return None
        new_state, generation, rows = content
        names, texts = ([row.decode() for row in rows[start::2]] for start in (0, 1))
        entries = {name: unpack_entry(text) for name, text in zip(names, texts, strict=True)}
        return Listing(new_state.decode(), int(generation), dict(sorted(entries.items())))

    def publish(
        self, name: str, before: Entry | None, history: VersionHistory | None, *, seed: bool = False
    ) -> int | None:
        """Replace the entry of a name in one step; see `SharedRegistry`."""
        del seed  # it is kept like any other
        text = "" if before is None else before.text
        arguments = [self.identity, name, text, pack_history(history), secrets.token_hex(8)]
        with self._server.errors():
            generation = int(self._publish(keys=self._keys, args=arguments))
        if generation == LOST:
            raise self._lost()
        return generation or None

    def close(self) -> None:
        """Close all connections."""
        self._server.close()

    def _lost(self) -> StoreError:
        return StoreError(
            "the Redis server has lost the registry of bundles",
            remedy="restore its data, or start all replicas again with the bundles on their command lines",
            path=self._server.address,
        )
