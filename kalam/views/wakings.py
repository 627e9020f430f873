"""Views in memory that are awake: their rows, what keeps these up, and whoever waits for them or hears their changes.

Law: a waking is a table of its own to those who hear its changes: it has a number that no other has, and counts from 1.
What it is filled with is the snapshot of a live query, and is told to nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context

import pyarrow as pa

from kalam.errors import TooBusy, Unsupported
from kalam.rows.codec import Codecs
from kalam.schema import Table
from kalam.storage.log.writes import Announcement
from kalam.table_options import How
from kalam.tables.ephemeral_rows import is_nameless
from kalam.tables.ports import UnkeptPort
from kalam.tables.runs import Unpublished, messages_of
from kalam.views.keeper import Keeper
from kalam.views.ledger import MemoryLedger
from kalam.views.making import Making
from kalam.views.memory import MemoryRows, RowsMax
from kalam.views.readers import Readers
from kalam.views.sight import EVERYTHING, Sight
from kalam.views.standing import Standing


class Waking:
    """A view that is awake: its rows, and what keeps them up; ``task`` is None while nothing does."""

    def __init__(self, rows: MemoryRows, sight: Sight, stood: Callable[[Waking], None] | None) -> None:
        self.rows, self.sight, self._stood = rows, sight, stood
        self.holds = 0
        self.listened_s = time.monotonic()
        self.settled = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.keeper: Keeper | None = None
        self.ended = False

    @property
    def view(self) -> Table:
        """The view."""
        return self.rows.view

    @property
    def called(self) -> str:
        """What it is called where there is something to be said of it."""
        return "what the live query keeps" if is_nameless(self.view) else f"the materialized view {self.view.name}"

    @property
    def standing(self) -> Standing:
        """How it stands."""
        return Standing.FILLING if self.keeper is None else self.keeper.kept.standing

    @property
    def readable(self) -> bool:
        """Whether its rows are those of its query, or what that was when it stopped."""
        keeps = self.view.view_options.how is How.RERUN  # which shows its rows until it has others
        return self.rows.begun and (keeps or self.standing is not Standing.FILLING)

    def stood(self) -> None:
        """Take note of how it stands."""
        if self.standing is Standing.RUNNING:
            self.rows.begun = True
        if self.standing is Standing.FILLING:
            self.settled.clear()
        else:
            self.settled.set()
        if self._stood is not None:
            self._stood(self)


class Hold:
    """Somebody's hold of a waking; ``feed_id`` is the number of its changes as a table."""

    def __init__(self, waking: Waking) -> None:
        self._waking: Waking | None = waking
        self.feed_id = waking.rows.feed_id
        waking.holds += 1

    def release(self) -> None:
        """Let go of it."""
        if self._waking is not None:
            self._waking.holds -= 1
            self._waking.listened_s = time.monotonic()
            self._waking = None


class Wakings:
    """All views in memory that are awake. ``listeners`` are told of each of their changes.

    Those that have a name are told on their subjects, too.
    """

    def __init__(
        self,
        codecs: Codecs,
        port: UnkeptPort,
        making: Making,
        readers: Readers,
        listeners: Sequence[Callable[[Announcement], None]],
        wait_s: float,
    ) -> None:
        self._codecs, self._port, self._making = codecs, port, making
        self._readers, self._listeners, self._wait_s = readers, listeners, wait_s
        self._awake: dict[int, Waking] = {}
        self._last_feed_id = 0

    def of(self, view: Table) -> Waking | None:
        """That of a view; None where it sleeps."""
        return self._awake.get(view.table_id)

    def all(self) -> list[Waking]:
        """Every one."""
        return list(self._awake.values())

    def wake(
        self,
        view: Table,
        sight: Sight = EVERYTHING,
        stood: Callable[[Waking], None] | None = None,
        rows_max: RowsMax | None = None,
    ) -> Waking:
        """Wake a view; ``stood`` is called whenever it stands otherwise, ``rows_max`` gives a bound on its rows."""
        feed_id = self._last_feed_id = max(self._last_feed_id + 1, time.time_ns() // 1_000)
        most = rows_max or (lambda: self._making.bounds.view_groups_max)
        rows = MemoryRows(view, feed_id, self._making.stored, MemoryLedger(), most, self._told)
        waking = self._awake[view.table_id] = Waking(rows, sight, stood)
        self.begin(waking)
        return waking

    def begin(self, waking: Waking) -> None:
        """Have it kept up, from a fill on, where nobody has done so meanwhile and it has not ended."""
        if waking.task is not None or waking.ended:
            return
        keeper: Keeper | None = None

        def stood(filled: bool) -> None:
            if waking.keeper is keeper:
                waking.stood()

        keeper = waking.keeper = self._making.memory_keeper(waking.view, waking.rows, stood, waking.sight)
        waking.settled.clear()
        self._readers.add(keeper)
        # Not in the context of whoever woke it.
        waking.task = asyncio.create_task(keeper.run(), name=f"view {waking.view.name}", context=Context())

    async def pause(self, waking: Waking) -> None:
        """Keep it up no more; its rows stay."""
        task, waking.task = waking.task, None
        if waking.keeper is not None:
            self._readers.remove(waking.keeper)
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def forget(self, waking: Waking) -> None:
        """It is nobody's any more; whoever waits for it learns so."""
        if self._awake.get(waking.view.table_id) is waking:
            del self._awake[waking.view.table_id]
        waking.ended = True
        waking.settled.set()

    async def end(self, waking: Waking) -> None:
        """Let it sleep."""
        self.forget(waking)
        await self.pause(waking)
        if is_nameless(waking.view):
            self._codecs.forget(waking.view)

    async def wait_filled(self, waking: Waking) -> None:
        """Wait until it has its rows; raises TooBusy and Unsupported where it cannot have them."""
        try:
            async with asyncio.timeout(self._wait_s):
                await waking.settled.wait()
        except TimeoutError as exc:
            raise TooBusy(f"{waking.called} is being filled", hint="SHOW VIEWS tells how views stand") from exc
        if waking.ended:
            raise TooBusy(f"{waking.called} was altered or dropped meanwhile; try again")
        if waking.rows.begun or waking.keeper is None:
            return
        reason = waking.keeper.kept.reason
        if waking.standing is Standing.STOPPED:
            raise Unsupported(f"{waking.called} has stopped: {reason}")
        raise TooBusy(f"{waking.called} is filled as soon as it can be: {reason}")

    async def numbered(self, view: Table) -> tuple[pa.Table, int]:
        """The rows of a view that is held, and the number of the last change in them."""
        waking = self.of(view)
        if waking is None:
            raise TooBusy(f"the materialized view {view.name} was altered meanwhile; try again")
        return await waking.rows.numbered()

    def last_seq(self, view: Table) -> int:
        """The last change of a view that is held."""
        waking = self.of(view)
        return 0 if waking is None else waking.rows.last_seq

    def _told(self, announcement: Announcement) -> None:
        """Tell of a change: live queries, and who subscribes to the subjects."""
        for listener in self._listeners:
            listener(announcement)
        waking = self.of(announcement.table)
        if waking is not None and not is_nameless(waking.view):
            codec = self._codecs.of(announcement.table)
            waiting = [Unpublished.of(announcement)]
            messages = list(messages_of(waiting, codec, self._port.payload_bytes_max))
            self._port.tell(announcement.table, waking.rows.feed_id, messages)
