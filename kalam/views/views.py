"""All materialized views of a server: each has a keeper of its own, which is told when something comes to a source."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from functools import partial
from typing import Any, assert_never

import msgspec
import structlog

from kalam.access.model import Privilege
from kalam.access.rights import Rights
from kalam.errors import KalamError, TooBusy, Unsupported
from kalam.query.computed import ComputeProcess
from kalam.query.queries import Queries
from kalam.schema import Table
from kalam.sql import StatementText
from kalam.sql.queries.readers import read_query
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.statements import QueryText
from kalam.storage.log.view_positions import ViewState, forget_positions, hold_log, read_state, write_state
from kalam.storage.log.writes import Announcement
from kalam.storage.opened import Storage
from kalam.table_options import How
from kalam.tables.foreign.tables import ForeignTables
from kalam.tables.kinds import Rows, Tables
from kalam.tables.ports import Acked, NoticePort
from kalam.tables.stored import StoredTables
from kalam.tables.streams import StreamTables
from kalam.threads import Purpose, in_thread
from kalam.views.aggregating import Aggregating
from kalam.views.bucket_source import BucketSource
from kalam.views.copy_source import CopySource
from kalam.views.deciding import grouped_select
from kalam.views.filled import Filled
from kalam.views.followed import Followed, Wake
from kalam.views.foreign_source import ForeignSource
from kalam.views.group_memory import GroupMemory
from kalam.views.keeper import Keeper, Standing
from kalam.views.method import Method
from kalam.views.news_source import NewsSource
from kalam.views.plan import depth_of
from kalam.views.rereading import Rereading
from kalam.views.rerun import Rerun
from kalam.views.rerun_budget import RerunBudget
from kalam.views.row_wise import RowWise
from kalam.views.shape import Grouped
from kalam.views.shown import row_of, row_of_unkept
from kalam.views.stream_source import StreamSource
from kalam.views.writer import Writer

RIGHTS_S = 0.5
"""How often it is looked whether the owners of views may still read what these read."""
BEGIN_S = 5.0
FILLING_S = 0.003
"""How often a REFRESH looks whether the view is filled."""
PERMISSION = "permission"
log = structlog.get_logger(__name__)


class ViewBounds(msgspec.Struct, frozen=True):
    """Bounds, from the settings of these names."""

    view_backlog_bytes_max: int
    view_groups_max: int
    live_held_bytes_max: int


class _Running(msgspec.Struct):
    """A view and its keeper; ``task`` is None while its owner may not read the sources."""

    keeper: Keeper
    task: asyncio.Task[None] | None = None


class Views:
    """Keeps views. ``announce`` and ``announce_events`` are told of every change, in order."""

    def __init__(
        self,
        storage: Storage,
        stored: StoredTables,
        tables: Tables[Rows],
        queries: Queries,
        streams: StreamTables,
        foreign: ForeignTables,
        rights: Rights,
        notices: NoticePort,
        filled: Filled,
        bounds: ViewBounds,
    ) -> None:
        self._storage, self._catalogue, self._database = storage, storage.catalogue, storage.database
        self._stored, self._tables, self._queries = stored, tables, queries
        self._streams, self._foreign, self._rights = streams, foreign, rights
        self._notices, self._filled, self._bounds = notices, filled, bounds
        self._process = ComputeProcess(queries.pool.forks)
        self._running: dict[int, _Running] = {}
        self._readers: dict[int, list[_Running]] = {}
        """The running views by the id of what they read."""
        self._broken: dict[int, str] = {}
        self._changing = asyncio.Lock()
        self._budget = RerunBudget()

    async def run(self) -> None:
        """Keep every view up; runs until cancelled."""
        self._process.open()
        self._streams.add_listener(self)
        self._streams.room.hold_back(self.is_full)
        self._stored.room.hold_back(self.is_full)
        views = [table for table in self._catalogue.tables.values() if table.is_view]
        for view in sorted(views, key=lambda view: depth_of(view, self._catalogue)):
            try:
                await self.start(view)
            except Exception as exc:  # the others are kept all the same
                log.exception("a view cannot be kept", view=str(view.name))
                self._broken[view.table_id] = f"internal: {type(exc).__name__}; the server's log has the reason"
                with suppress(KalamError):
                    await self._let_go_of_log(view)
        try:
            while True:
                await asyncio.sleep(RIGHTS_S)
                for running in list(self._running.values()):
                    await self._check_rights(running.keeper.view)
        finally:
            for running in self._running.values():
                if running.task is not None:
                    running.task.cancel()
            await asyncio.gather(
                *(running.task for running in self._running.values() if running.task), return_exceptions=True
            )

    # One view.

    async def start(self, view: Table) -> None:
        """Keep a view up from now on."""
        async with self._changing:
            if view.table_id in self._running or view.table_id not in self._catalogue.by_id:
                return
            await self._start(view)

    def _state(self, view: Table) -> ViewState:
        with self._database.reading() as conn:
            return read_state(conn, view.table_id)

    async def _start(self, view: Table) -> None:
        state = await in_thread(Purpose.CATALOGUE, self._state, view)
        keeper = self._keeper(view)
        keeper.state = state
        running = self._running[view.table_id] = _Running(keeper)
        for source in view.view_options.reads:
            self._readers.setdefault(source.table_id, []).append(running)
        self._filled.set(view.table_id, state.filled)
        if self._may_read(view):
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
        async with self._changing:
            await self._stop(view)

    async def _stop(self, view: Table) -> None:
        running = self._running.pop(view.table_id, None)
        if running is None:
            return
        for source in view.view_options.reads:
            self._readers[source.table_id].remove(running)
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

    async def resume(self, view: Table, *, anew: bool = False) -> None:
        """Let a view go on that was stopped or altered, or fill it ``anew``."""
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

        Raises TooBusy where it cannot be filled now, which the view tries again.
        """
        sources = self._sources_of(view)
        streams = [source for source in sources if not source.is_stored and not source.is_bucket]
        if view.view_options.how is How.ROW_WISE and streams:
            raise Unsupported(
                f"REFRESH of {view.name}: it keeps what the stream of {streams[0].name} may not hold any more"
            )
        await self.stop(view)
        await self.resume(view, anew=True)
        running = self._running.get(view.table_id)
        while running is not None and running.task is not None and not running.task.done():
            kept = running.keeper.kept
            if kept.standing is Standing.RUNNING:
                return
            if kept.standing is not Standing.FILLING:  # or whoever asked would wait as long as it fails
                raise TooBusy(f"the materialized view {view.name} is filled as soon as it can be: {kept.reason}")
            await asyncio.sleep(FILLING_S)
        if running is not None:
            raise Unsupported(f"the materialized view {view.name} has stopped: {running.keeper.kept.reason}")

    def _sources_of(self, view: Table) -> list[Table]:
        """The tables that a view reads."""
        found = (self._catalogue.by_id.get(source.table_id) for source in view.view_options.reads)
        return [source for source in found if source is not None]

    def _may_read(self, view: Table) -> bool:
        """Whether the owner of a view may read what it reads."""
        return all(self._rights.may(view.owned_by, Privilege.SELECT, source) for source in self._sources_of(view))

    async def _check_rights(self, view: Table) -> None:
        """Stop a view whose owner may not read its sources any more, and let one go on whose owner may again."""
        view = self._catalogue.by_id.get(view.table_id, view)
        running = self._running.get(view.table_id)
        if running is None:
            return
        denied = running.task is None
        if self._may_read(view) is not denied:
            return
        async with self._changing:
            await self._stop(view)
            if view.table_id in self._catalogue.by_id:
                await self._start(view)

    # What it is made of.

    def _keeper(self, view: Table) -> Keeper:
        sources = self._sources_of(view)
        writer = Writer(view, self._stored, self._storage.store, self._queries)
        filled = partial(self._filled.set, view.table_id)
        method = self._method(view, sources)
        wakes: list[Wake] = []
        followed = [self._followed(source, view, lambda size: [wake(size) for wake in wakes]) for source in sources]
        keeper = Keeper(
            view,
            followed,
            method,
            writer,
            self._queries,
            self._tables,
            self._database,
            self._notices,
            filled,
            self._bounds.view_backlog_bytes_max // 2,
            lambda: self._catalogue.by_id.get(view.table_id, view).row_security,
        )
        wakes.append(keeper.wake)
        return keeper

    def _method(self, view: Table, sources: Sequence[Table]) -> Method:
        query = read_query(Cursor(StatementText(view.view_options.query)))
        match view.view_options.how:
            case How.ROW_WISE:
                return RowWise(view, sources[0], query, self._queries, self._process)
            case How.AGGREGATING:
                return self._aggregating(view, sources[0], query)
            case How.RERUN:
                return Rerun(
                    view,
                    sources,
                    query,
                    queries=self._queries,
                    tables=self._tables,
                    budget=self._budget,
                    rows_max=self._bounds.view_groups_max,
                )
            case other:
                assert_never(other)

    def _aggregating(self, view: Table, source: Table, query: QueryText) -> Aggregating:
        grouped = grouped_select(query, source)
        assert isinstance(grouped, Grouped)
        return Aggregating(
            view,
            source,
            grouped,
            queries=self._queries,
            process=self._process,
            memory=GroupMemory(self._database, view.table_id),
            reread=Rereading(source, self._stored, self._catalogue).since,
            groups_max=self._bounds.view_groups_max,
        )

    def _followed(self, source: Table, view: Table, wake: Any) -> Followed:
        backlog, held = self._bounds.view_backlog_bytes_max, self._bounds.live_held_bytes_max
        copies = partial(self._copy, source, view)
        kinds = Tables[Any](
            stored=copies,
            streams=lambda: StreamSource(
                source, self._streams, self._storage.codecs, wake, backlog_bytes_max=backlog, held=held
            ),
            foreign=lambda: self._of_others(source, view),
            views=copies,
            selects=lambda: None,  # no plan reads one
        )
        followed: Followed = kinds.of(source)()
        return followed

    def _copy(self, source: Table, view: Table) -> Followed:
        if view.view_options.how is How.RERUN:
            return NewsSource(source, self._stored, self._catalogue)
        return CopySource(source, self._stored, self._catalogue, self._bounds.view_backlog_bytes_max)

    def _of_others(self, source: Table, view: Table) -> Followed:
        if source.is_bucket:
            return BucketSource(source, self._foreign, self._catalogue)
        return ForeignSource(source, self._foreign, self._catalogue, view.view_options.on_recreate)

    # What comes.

    def announce(self, announcement: Announcement) -> None:
        """A chunk was committed."""
        for running in self._reading(announcement.table.table_id):
            running.keeper.announce(announcement.table, announcement.chunk.byte_count)

    def interested(self, table: Table) -> bool:
        """Whether a view follows a STREAM table: then its events are wanted, though nobody listens."""
        return any(running.task is not None for running in self._reading(table.table_id))

    def is_full(self, table: Table) -> bool:
        """Whether so much of a table waits for a view that goes on that whoever writes had better wait a little."""
        return any(
            source.full and source.table.table_id == table.table_id
            for running in self._reading(table.table_id)
            if running.keeper.kept.standing in (Standing.FILLING, Standing.RUNNING)
            for source in running.keeper.sources
        )

    def announce_events(self, table: Table, payloads: Sequence[bytes], acked: Acked) -> None:
        """Events were stored."""
        for running in self._reading(table.table_id):
            for source in running.keeper.sources:
                if isinstance(source, StreamSource) and source.table.table_id == table.table_id:
                    source.announce(payloads, acked)

    def _reading(self, table_id: int) -> list[_Running]:
        return self._readers.get(table_id, [])

    # How it stands.

    def rows(self) -> list[tuple[Any, ...]]:
        """The rows of ``system.views``."""
        kept = dict(self._running)
        views = [table for table in list(self._catalogue.tables.values()) if table.is_view]
        return [
            row_of(kept[view.table_id].keeper)
            if view.table_id in kept
            else row_of_unkept(view, self._broken.get(view.table_id))
            for view in views
        ]
