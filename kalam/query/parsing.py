"""Long statements are read in a worker, as queries are run: it takes seconds, and a tree a hundred times the text."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import suppress
from typing import Any

from kalam.errors import TooLarge
from kalam.query.pool import Pool
from kalam.query.running import in_state, interruptible
from kalam.query.wire import Parse, question_message
from kalam.query.workers import Worker


class Parsing:
    """Reads statements in a pool's workers, each within ``time_s``."""

    def __init__(self, pool: Pool, time_s: float) -> None:
        self._pool, self._time_s = pool, time_s

    async def parse(self, parse: Parse, user: str) -> Any:
        """The statement; raises what the parser has against it, TooLarge where it takes too long."""
        with in_state("running"), interruptible():
            async with self._pool.lease(user) as worker:
                try:
                    async with asyncio.timeout(self._time_s):
                        return await _parsed(worker, parse)
                except TimeoutError as exc:
                    raise TooLarge(
                        f"the statement takes longer than {self._time_s:g} s to read (setting query_time_s)",
                        hint="put long lists of values into a table",
                    ) from exc


async def _parsed(worker: Worker, parse: Parse) -> Any:
    with suppress(OSError):  # the answer tells what became of the process
        await worker.send(question_message(parse), ())
    return pickle.loads(await worker.whole_answer())  # noqa: S301 - our own process made it
