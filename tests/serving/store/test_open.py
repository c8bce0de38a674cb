from __future__ import annotations

from pathlib import Path

import pytest

from peterrec.errors import ConfigError, StoreError
from peterrec.serving.store.open import open_store
from peterrec.serving.store.redis_store import RedisStore
from peterrec.serving.store.sqlite import SqliteStore
from serving.store.contract import events
from serving.store.servers import RedisServer


def test_sqlite_is_a_file_in_the_folder(tmp_path: Path) -> None:
    store = open_store("sqlite", tmp_path / "some" / "where", 10)
    assert isinstance(store, SqliteStore)
    assert (tmp_path / "some" / "where" / "events.sqlite").is_file()
    store.close()


def test_an_address_is_redis(redis_server: RedisServer, tmp_path: Path) -> None:
    store = open_store(redis_server.url, tmp_path / "state", 10)
    assert isinstance(store, RedisStore)
    assert not (tmp_path / "state").exists()
    store.close()


@pytest.mark.parametrize("name", ["", "SQLite", "postgres://u:secret@h/db", "redis:/x", "http://x"])
def test_anything_else_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="names no store") as error:
        open_store(name, tmp_path, 10)
    assert "secret" not in str(error.value)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        open_store("sqlite", tmp_path / "file" / "state", 10)


def test_two_services_in_one_folder_see_what_the_other_does(tmp_path: Path) -> None:
    first, second = open_store("sqlite", tmp_path, 8), open_store("sqlite", tmp_path, 8)
    first.append(events("u", 1, 3))
    second_view = second.read("u")
    assert first.append(events("u", 4, start=2)) == [True]
    assert second.read("u", second_view.revision, 2).start == 2
    assert second.append(events("u", 2, start=3)) == [True]
    assert first.read("u", second_view.revision, 3).start == 0  # a late one: what is in memory is no longer right
    assert second.delete("u").events == 4
    assert first.read("u").count == 0
    first.close()
    assert second.append(events("u", 1)) == [True]
    second.close()
