"""Materialized views in memory: asleep until somebody listens, awake until nobody has for a while.

Law: a waking is a table of its own to those who hear its changes: it has a number that no other has, and counts from 1.
What it is filled with is the snapshot of a live query, and is told to nobody. Whoever holds a waking keeps it; who
subscribes to its subjects alone is found by one question a second for all views.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Any, Final

import pyarrow as pa
import structlog

from kalam.access.rights import Rights
from kalam.errors import TooBusy, Unsupported
from kalam.rows.codec import Codecs
from kalam.schema import SEQ, VIEW_KEY, Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.writes import Announcement
from kalam.table_options import How
from kalam.tables.ports import UnkeptPort
from kalam.tables.runs import Unpublished, messages_of
from kalam.views.asleep import Asleep
from kalam.views.keeper import Keeper, Standing
from kalam.views.ledger import MemoryLedger
from kalam.views.making import Making
from kalam.views.memory import MemoryRows
from kalam.views.owners import PERMISSION, check_may_read, may_read
from kalam.views.readers import Readers
from kalam.views.shown import row_asleep, row_of

LOOK_S: Final = 1.0
"""How often it is asked who subscribes."""
log = structlog.get_logger(__name__)


class Waking:
    """A view that is awake: its rows, and what keeps them up; ``task`` is None while nothing does."""

    def __init__(self, rows: MemoryRows) -> None:
        self.rows = rows
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


class Ephemeral:
    """All views in memory. ``listeners`` are told of each of their changes."""

    def __init__(
        self,
        catalogue: Catalogue,
        codecs: Codecs,
        rights: Rights,
        port: UnkeptPort,
        making: Making,
        readers: Readers,
        asleep: Asleep,
        listeners: Sequence[Callable[[Announcement], None]],
        wait_s: float,
    ) -> None:
        self._catalogue, self._codecs, self._rights, self._port = catalogue, codecs, rights, port
        self._making, self._readers, self._asleep, self._listeners = making, readers, asleep, listeners
        self._wait_s, self._idle_s = wait_s, making.bounds.view_idle_s
        self._views: dict[int, Table] = {}
        self._awake: dict[int, Waking] = {}
        self._last_feed_id = 0

    async def run(self) -> None:
        """Wake those that somebody listens to, and let others sleep; runs until cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                try:
                    await self._look()
                except Exception:
                    log.exception("it cannot be told who listens to views")
        finally:
            for waking in list(self._awake.values()):
                await self._end(waking)

    async def _look(self) -> None:
        views = list(self._views.values())
        asked = [view for view in views if not self._is_held(view)]
        heard = await self._port.heard(asked) if asked else set[int]()
        for view in views:
            waking = self._awake.get(view.table_id)
            listens = heard is None or view.table_id in heard  # what nobody knows changes nothing
            if waking is None:
                if heard and listens and self._views.get(view.table_id) is view and self._may_read(view):
                    self._wake(view)
            elif waking.holds or listens:
                waking.listened_s = time.monotonic()
            elif time.monotonic() - waking.listened_s >= self._idle_s:
                await self._end(waking)

    def _is_held(self, view: Table) -> bool:
        waking = self._awake.get(view.table_id)
        return waking is not None and waking.holds > 0

    def _may_read(self, view: Table) -> bool:
        return may_read(view, self._making.sources_of(view), self._rights)

    async def check_rights(self) -> None:
        """Stop those whose owner may not read the sources any more, and let those go on whose owner may again."""
        for waking in list(self._awake.values()):
            view = self._catalogue.by_id.get(waking.view.table_id)
            if view is None or waking.keeper is None:
                continue
            kept = waking.keeper.kept
            if waking.task is not None and not self._may_read(view):
                await self._pause(waking)
                kept.standing, kept.reason = Standing.STOPPED, PERMISSION
                waking.stood()
            elif waking.task is None and kept.reason == PERMISSION and self._may_read(view):
                waking.rows.view = view
                self._begin(waking)

    # One view.

    def add(self, view: Table) -> None:
        """A view is there from now on, or again as it was altered."""
        if view.table_id not in self._catalogue.by_id:
            return
        self._views[view.table_id] = view
        waking = self._awake.get(view.table_id)
        if waking is None:
            return
        if waking.view.columns == view.columns and waking.task is None:
            waking.rows.view = view
            self._begin(waking)
        else:
            self._forget(waking)

    async def remove(self, view: Table) -> None:
        """Keep it up no more; what there is stays until it is forgotten, or there again."""
        self._views.pop(view.table_id, None)
        waking = self._awake.get(view.table_id)
        if waking is not None:
            await self._pause(waking)

    def forget(self, view: Table) -> None:
        """A view was dropped."""
        self._views.pop(view.table_id, None)
        waking = self._awake.get(view.table_id)
        if waking is not None:
            self._forget(waking)

    async def refresh(self, view: Table) -> None:
        """Fill it anew where it is awake; returns when it is filled."""
        waking = self._awake.get(view.table_id)
        if waking is None:
            return
        await self._pause(waking)
        self._begin(waking)
        await self._wait_filled(waking)

    def _wake(self, view: Table) -> Waking:
        feed_id = self._last_feed_id = max(self._last_feed_id + 1, time.time_ns() // 1_000)
        rows_max = self._making.bounds.view_groups_max
        rows = MemoryRows(view, feed_id, self._making.stored, MemoryLedger(), rows_max, self._told)
        waking = self._awake[view.table_id] = Waking(rows)
        self._begin(waking)
        return waking

    def _begin(self, waking: Waking) -> None:
        keeper: Keeper | None = None

        def stood(filled: bool) -> None:
            if waking.keeper is keeper:
                waking.stood()

        keeper = waking.keeper = self._making.memory_keeper(waking.view, waking.rows, stood)
        waking.settled.clear()
        self._readers.add(keeper)
        # Not in the context of whoever woke it.
        waking.task = asyncio.create_task(keeper.run(), name=f"view {waking.view.name}", context=Context())

    async def _pause(self, waking: Waking) -> None:
        task, waking.task = waking.task, None
        if waking.keeper is not None:
            self._readers.remove(waking.keeper)
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _forget(self, waking: Waking) -> None:
        if self._awake.get(waking.view.table_id) is waking:
            del self._awake[waking.view.table_id]
        waking.ended = True
        waking.settled.set()

    async def _end(self, waking: Waking) -> None:
        self._forget(waking)
        await self._pause(waking)

    def _told(self, announcement: Announcement) -> None:
        """Tell of a change: live queries, and who subscribes to the subjects."""
        for listener in self._listeners:
            listener(announcement)
        waking = self._awake.get(announcement.table.table_id)
        if waking is not None:
            codec = self._codecs.of(announcement.table)
            waiting = [Unpublished(announcement.chunk)]
            messages = list(messages_of(waiting, codec, self._port.payload_bytes_max))
            self._port.tell(announcement.table, waking.rows.feed_id, messages)

    # For whoever reads.

    async def hold(self, table: Table) -> Hold | None:
        """Keep a view awake, once it is filled; None for any other table.

        Raises PermissionDenied where its owner may not read what it reads, TooBusy and Unsupported where it cannot be
        filled.
        """
        if not table.is_ephemeral:
            return None
        waking = self._awake.get(table.table_id)
        if waking is None:
            if table.table_id not in self._views:
                raise TooBusy(f"the materialized view {table.name} is being altered; try again")
            check_may_read(table, self._making.sources_of(table), self._rights)
            waking = self._wake(table)
        hold = Hold(waking)
        try:
            await self._wait_filled(waking)
        except BaseException:
            hold.release()
            raise
        return hold

    async def _wait_filled(self, waking: Waking) -> None:
        name = waking.view.name
        try:
            async with asyncio.timeout(self._wait_s):
                await waking.settled.wait()
        except TimeoutError as exc:
            raise TooBusy(
                f"the materialized view {name} is being filled", hint="SHOW VIEWS tells how it stands"
            ) from exc
        if waking.ended:
            raise TooBusy(f"the materialized view {name} was altered or dropped meanwhile; try again")
        if waking.rows.begun or waking.keeper is None:
            return
        reason = waking.keeper.kept.reason
        if waking.standing is Standing.STOPPED:
            raise Unsupported(f"the materialized view {name} has stopped: {reason}")
        raise TooBusy(f"the materialized view {name} is filled as soon as it can be: {reason}")

    async def source(self, table: Table, *, with_key: bool) -> pa.Table:
        """What a query reads of a view: its rows, or those of its SELECT while it is not awake."""
        waking = self._awake.get(table.table_id)
        hold = None
        if with_key and VIEW_KEY in table.key and (waking is None or not waking.readable):
            hold = await self.hold(table)  # only the groups know it
            waking = self._awake.get(table.table_id)
        try:
            if waking is None or not waking.readable:
                check_may_read(table, self._making.sources_of(table), self._rights)
                return await self._asleep.rows(table)
            data, _ = await waking.rows.numbered()
            hidden = set() if with_key else table.hidden_columns
            return data.drop_columns([SEQ, *hidden])
        finally:
            if hold is not None:
                hold.release()

    async def numbered(self, table: Table) -> tuple[pa.Table, int]:
        """The rows of a view that is held, and the number of the last change in them."""
        waking = self._awake.get(table.table_id)
        if waking is None:
            raise TooBusy(f"the materialized view {table.name} was altered meanwhile; try again")
        return await waking.rows.numbered()

    def last_seq(self, table: Table) -> int:
        """The last change of a view that is held."""
        waking = self._awake.get(table.table_id)
        return 0 if waking is None else waking.rows.last_seq

    def state(self, table: Table) -> list[tuple[str, Any]]:
        """How it stands with one, by name."""
        waking = self._awake.get(table.table_id)
        if waking is None:
            return [("state", Standing.ASLEEP.value), ("rows", 0)]
        return [("state", waking.standing.value), ("rows", len(waking.rows))]

    def row(self, view: Table) -> tuple[Any, ...]:
        """The row of ``system.views``."""
        waking = self._awake.get(view.table_id)
        if waking is None or waking.keeper is None:
            return row_asleep(view, None if self._may_read(view) else PERMISSION)
        return row_of(waking.keeper)
