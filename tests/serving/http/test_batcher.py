"""Jobs share runs, in order, within bounds; nobody is worked for who gave up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from peterrec.serving.http.batcher import Batcher, BatchRun
from peterrec.serving.http.errors import ApiError


class Runs:
    """Work of a batcher's thread: records its jobs, and waits while `may_run` is not set."""

    def __init__(self) -> None:
        self.jobs_of_runs: list[list[int]] = []
        self.threads: set[int] = set()
        self.may_run = threading.Event()
        self.may_run.set()

    def __call__(self, jobs: list[int]) -> Sequence[int | Exception]:
        self.jobs_of_runs.append(jobs)
        self.threads.add(threading.get_ident())
        self.may_run.wait(10)
        if 99 in jobs:
            raise OSError("all of them")
        return [ValueError(f"{job}") if job < 0 else job * 10 for job in jobs]


def run(test: Callable[[Runs, Batcher[int, int]], Awaitable[None]], **settings: Any) -> Runs:
    runs = Runs()

    async def main() -> None:
        batcher = Batcher[int, int](runs, **({"max_rows": 4, "max_queue": 8} | settings))
        try:
            await test(runs, batcher)
        finally:
            runs.may_run.set()
            await batcher.close()

    asyncio.run(asyncio.wait_for(main(), 20))
    return runs


def ask(batcher: Batcher[int, int], *jobs: int, rows: int = 1) -> asyncio.Task[list[int]]:
    return asyncio.ensure_future(batcher.submit([(job, rows) for job in jobs]))


async def busy(runs: Runs, batcher: Batcher[int, int]) -> asyncio.Task[list[int]]:
    """Keep the thread at work until `may_run` is set."""
    runs.may_run.clear()
    first = ask(batcher, 0)
    while not runs.jobs_of_runs:
        await asyncio.sleep(0.001)
    return first


def test_what_waits_runs_together_in_order_and_in_one_thread() -> None:
    async def test(runs: Runs, batcher: Batcher[int, int]) -> None:
        await busy(runs, batcher)
        tasks = [ask(batcher, i) for i in range(1, 7)]
        await asyncio.sleep(0.01)
        assert batcher.queued_rows == 6
        runs.may_run.set()
        assert await asyncio.gather(*tasks) == [[10 * i] for i in range(1, 7)]
        assert batcher.queued_rows == 0

    runs = run(test)
    assert runs.jobs_of_runs == [[0], [1, 2, 3, 4], [5, 6]]
    assert len(runs.threads) == 1
    assert threading.get_ident() not in runs.threads


def test_the_first_waits_a_moment_for_others() -> None:
    async def test(runs: Runs, batcher: Batcher[int, int]) -> None:
        first = ask(batcher, 1)
        await asyncio.sleep(0.02)
        assert not runs.jobs_of_runs
        loop = asyncio.get_running_loop()
        started = loop.time()
        await asyncio.gather(first, ask(batcher, 2, 3, 4))  # enough for a run: nobody waits any longer
        assert loop.time() - started < 5
        await ask(batcher, 5, 6, 7, 8)

    assert run(test, max_wait=10.0).jobs_of_runs == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_the_wait_ends() -> None:
    async def test(runs: Runs, batcher: Batcher[int, int]) -> None:
        assert await ask(batcher, 1) == [10]

    assert run(test, max_wait=0.02).jobs_of_runs == [[1]]


def test_rows_bound_a_run_and_a_large_job_runs_alone() -> None:
    async def test(runs: Runs, batcher: Batcher[int, int]) -> None:
        await busy(runs, batcher)
        tasks = [ask(batcher, 1, rows=3), ask(batcher, 2, rows=2), ask(batcher, 3, rows=2)]
        await asyncio.sleep(0.01)
        runs.may_run.set()
        await asyncio.gather(*tasks)
        assert await ask(batcher, 4, rows=50) == [40]

    assert run(test).jobs_of_runs == [[0], [1], [2, 3], [4]]


def test_the_queue_is_bounded_in_rows_but_not_for_the_only_one() -> None:
    async def test(runs: Runs, batcher: Batcher[int, int]) -> None:
        await busy(runs, batcher)
        large = ask(batcher, 1, rows=30)
        await asyncio.sleep(0.01)
        for _ in range(3):
            with pytest.raises(ApiError) as refused:
                await ask(batcher, 2)
            assert refused.value.status == 429
            assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
        runs.may_run.set()
        assert await large == [10]
        assert await ask(batcher, 3) == [30]

    assert run(test).jobs_of_runs == [[0], [1], [3]]


def test_retry_after_is_what_the_measured_rate_says() -> None:
    async def test(runs: Runs, batcher: Batcher[int, int]) -> None:
        first = await busy(runs, batcher)
        await asyncio.sleep(0.25)
        runs.may_run.set()
        await first  # one row in a quarter of a second
        runs.may_run.clear()
        ask(batcher, 1)
        while len(runs.jobs_of_runs) < 2:
            await asyncio.sleep(0.001)
        waiting = ask(batcher, 2, rows=8)
        await asyncio.sleep(0.01)
        with pytest.raises(ApiError) as refused:
            await ask(batcher, 3)
        assert 2 <= int(refused.value.headers["Retry-After"]) <= 20
        waiting.cancel()

    run(test)


def test_who_gives_up_is_not_worked_for_and_leaves_room() -> None:
    async def test(runs: Runs, batcher: Batcher[int, int]) -> None:
        await busy(runs, batcher)
        cancelled, stays = ask(batcher, 1, 2, rows=3), ask(batcher, 3)
        await asyncio.sleep(0.01)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert batcher.queued_rows == 1
        runs.may_run.set()
        assert await stays == [30]

    assert run(test).jobs_of_runs == [[0], [3]]


def test_who_gives_up_while_it_runs_does_not_disturb_others() -> None:
    async def test(runs: Runs, batcher: Batcher[int, int]) -> None:
        first = await busy(runs, batcher)
        first.cancel()
        second = ask(batcher, 1)
        runs.may_run.set()
        assert await second == [10]

    run(test)


def test_an_error_of_one_is_its_own_and_its_request_is_all_or_nothing() -> None:
    async def test(runs: Runs, batcher: Batcher[int, int]) -> None:
        await busy(runs, batcher)
        bad, good = ask(batcher, 1, -2, -3), ask(batcher, 4)
        await asyncio.sleep(0.01)
        runs.may_run.set()
        with pytest.raises(ValueError, match="-2"):
            await bad
        assert await good == [40]

    run(test)


def test_an_error_of_the_run_is_told_to_all_of_it_only() -> None:
    async def test(runs: Runs, batcher: Batcher[int, int]) -> None:
        await busy(runs, batcher)
        tasks = [ask(batcher, job) for job in (1, 99, 2)]
        await asyncio.sleep(0.01)
        runs.may_run.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [OSError] * 3
        assert await ask(batcher, 5) == [50]

    run(test)


def test_too_few_results_are_a_fault() -> None:
    async def main() -> None:
        batcher = Batcher[int, int](lambda jobs: [], max_rows=4, max_queue=4)
        with pytest.raises(RuntimeError, match="1 jobs had 0 results"):
            await batcher.submit([(1, 1)])
        await batcher.close()

    asyncio.run(main())


def test_closing_finishes_what_waits_and_takes_nothing_more() -> None:
    async def test(runs: Runs, batcher: Batcher[int, int]) -> None:
        await busy(runs, batcher)
        waiting = [ask(batcher, i) for i in range(1, 7)]
        await asyncio.sleep(0.01)
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0.01)
        with pytest.raises(ApiError) as refused:
            await ask(batcher, 9)
        assert refused.value.status == 503
        runs.may_run.set()
        await closing
        assert await asyncio.gather(*waiting) == [[10 * i] for i in range(1, 7)]

    run(test, max_wait=0.3)


def test_runs_are_observed() -> None:
    observed: list[BatchRun] = []

    async def test(runs: Runs, batcher: Batcher[int, int]) -> None:
        await ask(batcher, 1, 2, rows=2)

    run(test, observe=observed.append)
    assert [(batch_run.jobs, batch_run.rows) for batch_run in observed] == [(2, 4)]
    assert observed[0].seconds >= 0
