"""How a live query begins: the snapshot and what follows it, or the changes since one that was seen earlier.

The law of the hand-over: first the query is registered, so that every change from now on is held for it; then the
snapshot is read, whose moment has a number; then what was held and the snapshot already shows is dropped. Nothing
between the two is lost or doubled, however fast the rows come.

A resume tells the changes since one that was seen earlier, as the table gives them; where it cannot, the subscriber
begins anew with a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kalam.live.live_query import LiveQuery
from kalam.live.shape import MESSAGE_BYTES_MAX, MESSAGE_ROWS_MAX
from kalam.live.snapshots import Snapshot
from kalam.live.watch import Watch
from kalam.rows.columns import from_arrow
from kalam.tables.replay import EventsGoneError, Replay
from kalam.threads import Purpose, in_thread


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
    body = {"type": "ready", "seq": seq, "table_id": query.feed_id}
    await query.offer(query.shape.message(body), "ready", seq)


async def resume(query: LiveQuery, watch: Watch, replay: Replay) -> None:
    """Queue ``ready`` and the changes of the replay that concern the query, and then what was held."""
    await _ready(query, replay.from_seq)
    try:
        await _tell_replay(query, watch, replay)
    except EventsGoneError:
        query.resync()
    query.start(replay.upto_seq)


async def _tell_replay(query: LiveQuery, watch: Watch, replay: Replay) -> None:
    async for batch in replay.batches:
        picks = await in_thread(Purpose.LIVE, watch.picks, batch, query.predicate)
        texts = query.shape.changes(batch, picks)
        shown = [(batch.seqs[place], text) for (_, place), text in texts.items() if text is not None]
        for part in _messages(shown):
            payload = query.shape.changes_message([text for _, text in part])
            await query.offer(payload, "changes", part[-1][0], len(part))
        query.reached(max(replay.from_seq, batch.last_seq))


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
