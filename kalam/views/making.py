"""What keeps a view up, put together: its method, what it follows, and where its rows go."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, assert_never
from weakref import WeakValueDictionary

import msgspec

from kalam.query.computed import ComputeProcess
from kalam.query.queries import Queries
from kalam.schema import Table
from kalam.sql import StatementText
from kalam.sql.queries.readers import read_query
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.statements import QueryText
from kalam.storage.opened import Storage
from kalam.table_options import How
from kalam.tables.ephemeral_rows import is_nameless
from kalam.tables.foreign.tables import ForeignTables
from kalam.tables.kinds import Rows, Tables
from kalam.tables.ports import NoticePort
from kalam.tables.stored import StoredTables
from kalam.tables.streams import StreamTables
from kalam.views.aggregating import Aggregating
from kalam.views.bucket_source import BucketSource
from kalam.views.copy_source import CopySource
from kalam.views.deciding import grouped_select
from kalam.views.followed import Followed, Wake
from kalam.views.foreign_source import ForeignSource
from kalam.views.group_memory import GroupMemory
from kalam.views.held_source import HeldSource
from kalam.views.keeper import Keeper
from kalam.views.ledger import DatabaseLedger, Ledger
from kalam.views.memory import MemoryRows
from kalam.views.method import Method
from kalam.views.news_source import NewsSource
from kalam.views.readings import Readings
from kalam.views.rereading import Rereading
from kalam.views.rerun import Rerun
from kalam.views.rerun_budget import RerunBudget
from kalam.views.row_wise import RowWise
from kalam.views.shape import Grouped
from kalam.views.sight import EVERYTHING, Sight
from kalam.views.stream_source import StreamSource
from kalam.views.writer import Writer, Written


class ViewBounds(msgspec.Struct, frozen=True):
    """Bounds, from the settings of these names."""

    view_backlog_bytes_max: int
    view_groups_max: int
    live_held_bytes_max: int
    view_idle_s: float


class Means(msgspec.Struct, frozen=True):
    """What views share: a process, whose turn it is to run a SELECT again, and where is told what becomes of them."""

    process: ComputeProcess
    budget: RerunBudget
    notices: NoticePort


class Unnoticed:
    """Tells nobody; a NoticePort. A view without a name is its live queries' alone."""

    def notice(self, what: str, body: dict[str, object]) -> None:
        """Nothing."""


class Making:
    """Makes keepers. Views without a name take no time from those that have one: they share what is their own."""

    def __init__(
        self,
        storage: Storage,
        stored: StoredTables,
        tables: Tables[Rows],
        queries: Queries,
        streams: StreamTables,
        foreign: ForeignTables,
        notices: NoticePort,
        bounds: ViewBounds,
    ) -> None:
        self._storage, self._catalogue, self._database = storage, storage.catalogue, storage.database
        self.stored, self._tables, self._queries = stored, tables, queries
        self._streams, self._foreign, self.bounds = streams, foreign, bounds
        self._named = Means(ComputeProcess(queries.pool.forks), RerunBudget(), notices)
        self._nameless, self.readings = ComputeProcess(queries.pool.forks), Readings()
        self._budgets: WeakValueDictionary[str, RerunBudget] = WeakValueDictionary()

    def open(self) -> None:
        """Take note of the event loop's thread, in which processes are made."""
        self._named.process.open()
        self._nameless.open()

    def _means(self, view: Table) -> Means:
        """Those of a view; the SELECTs of each user's views without a name take a tenth of a core of their own."""
        if not is_nameless(view):
            return self._named
        budget = self._budgets.setdefault(view.owned_by, RerunBudget())
        return Means(self._nameless, budget, Unnoticed())

    def sources_of(self, view: Table) -> list[Table]:
        """The tables that a view reads."""
        found = (self._catalogue.by_id.get(source.table_id) for source in view.view_options.reads)
        return [source for source in found if source is not None]

    def stored_keeper(self, view: Table, filled: Callable[[bool], None]) -> Keeper:
        """What keeps a view whose rows are stored."""
        writer = Writer(view, self.stored, self._storage.store, self._queries)
        memory = GroupMemory(self._database, view.table_id)
        return self._keeper(view, writer, DatabaseLedger(self._database, view), memory, filled)

    def memory_keeper(self, view: Table, rows: MemoryRows, filled: Callable[[bool], None], sight: Sight) -> Keeper:
        """What keeps a view whose rows are in memory."""
        return self._keeper(view, rows, rows.ledger, None, filled, sight)

    def _keeper(
        self,
        view: Table,
        writer: Written,
        ledger: Ledger,
        memory: GroupMemory | None,
        filled: Callable[[bool], None],
        sight: Sight = EVERYTHING,
    ) -> Keeper:
        sources, means = self.sources_of(view), self._means(view)
        wakes: list[Wake] = []
        followed = [self._followed(each, view, lambda size: [wake(size) for wake in wakes], sight) for each in sources]
        keeper = Keeper(
            view,
            followed,
            self._method(view, sources, followed, writer, memory, means, sight),
            writer,
            self._queries,
            self._tables,
            ledger,
            means.notices,
            filled,
            self.bounds.view_backlog_bytes_max // 2,
            lambda: self._catalogue.by_id.get(view.table_id, view).row_security,
            sight,
        )
        wakes.append(keeper.wake)
        return keeper

    def _method(
        self,
        view: Table,
        sources: Sequence[Table],
        followed: Sequence[Followed],
        writer: Written,
        memory: GroupMemory | None,
        means: Means,
        sight: Sight,
    ) -> Method:
        query = read_query(Cursor(StatementText(view.view_options.query)))
        match view.view_options.how:
            case How.ROW_WISE:
                return RowWise(view, sources[0], query, self._queries, means.process)
            case How.AGGREGATING:
                return self._aggregating(view, sources[0], query, followed[0], memory, means, sight)
            case How.RERUN:
                return Rerun(
                    view,
                    sources,
                    query,
                    queries=self._queries,
                    tables=self._tables,
                    budget=means.budget,
                    rows_max=self.bounds.view_groups_max,
                    rows=writer.rows,
                    sight=sight,
                )
            case other:
                assert_never(other)

    def _aggregating(
        self,
        view: Table,
        source: Table,
        query: QueryText,
        followed: Followed,
        memory: GroupMemory | None,
        means: Means,
        sight: Sight,
    ) -> Aggregating:
        grouped = grouped_select(query, source)
        assert isinstance(grouped, Grouped)
        log: CopySource | None = followed if isinstance(followed, HeldSource) else None
        log = log or CopySource(source, self.stored, self._catalogue, self.readings, sys.maxsize)
        reread = Rereading(source, self.stored, log, sight)
        return Aggregating(
            view,
            source,
            grouped,
            queries=self._queries,
            process=means.process,
            memory=memory,
            reread=reread.since,
            groups_max=self.bounds.view_groups_max,
            sight=sight,
        )

    def _followed(self, source: Table, view: Table, wake: Any, sight: Sight) -> Followed:
        backlog, held = self.bounds.view_backlog_bytes_max, self.bounds.live_held_bytes_max
        copies = partial(self._copy, source, view, sight.user)
        kinds = Tables[Any](
            stored=copies,
            streams=lambda: StreamSource(
                source, self._streams, self._storage.codecs, wake, backlog_bytes_max=backlog, held=held
            ),
            foreign=lambda: self._of_others(source, view),
            views=copies,
            ephemeral=lambda: None,  # no plan reads one
            selects=lambda: None,  # nor one of these
        )
        followed: Followed = kinds.of(source)()
        return followed

    def _copy(self, source: Table, view: Table, user: str) -> Followed:
        if view.view_options.how is How.RERUN:
            return NewsSource(source, self.stored, self._catalogue, user)
        of_copy = HeldSource if view.is_ephemeral else CopySource
        return of_copy(source, self.stored, self._catalogue, self.readings, self.bounds.view_backlog_bytes_max, user)

    def _of_others(self, source: Table, view: Table) -> Followed:
        if source.is_bucket:
            return BucketSource(source, self._foreign, self._catalogue)
        return ForeignSource(source, self._foreign, self._catalogue, view.view_options.on_recreate)
