"""The pool of workers: one for each query that runs, and a spare one that is ready for the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from kalam.errors import KalamError
from kalam.query.forks import Forks
from kalam.query.places import Places
from kalam.query.worker.limits import Limits
from kalam.query.workers import Worker

log = structlog.get_logger(__name__)

LOOK_S = 1.0
SURPLUS_IDLE_S = 10.0
"""How long a worker beside the spare one stays for the next query."""
LARGE_BYTES = 256 << 20
"""A worker that waits and has so much memory is replaced."""


class Pool:
    """Lends workers. ``wait_s`` is how long a query waits for one of ``places_max`` places."""

    def __init__(self, limits: Limits, *, places_max: int, wait_s: float) -> None:
        self.forks = Forks(limits)
        self._places = Places(places_max, wait_s)
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._rested = asyncio.Event()
        self._making: asyncio.Task[None] | None = None
        self._stopped = False
        self.closing = False

    async def warm(self) -> None:
        """Have the spare worker ready."""
        self._make_spare()
        if self._making is not None:
            await asyncio.shield(self._making)

    @asynccontextmanager
    async def lease(self, user: str) -> AsyncIterator[Worker]:
        """A worker for one query of a user; one that has not answered to the end by then is killed."""
        async with self._places.place(user):
            worker = await self._take()
            self._busy.add(worker)
            self._rested.clear()
            self._make_spare()
            try:
                yield worker
            finally:
                self._busy.discard(worker)
                if not self._busy:
                    self._rested.set()
                self._give_back(worker)

    async def _take(self) -> Worker:
        if not self._idle and self._making is not None:
            await asyncio.shield(self._making)
        while self._idle:
            worker = self._idle.pop()  # the one that was used last knows most
            if worker.alive:
                return worker
            worker.end()
        return await Worker.of(await self.forks.fork())

    def _give_back(self, worker: Worker) -> None:
        if self._stopped or not (worker.at_rest and worker.alive):
            worker.end()
            self._make_spare()
            return
        worker.idle_since = asyncio.get_running_loop().time()
        worker.cpu_s = None
        self._idle.append(worker)

    def _make_spare(self) -> None:
        if self._idle or self._stopped or (self._making is not None and not self._making.done()):
            return
        self._making = asyncio.create_task(self._add_spare(), name="spare query worker")

    async def _add_spare(self) -> None:
        try:
            self._idle.insert(0, await Worker.of(await self.forks.fork()))
        except KalamError as exc:
            log.error("no spare query process", reason=exc.detail)

    async def run(self) -> None:
        """Look after the workers that wait: forget what is gone, end what is one too many or works on by itself."""
        while True:
            await asyncio.sleep(LOOK_S)
            now = asyncio.get_running_loop().time()
            for worker in list(self._idle):
                used_s = worker.used_cpu_s()
                astray = worker.cpu_s is not None and used_s - worker.cpu_s > LOOK_S / 2
                worker.cpu_s = used_s
                surplus = len(self._idle) > 1 and now - worker.idle_since > SURPLUS_IDLE_S
                large = worker.memory_bytes() > LARGE_BYTES  # what a query left behind is gone with the process
                if worker in self._idle and (astray or surplus or large or not worker.alive):
                    self._idle.remove(worker)
                    worker.end()
                    self._make_spare()
                else:
                    await worker.tidy()

    async def drain(self, grace_s: float) -> None:
        """Take no more queries, give those that run a moment, and end what is left."""
        self.closing = True
        if self._busy:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._rested.wait()
        for worker in self._busy:
            worker.fork.kill()

    async def stop(self) -> None:
        """End every worker and the process that they are forked from."""
        self._stopped = True
        if self._making is not None:
            self._making.cancel()
            await asyncio.gather(self._making, return_exceptions=True)
        for worker in (*self._idle, *self._busy):
            worker.end()
        self._idle.clear()
        await self.forks.stop()
