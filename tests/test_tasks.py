"""Pauses between tries, and tasks that are waited for at the end."""

from __future__ import annotations

import asyncio

import pytest

from kalam.backoff import Backoff, Backoffs
from kalam.tasks import Tasks, heeding, to_its_end


@pytest.mark.parametrize(
    ("first_s", "max_s", "pauses"),
    [(1.0, 60.0, [1, 2, 4, 8, 16, 32, 60, 60]), (0.05, 0.1, [0.05, 0.1, 0.1]), (1.0, 0.5, [0.5, 0.5])],
)
def test_each_pause_is_twice_the_one_before_up_to_the_bound(first_s, max_s, pauses) -> None:
    backoff = Backoff(first_s, max_s)
    assert [backoff.failed() for _ in pauses] == pauses
    backoff.reset()
    assert backoff.failed() == pauses[0]


def test_what_failed_waits_and_the_others_do_not() -> None:
    retries = Backoffs(1_000.0, 10_000.0)
    assert retries.is_due(1)
    assert [retries.failed(1), retries.failed(1)] == [1_000, 2_000]
    assert (retries.is_due(1), retries.is_due(2), list(retries)) == (False, True, [1])
    retries.succeeded(1)
    assert retries.is_due(1)
    assert retries.failed(1) == 1_000


def test_what_failed_is_tried_again_after_its_pause() -> None:
    retries = Backoffs(0.0, 0.0)
    retries.failed(1)
    assert retries.is_due(1)


async def test_tasks_that_tasks_start_are_waited_for_too() -> None:
    tasks, done = Tasks(), []

    async def work(depth: int) -> None:
        await asyncio.sleep(0)
        if depth:
            tasks.start(work(depth - 1))
        done.append(depth)

    tasks.start(work(2), "three")
    await tasks.wait()
    assert sorted(done) == [0, 1, 2]


async def test_waiting_has_an_end_and_cancelling_waits() -> None:
    tasks, ended = Tasks(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    task = tasks.start(work())
    await tasks.wait(0.01)
    assert not task.done()
    await tasks.cancel()
    assert (task.cancelled(), ended) == (True, [True])


async def test_a_cancellation_that_comes_with_the_result_is_heeded() -> None:
    waited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(heeding(asyncio.wait_for(waited, 30)))
    await asyncio.sleep(0)
    waited.set_result(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_was_not_cancelled_is_given() -> None:
    assert await heeding(asyncio.sleep(0, 7)) == 7


@pytest.mark.parametrize("failing", [False, True])
async def test_who_is_cancelled_again_and_again_waits_for_work_to_its_end(failing: bool) -> None:
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), False

    async def work() -> int:
        nonlocal ended
        begun.set()
        await may_end.wait()
        ended = True
        return 1 // (not failing)

    waiting = asyncio.create_task(to_its_end(work()))
    await begun.wait()
    for _ in range(3):
        waiting.cancel()
        await asyncio.sleep(0)
    assert not waiting.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended


async def test_what_work_gives_or_raises_comes_through() -> None:
    assert await to_its_end(asyncio.sleep(0, 7)) == 7
    with pytest.raises(TimeoutError):
        await to_its_end(asyncio.wait_for(asyncio.Event().wait(), 0))
