"""How far each stream was seen to go, so that one that goes less far is known to have lost events.

The broker's store may come back with less than it has acknowledged: it was cut short, an older one was put back, or
the power went before it was synced. What is left is whole in itself, and nothing in it tells that more was there. But
nothing else makes a stream's last sequence smaller: not an eviction, not a delete, not a purge. So the last sequence
that was seen is kept, and a stream that ends before it, or that was made anew, has lost what lay behind.

JetStream itself remembers the last sequence if it was stopped in order, and then a store that was cut short has holes
at its end. They look like deletes, so the count of messages is compared as well; but only at a start, and only of a
broker that is ours, in whose streams nobody deletes while we are away.

No publish waits for this: it lives in memory, is written now and then, and may be behind. The broker's answer is
compared with what was known when it was asked, for acks come while it is on its way.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import structlog
from msgspec.structs import astuple, replace

from kalam.schema import StreamStorage, Table
from kalam.storage.log.database import Database, now_us
from kalam.storage.log.disk_faults import disk_may_fail

log = structlog.get_logger(__name__)

WRITE_PAUSE_S: Final = 5.0


class End(msgspec.Struct, frozen=True):
    """What is known of one stream; ``table_id`` is 0 for a change feed, and ``created`` tells it from one made anew.

    ``messages`` are at least those that it held from ``first_seq`` on. Up to ``doubtful_seq`` a sequence that somebody
    remembers may be that of an event that is lost. ``lost`` events were missed so far, the last ones at ``lost_us``
    (microseconds since 1970); in the place of ``holes`` of them there is nothing.
    """

    table_id: int
    created: str = ""
    first_seq: int = 0
    last_seq: int = 0
    messages: int = 0
    doubtful_seq: int = 0
    holes: int = 0
    lost: int = 0
    lost_us: int = 0


class StreamEnds:
    """The ends by the names of the streams."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ends: dict[str, End] = {}
        self._written: dict[str, End] = {}
        self._changed = asyncio.Event()
        self._unseen: set[str] = set()
        """The streams whose messages are still to be counted."""

    def load(self, *, ours: bool) -> None:
        """Read what was written; blocking, for the start. ``ours`` says that the broker was away together with us."""
        with self._database.reading() as conn:
            rows = conn.execute("SELECT * FROM stream_ends").fetchall()
        self._ends = {stream: End(*values) for stream, *values in rows}
        self._written = dict(self._ends)
        self._unseen = {stream for stream, end in self._ends.items() if end.table_id} if ours else set()

    async def begin_anew(self) -> None:
        """Forget all: the streams of this data directory are still to be made."""
        await self._database.write(lambda conn: conn.execute("DELETE FROM stream_ends").rowcount)
        self._ends, self._written = {}, {}

    def of(self, stream: str, table_id: int = 0) -> End:
        """What is known of a table's stream, or of a feed."""
        end = self._ends.get(stream)
        return end if end is not None and end.table_id == table_id else End(table_id)

    def forget(self, stream: str) -> None:
        """A stream was removed on purpose."""
        self._ends.pop(stream, None)
        self._written.pop(stream, None)

    def acked(self, stream: str, seq: int) -> None:
        """The broker has acknowledged an event."""
        end = self._ends.get(stream)
        if end is not None and seq > end.last_seq:
            self._ends[stream] = replace(end, last_seq=seq)

    async def removing(self, stream: str, count: int) -> None:
        """Note, before it is done, that single events are deleted: they are not to be missed."""
        end = self._ends.get(stream)
        if end is not None and count:
            self._ends[stream] = replace(end, messages=max(0, end.messages - count))
            await self.write()

    def compare(self, stream: str, known: End, told: Mapping[str, Any], table: Table | None = None) -> End:
        """Compare what the broker tells of a stream with what was known when it was asked; what is known now.

        ``told`` is JetStream's description of it, and ``table`` None for a feed. Of a stream in memory nobody misses
        what went with its broker.
        """
        now = self._ends.get(stream)
        if now is not None and now.table_id == known.table_id and now is not known:  # acks came, or another answer
            return now
        state = told["state"]
        end = replace(
            known,
            created=told["created"],
            first_seq=state["first_seq"],
            last_seq=state["last_seq"],
            messages=state["messages"],
        )
        cut = end.created != known.created or end.last_seq < known.last_seq
        holes = 0 if cut or stream not in self._unseen else _holes(known, end)
        self._unseen.discard(stream)
        if known.created and (cut or holes):
            end = replace(end, doubtful_seq=max(known.doubtful_seq, known.last_seq), holes=holes and end.holes + holes)
            lost = _kept(holes or _behind(known, end), table)
            if lost:
                end = replace(end, lost=known.lost + lost, lost_us=now_us())
                _tell(stream, table, known, end, lost)
            self._changed.set()
        self._ends[stream] = end
        return end

    def losses(self) -> Iterator[tuple[str, End]]:
        """The streams that have lost events, and what is known of them."""
        return ((stream, end) for stream, end in list(self._ends.items()) if end.lost)

    async def keep(self) -> None:
        """Write what has changed now and then, and a loss at once; runs until cancelled."""
        while True:
            self._changed.clear()
            await self.write()
            try:
                async with asyncio.timeout(WRITE_PAUSE_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def write(self) -> None:
        """Write what has changed; what the disk refuses is kept for the next time."""
        changed = {stream: end for stream, end in self._ends.items() if end != self._written.get(stream)}
        if not changed:
            return
        rows = [(stream, *astuple(end)) for stream, end in changed.items()]

        def note(conn: sqlite3.Connection) -> None:
            conn.executemany("INSERT OR REPLACE INTO stream_ends VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

        with disk_may_fail("the ends of streams"):
            await self._database.write(note)
            self._written |= changed


def _holes(known: End, end: End) -> int:
    """How many events went that a stream held, and did not go from its front, as all that is evicted does."""
    return max(0, known.messages - (end.first_seq - known.first_seq) - end.messages)


def _behind(known: End, end: End) -> int:
    """How many events went that lay behind the end of a stream which has stepped back, or that was made anew."""
    left_seq = end.last_seq if end.created == known.created else 0
    return max(0, known.last_seq - max(left_seq, known.first_seq - 1))


def _kept(count: int, table: Table | None) -> int:
    """As many of the events that went as a stream was to keep until now; one in memory none."""
    if table is None:
        return count
    options = table.stream_options
    return min(count, options.max_buffer_rows) if options.storage is StreamStorage.FILE else 0


def _tell(stream: str, table: Table | None, known: End, end: End, lost: int) -> None:
    anew = end.created != known.created
    log.warning(
        "events are lost: the broker's store was cut short, is an older one, or was not synced before the power went",
        table=None if table is None else str(table.name),
        stream=stream,
        events=lost,
        known_seq=known.last_seq,
        last_seq=0 if anew else end.last_seq,
        made_anew=anew,
    )
