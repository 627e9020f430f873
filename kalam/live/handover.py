"""How a live query begins: the snapshot and what follows it, or the changes since one that was seen earlier.

The law of the hand-over: first the query is registered, so that every change from now on is held for it; then the
snapshot is read, whose moment has a number; then what was held and the snapshot already shows is dropped. Nothing
between the two is lost or doubled, however fast the rows come.

A resume reads the hot versions from memory and what is older from the change feed. Both are numbered without holes, so
a hole is seen and ends it; then the subscriber begins anew with a snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import msgspec

from kalam.errors import BrokerUnavailable, CursorExpired, InvalidValue
from kalam.live.live_query import LiveQuery
from kalam.live.ports import FeedRun, LogPort, ReplayPort, Snapshot
from kalam.live.shape import MESSAGE_BYTES_MAX, MESSAGE_ROWS_MAX
from kalam.live.versions import Batch, batch_of_chunks, batch_of_events
from kalam.live.watch import Watch
from kalam.rows.codec import Codec
from kalam.rows.columns import from_arrow
from kalam.rows.seen import SeenRows, seen_timestamp
from kalam.rows.versions import History, StoredVersions
from kalam.schema import DELETED, UPDATED, Table
from kalam.storage.log.copies import Chunk, View
from kalam.tables.ports import StreamPort
from kalam.threads import Purpose, in_thread

FIND_TRIES, FIND_PAUSE_S = 3, 0.1
Older = int | Sequence[Chunk]
"""A place in the feed, or chunks of the log that are flushed and that the feed does not have yet."""
CHUNK_ROWS_MAX = 5_000


async def hand_over(query: LiveQuery, snapshot: Snapshot) -> None:
    """Queue the snapshot, message by message as the subscriber takes them, and then what was held."""
    names = [column.name for column in query.shape.columns]
    rows = snapshot.rows.select(range(len(names) if snapshot.rows.num_rows else 0))
    for start in range(0, rows.num_rows, MESSAGE_ROWS_MAX):
        part = rows.slice(start, MESSAGE_ROWS_MAX)
        for payload in await in_thread(Purpose.LIVE, _snapshot_messages, query, part):
            await query.offer(payload, "snapshot")
    await _ready(query, snapshot.seq)
    query.start(snapshot.seq)


def _snapshot_messages(query: LiveQuery, rows: object) -> list[bytes]:
    return list(query.shape.snapshot(from_arrow(rows)))


async def _ready(query: LiveQuery, seq: int) -> None:
    body = {"type": "ready", "seq": seq, "table_id": query.table.table_id}
    await query.offer(query.shape.message(body), "ready", seq)


async def resume(query: LiveQuery, watch: Watch, replay: AsyncIterator[Batch], from_seq: int, upto_seq: int) -> None:
    """Queue ``ready`` and the changes of the replay that concern the query, and then what was held."""
    await _ready(query, from_seq)
    try:
        await _tell_replay(query, watch, replay, from_seq)
    except EventsGoneError:
        query.resync()
    query.start(upto_seq)


async def _tell_replay(query: LiveQuery, watch: Watch, replay: AsyncIterator[Batch], from_seq: int) -> None:
    async for batch in replay:
        picks = await in_thread(Purpose.LIVE, watch.picks, batch, query.predicate)
        texts = query.shape.changes(batch, picks, {})
        shown = [(batch.seqs[place], text) for (_, place), text in zip(picks, texts, strict=True) if text is not None]
        for part in _messages(shown):
            payload = query.shape.changes_message([text for _, text in part])
            await query.offer(payload, "changes", part[-1][0], len(part))
        query.reached(max(from_seq, batch.last_seq))


def _messages(shown: Sequence[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    """The changes in parts that each fit a message."""
    part: list[tuple[int, bytes]] = []
    size = 0
    for seq, text in shown:
        if part and (len(part) == MESSAGE_ROWS_MAX or size + len(text) > MESSAGE_BYTES_MAX):
            yield part
            part, size = [], 0
        part.append((seq, text))
        size += len(text)
    if part:
        yield part


class Past(msgspec.Struct, frozen=True):
    """Where changes are that are hot no more: told in the feed, or flushed and not told yet, in the log."""

    feed: ReplayPort
    log: LogPort
    history: Callable[[Table], History]


class Replay(msgspec.Struct, frozen=True):
    """The changes behind ``from_seq``: those that are hot no more, None for none, and then ``chunks``."""

    from_seq: int
    upto_seq: int
    older: Older | None
    chunks: Sequence[Chunk]


async def plan_replay(table: Table, owner: str, view: View | None, from_seq: int, past: Past) -> Replay:
    """Where the changes behind ``from_seq`` are; raises CursorExpired where they are nowhere any more."""
    upto_seq = view.last_seq if view else 0
    if from_seq > upto_seq:
        raise CursorExpired(f"table {table.name} has {upto_seq} changes and none with the number {from_seq}")
    hot = list(view.chunks[: view.chunk_count]) if view else []
    chunks = [chunk for chunk in hot if chunk.last_seq > from_seq]
    _check_columns(table, chunks, from_seq, past)
    hot_from = chunks[0].first_seq if chunks else upto_seq + 1
    older = await _older(table, owner, from_seq + 1, hot_from, past) if from_seq + 1 < hot_from else None
    return Replay(from_seq, upto_seq, older, chunks)


def _check_columns(table: Table, chunks: Sequence[Chunk], seq: int, past: Past) -> None:
    history = past.history(table)
    if any(history[version] != table.columns for version in {chunk.schema_version for chunk in chunks}):
        raise CursorExpired(f"the columns of table {table.name} have changed since change {seq}")


async def _older(table: Table, owner: str, seq: int, before_seq: int, past: Past) -> Older:
    """Where change ``seq`` is, which is hot no more."""
    for _ in range(FIND_TRIES):
        silent: BrokerUnavailable | None = None
        try:
            place = await past.feed.find(table, owner, seq)
        except BrokerUnavailable as exc:
            place, silent = None, exc
        if place is not None:
            return place
        chunks = await past.log.logged(table, owner, seq, before_seq)
        if chunks and chunks[0].first_seq <= seq:
            _check_columns(table, chunks, seq, past)
            return chunks
        if silent is not None:
            raise silent
        await asyncio.sleep(FIND_PAUSE_S)  # told between the two looks, at the worst
    raise CursorExpired(
        f"change {seq} of table {table.name} is not kept any more (settings changes_age_s, changes_bytes_max)",
        hint="open the live query without from_seq",
    )


async def replayed(table: Table, owner: str, plan: Replay, past: Past) -> AsyncIterator[Batch]:
    """The batches of a replay, without a hole; raises CursorExpired at one."""
    reader = StoredVersions(table.columns, past.history(table))
    seq, older = plan.from_seq, plan.older
    hot_from = plan.chunks[0].first_seq if plan.chunks else plan.upto_seq + 1
    while older is not None and seq + 1 < hot_from:
        if isinstance(older, int):
            source = _told(table, owner, older, past.feed, seq, hot_from)
        else:
            source = _decoded(older, reader, seq)
        async for batch in source:
            seq = max(seq, batch.last_seq)
            yield batch
        if seq + 1 < hot_from:
            older = await _older(table, owner, seq + 1, hot_from, past)
    async for batch in _decoded(plan.chunks, reader, seq):
        yield batch


async def _told(
    table: Table, owner: str, place: int, feed: ReplayPort, after_seq: int, before_seq: int
) -> AsyncIterator[Batch]:
    """The changes in the feed behind ``after_seq`` and before ``before_seq``, as far as it goes."""
    seq = after_seq
    async for run in feed.read(table, owner, place):
        batch = batch_of_run(run, table, seq, before_seq - 1)
        if len(batch):
            seq = batch.last_seq
            yield batch
        if seq + 1 >= before_seq:
            return


async def _decoded(chunks: Sequence[Chunk], reader: StoredVersions, after_seq: int) -> AsyncIterator[Batch]:
    """The changes of chunks behind ``after_seq``."""
    for part in _parts(chunks):
        yield await in_thread(Purpose.LIVE, batch_of_chunks, part, reader, after_seq)


def _parts(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    part: list[Chunk] = []
    for chunk in chunks:
        part.append(chunk)
        if sum(member.row_count for member in part) >= CHUNK_ROWS_MAX:
            yield part
            part = []
    if part:
        yield part


def batch_of_run(run: FeedRun, table: Table, after_seq: int, upto_seq: int) -> Batch:
    """The changes ``after_seq < seq <= upto_seq`` of a feed message; raises CursorExpired where it cannot be read."""
    if run.seq > after_seq + 1:
        raise CursorExpired(f"changes {after_seq + 1} to {run.seq - 1} of table {table.name} are not kept any more")
    seen, batch = SeenRows(table.columns), Batch()
    for number, shown in enumerate(run.rows):
        seq = run.seq + number
        if not after_seq < seq <= upto_seq:
            continue
        try:
            row, updated = seen.row(shown), seen_timestamp(shown[UPDATED])
            new, old = (*row, updated, False), None
            if run.op == "delete":
                new, old = (*row, updated, True), (*row, updated, False)
            elif run.op == "update":
                former = _former(run, number)
                old = (*seen.row({**shown, **former}), updated, False)
        except (KeyError, ValueError, InvalidValue) as exc:
            raise CursorExpired(f"change {seq} of table {table.name} is of other columns: {exc}") from exc
        batch.add([seq], [old], [new])
    return batch


def _former(run: FeedRun, number: int) -> dict[str, object]:
    if run.old is None:
        raise ValueError("its former values did not fit into the feed")
    return {name: value for name, value in run.old[number].items() if name not in (UPDATED, DELETED)}


class EventsGoneError(Exception):
    """Events that a replay was to tell were evicted before they were read."""


async def replayed_events(
    table: Table, codec: Codec, port: StreamPort, from_seq: int, upto_seq: int
) -> AsyncIterator[Batch]:
    """The events of a STREAM table behind ``from_seq``; raises EventsGoneError where some were evicted meanwhile."""
    seq = from_seq
    if seq >= upto_seq:
        return
    async for events in port.read(table, from_seq, upto_seq):
        if events.seqs[0] != seq + 1 or events.seqs[-1] - events.seqs[0] + 1 != len(events.seqs):
            await _check_kept(table, port, seq)
        seq = events.seqs[-1]
        yield await in_thread(Purpose.LIVE, batch_of_events, events, codec)
    if seq < upto_seq:
        await _check_kept(table, port, seq)


async def _check_kept(table: Table, port: StreamPort, seq: int) -> None:
    """Events are evicted from the front alone: one that is missing behind the first that is kept was deleted."""
    state = await port.state(table)
    if state.first_seq > seq + 1 or state.last_seq < seq:
        raise EventsGoneError
