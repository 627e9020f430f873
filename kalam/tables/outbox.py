"""Commit, then tell: publishes the changes of SHARED and USER tables from the log.

The law: the changes of a copy leave in the order of their commits, without hole or repeat, whatever dies in between.
The log is the outbox, and the broker's own stream is the watermark that counts: before the first publish after a
start, a reconnect or a failure the publisher asks which change of the copy the stream holds last, and goes on behind
it. Each publish is fenced with that place, so a late message of a dead publisher and a new one cannot both be stored.

The watermark in the database only saves the question from reading the whole log, and tells the flush which versions are
needed no more; it is written with other work and may lag.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import groupby

import structlog

from kalam.backoff import Backoff
from kalam.errors import BrokerUnavailable, StorageFull, TooBusy
from kalam.rows.codec import Codec, Codecs
from kalam.schema import Table, TableKind
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import Chunk, Op
from kalam.storage.log.copy_store import CopyStore
from kalam.storage.log.crash import crash_point
from kalam.storage.log.database import Database
from kalam.storage.log.troubles import Troubles, log_failure, reason_of
from kalam.storage.log.view_positions import READ_UPTO
from kalam.storage.log.writes import Announcement
from kalam.tables.backlog import backlogs, read_on
from kalam.tables.dropped_feeds import DroppedFeeds
from kalam.tables.ports import ChangeMessage, FeedPort, OutOfPlace
from kalam.tables.runs import Unpublished, columns_to_show, cut, first_of, messages_of
from kalam.tables.waiting import Feed, Waiting
from kalam.tasks import Tasks
from kalam.threads import INLINE_ROWS_MAX, Purpose, in_thread
from kalam.tracing import batch_span

log = structlog.get_logger(__name__)

TURN_BYTES_MAX = 4 << 20
"""Bytes of rows that are encoded and published in one turn of one copy."""
READING_COPIES_MAX = 16
"""So many copies at once publish what was read from the log: each has a turn's bytes, or one chunk, in memory."""
PENDING_BYTES_MAX = 64 << 20
"""Of more changes of one copy that wait only the log holds the rest; a load is faster than its publishing."""
WATERMARK_PAUSE_S = 0.2
RETRY_PAUSE_S = (0.05, 2.0)


def _tell_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("outbox failed", exc_info=task.exception())


class Outbox:
    """The publisher. ``announce`` is called in the loop's thread for every commit, in order."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        store: CopyStore,
        codecs: Codecs,
        port: FeedPort,
        troubles: Troubles,
    ) -> None:
        self._troubles = troubles
        self._database, self._catalogue, self._store, self._codecs, self._port = (
            database,
            catalogue,
            store,
            codecs,
            port,
        )
        self.dropped = DroppedFeeds(database, port)
        self._feeds: dict[int, Feed] = {}
        self._tasks = Tasks()
        self._reading = asyncio.Semaphore(READING_COPIES_MAX)
        self._marked: dict[int, int] = {}
        self._held: set[int] = set()
        self.byte_count = 0
        self.published_rows = 0
        self.committed_rows: Counter[tuple[TableKind, Op]] = Counter()
        self.changed_rows: Counter[int] = Counter()
        """Rows that were committed since the start, by what was done to them, and by the table's id."""

    def check_room(self, bytes_max: int) -> None:
        """Raise TooBusy when too much waits to be published."""
        if self.byte_count > bytes_max:
            raise TooBusy(
                f"{self.byte_count} bytes of changes wait to be published, more than outbox_bytes_max ({bytes_max}); "
                "is the broker up?"
            )

    def announce(self, announcement: Announcement) -> None:
        """Take in a chunk that has been committed."""
        copy = announcement.copy
        feed = self._feeds.get(copy.copy_id)
        if feed is None:
            feed = self._feeds[copy.copy_id] = Feed(announcement.table, copy.user, copy.copy_id)
        # A statement that was prepared before the table was renamed tells of it under its former name.
        feed.table = self._catalogue.by_id.get(copy.table_id, announcement.table)
        if feed.table.name.is_unfinished:
            feed.behind_seq = announcement.chunk.last_seq
        else:
            self._count(announcement.table, announcement.chunk)
            self._add(feed, announcement)
        self._start(feed)

    def _add(self, feed: Feed, announcement: Announcement) -> None:
        chunk = announcement.chunk
        if chunk.last_seq <= feed.known_seq:  # it was read from the log before it was announced
            return
        self.byte_count += chunk.byte_count
        if feed.behind_seq or chunk.large or feed.byte_count > PENDING_BYTES_MAX:
            feed.behind_us = feed.behind_us if feed.behind_seq else chunk.updated_us
            feed.behind_seq = chunk.last_seq
            feed.behind_bytes += chunk.byte_count
            return
        # Rows are many times as large as their chunk, so only those are kept that the next turn takes.
        at_hand = feed.byte_count < TURN_BYTES_MAX
        pending = Unpublished.of(announcement) if at_hand else Unpublished(chunk, traces=announcement.traces)
        feed.pending.append(pending)
        feed.byte_count += chunk.byte_count

    def _count(self, table: Table, chunk: Chunk) -> None:
        if chunk.op != "truncate":
            self.committed_rows[table.kind, chunk.op] += chunk.row_count
            self.changed_rows[table.table_id] += chunk.row_count

    def _start(self, feed: Feed) -> None:
        if feed.task is None and feed.table.table_id not in self._held:
            task = feed.task = self._tasks.start(self._run(feed), f"outbox {feed.table.name} {feed.user}")
            task.add_done_callback(_tell_failure)

    async def recover(self) -> None:
        """At the start: take up every copy whose log goes beyond its watermark. What waits stays in the log."""
        await in_thread(Purpose.CATALOGUE, self.dropped.load)
        await self.dropped.purge_all()
        rows = await in_thread(Purpose.CATALOGUE, backlogs, self._database)
        for backlog in rows:
            table = self._catalogue.by_id.get(backlog.table_id)
            if table is None:
                continue
            feed = self._feeds[backlog.copy_id] = Feed(table, backlog.user, backlog.copy_id, told_seq=backlog.told_seq)
            feed.behind_seq, feed.behind_bytes = backlog.last_seq, backlog.byte_count
            feed.behind_us = backlog.oldest_us
            self.byte_count += backlog.byte_count
            self._start(feed)

    async def forget_table(self, table: Table) -> None:
        """Drop what waits of a table that was dropped, and what the broker holds of it; raises BrokerUnavailable."""
        self.dropped.note(table.name, table.kind)
        await self._end([id_ for id_, feed in self._feeds.items() if feed.table.table_id == table.table_id])
        await self.dropped.purge(table.name)

    @asynccontextmanager
    async def holding(self, table: Table) -> AsyncIterator[Mapping[int, int]]:
        """Publish nothing of a table until the block ends, and then on the subjects of the table as it is by then.

        Gives the last change of each copy that is known to be published.
        """
        feeds = [feed for feed in self._feeds.values() if feed.table.table_id == table.table_id]
        self._held.add(table.table_id)
        try:
            if tasks := [feed.task for feed in feeds if feed.task is not None]:
                await asyncio.wait(tasks)
            yield {feed.copy_id: feed.position.change_seq for feed in feeds if feed.position is not None}
        finally:
            self._held.discard(table.table_id)
            newest = self._catalogue.by_id.get(table.table_id, table)
            for feed in [feed for feed in self._feeds.values() if feed.table.table_id == table.table_id]:
                if newest.name != table.name:
                    feed.table, feed.position = newest, None
                if (feed.pending or feed.behind_seq) and not newest.name.is_unfinished:
                    self._start(feed)

    async def forget_name(self, table: Table) -> None:
        """Remove what the broker holds of a table under a name that it had; raises BrokerUnavailable."""
        self.dropped.note(table.name, table.kind)
        await self.dropped.purge(table.name)

    async def forget_unfinished(self, table: Table) -> None:
        """Drop what waits of a table that nobody has seen."""
        await self._end([id_ for id_, feed in self._feeds.items() if feed.table.table_id == table.table_id])

    async def forget_copy(self, table: Table, user: str) -> None:
        """Drop what waits of a user's copy, and what the broker holds of it; raises BrokerUnavailable."""
        name = (table.table_id, user)
        await self._end([id_ for id_, feed in self._feeds.items() if (feed.table.table_id, feed.user) == name])
        await self._port.purge_copy(table.name, user)

    async def _end(self, copy_ids: Iterable[int]) -> None:
        ending: list[asyncio.Task[None]] = []
        for copy_id in copy_ids:
            feed = self._feeds.pop(copy_id)
            self.byte_count -= feed.byte_count + feed.behind_bytes
            feed.byte_count = feed.behind_seq = feed.behind_bytes = 0
            feed.pending.clear()
            self._marked.pop(copy_id, None)
            ending += [feed.task] if feed.task is not None else []
        if ending:
            await asyncio.wait(ending)  # what is on its way would come after the purge

    def reconnected(self) -> None:
        """After a reconnect: ask every feed's place anew."""
        for feed in self._feeds.values():
            feed.position = None

    async def _run(self, feed: Feed) -> None:
        backoff = Backoff(*RETRY_PAUSE_S)
        try:
            while (feed.pending or feed.behind_seq) and feed.table.table_id not in self._held:
                try:
                    await self._turn(feed)
                    self._troubles.clear(feed.table.table_id, "changes")
                    backoff.reset()
                except OutOfPlace:
                    feed.position = None
                except Exception as exc:  # noqa: BLE001 - whatever it was, the changes are still to be told
                    feed.position = None
                    if isinstance(exc, BrokerUnavailable):
                        log.warning("changes wait for the broker", table=str(feed.table.name), reason=exc.detail)
                    else:
                        log_failure("changes wait", exc, table=str(feed.table.name))
                        self._troubles.note(feed.table.table_id, "changes", reason_of(exc))
                    await asyncio.sleep(backoff.failed())
        finally:
            feed.task = None

    async def _turn(self, feed: Feed) -> None:
        if feed.position is None:
            await self.dropped.purge(feed.table.name)
            feed.position = await self._port.position(feed.table, feed.user)
            self._skip(feed, feed.position.change_seq)
        if feed.pending:
            await self._publish(feed)
            return
        async with self._reading:
            if feed.position is not None:  # else there was a reconnect while it waited for its turn
                await self._read_on(feed, feed.position.change_seq)
                await self._publish(feed)

    async def _publish(self, feed: Feed) -> None:
        """Publish what a turn takes of what is pending."""
        waiting = first_of(feed.pending, TURN_BYTES_MAX)
        if not waiting:
            return
        crash_point("outbox.before_publish")
        messages: list[ChangeMessage] = []
        for version, alike in groupby(waiting, lambda each: each.chunk.schema_version):
            messages += await self._shown(list(alike), self._codec(feed.table, version))
        if feed.position is None:  # a reconnect meanwhile: its place is asked for anew
            return
        traces = [message.trace for message in messages if message.trace]
        with batch_span("kalam.publish", traces, table=str(feed.table.name), events=len(messages)):
            feed.position = await self._port.publish(feed.table, feed.user, messages, feed.position)
        crash_point("outbox.after_publish")
        self.published_rows += sum(each.chunk.row_count for each in waiting)
        self._skip(feed, feed.position.change_seq)

    async def _shown(self, run: Sequence[Unpublished], codec: Codec) -> list[ChangeMessage]:
        """The messages of chunks of one schema version: few rows at once, and more so that others get their turns."""
        made = messages_of(run, codec, self._port.payload_bytes_max)
        if any(columns_to_show(each, codec) is not None for each in run):
            return await in_thread(Purpose.ROWS, list, made)
        if sum(each.chunk.row_count for each in run) <= INLINE_ROWS_MAX:
            return list(made)
        if not all(each.rows is not None and each.chunk.op == "insert" for each in run):
            return await in_thread(Purpose.ROWS, list, made)
        messages: list[ChangeMessage] = []
        await asyncio.sleep(0)  # the answers of those who sent the rows go out first
        for message in made:  # each is a third of a millisecond, and in a thread half as much again
            messages.append(message)
            await asyncio.sleep(0)
        return messages

    async def _read_on(self, feed: Feed, change_seq: int) -> None:
        """Take the next chunks from the log, some at a time: nobody holds in memory what a table was filled with."""
        chunks = await in_thread(Purpose.CATALOGUE, read_on, self._database, feed.copy_id, change_seq, TURN_BYTES_MAX)
        feed.pending.extend(map(Unpublished, chunks))
        size = sum(chunk.byte_count for chunk in chunks)
        known = min(size, feed.behind_bytes)
        feed.byte_count += size
        feed.behind_bytes -= known
        self.byte_count += size - known
        if not chunks or chunks[-1].last_seq >= feed.behind_seq:  # what was announced meanwhile is behind that
            self.byte_count -= feed.behind_bytes
            feed.behind_seq = feed.behind_bytes = 0
        else:
            feed.behind_us = chunks[-1].updated_us
        self._skip(feed, change_seq)

    def _codec(self, table: Table, schema_version: int) -> Codec:
        """What shows a chunk as it was committed, whatever an ALTER has done since."""
        return self._codecs.of(self._catalogue.at_version(table, schema_version))

    def _skip(self, feed: Feed, change_seq: int) -> None:
        """Drop what the broker holds already; a chunk that it holds in part is cut."""
        while feed.pending and feed.pending[0].chunk.last_seq <= change_seq:
            chunk = feed.pending.popleft().chunk
            feed.byte_count -= chunk.byte_count
            self.byte_count -= chunk.byte_count
        if feed.pending and feed.pending[0].chunk.first_seq <= change_seq:
            whole = feed.pending[0].chunk
            part = cut(whole, change_seq, self._codec(feed.table, whole.schema_version))
            feed.pending[0] = Unpublished(part)
            self.byte_count -= whole.byte_count - part.byte_count
            feed.byte_count -= whole.byte_count - part.byte_count
        self._mark(feed, change_seq)

    def _mark(self, feed: Feed, change_seq: int) -> None:
        self._marked[feed.copy_id] = change_seq
        copy = self._store.loaded.get((feed.table.table_id, feed.user))
        if copy is not None and copy.copy_id == feed.copy_id:
            copy.published_seq = max(copy.published_seq, change_seq)

    async def keep_watermarks(self) -> None:
        """Write the watermarks now and then; runs until cancelled."""
        while True:
            written = await self.write_watermarks()
            await asyncio.sleep(WATERMARK_PAUSE_S if written else RETRY_PAUSE_S[1])

    async def write_watermarks(self) -> bool:
        """Write what has been published since the last time, and drop flushed versions that waited for it.

        Returns False if the disk refused it; it is kept for the next time.
        """
        marked, self._marked = self._marked, {}
        if not marked:
            return True
        rows = [(seq, copy_id) for copy_id, seq in marked.items()]

        def update(conn: sqlite3.Connection) -> None:
            conn.executemany("UPDATE copies SET published_seq = max(published_seq, ?) WHERE copy_id = ?", rows)
            conn.executemany(
                "DELETE FROM log WHERE flushed = 1 AND first_seq + row_count - 1 <= "  # noqa: S608 - a constant
                f"min(?, (SELECT {READ_UPTO} FROM copies WHERE copies.copy_id = log.copy_id)) AND copy_id = ?",
                rows,
            )

        try:
            await self._database.write(update)
        except StorageFull:
            self._marked = marked | self._marked
            return False
        return True

    async def drain(self, timeout_s: float) -> None:
        """Publish what is committed, as far as the broker lets us within the time; then stop."""
        await self._tasks.wait(timeout_s)
        await self._tasks.cancel()
        await self.write_watermarks()

    def waiting(self) -> Waiting:
        """How much waits to be published."""
        told = [feed for feed in self._feeds.values() if feed.pending or feed.behind_seq]
        return Waiting(
            changes=sum(feed.changes for feed in told),
            oldest_us=min((feed.oldest_us for feed in told if feed.oldest_us is not None), default=None),
        )
