"""Views over one table read it together, wherever each of them stands and whatever becomes of one."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from datetime import UTC, datetime
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from kalam.names import TableName
from kalam.rows.stored import pack_rows
from kalam.rows.versions import StoredVersions
from kalam.schema import Column, DataType, Table, TableKind, TypeName
from kalam.storage.log.copies import Chunk, Copy
from kalam.storage.log.former_times import pack_times
from kalam.storage.log.times import from_us
from kalam.storage.log.writes import Announcement
from kalam.table_options import StoredOptions
from kalam.tables.versions import ChangeBatch, Logged, batch_of
from kalam.views import at_hand
from kalam.views.at_hand import CHUNK_BYTES, AtHand, KeptRows
from kalam.views.copy_source import first_chunks
from kalam.views.keeper import next_multiple
from kalam.views.method import Changes
from kalam.views.readings import Readings, Run
from kalam.views.relation import Relation
from kalam.views.signed import Signed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TABLE = Table(
    table_id=1,
    schema_version=1,
    name=TableName("a", "t"),
    kind=TableKind.SHARED,
    columns=(
        Column(column_id=1, name="k", type=DataType(name=TypeName.BIGINT), nullable=False),
        Column(column_id=2, name="v", type=DataType(name=TypeName.TEXT)),
    ),
    key=("k",),
    options=StoredOptions(),
    created_at=NOW,
)
RUN = Run(1, "", 1, 1, 0, 2)


def batch() -> ChangeBatch:
    """A row that comes, one that becomes another one, one that goes."""
    was, new = (2, "b", NOW, False), (2, "c", NOW, False)
    gone = (3, "d", NOW)
    return ChangeBatch([1, 2, 3], [None, was, (*gone, False)], [(1, "a", NOW, False), new, (*gone, True)])


def changes() -> Changes:
    return Changes(TABLE, batch(), 1, retracts=True)


async def test_who_takes_the_same_while_another_one_has_it_gets_that_and_later_it_is_read_anew() -> None:
    readings, read = Readings(), 0

    def reads() -> Changes:
        nonlocal read
        read += 1
        return changes()

    found = await asyncio.gather(*(readings.changes(RUN, reads) for _ in range(20)))
    assert read == 1
    assert all(each is found[0] for each in found)
    assert await readings.changes(RUN, reads) is found[0]
    other = await readings.changes(Run(1, "", 1, 1, 1, 2), reads)
    assert read == 2
    assert other is not found[0]
    del found
    gc.collect()
    await readings.changes(RUN, reads)
    assert read == 3


async def test_who_reads_for_others_may_fail_or_be_ended_and_they_read_for_themselves() -> None:
    readings = Readings()
    begun, goes_on = threading.Event(), threading.Event()

    def slow() -> Changes:
        begun.set()
        assert goes_on.wait(30)
        return changes()

    def fails() -> Changes:
        raise ValueError("the disk")

    first = asyncio.create_task(readings.changes(RUN, slow))
    await asyncio.to_thread(begun.wait, 30)
    second = asyncio.create_task(readings.changes(RUN, fails))
    third = asyncio.create_task(readings.changes(RUN, changes))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(ValueError, match="the disk"):
        await second
    assert (await third).batch.seqs == [1, 2, 3]
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first


def test_the_signed_versions_of_changes_are_columns_that_are_made_once() -> None:
    signed = changes().signed
    assert [version[:2] for version in signed.versions] == [(1, "a"), (2, "c"), (2, "b"), (3, "d")]
    assert signed.weights.tolist() == [1, 1, -1, -1]
    both, one = Relation.of(TABLE, ("k", "v")), Relation.of(TABLE, ("v",))
    rows = signed.rows(both)
    assert rows.to_pydict() == {"k": [1, 2, 2, 3], "v": ["a", "c", "b", "d"]}
    assert signed.rows(one)["v"].chunk(0).buffers()[2].address == rows["v"].chunk(0).buffers()[2].address
    of_stream = Signed.of(ChangeBatch([1], [None], [(1, "a", "key")]), retracts=False)
    assert np.array_equal(of_stream.weights, [1])


def chunks_of(sizes: list[int]) -> list[Chunk]:
    lasts = list(accumulate(sizes))
    return [
        Chunk(
            first_seq=last - size + 1,
            row_count=size,
            op="insert",
            updated_us=0,
            schema_version=1,
            superseding=False,
            payload=b"",
        )
        for last, size in zip(lasts, sizes, strict=True)
    ]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 50), st.data())
def test_views_that_stand_anywhere_come_to_stand_at_one_position(
    sizes: list[int], rows_max: int, data: st.DataObject
) -> None:
    chunks = chunks_of(sizes)
    last = chunks[-1].last_seq
    ends = []
    for _ in range(2):
        seq, seen = data.draw(st.integers(0, last - 1)), set()
        while seq < last:
            taken = first_chunks([chunk for chunk in chunks if chunk.last_seq > seq], seq, rows_max)
            assert taken
            assert taken[-1].first_seq - seq <= rows_max  # no more than that many, but for the last chunk
            seq = taken[-1].last_seq
            seen.add(seq)
        ends.append(seen)
    first, second = ends
    assert {end for end in first if end >= max(map(min, ends))} == {end for end in second if end >= max(map(min, ends))}


@given(st.floats(0, 1e9), st.sampled_from([0.05, 0.25, 1.0, 60.0, 3_600.0]))
def test_views_of_one_refresh_fall_due_together(refreshed_s: float, refresh_s: float) -> None:
    due_s = next_multiple(refreshed_s, refresh_s)
    assert refreshed_s <= due_s <= refreshed_s + refresh_s * (1 + 1e-6)
    assert next_multiple(refreshed_s // refresh_s * refresh_s, refresh_s) <= due_s


def logged() -> list[Logged]:
    """Two rows that come, one of which becomes another one, and one that goes."""
    came, was, new = [(1, "a"), (2, "b")], [(2, "b")], [(2, "c")]
    times = pack_times([1_000])
    sizes = [2, 1, 1]
    packed = [pack_rows(rows) for rows in (came, new, [(1, "a")])]
    chunks = [
        structs.replace(chunk, payload=payload, updated_us=2_000)
        for chunk, payload in zip(chunks_of(sizes), packed, strict=True)
    ]
    update = structs.replace(chunks[1], op="update", old=pack_rows(was), old_updated=times)
    delete = structs.replace(chunks[2], op="delete", old_updated=times)
    reader = StoredVersions(TABLE.columns, {1: TABLE.columns})
    return [Logged.read(chunk, reader) for chunk in (chunks[0], update, delete)]


def test_chunks_are_the_same_versions_one_by_one_and_as_columns() -> None:
    found = Changes(TABLE, logged(), 1, retracts=True)
    of_batch = Signed.of(found.batch, retracts=True)
    relation = Relation.of(TABLE, ("k", "v"))
    assert found.signed.rows(relation) == of_batch.rows(relation)
    assert found.signed.rows(relation).to_pydict() == {"k": [1, 2, 2, 2, 1], "v": ["a", "b", "c", "b", "a"]}
    assert found.signed.versions == of_batch.versions
    assert np.array_equal(found.signed.weights, of_batch.weights)
    assert found.last_seq == found.batch.last_seq == 4
    assert [row and row[1:] for row in found.batch.olds] == [
        None, None, ("b", from_us(1_000), False), ("a", from_us(1_000), False)
    ]  # fmt: skip


def test_a_run_that_begins_within_a_chunk_has_what_is_behind_of_it() -> None:
    [came, update, _] = logged()
    assert Logged.of(came.chunk, came.rows, None, 1) == structs.replace(came, start=1, rows=[(2, "b")])
    batch = batch_of([Logged.of(came.chunk, came.rows, None, 1), update])
    assert (batch.seqs, [row and row[0] for row in batch.news]) == ([2, 3], [2, 2])


def test_rows_are_at_hand_once_and_of_as_many_chunks_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    [came, update, gone] = logged()
    copy, kept = Copy(7, 1, ""), AtHand()
    monkeypatch.setattr(at_hand, "BYTES_MAX", came.chunk.byte_count + update.chunk.byte_count + 2 * CHUNK_BYTES)
    first = Announcement(TABLE, copy, came.chunk, came.rows)
    kept.keep(first)
    kept.keep(first)
    kept.keep(Announcement(TABLE, copy, update.chunk, update.rows, old_rows=update.old_rows))
    assert kept.take(8, came.chunk) is None
    assert kept.take(7, structs.replace(came.chunk)) is None, "another chunk under its number"
    assert kept.byte_count == update.chunk.byte_count + CHUNK_BYTES
    kept.keep(first)
    assert kept.take(7, came.chunk) == KeptRows(came.chunk, came.rows, None)
    assert kept.take(7, came.chunk) is None
    kept.keep(first)
    kept.keep(Announcement(TABLE, copy, gone.chunk, gone.rows))
    assert kept.take(7, update.chunk) is None, "the oldest makes room"
    assert kept.take(7, came.chunk) == KeptRows(came.chunk, came.rows, None)
    kept.keep(Announcement(TABLE, copy, update.chunk, update.rows))  # whose former rows are not known
    assert kept.take(7, update.chunk) is None
    assert kept.byte_count == gone.chunk.byte_count + CHUNK_BYTES


def test_rows_at_hand_hold_nothing_of_their_table_and_are_few_where_each_came_by_itself() -> None:
    kept, copy = AtHand(), Copy(7, 1, "")
    lone, holders = structs.replace(chunks_of([1])[0], payload=pack_rows([(1, "a")])), sys.getrefcount(copy)
    chunks = [structs.replace(lone, first_seq=seq) for seq in range(1, 20_001)]
    for chunk in chunks:
        kept.keep(Announcement(TABLE, copy, chunk, [(1, "a")]))
    assert sys.getrefcount(copy) == holders, "which would keep all of its hot rows in memory"
    count = sum(kept.take(7, chunk) is not None for chunk in chunks)
    assert 1_000 < count <= at_hand.BYTES_MAX // CHUNK_BYTES
    assert kept.byte_count == 0
