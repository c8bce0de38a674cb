"""The oracle keeps the contract that it is used to check."""

from __future__ import annotations

import pytest

from serving.store.contract import Open, StoreContract
from serving.store.oracle import Oracle


class TestOracle(StoreContract):
    @pytest.fixture
    def open_store(self) -> Open:
        first: list[Oracle] = []

        def open_(keep: int) -> Oracle:
            store = Oracle(keep)
            vars(store).update(vars(first[0]) | {"closed": False} if first else {})
            first.append(store)
            return store

        return open_
