"""The composition root: everything is opened here, in one story, and closed in the reverse order.

Start order is the order below: data directory, database, broker, connection, tables, requests, HTTP. A server is ready
when all of it stands. When the block ends it drains: it takes no more requests, commits, publishes what is committed,
and closes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from kalam import __version__
from kalam.access.opened import Access, open_access
from kalam.access.switch import begin_access, keep_warning
from kalam.assembly import Assembly
from kalam.engine import Engine
from kalam.errors import KalamError
from kalam.lake.lake import Lake
from kalam.metrics import add_metrics
from kalam.query.queries import Queries
from kalam.settings import Settings, fitted, with_http_port
from kalam.sql.queries.readers import import_readers
from kalam.start_checks import check_exposure
from kalam.storage.log.data_dir import DATABASE, locked_data_dir, prepare_database
from kalam.storage.log.database import Database, warn_of_engine
from kalam.storage.opened import Storage, open_storage
from kalam.storage.segments.garbage import remove_garbage
from kalam.storage.work.background import open_background
from kalam.storage.work.flush_schedule import FlushSchedule
from kalam.storage.work.housekeeping import Housekeeping
from kalam.storage.work.jobs import Jobs
from kalam.tables.evictions import Evictions
from kalam.tables.foreign.tables import ForeignTables
from kalam.tables.outbox import Outbox
from kalam.tables.stream_counters import StreamCounters
from kalam.tables.streams import StreamTables
from kalam.tasks import running
from kalam.threads import Purpose, in_thread
from kalam.tls import Certificates
from kalam.urls import without_login
from kalam_nats.broker.store_repair import StoreRepair
from kalam_nats.door.discovery import Discovery
from kalam_nats.door.live_delivery import LiveDelivery
from kalam_nats.door.live_requests import LiveRequests
from kalam_nats.door.requests import Requests
from kalam_nats.door.senders import Senders
from kalam_nats.opened import OpenBroker, begin_logins, open_broker, senders_of
from kalam_nats.ports import Broker, Start, begin, open_ports

log = structlog.get_logger(__name__)

DRAIN_S = 10.0
QUERIES_DRAIN_S = 1.0  # what queries that run may still take when the server stops
THREAD_SWITCH_S = 0.0005
"""How long a thread may keep the interpreter when another waits: the writer's turn comes soon after its fsync."""


class Running(msgspec.Struct, frozen=True):
    """A server that is ready."""

    http_url: str
    nats_url: str
    nats_ws_url: str | None
    pg_url: str | None
    engine: Engine
    certificates: Certificates | None

    def announcement(self) -> dict[str, Any]:
        """What ``kalam.json`` and the line on standard output say."""
        return {
            "pid": os.getpid(),
            "http_url": self.http_url,
            "nats_url": self.nats_url,
            "nats_ws_url": self.nats_ws_url,
            "pg_url": self.pg_url,
            "version": __version__,
        }


@asynccontextmanager
async def open_server(settings: Settings, stopping: asyncio.Event | None = None) -> AsyncIterator[Running]:
    """Run a server while the block runs; raises the KalamError that keeps it from starting.

    A start that waits for others gives up when ``stopping`` is set.
    """
    check_exposure(settings)
    sys.setswitchinterval(THREAD_SWITCH_S)
    registry = CollectorRegistry()
    certificates = Certificates.of(settings)
    async with AsyncExitStack() as stack:
        data_dir = stack.enter_context(locked_data_dir(settings.data_dir))
        settings = with_http_port(settings)
        prepared = await in_thread(Purpose.CATALOGUE, prepare_database, data_dir, accept_loss=settings.accept_loss)
        guarded = settings.auth == "on"
        reading = in_thread(Purpose.TEXTS, _import_rest)
        opened, _ = await asyncio.gather(open_broker(stack, settings, data_dir, certificates, guarded=guarded), reading)
        connection, embedded = opened.connection, opened.embedded
        stopping = stopping or asyncio.Event()
        start = await begin(settings, prepared, connection, embedded, guarded=guarded, stopping=stopping)
        database = await _open_database(stack, settings, data_dir, start)
        identity = {"id": start.data_id, "nats_url": without_login(connection.url)}  # told at both doors
        engine, requests, queries, access = await _open_engine(stack, settings, database, start, opened, identity)
        add_metrics(registry, engine.stats(), requests, connection, tables_max=settings.metrics_tables_max)
        identity["http_url"] = http_url = await _open_http(
            stack, settings, engine, registry, identity, access, certificates
        )
        stack.push_async_callback(queries.pool.drain, QUERIES_DRAIN_S)
        stack.callback(engine.close_live_queries)  # first of all, or HTTP would wait for its readers
        parts = (settings, engine, access, certificates, registry)
        pg_url = None if settings.pg_port is None else await _open_pg(stack, *parts)
        yield Running(http_url, connection.url, embedded.ws_url if embedded else None, pg_url, engine, certificates)


def _import_rest() -> None:
    """Import what queries need, while the broker starts: later it would hold up the event loop."""
    import_readers()
    import_module("numpy.ma")  # pyarrow asks it with the first array of numpy's


async def _open_database(stack: AsyncExitStack, settings: Settings, data_dir: Path, start: Start) -> Database:
    warn_of_engine()
    database = Database(data_dir / DATABASE, commit_rows_max=settings.commit_rows_max)
    stack.push_async_callback(in_thread, Purpose.CATALOGUE, database.close)
    generation, lost = start.generation, start.accepted
    await in_thread(Purpose.CATALOGUE, database.begin, start.data_id, generation, after_loss=lost)
    database.start()
    return database


async def _open_engine(
    stack: AsyncExitStack,
    settings: Settings,
    database: Database,
    start: Start,
    opened: OpenBroker,
    identity: dict[str, str],
) -> tuple[Engine, Requests, Queries, Access]:
    storage = await open_storage(settings, database, start.data_id)
    stack.callback(storage.row_cache.close)
    broker = await open_ports(settings, start, storage)
    stack.push_async_callback(_last_look, storage, broker)
    settings = fitted(settings, broker.feeds.payload_bytes_max)
    if start.embedded is not None:
        free_min, restart = settings.disk_free_bytes_min, start.embedded.restart
        repair = StoreRepair(broker.jetstream, settings.data_dir, free_min, restart)
        await stack.enter_async_context(running(repair.run(), "store repair"))
    jobs = Jobs(database, lambda job: broker.notices.notice("job.finished", job))
    await jobs.recover(settings.job_history_s)
    background = open_background(stack, settings, storage, jobs)
    outbox = Outbox(database, storage.catalogue, storage.store, storage.codecs, broker.feeds, storage.troubles)
    broker.connection.on_connected(outbox.reconnected)
    await outbox.recover()
    stack.push_async_callback(outbox.drain, DRAIN_S)
    streams, foreign = await _open_streams(stack, settings, storage, broker, jobs)
    lake = Lake(settings, storage, background.compactor)
    stack.push_async_callback(lake.process.stop)
    access = await open_access(database, on=start.guarded, scram=settings.scram)
    stack.push_async_callback(access.close)
    await begin_access(settings, access)
    parts = (broker, background, lake, outbox, streams, foreign, opened.answered)
    engine, queries, delivery, views = Assembly(settings, storage, access, *parts).engine()
    database.add_listener(outbox.announce)  # behind live queries, which somebody waits for
    database.add_listener(background.schedule.announce)
    stack.push_async_callback(queries.close)
    await remove_garbage(database)
    await storage.unclaimed.settle()
    history = {"job_history_s": settings.job_history_s, "audit_s": settings.audit_s}
    housekeeping = Housekeeping(database, storage.unclaimed, storage.cold_keys, **history)
    for loop, name in (
        *background.loops(),
        *access.loops(),
        (keep_warning(settings, access), "warnings"),
        (outbox.keep_watermarks(), "watermarks"),
        (lake.run(), "lake"),
        (housekeeping.run(lambda: _drop_idle_windows(streams, foreign)), "housekeeping"),
        (streams.evictions.run(), "evictions"),
        (broker.ends.keep(), "stream ends"),
        (queries.pool.run(), "query workers"),
        (views.run(), "views"),
    ):
        await stack.enter_async_context(running(loop, name))
    stack.push_async_callback(_finish, background.schedule, engine, flush=settings.flush_at_shutdown)
    senders = senders_of(broker.subjects, access, opened.logins)
    requests = Requests(broker.connection, broker.subjects, engine, broker.rejections, senders)
    await _open_requests(stack, broker, engine, requests, delivery, senders, identity)
    if opened.logins is not None:
        opened.logins.before_cuts(delivery.say_last_words)
    await begin_logins(opened, broker.jetstream, access, storage.catalogue, broker.subjects, queries.policies.keys)
    return engine, requests, queries, access


def _drop_idle_windows(streams: StreamTables, foreign: ForeignTables) -> None:
    streams.drop_idle_windows()
    foreign.drop_idle_windows()


async def _last_look(storage: Storage, broker: Broker) -> None:
    await broker.streams.last_look(storage.catalogue.streams())


async def _open_requests(
    stack: AsyncExitStack,
    broker: Broker,
    engine: Engine,
    requests: Requests,
    delivery: LiveDelivery,
    senders: Senders,
    identity: dict[str, str],
) -> None:
    await requests.open()
    stack.push_async_callback(requests.drain)
    await delivery.open()
    await stack.enter_async_context(running(delivery.run(), "live delivery"))
    live = LiveRequests(broker.connection, broker.subjects, engine, delivery, senders)
    await live.open()
    stack.push_async_callback(live.drain)
    endpoints = (
        requests.insert_endpoint,
        requests.sql_endpoint,
        live.open_endpoint,
        live.replay_endpoint,
        live.close_endpoint,
    )
    await Discovery(broker.connection, broker.subjects, senders, identity, endpoints).open()


async def _open_streams(
    stack: AsyncExitStack, settings: Settings, storage: Storage, broker: Broker, jobs: Jobs
) -> tuple[StreamTables, ForeignTables]:
    counters = StreamCounters(storage.database)
    await in_thread(Purpose.CATALOGUE, counters.load)
    evictions = Evictions(broker.streams, counters, jobs)

    def look_at_all() -> None:
        evictions.start(storage.catalogue.streams())

    look_at_all()
    broker.connection.on_connected(look_at_all)
    stack.push_async_callback(evictions.stop)
    streams = StreamTables(
        storage.database,
        storage.catalogue,
        storage.codecs,
        broker.streams,
        counters,
        evictions,
        row_bytes_max=settings.row_bytes_max,
        window_bytes_max=settings.stream_window_bytes_max,
        windows_bytes_max=settings.stream_windows_bytes_max,
    )
    foreign = ForeignTables(
        broker.foreign,
        window_bytes_max=settings.stream_window_bytes_max,
        windows_bytes_max=settings.stream_windows_bytes_max,
    )
    return streams, foreign


async def _finish(schedule: FlushSchedule, engine: Engine, *, flush: bool) -> None:
    """The end of work: no more flushes, but one of everything if the settings ask for it."""
    await schedule.stop()
    if flush:
        try:
            await engine.flush_all()
        except KalamError as exc:
            log.error("flush at shutdown failed", error=exc.detail)


async def _open_http(
    stack: AsyncExitStack,
    settings: Settings,
    engine: Engine,
    registry: CollectorRegistry,
    identity: dict[str, str],
    access: Access,
    certificates: Certificates | None,
) -> str:
    from kalam_http import (  # while the broker starts, which has been asked to by now
        Entrance,
        Guard,
        Overview,
        create_app,
        serve_http,
    )

    overview = Overview(engine.stats())
    await stack.enter_async_context(running(overview.run(), "overview"))
    guard = Guard(Entrance(access, identity["id"]))
    await stack.enter_async_context(running(guard.run(), "guard"))
    app = create_app(
        engine, settings=settings, registry=registry, overview=overview.document, identity=identity, guard=guard
    )
    listening = await stack.enter_async_context(serve_http(app, settings, registry, certificates))
    return listening.url


async def _open_pg(stack: AsyncExitStack, settings: Settings, *parts: Any) -> str:
    from kalam_pg.door import serve_pg  # whoever does not open it need not wait for it

    return (await stack.enter_async_context(serve_pg(settings, *parts))).url
