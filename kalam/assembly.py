"""The engine, put together from storage, the tables and the ports of the broker."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from kalam.access.opened import Access
from kalam.engine import Engine
from kalam.engine.access import AccessStatements, Audited
from kalam.engine.changes import Changes
from kalam.engine.comments import CommentStatements
from kalam.engine.definitions import Definitions
from kalam.engine.describing import Describing
from kalam.engine.descriptions import Descriptions
from kalam.engine.dispatch import Dispatch
from kalam.engine.filled_tables import FilledTables
from kalam.engine.foreign import ForeignStatements
from kalam.engine.gate import Gate
from kalam.engine.grants import Grants
from kalam.engine.health import Health
from kalam.engine.inserts import Inserts
from kalam.engine.lake import LakeStatements
from kalam.engine.literal_rows import LiteralRows
from kalam.engine.live import Live
from kalam.engine.merge_statements import MergeStatements
from kalam.engine.merges import Merges
from kalam.engine.policies import PolicyStatements
from kalam.engine.row_checks import RowChecks
from kalam.engine.row_statements import RowStatements
from kalam.engine.selects import SelectStatements
from kalam.engine.sql_counts import SqlCounts
from kalam.engine.stats import Stats
from kalam.engine.temporary import TemporaryStatements
from kalam.engine.texts import Texts
from kalam.engine.users import Users
from kalam.engine.views import ViewStatements
from kalam.engine.work import WorkStatements
from kalam.lake.lake import Lake
from kalam.live import LiveBounds, Registry
from kalam.live.snapshots import Snapshots
from kalam.metrics import statistics
from kalam.query.judge import JudgeProcess
from kalam.query.points import Points
from kalam.query.queries import Queries
from kalam.query.running import RunningQueries
from kalam.query.system import (
    AUDIT,
    LIVE_QUERIES,
    QUERIES,
    SESSIONS,
    STATS,
    VIEWS,
    Shown,
    SystemTables,
    running_rows,
)
from kalam.schema import Table
from kalam.settings import Settings
from kalam.storage.opened import Storage
from kalam.storage.work.background import Background
from kalam.tables.ephemeral_rows import EphemeralRows, EphemeralUpkeep
from kalam.tables.foreign.rows import ForeignRows
from kalam.tables.foreign.tables import ForeignTables
from kalam.tables.foreign.upkeep import ForeignUpkeep
from kalam.tables.kinds import Rows, Tables, Upkeep
from kalam.tables.large_changes import LargeChanges
from kalam.tables.outbox import Outbox
from kalam.tables.removed_copies import remove_copy
from kalam.tables.selects import SelectRows, SelectUpkeep
from kalam.tables.stored import Bounds, StoredTables
from kalam.tables.stored_rows import StoredRows
from kalam.tables.stored_upkeep import StoredUpkeep
from kalam.tables.stream_rows import StreamRows
from kalam.tables.stream_upkeep import StreamUpkeep
from kalam.tables.streams import StreamTables
from kalam.tables.view_rows import ViewRows
from kalam.tables.view_upkeep import ViewUpkeep
from kalam.views.asleep import Asleep
from kalam.views.ephemeral import Ephemeral
from kalam.views.filled import Filled
from kalam.views.making import Making, ViewBounds
from kalam.views.nameless import NamelessBounds, NamelessViews
from kalam.views.plan import Planner
from kalam.views.readers import Readers
from kalam.views.views import Views
from kalam.views.wakings import Wakings
from kalam_nats.door.live_delivery import LiveDelivery
from kalam_nats.ports import Broker


class Assembly(msgspec.Struct, frozen=True):
    """The parts that are open, from which the engine is made."""

    settings: Settings
    storage: Storage
    access: Access
    broker: Broker
    background: Background
    lake: Lake
    outbox: Outbox
    streams: StreamTables
    foreign: ForeignTables
    logins_answered: Callable[[], bool] | None

    def engine(self) -> tuple[Engine, Queries, LiveDelivery, Views]:
        """The engine; the queries, whose workers are to be run; what brings live queries to the broker; the views."""
        settings, storage, background = self.settings, self.storage, self.background
        bounds = Bounds(settings.row_bytes_max, settings.outbox_bytes_max)
        stored = StoredTables(storage.store, storage.codecs, storage.folders, storage.cold_keys, self.outbox, bounds)
        filled, ephemeral = Filled(), EphemeralRows()
        tables: Tables[Rows] = Tables(
            stored=StoredRows(stored, storage.catalogue, self.broker.replay),
            streams=StreamRows(self.streams, storage.codecs),
            foreign=ForeignRows(self.foreign),
            views=ViewRows(stored, storage.catalogue, self.broker.replay, filled),
            ephemeral=ephemeral,
            selects=SelectRows(),
        )
        system = SystemTables(storage.database, storage.catalogue, self.access.rights, background.jobs.progress)
        queries = Queries(settings, storage.catalogue, storage.folders, tables, system, self.access.rights)
        background.compactor.listeners.append(queries.release)
        registry = self._registry(tables, queries)
        storage.database.add_group_listener(registry.announce_all)
        delivery = LiveDelivery(self.broker.connection, self.broker.subjects, registry)
        views = self._views(stored, tables, queries, registry, filled, ephemeral)
        dispatch = self._dispatch(stored, tables, queries, registry, delivery, views, ephemeral)
        system.add("audit", AUDIT, self.access.audit.rows, Shown.NONE)
        system.add("sessions", SESSIONS, self.access.logins.session_rows, Shown.OWN)
        system.add("stats", STATS, lambda: statistics(dispatch.inserts, self.outbox, storage.database), Shown.NONE)
        system.add("live_queries", LIVE_QUERIES, dispatch.live.rows, Shown.OWN)
        system.add("views", VIEWS, views.rows, Shown.VISIBLE)
        system.add("queries", QUERIES, partial(running_rows, dispatch.running), Shown.OWN)
        stats = self._stats(dispatch, registry)
        return Engine(dispatch, stats, self._health(), queries.pool), queries, delivery, views

    def _views(
        self,
        stored: StoredTables,
        tables: Tables[Rows],
        queries: Queries,
        registry: Registry,
        filled: Filled,
        in_memory: EphemeralRows,
    ) -> Views:
        settings, storage, rights = self.settings, self.storage, self.access.rights
        bounds = ViewBounds(
            view_backlog_bytes_max=settings.view_backlog_bytes_max,
            view_groups_max=settings.view_groups_max,
            live_held_bytes_max=settings.live_held_bytes_max,
            view_idle_s=settings.view_idle_s,
        )
        making = Making(storage, stored, tables, queries, self.streams, self.foreign, self.broker.notices, bounds)
        port, wait_s = self.broker.unkept, settings.query_time_s
        readers = Readers(making.readings.at_hand)
        wakings = Wakings(storage.codecs, port, making, readers, [registry.announce], wait_s)
        asleep = Asleep(queries, settings.view_groups_max)
        ephemeral = Ephemeral(storage.catalogue, rights, port, making, wakings, asleep)
        in_memory.views = registry.holding = ephemeral
        registry.keeping = self._nameless(queries, wakings, registry)
        storage.database.add_listener(readers.announce)
        return Views(storage, self.streams, rights, making, readers, filled, ephemeral)

    def _nameless(self, queries: Queries, wakings: Wakings, registry: Registry) -> NamelessViews:
        settings = self.settings
        most = (settings.live_views_max, settings.live_views_per_user_max, settings.view_groups_max)
        bounds = NamelessBounds(*most)
        planner = Planner(self.storage.catalogue, queries)
        return NamelessViews(bounds, queries.policies, planner, self.foreign, wakings, registry.close_table)

    def _registry(self, tables: Tables[Rows], queries: Queries) -> Registry:
        settings, storage = self.settings, self.storage
        bounds = LiveBounds(
            live_queries_max=settings.live_queries_max,
            live_queries_per_user_max=settings.live_queries_per_user_max,
            live_queue_bytes_max=settings.live_queue_bytes_max,
            live_held_bytes_max=settings.live_held_bytes_max,
            row_bytes_max=settings.row_bytes_max,
        )
        snapshots = Snapshots(queries, tables, settings.live_snapshot_rows_max)
        judging = JudgeProcess(queries.pool.forks)
        policies, catalogue, codecs = queries.policies, storage.catalogue, storage.codecs
        streams, foreign = self.streams, self.foreign
        return Registry(bounds, catalogue, codecs, tables, streams, foreign, snapshots, judging, policies)

    def _large(self, stored: StoredTables) -> LargeChanges:
        return LargeChanges(self.storage, self.background, stored, self.storage.staged, self.settings.row_bytes_max)

    def _dispatch(
        self,
        stored: StoredTables,
        tables: Tables[Rows],
        queries: Queries,
        registry: Registry,
        delivery: LiveDelivery,
        views: Views,
        ephemeral: EphemeralRows,
    ) -> Dispatch:
        settings, storage, background = self.settings, self.storage, self.background
        catalogue, codecs = storage.catalogue, storage.codecs
        checks = RowChecks(queries.policies)
        merges = Merges(codecs, tables, queries, checks, settings.batch_rows_max)
        refused = self.broker.rejections.rows
        texts = Texts.of(settings, queries.pool)
        upkeep = self._upkeep(ephemeral)
        jobs, notices = background.jobs, self.broker.notices
        gate = Gate(self.access.rights, catalogue)
        audited = Audited(self.access.audit, on=self.access.rights.on)
        inserts = Inserts(settings, catalogue, codecs, tables, merges, checks, gate, audited, refused)

        async def remove_rows(table: Table, user: str) -> None:
            await remove_copy(storage, background, self.outbox, table, user)
            queries.release(table.table_id, user)

        users, grants = Users(self.access, gate, catalogue, remove_rows), Grants(self.access.book, gate, catalogue)
        policies = PolicyStatements(queries.policies, self.access.book, gate, catalogue)
        of_views = (storage.troubles, gate, views)
        definitions = Definitions(storage.store, upkeep, queries, registry, jobs, notices, *of_views)
        points, literal_rows = Points(catalogue, stored, tables, queries.policies), LiteralRows()
        dispatch = Dispatch(
            settings=settings,
            catalogue=catalogue,
            queries=queries,
            points=points,
            rows=self._rows(stored, tables, queries, inserts),
            describing=Describing(catalogue, queries, points, literal_rows),
            comments=CommentStatements(storage.catalogue),
            descriptions=Descriptions(storage.database, catalogue, upkeep, queries, storage.troubles, gate),
            definitions=definitions,
            selects=SelectStatements(catalogue, definitions, queries),
            filled=FilledTables(definitions, queries, codecs, tables, upkeep),
            inserts=inserts,
            live=Live(registry, texts, gate, audited, queries.policies, delivery),
            lake=LakeStatements(catalogue, gate, audited, self.lake),
            foreign=ForeignStatements(catalogue, self.foreign),
            work=WorkStatements(catalogue, tables, background.schedule.flusher, background.compactor, jobs, gate),
            texts=texts,
            running=RunningQueries(),
            sql_counts=SqlCounts(),
            gate=gate,
            access=AccessStatements(users, grants, policies),
            views=ViewStatements(catalogue, definitions, Planner(catalogue, queries), views, self.foreign, gate),
            audited=audited,
            literal_rows=literal_rows,
        )
        self.access.book.on_narrowed(dispatch.live.narrowed)
        self.access.book.on_narrowed(dispatch.narrowed)
        return dispatch

    def _rows(self, stored: StoredTables, tables: Tables[Rows], queries: Queries, inserts: Inserts) -> RowStatements:
        settings, catalogue, codecs = self.settings, self.storage.catalogue, self.storage.codecs
        changes = Changes(settings, catalogue, codecs, tables, queries, self._large(stored))
        merging = MergeStatements(settings, catalogue, codecs, tables, queries)
        return RowStatements(catalogue, changes, merging, TemporaryStatements(settings, codecs, queries), inserts)

    def _upkeep(self, ephemeral: EphemeralRows) -> Tables[Upkeep]:
        settings, storage, background, streams = self.settings, self.storage, self.background, self.streams
        stored = (settings, storage, background, self.outbox, self.broker.feeds)
        return Tables(
            stored=StoredUpkeep(*stored),
            streams=StreamUpkeep(storage.database, storage.catalogue, streams),
            foreign=ForeignUpkeep(storage.database, storage.catalogue, self.foreign),
            views=ViewUpkeep(*stored),
            ephemeral=EphemeralUpkeep(storage.database, storage.catalogue, rows=ephemeral, port=self.broker.unkept),
            selects=SelectUpkeep(storage.database, storage.catalogue),
        )

    def _stats(self, dispatch: Dispatch, registry: Registry) -> Stats:
        storage, background = self.storage, self.background
        return Stats(
            data_dir=self.settings.data_dir,
            catalogue=storage.catalogue,
            database=storage.database,
            store=storage.store,
            inserts=dispatch.inserts,
            sql=dispatch.sql_counts,
            running=dispatch.running,
            live=registry,
            outbox=self.outbox,
            events=self.streams.counters,
            ends=self.broker.ends,
            jobs=background.jobs,
            flusher=background.schedule.flusher,
            schedule=background.schedule,
            troubles=storage.troubles,
            unclaimed=storage.unclaimed,
            lake=self.lake,
            broker_connected=self._connected,
        )

    def _health(self) -> Health:
        settings, storage, answers = self.settings, self.storage, self.broker.connection.answers
        return Health(
            settings.data_dir,
            settings.disk_free_bytes_min,
            storage.database,
            self.background.schedule,
            self._connected,
            answers,
            self.logins_answered,
        )

    def _connected(self) -> bool:
        return self.broker.connection.connected
