"""A version answers for a bounded time after the registry named it."""

from __future__ import annotations

from peterrec.serving.replicas.leases import Leases


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_version_may_answer_until_its_lease_ends() -> None:
    clock = Clock()
    leases = Leases(1.5, clock)
    assert leases.lapsed([("age", "v1")]) == ["age"]
    leases.renew({"age": "v1", "shop": "v7"}, call_time=99.0)
    assert leases.lapsed([("age", "v1"), ("shop", "v7"), ("age", "v2"), ("new", "v1")]) == ["age", "new"]
    clock.now = 100.5
    assert leases.lapsed([("age", "v1")]) == []
    clock.now = 100.51
    assert leases.lapsed([("age", "v1")]) == ["age"]


def test_the_lease_is_of_when_the_call_began_and_of_the_version_that_was_named() -> None:
    clock = Clock()
    leases = Leases(1.5, clock)
    leases.renew({"age": "v1"}, call_time=100.0)
    leases.renew({"age": "v2"}, call_time=101.0)
    leases.renew({"age": "v2"}, call_time=100.2)  # a late answer to an earlier call takes nothing back
    clock.now = 101.4
    assert leases.lapsed([("age", "v1"), ("age", "v2")]) == []
    clock.now = 102.4
    assert leases.lapsed([("age", "v1")]) == ["age"]
    assert leases.lapsed([("age", "v2")]) == []


def test_versions_of_long_ago_are_forgotten() -> None:
    leases = Leases(1.0, Clock())
    for number in range(1_000):
        leases.renew({"age": f"v{number}"}, call_time=100.0 + number)
    assert len(leases._named) <= 3
