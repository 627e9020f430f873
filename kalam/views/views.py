"""All materialized views of a server: each has a keeper of its own, which is told when something comes to a source."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import msgspec
import structlog

from kalam.access.rights import Rights
from kalam.errors import KalamError, TooBusy, Unsupported
from kalam.schema import Table
from kalam.storage.log.view_positions import ViewState, forget_positions, hold_log, read_state, write_state
from kalam.storage.opened import Storage
from kalam.table_options import How
from kalam.tables.streams import StreamTables
from kalam.threads import Purpose, in_thread
from kalam.views.ephemeral import Ephemeral
from kalam.views.filled import Filled
from kalam.views.keeper import Keeper
from kalam.views.making import Making
from kalam.views.owners import PERMISSION, may_read
from kalam.views.plan import depth_of
from kalam.views.readers import Readers
from kalam.views.shown import row_of, row_of_unkept
from kalam.views.standing import Standing

RIGHTS_S = 0.5
"""How often it is looked whether the owners of views may still read what these read."""
BEGIN_S = 5.0
log = structlog.get_logger(__name__)


class _Running(msgspec.Struct):
    """A view and its keeper; ``task`` is None while its owner may not read the sources."""

    keeper: Keeper
    task: asyncio.Task[None] | None = None


class Views:
    """Keeps views. Its ``readers`` are told of every change, in order; ``ephemeral`` keeps those in memory."""

    def __init__(
        self,
        storage: Storage,
        streams: StreamTables,
        rights: Rights,
        making: Making,
        readers: Readers,
        filled: Filled,
        ephemeral: Ephemeral,
    ) -> None:
        self._catalogue, self._database = storage.catalogue, storage.database
        self._streams, self._rights, self._making, self._filled = streams, rights, making, filled
        self._readers, self._ephemeral = readers, ephemeral
        self._running: dict[int, _Running] = {}
        self._broken: dict[int, str] = {}
        self._changing = asyncio.Lock()
        self._refreshing: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    async def run(self) -> None:
        """Keep every view up; runs until cancelled."""
        self._making.open()
        self._streams.add_listener(self._readers)
        self._streams.room.hold_back(self._readers.is_full)
        self._making.stored.room.hold_back(self._readers.is_full)
        views = [table for table in self._catalogue.tables.values() if table.is_view]
        for view in sorted(views, key=lambda view: depth_of(view, self._catalogue)):
            try:
                await self.start(view)
            except Exception as exc:  # the others are kept all the same
                log.exception("a view cannot be kept", view=str(view.name))
                self._broken[view.table_id] = f"internal: {type(exc).__name__}; the server's log has the reason"
                with suppress(KalamError):
                    await self._let_go_of_log(view)
        asleep = asyncio.create_task(self._ephemeral.run(), name="ephemeral views")
        try:
            while True:
                await asyncio.sleep(RIGHTS_S)
                for running in list(self._running.values()):
                    await self._check_rights(running.keeper.view)
                await self._ephemeral.check_rights()
        finally:
            asleep.cancel()
            await asyncio.gather(asleep, return_exceptions=True)
            for running in self._running.values():
                if running.task is not None:
                    running.task.cancel()
            await asyncio.gather(
                *(running.task for running in self._running.values() if running.task), return_exceptions=True
            )

    # One view.

    async def start(self, view: Table) -> None:
        """Keep a view up from now on."""
        if view.is_ephemeral:
            self._ephemeral.add(view)
            return
        async with self._changing:
            if view.table_id in self._running or view.table_id not in self._catalogue.by_id:
                return
            await self._start(view)

    def _state(self, view: Table) -> ViewState:
        with self._database.reading() as conn:
            return read_state(conn, view.table_id)

    async def _start(self, view: Table) -> None:
        state = await in_thread(Purpose.CATALOGUE, self._state, view)
        keeper = self._making.stored_keeper(view, partial(self._filled.set, view.table_id))
        keeper.state = state
        running = self._running[view.table_id] = _Running(keeper)
        self._filled.set(view.table_id, state.filled)
        if may_read(view, self._making.sources_of(view), self._rights):
            self._readers.add(keeper)
            # Not in the context of a statement, whose end is not the view's.
            running.task = asyncio.create_task(keeper.run(), name=f"view {view.name}", context=Context())
        else:
            keeper.kept.standing, keeper.kept.reason = Standing.STOPPED, PERMISSION
            await self._let_go_of_log(view)

    async def _let_go_of_log(self, view: Table) -> None:
        """The logs of its sources keep nothing for a view that stands still."""
        await self._database.write(lambda conn: hold_log(conn, view.table_id, holds=False))

    async def wait_begun(self, view: Table) -> None:
        """Wait until a view has what its stream holds and nothing escapes it any more; some seconds at the most."""
        running = self._running.get(view.table_id)
        if running is not None and any(source.table.is_stream for source in running.keeper.sources):
            with suppress(TimeoutError):
                async with asyncio.timeout(BEGIN_S):
                    await running.keeper.begun.wait()

    async def stop(self, view: Table) -> None:
        """Keep a view up no more; what was committed stays."""
        if view.is_ephemeral:
            await self._ephemeral.remove(view)
            return
        async with self._changing:
            await self._stop(view)

    async def _stop(self, view: Table) -> None:
        running = self._running.pop(view.table_id, None)
        if running is None:
            return
        self._readers.remove(running.keeper)
        if running.task is None:
            return
        running.task.cancel()
        with suppress(asyncio.CancelledError):
            await running.task

    @asynccontextmanager
    async def ending(self, table: Table) -> AsyncIterator[None]:
        """Keep a view up no more while it is dropped; it goes on where it could not be."""
        if table.is_view:
            await self.stop(table)
        try:
            yield
        except BaseException:
            if table.is_view:
                await self.start(table)
            raise

    def forget(self, view: Table) -> None:
        """A view was dropped."""
        self._filled.forget(view.table_id)
        self._ephemeral.forget(view)

    async def resume(self, view: Table, *, anew: bool = False) -> None:
        """Let a view go on that was stopped or altered, or fill it ``anew``."""
        if view.is_ephemeral:
            await self.start(view)
            return
        state = await in_thread(Purpose.CATALOGUE, self._state, view)
        is_rerun = view.view_options.how is How.RERUN  # which shows its rows until it has others
        state = msgspec.structs.replace(state, stopped="", filled=state.filled and (is_rerun or not anew))

        def write(conn: sqlite3.Connection) -> None:
            write_state(conn, view.table_id, state)
            if anew:
                forget_positions(conn, view.table_id)

        await self._database.write(write)
        await self.start(view)

    async def refresh(self, view: Table) -> None:
        """Fill a view anew; returns when it is filled. Raises Unsupported for one whose past would go, or that stops.

        Raises TooBusy where it cannot be filled now, which the view tries again. Of several one is done after another.
        """
        async with self._refreshing.setdefault(view.table_id, asyncio.Lock()):
            await self._refresh(self._catalogue.newest(view))

    async def _refresh(self, view: Table) -> None:
        sources = self._making.sources_of(view)
        streams = [source for source in sources if not source.is_stored and not source.is_bucket]
        if view.view_options.how is How.ROW_WISE and streams:
            raise Unsupported(
                f"REFRESH of {view.name}: it keeps what the stream of {streams[0].name} may not hold any more"
            )
        if not may_read(view, sources, self._rights):  # its rows stay readable as they are
            raise Unsupported(f"the materialized view {view.name} has stopped: {PERMISSION}")
        if view.is_ephemeral:
            await self._ephemeral.refresh(view)
            return
        running = self._running.get(view.table_id)
        if running is not None and running.task is not None and running.keeper.may_begin_anew(view):
            running.keeper.begin_anew()
        else:
            await self.stop(view)
            await self.resume(view, anew=True)
            running = self._running.get(view.table_id)
        if running is None:
            raise TooBusy(_ended(view))
        await _wait_settled(running.keeper, running.task)

    async def _check_rights(self, view: Table) -> None:
        """Stop a view whose owner may not read its sources any more, and let one go on whose owner may again."""
        view = self._catalogue.by_id.get(view.table_id, view)
        running = self._running.get(view.table_id)
        if running is None:
            return
        denied = running.task is None
        if may_read(view, self._making.sources_of(view), self._rights) is not denied:
            return
        async with self._changing:
            await self._stop(view)
            if view.table_id in self._catalogue.by_id:
                await self._start(view)

    # How it stands.

    def rows(self) -> list[tuple[Any, ...]]:
        """The rows of ``system.views``."""
        kept = dict(self._running)
        views = [table for table in list(self._catalogue.tables.values()) if table.is_view]
        return [
            self._ephemeral.row(view)
            if view.is_ephemeral
            else row_of(kept[view.table_id].keeper)
            if view.table_id in kept
            else row_of_unkept(view, self._broken.get(view.table_id))
            for view in views
        ]


async def _wait_settled(keeper: Keeper, task: asyncio.Task[None] | None) -> None:
    """Wait until a view is filled; raises Unsupported and TooBusy where it comes to something else."""
    settled = asyncio.ensure_future(keeper.settled.wait())
    try:
        if task is not None:
            await asyncio.wait((settled, task), return_when=asyncio.FIRST_COMPLETED)
    finally:
        settled.cancel()
    kept, name = keeper.kept, keeper.view.name
    if kept.standing is Standing.STOPPED:
        raise Unsupported(f"the materialized view {name} has stopped: {kept.reason}")
    if kept.standing is Standing.FILLING:
        raise TooBusy(_ended(keeper.view))
    if kept.standing is not Standing.RUNNING:  # or whoever asked would wait as long as it fails
        raise TooBusy(f"the materialized view {name} is filled as soon as it can be: {kept.reason}")


def _ended(view: Table) -> str:
    return f"the materialized view {view.name} was altered or dropped meanwhile; try again"
