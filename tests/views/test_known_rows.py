"""What a view knows of its rows spares it reading them, and never makes another row of one."""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from change_feed import read_feed, replay
from server_process import ServerProcess

from kalam.errors import StorageFull
from kalam.names import TableName
from kalam.query.queries import Queries
from kalam.rows.stored import pack_rows
from kalam.rows.types import Row
from kalam.schema import Column, DataType, Table, TableDefinition, TableKind, TypeName
from kalam.settings import Settings
from kalam.storage import opened
from kalam.storage.log.copies import Key, View
from kalam.storage.log.data_dir import prepare_database
from kalam.storage.log.database import Database, make_directory, now_us
from kalam.storage.log.view_positions import ViewState
from kalam.storage.log.writes import Announcement, Change
from kalam.storage.segments.cold_keys import KeyedRow
from kalam.storage.segments.key_rows import KeyedRows
from kalam.storage.work.flush import FlushRecord, Step, rename_files
from kalam.storage.work.flush_worker import FlushRequest, flush
from kalam.table_options import How, ViewOptions
from kalam.tables.outbox import Outbox
from kalam.tables.stored import Bounds, StoredTables
from kalam.views.known_rows import ENTRY_BYTES, KnownRows, Unknown, Whole
from kalam.views.method import Outcome
from kalam.views.writer import Progress, Writer

KEYS = range(12)


class Reading:
    """Reads rows by their keys, and counts them."""

    def __init__(self) -> None:
        self.read_keys = 0

    async def rows_by_key(
        self, stored: StoredTables, table: Table, user: str, view: View, keys: Sequence[Key]
    ) -> KeyedRows:
        self.read_keys += len(keys)
        found = await stored.rows_by_key(table, user, keys)
        assert found is not None
        return found


class Lab:
    """A view without a server, and what is told of its changes."""

    def __init__(self, storage: opened.Storage, view: Table) -> None:
        self.storage, self.view, self.told = storage, view, dict[Key, Row]()
        port = cast("Any", None)  # nothing is published
        outbox = Outbox(storage.database, storage.catalogue, storage.store, storage.codecs, port, storage.troubles)
        bounds = Bounds(row_bytes_max=1 << 20, outbox_bytes_max=1 << 30)
        self.stored = StoredTables(storage.store, storage.codecs, storage.folders, storage.cold_keys, outbox, bounds)
        self.reading = Reading()
        self.writer = self.another_writer()
        storage.database.add_listener(self.tell)

    def another_writer(self) -> Writer:
        return Writer(self.view, self.stored, self.storage.store, cast("Queries", self.reading))

    def tell(self, announcement: Announcement) -> None:
        """Follow the changes, each of which has to begin with what there was."""
        chunk, codec = announcement.chunk, self.storage.codecs.of(announcement.table)
        rows = codec.stored.unpack(chunk.payload)
        assert announcement.rows is not None
        assert list(announcement.rows) == rows
        match chunk.op:
            case "update":
                assert chunk.old is not None
                olds = codec.stored.unpack(chunk.old)
                assert [self.told[row[0]] for row in rows] == olds == list(announcement.old_rows or ())
            case "delete":
                assert [self.told.pop(row[0]) for row in rows] == rows
                return
            case "insert":
                assert not any(row[0] in self.told for row in rows)
        self.told.update((row[0], row) for row in rows)

    async def write(self, upserts: Sequence[Row], deletes: Sequence[Key] = (), **rest: Any) -> None:
        outcome = Outcome(upserts=upserts, deletes=deletes, **rest)
        await self.writer.write(outcome, Progress((), ViewState(filled=True)))

    async def rows(self) -> dict[Key, Row]:
        found = await self.stored.rows_by_key(self.view, "", list(KEYS))
        assert found is not None
        return {each.row[0]: each.row for each in found.rows}

    async def flush(self) -> None:
        """Bring all rows into a segment."""
        view, folders = await self.stored.view(self.view, ""), self.storage.folders
        if view is None or not view.chunk_count:
            return
        folder = folders.folder(self.view, "")
        make_directory(folder)
        request = FlushRequest(
            database=str(self.storage.database.path),
            table_id=self.view.table_id,
            schema_version=self.view.schema_version,
            copy_id=view.copy_id,
            upto_seq=view.last_seq,
            columns=self.view.columns,
            history=dict(self.storage.catalogue.history(self.view)),
            key=self.view.key,
            folder=str(folder),
            name=f"{folders.file_prefix(self.view)}{now_us()}",
            compression=self.view.stored_options.compression,
            segment_rows_max=1_000_000,
            forget_deleted_us=0,
        )
        answer = await asyncio.to_thread(flush, request)
        rename_files(folder, answer.files)
        step = Step(view.copy_id, "", view.last_seq, answer)
        await self.storage.database.submit(FlushRecord(self.storage.store, self.view, step))


@pytest.fixture
async def lab(data_dir: Path) -> AsyncIterator[Lab]:
    data_id = prepare_database(data_dir)
    database = Database(data_dir / "kalam.db", commit_rows_max=1_000)
    database.start()
    storage = await opened.open_storage(Settings(data_dir=data_dir), database, data_id)
    await storage.catalogue.create_namespace("n")
    columns = (
        Column(column_id=1, name="id", type=DataType(name=TypeName.BIGINT), nullable=False),
        Column(column_id=2, name="n", type=DataType(name=TypeName.BIGINT)),
        Column(column_id=3, name="mean", type=DataType(name=TypeName.DOUBLE)),
    )
    definition = TableDefinition(
        name=TableName("n", "v"),
        kind=TableKind.VIEW,
        columns=columns,
        key=("id",),
        options=ViewOptions(how=How.AGGREGATING),
    )
    yield Lab(storage, await storage.catalogue.create_table(definition))
    database.close()


def some(dice: random.Random, keys: Collection[int]) -> list[Row]:
    return [(key, dice.choice([None, 1, 2, 3]), dice.choice([None, 0.0, -0.0, 1.5])) for key in keys]


@pytest.mark.parametrize("seed", range(3))
async def test_rows_are_those_that_were_written_whatever_comes_between(lab: Lab, seed: int) -> None:
    dice, rows = random.Random(seed), dict[Key, Row]()

    def refuse(_: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    for _ in range(60):
        keys = dice.sample(KEYS, dice.randrange(len(KEYS)))
        upserts, deletes = some(dice, keys[::2]), keys[1::2]
        match dice.randrange(8):
            case 0:
                await lab.flush()
            case 1:
                lab.storage.store.forget(lab.view.table_id, "")  # as a failed commit does
            case 2:
                with pytest.raises(StorageFull):
                    await lab.write(upserts, deletes, remember=refuse)
                upserts, deletes = [], []
            case 3:
                lab.writer = dice.choice([lab.writer, lab.another_writer()])
            case 4:
                mine, lab.writer = lab.writer, lab.another_writer()
                await lab.write(upserts, deletes)
                lab.writer = mine
        await lab.write(upserts, deletes)
        rows.update({row[0]: row for row in upserts})
        for key in deletes:
            rows.pop(key, None)
        again = dice.sample(sorted(rows, key=repr), dice.randrange(len(rows) + 1))
        for number in range(dice.randrange(4)):  # the same rows, and nothing else, all of them or some of them changed
            changed = [(key, number, None) for key in again] if dice.randrange(3) else some(dice, again)
            await lab.write(changed)
            rows.update({row[0]: row for row in changed})
        assert repr(sorted(lab.told.items())) == repr(sorted(rows.items()))  # which tells the zeros apart
        await check_others(lab, keys[:3], rows)
        assert repr(sorted((await lab.rows()).items())) == repr(sorted(rows.items()))


async def check_others(lab: Lab, keys: Collection[Key], rows: Collection[Key]) -> None:
    """Where all rows are known they are those that are there; else their number is told, as by who has asked for it."""
    view, known = await lab.stored.view(lab.view, ""), lab.writer.known_rows
    seq = 0 if view is None else view.last_seq
    found = known.others(seq, keys)
    if found is None:
        known.counted(seq, len(rows))
        found = known.others(seq, keys)
    assert found is None or sorted(found) == sorted(set(rows) - set(keys))


async def test_all_rows_are_known_from_the_beginning_or_from_when_they_were_counted(lab: Lab) -> None:
    await lab.write([(key, 1, 0.0) for key in range(6)])
    await lab.write([(6, 1, 0.0), (0, 2, 0.0)], [1, 2])
    assert await lab.writer.others({0, 3}) == [4, 5, 6], "which nothing is asked for"
    mine, lab.writer = lab.writer, lab.another_writer()
    await lab.write([(7, 1, 0.0)], [3])
    view = await lab.stored.view(lab.view, "")
    assert view is not None
    known = lab.writer.known_rows
    for writer in (mine, lab.writer):
        assert writer.known_rows.others(view.last_seq, []) is None, "who has not seen all changes"
    known.counted(view.last_seq, 5)
    assert known.others(view.last_seq, []) is None, "a part of them"
    await lab.write([(0, 3, 0.0), (4, 3, 0.0), (5, 3, 0.0), (6, 3, 0.0)])
    assert sorted(await lab.writer.others({0, 4, 5})) == [6, 7]
    await lab.write([], [0, 4, 5, 6, 7])
    assert await lab.writer.others(set()) == []


async def test_what_was_written_is_not_read_again_be_it_flushed_or_gone(lab: Lab) -> None:
    await lab.write([(1, 1, 0.0), (2, 1, 0.0)])
    await lab.write([(3, 1, 0.0)], [2])
    read = lab.reading.read_keys
    await lab.flush()
    await lab.write([(1, 2, 0.0), (2, 2, 0.0), (3, 1, -0.0)])
    assert lab.reading.read_keys == read
    assert await lab.rows() == lab.told == {1: (1, 2, 0.0), 2: (2, 2, 0.0), 3: (3, 1, 0.0)}
    await lab.another_writer().write(Outcome(deletes=[1]), Progress((), ViewState(filled=True)))
    await lab.write([(1, 3, 0.0), (2, 3, 0.0)])
    assert lab.reading.read_keys > read, "another one has written"
    assert await lab.rows() == lab.told == {1: (1, 3, 0.0), 2: (2, 3, 0.0), 3: (3, 1, 0.0)}


async def test_rows_that_are_written_again_and_again_are_known_together(lab: Lab) -> None:
    keys = [1, 2, 3]
    await lab.write([(key, 0, 0.0) for key in [*keys, 4]])
    read = lab.reading.read_keys
    for number in range(1, 4):
        await lab.write([(key, number, 0.0) for key in keys])
    view, known = await lab.stored.view(lab.view, ""), lab.writer.known_rows
    assert view is not None
    assert view.last_seq == 13
    rows = [(key, 3, 0.0) for key in keys]
    assert known.whole(13, keys) == Whole(rows, 11, view.chunks[-1].updated_us, pack_rows(rows))
    assert view.chunks[-1].old == view.chunks[-2].payload
    assert [known.whole(13, others) for others in ([1, 2], [2, 1, 3], [1, 2, 3, 4])] == [None] * 3
    assert known.whole(12, keys) is None
    await lab.write([(1, 4, 0.0), (2, 3, 0.0), (3, 4, 0.0)])
    await lab.write([(key, 5, 0.0) for key in [*keys, 4]])
    assert lab.reading.read_keys == read
    assert await lab.rows() == lab.told == {key: (key, 5, 0.0) for key in [*keys, 4]}
    assert sorted(await lab.writer.others({1})) == [2, 3, 4], "whose number is known all the time"


async def test_what_is_known_wrongly_is_read_again_and_written_nowhere(lab: Lab) -> None:
    await lab.write([(1, 1, 0.0), (2, 1, 0.0)])
    await lab.write([(3, 1, 0.0)])
    view = await lab.stored.view(lab.view, "")
    assert view is not None
    [wrong] = [row for row in lab.writer.known(view, [1]) if isinstance(row, KeyedRow)]
    found = lab.writer.known_rows
    found.learn(view.last_seq, {1: KeyedRow((1, 9, 9.0), 7, wrong.updated), 2: None, 5: wrong})
    await lab.write([(1, 2, 0.0)], [5])
    assert await lab.rows() == lab.told == {1: (1, 2, 0.0), 2: (2, 1, 0.0), 3: (3, 1, 0.0)}
    found.learn(view.last_seq + 1, {2: None})
    await lab.write([(2, 2, 0.0)])
    assert await lab.rows() == lab.told == {1: (1, 2, 0.0), 2: (2, 2, 0.0), 3: (3, 1, 0.0)}


async def test_each_change_of_a_view_is_told_from_what_there_was(
    start_kalam: Callable[..., ServerProcess], wait_until: Any
) -> None:
    """Whatever comes between: a group that is hidden, one that fails, flushes, compactions, a REFRESH, a kill."""
    server, dice, id_ = start_kalam(), random.Random(3), itertools.count()
    server.sql("CREATE NAMESPACE n; CREATE SHARED TABLE n.t (id BIGINT PRIMARY KEY, k BIGINT NOT NULL, v INT NOT NULL)")
    query = "SELECT k, count(*) AS n, 100 / (sum(v) - 5) AS part FROM n.t GROUP BY k HAVING count(*) <> 2"
    server.sql(f"CREATE MATERIALIZED VIEW n.v WITH (refresh = '0') AS {query}")
    expected = query.replace("/ (sum(v) - 5)", "/ nullif(sum(v) - 5, 0)") + " AND sum(v) <> 5 ORDER BY k"
    for _ in range(25):
        rows = [f"({next(id_)}, {dice.randrange(6)}, {dice.randrange(4)})" for _ in range(dice.randrange(1, 5))]
        server.sql(f"INSERT INTO n.t VALUES {', '.join(rows)}; DELETE FROM n.t WHERE id % 7 = {dice.randrange(20)}")
        server.sql(f"UPDATE n.t SET v = {dice.randrange(4)} WHERE k = {dice.randrange(9)}")
        match dice.randrange(8):
            case 0:
                server.sql("FLUSH TABLE n.v")
            case 1:
                server.sql("COMPACT TABLE n.v")
            case 2:
                server.sql("REFRESH MATERIALIZED VIEW n.v")
            case 3:
                server.kill()
                server.restart()

        async def is_equal() -> bool:
            return server.sql("SELECT k, n, part FROM n.v ORDER BY k") == server.sql(expected)

        await wait_until(is_equal)

    async def is_told() -> bool:
        told = replay(await read_feed(server.nats_url, "kalam.shared.n.v.>"), "k", with_old=True).values()
        return sorted([row["k"], row["n"], row["part"]] for row in told) == server.sql(expected)

    await wait_until(is_told)


class Rows(list[Row]):
    """Rows of which one can tell whether anybody holds them."""


@pytest.mark.parametrize(("room", "is_held"), [(0, False), (1_000, False), (1_000_000, True)])
def test_what_was_written_is_held_only_where_it_has_room(room: int, is_held: bool) -> None:
    known, rows = KnownRows(room), Rows([(number,) for number in range(100)])
    held = weakref.ref(rows)
    known.find(0, [])
    known.wrote([Change("insert", list(range(100)), pack_rows(rows), rows)], 100, 1)
    del rows
    assert (held() is not None) == is_held
    found = known.find(100, list(range(100)))
    assert [isinstance(row, KeyedRow) for row in found] == 100 * [is_held]
    assert held() is None


def test_what_is_known_stays_within_its_bound() -> None:
    known = KnownRows(20 * ENTRY_BYTES)
    known.find(1, [])
    updated = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(200):
        known.learn(1, {number: KeyedRow((number,), 1, updated)})
        there = [key for key, row in enumerate(known.find(1, range(200))) if row is not Unknown.ROW]
        assert there == list(range(number + 1 - len(there), number + 1)), "the newest stay"
        assert min(number + 1, 9) <= len(there) <= 20
    known.learn(1, {number: KeyedRow((number,), 1, updated) for number in range(100)})
    assert known.find(1, range(200)) == [Unknown.ROW] * 200, "what has no room is not known by halves"


def test_rows_that_wait_take_the_room_of_others() -> None:
    known, updated = KnownRows(20 * ENTRY_BYTES), datetime(2026, 1, 1, tzinfo=UTC)
    known.find(0, [])
    known.learn(0, {number: KeyedRow((number,), 1, updated) for number in range(100, 109)})
    keys = list(range(15))
    for number in range(1, 4):
        rows = [(number,) for _ in keys]
        known.wrote([Change("update", keys, b"", rows)], 15 * number, 1)
    assert known.whole(45, keys) == Whole(rows, 31, 1, b"")
    found = known.find(45, [0, 100])
    assert found[1] is Unknown.ROW
    assert found[0] is Unknown.ROW or (isinstance(found[0], KeyedRow) and found[0].row == (3,))
