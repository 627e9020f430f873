"""A fork that nobody waits for any more is not taken for the next one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kalam.errors import Internal
from kalam.query.forks import Forks
from kalam.query.worker.limits import Limits
from kalam.query.workers import Worker


@pytest.fixture
async def forks() -> AsyncIterator[Forks]:
    forks = Forks(Limits(memory_bytes=128 << 20, partitions=1))
    yield forks
    await forks.stop()


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def server_of(pid: int) -> int:
    """The process that a worker was forked from."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_a_fork_after_one_that_was_given_up_has_its_own_process(forks: Forks, wait_until) -> None:
    first = await forks.fork()
    server = server_of(first.pid)
    for _ in range(5):
        given_up = asyncio.ensure_future(forks.fork())
        await asyncio.sleep(0)  # it has asked
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
    last = await forks.fork()
    last.kill()
    assert await asyncio.wait_for(last.ended, 60) == -signal.SIGKILL
    assert await asyncio.get_running_loop().sock_recv(last.answers, 1) == b"", "its own process has ended"
    assert not first.ended.done()
    await wait_until(lambda: children(server) == {first.pid})


async def test_a_first_fork_that_is_given_up_leaves_the_fork_server_well(forks: Forks) -> None:
    given_up = asyncio.ensure_future(forks.fork())
    await asyncio.sleep(0.05)  # while the fork server imports
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    server = 0
    for _ in range(3):
        fork = await forks.fork()
        server = server or server_of(fork.pid)
        assert server_of(fork.pid) == server
        fork.kill()
        assert await asyncio.wait_for(fork.ended, 60) == -signal.SIGKILL


async def test_a_worker_whose_making_is_given_up_is_ended(forks: Forks, wait_until) -> None:
    fork = await forks.fork()
    server = server_of(fork.pid)
    making = asyncio.ensure_future(Worker.of(fork))
    await asyncio.sleep(0)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    await wait_until(lambda: children(server) == set())


async def test_a_fork_server_that_does_not_answer_is_replaced(
    forks: Forks, wait_until, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await forks.fork()
    server = server_of(first.pid)
    monkeypatch.setattr("kalam.query.forks.START_S", 0.2)
    os.kill(server, signal.SIGSTOP)
    with pytest.raises(Internal, match="does not answer"):
        await forks.fork()
    monkeypatch.setattr("kalam.query.forks.START_S", 60.0)
    await wait_until(first.ended.done)
    last = await forks.fork()
    assert server_of(last.pid) != server
    last.kill()
    assert await asyncio.wait_for(last.ended, 60) == -signal.SIGKILL
