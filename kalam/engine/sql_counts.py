"""SQL requests since the start: how many by door and by what became of them, and how long they took."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from kalam.errors import Cancelled, Internal, KalamError
from kalam.latency import Latency
from kalam.query.running import running_query

OK: Final = "ok"
SERVER_DOOR: Final = "server"
"""The door of what the server asks by itself."""


class SqlCounts:
    """Counts by ``(door, code)``; the code is ``ok`` or that of the error. ``latency`` leaves streamed answers out."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.latency = Latency()

    @contextmanager
    def one(self, *, timed: bool = True) -> Iterator[None]:
        """Count the block as a request of this context's door."""
        started = time.perf_counter()
        code = Cancelled.code  # what neither ends nor fails was given up
        try:
            yield
            code = OK
        except KalamError as exc:
            code = exc.code
            raise
        except Exception:
            code = Internal.code
            raise
        finally:
            running = running_query()
            self.requests[running.door if running else SERVER_DOOR, code] += 1
            if timed:
                self.latency.record(time.perf_counter() - started)

    def note(self, door: str, seconds: float) -> None:
        """Count a request that was answered at once."""
        self.requests[door, OK] += 1
        self.latency.record(seconds)
