"""The side of a process that the bench starts: it reads its task, prepares, says ready, waits for go, and answers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

import msgspec
import uvloop

Task = TypeVar("Task")
STALL_S: Final = 60.0


def read_task(kind: type[Task]) -> Task:
    """The task, which is the process's only argument."""
    return msgspec.json.decode(sys.argv[1], type=kind)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run the coroutine in the event loop that every process of a bench has."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def say_ready() -> None:
    """Say that everything is prepared."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def wait_go() -> None:
    """Wait for the word; without one the bench is gone, and so are we."""
    if not sys.stdin.readline():
        sys.exit(1)


async def wait_done(done: asyncio.Event, moved: Callable[[], int]) -> str:
    """Wait until it is done, or until ``moved`` says the same for a while; what is wrong then, else nothing."""
    before = -1
    while not done.is_set() and before != moved():
        before = moved()
        with suppress(TimeoutError):
            async with asyncio.timeout(STALL_S):
                await done.wait()
    return "" if done.is_set() else f"no answer for {STALL_S:g} s"


async def wait_go_async() -> None:
    """Wait for the word while the event loop goes on."""
    await asyncio.to_thread(wait_go)


def answer(result: msgspec.Struct) -> None:
    """Say what was measured."""
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    sys.stdout.flush()
