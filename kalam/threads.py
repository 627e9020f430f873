"""Threads by purpose, so that one kind of work that waits or takes long does not keep another from its thread.

``asyncio.to_thread`` has one pool for all; eight slow disks there would end every read by key.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

P = ParamSpec("P")
T = TypeVar("T")


class Purpose(enum.Enum):
    """What a thread is wanted for, how many of them there may be, and how far they step back for others (``nice``)."""

    LOOKUPS = "reads by key", 4
    QUERIES = "what queries read, made ready for the workers", 4
    CATALOGUE = "what is asked of SQLite", 4
    DESCRIPTIONS = "what tools ask about the catalogue", 2
    TEXTS = "long statements", 2
    ROWS = "rows of statements and events, converted", 4
    ANSWERS = "results, written as text", 4
    BODIES = "uploaded rows, of which each waits for its network", 64
    LIVE = "changes for live queries", 4
    POLICIES = "rows judged by policies", 4
    FILES = "segments: flush, compaction, removal", 8
    PASSWORDS = "hashes of passwords", min(os.cpu_count() or 1, 4), 10

    def __init__(self, told: str, threads_max: int, niceness: int = 0) -> None:
        self.told, self.threads_max, self.niceness = told, threads_max, niceness


Pools = dict[Purpose, ThreadPoolExecutor]
_POOLS: WeakKeyDictionary[asyncio.AbstractEventLoop, Pools] = WeakKeyDictionary()
"""As the pool of ``to_thread`` does, they belong to their event loop."""


INLINE_ROWS_MAX = 500
"""More rows are worked on in a thread: the event loop has others to serve."""

INLINE_CHARACTERS_MAX = 20_000
"""A longer text takes more than a few milliseconds to read."""


async def beside(rows: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do work on so many rows: here if they are few, else in a thread."""
    if rows <= INLINE_ROWS_MAX:
        return work(*args, **kwargs)
    return await in_thread(Purpose.ROWS, work, *args, **kwargs)


async def reading(text: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do work that reads a statement's text: here if it is short, else in a thread."""
    if len(text) <= INLINE_CHARACTERS_MAX:
        return work(*args, **kwargs)
    return await in_thread(Purpose.TEXTS, work, *args, **kwargs)


async def in_thread(purpose: Purpose, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do blocking work in a thread for that purpose, in the caller's context."""
    loop = asyncio.get_running_loop()
    pools = _POOLS.setdefault(loop, {})
    pool = pools.get(purpose)
    if pool is None:
        name = f"kalam-{purpose.name.lower()}"
        step_back = partial(_step_back, purpose.niceness)
        pool = pools[purpose] = ThreadPoolExecutor(purpose.threads_max, thread_name_prefix=name, initializer=step_back)
    call = partial(contextvars.copy_context().run, work, *args, **kwargs)
    return await loop.run_in_executor(pool, call)


def _step_back(niceness: int) -> None:
    """Let the others of this process have the processor first; where a thread has a priority of its own."""
    if niceness and sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
