"""What NATS gives to a server, opened in order: what is there is looked at before anything is written or made."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence
from functools import partial

import msgspec
import structlog

from kalam.schema import StreamStorage, Table
from kalam.settings import Settings
from kalam.storage.log.data_dir import Prepared, accept
from kalam.storage.log.drop_notes import dropped_streams, forget_drops
from kalam.storage.log.generation import note_streams
from kalam.storage.opened import Storage
from kalam.tables.stream_ends import StreamEnds
from kalam.threads import Purpose, in_thread
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.embedded import EmbeddedBroker
from kalam_nats.broker.jetstream import JetStream
from kalam_nats.door.notices import Notices
from kalam_nats.door.rejections import Rejections
from kalam_nats.streams.elections import Patience, when_led
from kalam_nats.streams.feed import Feeds
from kalam_nats.streams.foreign import ForeignStreams
from kalam_nats.streams.replay import FeedReplay
from kalam_nats.streams.streams import Streams
from kalam_nats.streams.takeover import Stream, newest_generation, own_streams, unclaimed
from kalam_nats.streams.unkept import Unkept
from kalam_nats.subjects import Subjects

log = structlog.get_logger(__name__)


class Start(msgspec.Struct, frozen=True):
    """What a start has found: the data directory and what the broker has of it, and the generation that begins."""

    data_id: str
    generation: int
    accepted: bool
    connection: BrokerConnection
    embedded: EmbeddedBroker | None
    jetstream: JetStream
    streams: Sequence[Stream]

    streams_generation: int | None
    guarded: bool = False
    """Whether users log in to the broker."""

    @property
    def store_is_older(self) -> bool:
        """Whether the broker does not know of the last start: its store is gone, or an older one was put back."""
        newest = newest_generation(self.streams)
        return self.streams_generation is not None and (newest is None or newest < self.streams_generation)


async def begin(
    settings: Settings,
    prepared: Prepared,
    connection: BrokerConnection,
    embedded: EmbeddedBroker | None,
    *,
    guarded: bool = False,
    stopping: asyncio.Event,
) -> Start:
    """Compare the catalogue with the broker's streams, before anything is written."""
    jetstream = JetStream(connection, settings.broker_timeout_s)
    await jetstream.open()
    prefix = Subjects(settings.subject_prefix).stream_prefix
    look = partial(own_streams, jetstream, prepared.data_id, prefix)
    streams = await when_led(connection, jetstream, look, Patience(settings.broker_start_s, stopping))
    newest, reached, accepted = newest_generation(streams) or 0, prepared.generation or 0, prepared.accepted
    if newest > reached:
        accept(
            f"kalam.db is older than its streams in NATS: it has generation {reached}, and they know of {newest}; "
            "an older data directory was put back",
            settings.accept_loss,
        )
        accepted = True
    generation, noted = max(newest, reached) + 1, prepared.streams_generation
    return Start(prepared.data_id, generation, accepted, connection, embedded, jetstream, streams, noted, guarded)


class Broker(msgspec.Struct, frozen=True):
    """The ports, open."""

    connection: BrokerConnection
    jetstream: JetStream
    subjects: Subjects
    streams: Streams
    foreign: ForeignStreams
    feeds: Feeds
    ends: StreamEnds
    replay: FeedReplay
    notices: Notices
    rejections: Rejections
    unkept: Unkept


async def open_ports(settings: Settings, start: Start, storage: Storage) -> Broker:
    """Make and take over what the tables need in JetStream."""
    subjects, connection, jetstream = Subjects(settings.subject_prefix), start.connection, start.jetstream
    ends = StreamEnds(storage.database)
    await in_thread(Purpose.CATALOGUE, partial(ends.load, ours=start.embedded is not None))
    if start.streams_generation is None:  # what was restored from a backup has never had streams
        await ends.begin_anew()
    feeds = Feeds(
        connection,
        jetstream,
        subjects,
        start.data_id,
        ends,
        bytes_max=settings.changes_bytes_max,
        age_s=settings.changes_age_s,
        replicas=settings.changes_replicas,
        generation=start.generation,
    )
    window = settings.publish_window
    streams = Streams(connection, jetstream, subjects, start.data_id, window, storage.troubles, ends, start.generation)
    await _take_over(settings, start, storage, streams)
    if start.accepted:
        await feeds.forget()
    await feeds.open()
    if feeds.payload_bytes_max < settings.row_bytes_max:
        log.warning(
            "the broker takes smaller messages than Kalam: larger rows, and messages with larger batches, are refused; "
            "max_payload in the configuration of nats-server raises it",
            max_payload=feeds.payload_bytes_max,
            row_bytes_max=settings.row_bytes_max,
        )
    await storage.database.write(lambda conn: note_streams(conn, start.generation))
    replay, notices = FeedReplay(connection, jetstream, subjects), Notices(connection, subjects)
    rejections = Rejections(connection, subjects, guarded=start.guarded)
    foreign, unkept = ForeignStreams(connection, settings.broker_timeout_s), Unkept(connection, subjects)
    return Broker(connection, jetstream, subjects, streams, foreign, feeds, ends, replay, notices, rejections, unkept)


async def _take_over(settings: Settings, start: Start, storage: Storage, streams: Streams) -> None:
    tables = storage.catalogue.streams()
    dropped, published = await in_thread(Purpose.CATALOGUE, _notes, storage)
    storage.unclaimed.streams = unclaimed(start.streams, {table.table_id for table in tables}, dropped)
    if start.embedded is not None:
        _check_store(settings, start, tables, published)
    elif start.store_is_older:
        log.warning("the broker has lost its streams or has older ones; what STREAM tables lack is made anew")
    left = await streams.reconcile(tables, start.streams, dropped)
    gone = [table_id for table_id in dropped if table_id not in left]
    if gone:
        await storage.database.write(lambda conn: forget_drops(conn, gone))


def _notes(storage: Storage) -> tuple[list[int], set[int]]:
    """The ids of the STREAM tables that were dropped, and of those to which something was published."""
    with storage.database.reading() as conn:
        published = conn.execute("SELECT table_id FROM stream_counters WHERE published > 0").fetchall()
        return dropped_streams(conn), {table_id for (table_id,) in published}


def _check_store(settings: Settings, start: Start, tables: Sequence[Table], published: Container[int]) -> None:
    """Refuse to go on where the broker's folder, which is ours, has lost events that were acknowledged.

    The store of an outside broker is not ours: there the streams are made anew, as when it loses them later.
    """
    there = {stream.table_id for stream in start.streams}
    noted = start.streams_generation is not None  # a directory that was restored has counts and no streams
    kept = [table for table in tables if table.stream_options.storage is StreamStorage.FILE]
    gone = [
        str(table.name)
        for table in kept
        if start.store_is_older or (noted and table.table_id in published and table.table_id not in there)
    ]
    if gone:
        how = "is missing or older than kalam.db" if start.store_is_older else "lacks streams"
        accept(f"the folder nats/ {how}: events of {', '.join(sorted(gone))} are lost", settings.accept_loss)
