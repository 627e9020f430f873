"""Generated keys: SNOWFLAKE_ID() and UUID_V7().

Both start with a millisecond clock, so that keys grow and segments stay apart by their statistics, and both stay
monotonic when the clock steps back or a batch outruns it: the clock is a lower bound for the next key and not its
source. Rows are decoded on the event loop and in threads: keys are taken under a lock, so that two never get the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from threading import Lock
from uuid import UUID

SNOWFLAKE_EPOCH_MS = 1_577_836_800_000  # 2020-01-01T00:00:00Z
WORKER_BITS = 10
SEQUENCE_BITS = 12
UUID_COUNTER_BITS = 12


def clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class SnowflakeIds:
    """64-bit ids: 41 bits of milliseconds since 2020, 10 of worker, 12 of sequence (Twitter's Snowflake layout).

    Within one millisecond the sequence counts on; past its 4,096 the ids borrow from the milliseconds to come.
    """

    def __init__(self, worker: int = 0, clock: Callable[[], int] = clock_ms) -> None:
        if not 0 <= worker < 1 << WORKER_BITS:
            raise ValueError(f"worker {worker} is not in 0 … {(1 << WORKER_BITS) - 1}")
        self._worker = worker
        self._clock = clock
        self._tick = 0  # milliseconds and sequence as one number
        self._lock = Lock()

    def take(self, count: int) -> list[int]:
        """The next ``count`` ids, growing."""
        with self._lock:
            first = max(self._tick, (self._clock() - SNOWFLAKE_EPOCH_MS) << SEQUENCE_BITS)
            self._tick = first + count
        worker, mask = self._worker << SEQUENCE_BITS, (1 << SEQUENCE_BITS) - 1
        return [
            (tick >> SEQUENCE_BITS) << (WORKER_BITS + SEQUENCE_BITS) | worker | tick & mask
            for tick in range(first, first + count)
        ]


def snowflake_of_event(ms: int, number: int) -> int:
    """The id that an event has for ever: its time, and of its number as much as has room."""
    return max(0, ms - SNOWFLAKE_EPOCH_MS) << (WORKER_BITS + SEQUENCE_BITS) | number % (
        1 << WORKER_BITS + SEQUENCE_BITS
    )


def uuid_v7_of_event(ms: int, number: int, random: int) -> str:
    """The text of the UUID that an event has for ever; ``random`` has to be the same each time."""
    return _uuid_v7(ms << UUID_COUNTER_BITS | number % (1 << UUID_COUNTER_BITS), random & (1 << 62) - 1)


class UuidV7s:
    """UUIDs of version 7 (RFC 9562, section 5.7) with a 12-bit counter behind the milliseconds (method 1 of 6.2)."""

    def __init__(self, clock: Callable[[], int] = clock_ms) -> None:
        self._clock = clock
        self._tick = 0
        self._lock = Lock()

    def take(self, count: int) -> list[str]:
        """The texts of the next ``count`` UUIDs, growing."""
        with self._lock:
            first = max(self._tick, self._clock() << UUID_COUNTER_BITS)
            self._tick = first + count
        random = os.urandom(8 * count)
        return [_uuid_v7(first + i, int.from_bytes(random[8 * i : 8 * i + 8]) & (1 << 62) - 1) for i in range(count)]


def _uuid_v7(tick: int, random: int) -> str:
    ms, counter = tick >> UUID_COUNTER_BITS, tick & (1 << UUID_COUNTER_BITS) - 1
    return str(UUID(int=ms << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | random))
