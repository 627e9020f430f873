"""The changes since one that was seen earlier.

Of a stored table the hot versions are in memory and what is older is in the change feed; of a STREAM table all are in
its stream. Both are numbered without holes, so a hole is seen and ends a replay: whoever reads it begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import msgspec

from kalam.errors import BrokerUnavailable, CursorExpired, InvalidOption, InvalidValue
from kalam.rows.codec import Codec
from kalam.rows.column_types.instants import from_event as seen_timestamp
from kalam.rows.seen import SeenRows
from kalam.rows.versions import History, StoredVersions
from kalam.schema import DELETED, UPDATED, Table
from kalam.storage.log.copies import Chunk, View
from kalam.tables.ports import FeedRun, ReplayPort, StreamPort
from kalam.tables.versions import ChangeBatch, batch_of_chunks, batch_of_events
from kalam.threads import Purpose, in_thread

FIND_TRIES, FIND_PAUSE_S = 3, 0.1
Older = int | Sequence[Chunk]
"""A place in the feed, or chunks of the log that are flushed and that the feed does not have yet."""
CHUNK_ROWS_MAX = 5_000


class Replay(msgspec.Struct, frozen=True):
    """The changes behind ``from_seq``, the last of them ``upto_seq``; read once.

    Reading raises CursorExpired at a hole, and EventsGoneError. ``knows_times`` says whether each former version has
    its ``_updated``.
    """

    from_seq: int
    upto_seq: int
    batches: AsyncIterator[ChangeBatch]
    knows_times: bool = True


def no_changes(seq: int) -> Replay:
    """The replay behind the last change."""

    async def nothing() -> AsyncIterator[ChangeBatch]:
        none: Sequence[ChangeBatch] = ()
        for batch in none:
            yield batch

    return Replay(seq, seq, nothing())


class Past(msgspec.Struct, frozen=True):
    """Where changes are that are hot no more: told in the feed, or flushed and not told yet, in the log."""

    feed: ReplayPort
    logged: Callable[[Table, str, int, int], Awaitable[list[Chunk]]]
    history: Callable[[Table], History]


class _Plan(msgspec.Struct, frozen=True):
    """Where the changes behind ``from_seq`` are: before ``hot_from`` those that are hot no more, then ``chunks``."""

    from_seq: int
    hot_from: int
    older: Older | None
    chunks: Sequence[Chunk]


async def replay_of_copy(table: Table, owner: str, view: View | None, from_seq: int, past: Past) -> Replay:
    """The changes of a copy behind ``from_seq``; raises CursorExpired where they are nowhere any more."""
    upto_seq = view.last_seq if view else 0
    if from_seq > upto_seq:
        raise CursorExpired(f"table {table.name} has {upto_seq} changes and none with the number {from_seq}")
    hot = list(view.chunks[: view.chunk_count]) if view else []
    chunks = [chunk for chunk in hot if chunk.last_seq > from_seq]
    _check_columns(table, chunks, from_seq, past)
    hot_from = chunks[0].first_seq if chunks else upto_seq + 1
    older = await _older(table, owner, from_seq + 1, hot_from, past) if from_seq + 1 < hot_from else None
    batches = _batches(table, owner, _Plan(from_seq, hot_from, older, chunks), past)
    return Replay(from_seq, upto_seq, batches, knows_times=not isinstance(older, int))


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
        chunks = await past.logged(table, owner, seq, before_seq)
        if chunks and chunks[0].first_seq <= seq:
            if emptied := [chunk.first_seq for chunk in chunks if chunk.op == "truncate"]:
                raise truncated(table, emptied[-1])
            if large := [chunk.last_seq for chunk in chunks if chunk.large]:
                raise CursorExpired(
                    f"changes up to {large[-1]} of table {table.name} are of one statement, and wait to be told",
                    hint="open the live query without from_seq, or ask again when they are told",
                )
            _check_columns(table, chunks, seq, past)
            return chunks
        if silent is not None:
            raise silent
        await asyncio.sleep(FIND_PAUSE_S)  # told between the two looks, at the worst
    raise CursorExpired(
        f"change {seq} of table {table.name} is not kept any more (settings changes_age_s, changes_bytes_max)",
        hint="open the live query without from_seq",
    )


async def _batches(table: Table, owner: str, plan: _Plan, past: Past) -> AsyncIterator[ChangeBatch]:
    """The batches of a replay, without a hole; raises CursorExpired at one."""
    reader = StoredVersions(table.columns, past.history(table))
    seq, older = plan.from_seq, plan.older
    hot_from = plan.hot_from
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
) -> AsyncIterator[ChangeBatch]:
    """The changes in the feed behind ``after_seq`` and before ``before_seq``, as far as it goes."""
    seq = after_seq
    async for run in feed.read(table, owner, place):
        batch = batch_of_run(run, table, seq, before_seq - 1)
        if len(batch):
            seq = batch.last_seq
            yield batch
        if seq + 1 >= before_seq:
            return


async def _decoded(chunks: Sequence[Chunk], reader: StoredVersions, after_seq: int) -> AsyncIterator[ChangeBatch]:
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


def batch_of_run(run: FeedRun, table: Table, after_seq: int, upto_seq: int) -> ChangeBatch:
    """The changes ``after_seq < seq <= upto_seq`` of a feed message; raises CursorExpired where it cannot be read."""
    if run.seq > after_seq + 1:
        raise CursorExpired(f"changes {after_seq + 1} to {run.seq - 1} of table {table.name} are not kept any more")
    if run.op == "truncate" and run.seq > after_seq:
        raise truncated(table, run.seq)
    seen, batch = SeenRows(table.columns), ChangeBatch()
    hidden = dict.fromkeys(table.hidden_columns)
    for number, told in enumerate(run.rows):
        shown = {**told, **hidden} if hidden else told
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
        except (KeyError, ValueError, InvalidValue) as exc:  # which tells of a row that policies may hide
            raise CursorExpired(f"change {seq} of table {table.name} is of other columns") from exc
        batch.add([seq], [old], [new])
    return batch


def truncated(table: Table, seq: int) -> CursorExpired:
    """Why a replay ends where the table was emptied: the rows of before did not go one by one."""
    return CursorExpired(
        f"table {table.name} was truncated by change {seq}", hint="open the live query without from_seq"
    )


def _former(run: FeedRun, number: int) -> dict[str, object]:
    if run.old is None:
        raise ValueError("its former values did not fit into the feed")
    return {name: value for name, value in run.old[number].items() if name not in (UPDATED, DELETED)}


async def replay_of_stream(table: Table, codec: Codec, port: StreamPort, from_seq: int, told_seq: int) -> Replay:
    """The events of a STREAM table behind ``from_seq`` and up to ``told_seq``; raises CursorExpired likewise."""
    state = await port.state(table)
    if not state.first_seq - 1 <= from_seq <= state.last_seq or 0 < from_seq <= state.doubtful_seq:
        raise CursorExpired(f"the events behind {from_seq} of table {table.name} are not kept any more")
    upto_seq = max(from_seq, told_seq)
    return Replay(from_seq, upto_seq, _events(table, codec, port, from_seq, upto_seq))


def last_of_stream(table: Table, codec: Codec, port: StreamPort, told_seq: int) -> Replay:
    """The last event of each key of a STREAM table, if it is up to ``told_seq``; raises InvalidOption without keys."""
    if table.options.subject_key is None:
        raise InvalidOption(f"last_per_key is for tables with a SUBJECT_KEY; {table.name} has none")
    return Replay(0, told_seq, _last_events(table, codec, port, told_seq))


async def _last_events(table: Table, codec: Codec, port: StreamPort, upto_seq: int) -> AsyncIterator[ChangeBatch]:
    """The last event of each key; one that is newer than ``upto_seq`` is told as any that comes."""
    if upto_seq:
        async for events in port.read(table, 0, upto_seq, last_per_key=True):
            yield await in_thread(Purpose.LIVE, batch_of_events, events, codec)


class EventsGoneError(Exception):
    """Events that a replay was to tell were evicted before they were read."""


async def _events(
    table: Table, codec: Codec, port: StreamPort, from_seq: int, upto_seq: int
) -> AsyncIterator[ChangeBatch]:
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
