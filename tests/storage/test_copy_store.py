"""What memory holds of a copy is what the database holds, also when one transaction both changes and loads it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kalam.names import TableName
from kalam.rows.stored import pack_rows
from kalam.schema import Column, DataType, StoredOptions, Table, TableDefinition, TableKind, TypeName
from kalam.settings import Settings
from kalam.storage import opened
from kalam.storage.log.data_dir import prepare_database
from kalam.storage.log.database import Database, make_directory, now_us
from kalam.storage.log.inserts import InsertStatement, InsertTask
from kalam.storage.log.writes import Stale
from kalam.storage.work.flush import FlushRecord, Step, rename_files
from kalam.storage.work.flush_worker import FlushRequest, flush


@dataclass
class Storage:
    """Storage without a server: one table, with rows 1, 2 and 3."""

    opened: opened.Storage
    table: Table

    @property
    def database(self) -> Database:
        return self.opened.database

    async def insert(self, *row_ids: int, epoch: int | None = None) -> None:
        rows = [(row_id,) for row_id in row_ids]
        statement = InsertStatement(row_ids, rows, [pack_rows(rows)])
        await self.database.submit(InsertTask(self.opened.store, self.table, "", [statement], epoch=epoch))

    def written_flush(self, upto_seq: int) -> FlushRecord:
        """A flush of which all is done but its transaction."""
        folder = self.opened.folders.folder(self.table, "")
        make_directory(folder)
        request = FlushRequest(
            database=str(self.database.path),
            table_id=self.table.table_id,
            schema_version=self.table.schema_version,
            copy_id=1,
            upto_seq=upto_seq,
            columns=self.table.columns,
            history=dict(self.opened.catalogue.history(self.table)),
            key=self.table.key,
            folder=str(folder),
            name=f"{self.opened.folders.file_prefix(self.table)}{now_us()}",
            compression=self.table.stored_options.compression,
            segment_rows_max=1_000_000,
            forget_deleted_us=0,
        )
        answer = flush(request)
        rename_files(folder, answer.files)
        return FlushRecord(self.opened.store, self.table, Step(1, "", upto_seq, answer))

    async def together(self, *works: Callable[[], Awaitable[Any]]) -> None:
        """Let all of this wait for the writer at the same time, so that it is one transaction."""
        entered, opened = threading.Event(), threading.Event()

        def hold(_: sqlite3.Connection) -> None:
            entered.set()
            assert opened.wait(10)

        holding = asyncio.ensure_future(self.database.write(hold))
        await asyncio.to_thread(entered.wait, 10)
        futures = [asyncio.ensure_future(work()) for work in works]
        await asyncio.sleep(0)  # in which each of them hands its task in
        assert self.database.queued == len(works)
        opened.set()
        await asyncio.gather(holding, *futures, return_exceptions=True)


@pytest.fixture
async def storage(data_dir: Path) -> AsyncIterator[Storage]:
    data_id = prepare_database(data_dir)
    database = Database(data_dir / "kalam.db", commit_rows_max=1_000)
    database.start()
    parts = await opened.open_storage(Settings(data_dir=data_dir), database, data_id)
    await parts.catalogue.create_namespace("n")
    key = Column(column_id=1, name="id", type=DataType(name=TypeName.BIGINT), nullable=False)
    definition = TableDefinition(
        name=TableName("n", "t"), kind=TableKind.SHARED, columns=(key,), key=("id",), options=StoredOptions()
    )
    storage = Storage(parts, await parts.catalogue.create_table(definition))
    await storage.insert(1, 2, 3)
    yield storage
    database.close()


async def fail(database: Database) -> None:
    def refuse(_: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    await database.write(refuse)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_copy_that_is_loaded_behind_a_flush_in_one_transaction_has_its_segment_once(
    storage: Storage, fails: bool
) -> None:
    record = storage.written_flush(3)
    storage.opened.store.forget(storage.table.table_id, "")  # as after a start
    works = [lambda: storage.database.submit(record), lambda: storage.opened.store.open(storage.table, "")]
    commits = storage.database.commits
    await storage.together(*works, *([lambda: fail(storage.database)] if fails else []))
    assert fails or storage.database.commits == commits + 2, "the one that held, and one for both"
    copy = await storage.opened.store.open(storage.table, "")
    assert copy is not None
    assert [segment.row_count for segment in copy.view.segments] == [3]
    assert (copy.view.chunk_count, copy.row_count, copy.versions.live_count()) == (0, 0, 0)


async def test_a_copy_read_again_after_a_failure_is_told_from_the_one_that_an_insert_was_prepared_for(
    storage: Storage,
) -> None:
    store, table = storage.opened.store, storage.table
    await storage.database.submit(storage.written_flush(3))
    store.forget(table.table_id, "")
    prepared_for = await store.open(table, "")
    assert prepared_for is not None
    epoch = prepared_for.epoch
    await storage.insert(4, epoch=epoch)
    await storage.database.submit(storage.written_flush(4))
    store.forget(table.table_id, "")  # as a failed commit does
    with pytest.raises(Stale):  # the segment that holds row 4 was not looked at
        await storage.insert(4, epoch=epoch)


async def test_what_was_decoded_of_a_segment_goes_with_it(storage: Storage) -> None:
    store, table, cold_keys = storage.opened.store, storage.table, storage.opened.cold_keys
    folder = storage.opened.folders.folder(table, "")

    async def flush_more(*keys: int) -> None:
        copy = await store.open(table, "")
        assert copy is not None
        await storage.insert(*keys, epoch=copy.epoch)
        await storage.database.submit(storage.written_flush(keys[-1]))

    async def kept_after_reading(*keys: int) -> int:
        copy = await store.open(table, "")
        assert copy is not None
        for key in keys:
            assert cold_keys.rows(table, folder, copy.view, [key])[key].seq == key
        storage.opened.row_cache.wait_packed()
        return storage.opened.row_cache.byte_count

    await storage.database.submit(storage.written_flush(3))
    of_one = await kept_after_reading(2)
    await flush_more(4, 5, 6)
    assert await kept_after_reading(2, 5) == 2 * of_one
    store.forget(table.table_id, "")
    await storage.database.write(lambda conn: conn.execute("DELETE FROM segments WHERE min_seq = 1"))
    await flush_more(7, 8, 9)
    assert await kept_after_reading(5, 8, 5) == 2 * of_one, "those of the file that is gone are not"
