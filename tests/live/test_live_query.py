"""What waits for one subscriber: its order, its bounds, and what is said while it is silent."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from kalam.live.commits import take_chunks
from kalam.live.live_query import LiveQuery
from kalam.live.shape import Shape
from kalam.live.watch import INLINE_ROWS_MAX, Watch
from kalam.names import TableName
from kalam.query.predicate import Predicate
from kalam.rows.stored import pack_rows
from kalam.rows.versions import StoredVersions
from kalam.schema import PayloadFormat, Table
from kalam.sql import parse_statement, split, table_options
from kalam.sql.text.statements import CreateTable
from kalam.storage.log.copies import Chunk, Op
from kalam.tables.versions import version_columns

BOUND = 10_000


class Listener:
    """A Sink that counts how often it is told."""

    told = 0

    def subject(self, query: LiveQuery) -> None:
        return None

    def note(self, query: LiveQuery) -> None:
        self.told += 1


@pytest.fixture
def query() -> LiveQuery:
    statement = parse_statement(split("CREATE TABLE n.t (id BIGINT PRIMARY KEY)")[0])
    assert isinstance(statement, CreateTable)
    table = Table(
        name=TableName("n", "t"),
        kind=statement.kind,
        columns=statement.columns,
        key=statement.key,
        options=table_options(statement.kind, statement.options, statement.columns),
        table_id=7,
        schema_version=1,
        created_at=datetime.now(UTC),
    )
    shape = Shape(version_columns(table), [0], PayloadFormat.JSON, 1 << 20)
    predicate = Predicate(None, (), None, {})
    bounds = {"queue_bytes_max": BOUND, "held_bytes_max": 10 * BOUND}
    return LiveQuery(
        "q",
        "ada",
        table,
        "SELECT id FROM n.t",
        {},
        predicate,
        shape,
        Listener(),
        created_at=datetime.now(UTC),
        **bounds,
    )


def push(query: LiveQuery, *seqs: int, size: int = 50) -> None:
    changes = [json.dumps({"seq": seq, "filler": "x" * size}).encode() for seq in seqs]
    query.push(list(zip(seqs, changes, strict=True)), sum(map(len, changes)))
    query.progress.seq = seqs[-1]


def taken(query: LiveQuery) -> list[dict[str, Any]]:
    messages = []
    while (message := query.take()) is not None:
        messages.append(json.loads(message.payload))
    return messages


def seqs_of(messages: list[dict[str, Any]]) -> list[int]:
    return [change["seq"] for message in messages for change in message.get("changes", ())]


async def test_what_the_opening_shows_is_not_told_again(query: LiveQuery) -> None:
    push(query, 3, 4, 5)
    await query.offer(b'{"type":"snapshot"}', "snapshot")
    await query.offer(b'{"type":"ready"}', "ready", 4)
    assert [message["type"] for message in taken(query)] == ["snapshot", "ready"]
    query.start(4)
    push(query, 4)
    push(query, 6)
    assert seqs_of(taken(query)) == [5, 6]


async def test_heartbeats_tell_how_far_a_long_resume_has_come(query: LiveQuery) -> None:
    assert query.heartbeat() is None
    await query.offer(b'{"type":"ready"}', "ready", 10)
    assert query.heartbeat() is None, "something waits"
    taken(query)
    push(query, 500)  # held: it comes after what is resumed
    for seq in (10, 120):
        query.reached(seq)
        message = query.heartbeat()
        assert message is not None
        assert (message.seq, json.loads(message.payload)["seq"]) == (seq, seq)
    query.start(499)
    assert seqs_of(taken(query)) == [500]
    message = query.heartbeat()
    assert message is not None
    assert message.seq == 500


async def test_a_queue_that_overflows_is_dropped_and_says_so_once(query: LiveQuery) -> None:
    await query.offer(b'{"type":"ready"}', "ready", 0)
    query.start(0)
    for seq in range(1, 200):
        push(query, seq, size=500)
    messages = taken(query)
    assert [message["type"] for message in messages] == ["ready", "resync"]
    assert messages[1]["seq"] == 199
    assert query.resyncs == 1
    push(query, 200)
    assert seqs_of(taken(query)) == [200]


async def test_the_end_is_the_last_message_and_comes_once(query: LiveQuery) -> None:
    await query.offer(b'{"type":"ready"}', "ready", 0)
    query.start(0)
    push(query, 1)
    query.close("killed")
    query.close("again")
    push(query, 2)
    assert [message.get("reason") for message in taken(query)] == ["killed"]
    assert not query.waiting
    assert query.queued == 0


def chunk(first_seq: int, rows: int, op: Op = "insert") -> Chunk:
    """A chunk of rows whose keys are their numbers."""
    return Chunk(
        first_seq=first_seq,
        row_count=rows,
        op=op,
        updated_us=0,
        schema_version=1,
        superseding=False,
        payload=pack_rows([(seq,) for seq in range(first_seq, first_seq + rows)]),
    )


async def test_what_was_committed_together_is_told_in_order_and_small_chunks_with_one_look(query: LiveQuery) -> None:
    table, sink = query.table, query.sink
    assert isinstance(sink, Listener)
    watch = Watch(table, "", version_columns(table), StoredVersions(table.columns, {1: table.columns}), _failed)
    watch.add(query)
    query.start(0)
    take_chunks(watch, [chunk(seq, 1) for seq in range(1, 6)])
    assert sink.told == 1
    assert seqs_of(taken(query)) == [1, 2, 3, 4, 5]
    take_chunks(watch, [chunk(6, 2), chunk(8, 1, "truncate"), chunk(9, 1), chunk(10, 2)])
    messages = taken(query)
    assert [message["type"] for message in messages] == ["changes", "resync", "changes"]
    assert seqs_of(messages) == [6, 7, 9, 10, 11]
    assert messages[1]["seq"] == 8
    told = sink.told
    take_chunks(watch, [chunk(12, INLINE_ROWS_MAX - 1), chunk(11 + INLINE_ROWS_MAX, 2)])
    assert (sink.told - told, watch.progress.seq) == (2, 12 + INLINE_ROWS_MAX), "together they are not small"


def _failed(query: LiveQuery, reason: str) -> None:
    raise AssertionError(f"{query.id} was ended: {reason}")
