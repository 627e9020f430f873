"""The audit: who logged in, who was refused, who changed what.

Law: what tells of a change is written in the transaction of that change (``telling``); what changes nothing, a login or
a refusal, is written at once and waited for by nobody. While the disk refuses writes entries wait in memory, up to a
bound, and are counted past it: a full disk keeps nobody from logging in to clear it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any, Final

import structlog
from msgspec.structs import astuple, replace

from kalam.access.collapsed import Collapsed
from kalam.access.entry import OK, Entry, insert_entries
from kalam.errors import Internal, KalamError
from kalam.storage.log.database import Database, now_us
from kalam.storage.log.write_task import Alongside, alongside

WAITING_MAX: Final = 10_000
TOGETHER_MAX: Final = 1_000
TICK_S: Final = 5.0
"""How often what was counted is looked at, and how long a disk that refuses writes is left alone."""
REPEATED: Final = frozenset({"login"})
"""What is counted past the ninth within a minute though it succeeds: clients come back in a circle."""

_TELLING: ContextVar[Alongside | None] = ContextVar("telling", default=None)
"""The block of this context; a task that outlives it finds one that is over."""
log = structlog.get_logger(__name__)


class Audit:
    """Takes entries and writes them; ``now_us`` gives the time in microseconds since 1970."""

    def __init__(self, database: Database, now_us: Callable[[], int] = now_us) -> None:
        self._database, self._now_us = database, now_us
        self._waiting: deque[Entry] = deque()
        self._collapsed = Collapsed()
        self._lost = 0
        self._wake = asyncio.Event()

    def note(
        self,
        user: str | None,
        action: str,
        object: str = "",  # noqa: A002 - as the column is called
        *,
        door: str = "",
        address: str = "",
        acting_for: str | None = None,
        outcome: str = OK,
        detail: str = "",
    ) -> None:
        """Tell of something that has happened; nothing secret may be in it."""
        entry = Entry(
            at_us=self._now_us(),
            user=user,
            acting_for=acting_for,
            door=door,
            address=address,
            action=action,
            object=object,
            outcome=outcome,
            detail=detail,
        )
        self.add(entry)

    def add(self, entry: Entry) -> None:
        """As ``note``; its time is set here if it is 0."""
        entry = entry if entry.at_us else replace(entry, at_us=self._now_us())
        repeated = entry.outcome != OK or entry.action in REPEATED
        kept = self._collapsed.take(entry) if repeated else entry
        if kept is not None:
            self._wait([kept])

    @contextmanager
    def telling(self, entry: Entry) -> Iterator[None]:
        """Tell of the change that the block makes, in its first transaction, or of the error that ends the block.

        Within another such block it is that one which tells.
        """
        outer = _TELLING.get()
        if outer is not None and not outer.over:
            yield
            return
        entry = entry if entry.at_us else replace(entry, at_us=self._now_us())
        with alongside(partial(insert_entries, entries=[entry])) as along:
            token = _TELLING.set(along)
            try:
                yield
            except KalamError as exc:
                self.add(replace(entry, outcome=exc.code))
                raise
            except BaseException as exc:
                outcome = "cancelled" if isinstance(exc, asyncio.CancelledError) else Internal.code
                self.add(replace(entry, outcome=outcome))
                raise
            else:
                if not along.written:
                    self.add(entry)
            finally:
                _TELLING.reset(token)

    async def run(self) -> None:
        """Write what comes, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            self._wake.clear()
            self._wait(self._collapsed.due(self._now_us()))
            if not await self._write():
                await asyncio.sleep(TICK_S)

    async def drain(self) -> None:
        """Write all that waits, for the end."""
        self._wait(self._collapsed.due(None))
        await self._write()

    @property
    def waiting(self) -> int:
        """How many entries are not written yet."""
        return len(self._waiting)

    def rows(self) -> list[tuple[Any, ...]]:
        """The rows of ``system.audit``, oldest first; blocking."""
        waiting = [astuple(entry) for entry in self._waiting.copy()]
        with self._database.reading() as conn:
            written = conn.execute(
                "SELECT at_us, user, acting_for, door, address, action, object, outcome, detail FROM audit"
            ).fetchall()
        there = set(written)  # what was written just now waited a moment ago
        return sorted((*written, *(row for row in waiting if row not in there)), key=itemgetter(0))

    def _wait(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if len(self._waiting) >= WAITING_MAX:
                self._lost += 1
            else:
                self._waiting.append(entry)
            self._wake.set()

    async def _write(self) -> bool:
        """Write what waits; whether the disk took it."""
        while self._waiting:
            entries = list(islice(self._waiting, TOGETHER_MAX))
            try:
                await self._database.write(partial(insert_entries, entries=entries))
            except KalamError as exc:
                log.warning("entries of the audit wait for the disk", entries=len(self._waiting), error=exc.detail)
                return False
            for _ in entries:
                self._waiting.popleft()
            if self._lost:
                lost, self._lost = self._lost, 0
                self.note(None, "audit", outcome="lost", detail=f"{lost} more could not be kept")
        return True
