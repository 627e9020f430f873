"""Rows that came as messages of their own are stored as one, and each is judged as if it had come alone."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from kalam.errors import DuplicateKey
from kalam.names import TableName
from kalam.rows.stored import pack_rows
from kalam.schema import Column, DataType, StoredOptions, Table, TableDefinition, TableKind, TypeName
from kalam.settings import Settings
from kalam.storage import opened
from kalam.storage.log.copy_store import read_chunks
from kalam.storage.log.data_dir import prepare_database
from kalam.storage.log.database import Database
from kalam.storage.log.inserts import AllInserted, Inserted, InsertTask, LoneRows, Outcomes
from kalam.storage.log.write_task import Work


class Storage:
    """Storage without a server, and an empty table of it."""

    def __init__(self, parts: opened.Storage, table: Table) -> None:
        self.parts, self.table, self.database = parts, table, parts.database

    def insertion(self, *row_ids: int) -> InsertTask:
        rows = [(row_id,) for row_id in row_ids]
        return InsertTask(self.parts.store, self.table, "", LoneRows(row_ids, rows, [pack_rows(rows)]))

    async def insert(self, *row_ids: int) -> Outcomes:
        outcomes: Outcomes = await self.database.submit(self.insertion(*row_ids))
        return outcomes

    def stored(self) -> list[int]:
        """The keys in the log, in its order; its numbers have no hole."""
        with self.database.reading() as conn:
            chunks = read_chunks(conn, 1, "flushed = 0")
        assert [chunk.first_seq for chunk in chunks[1:]] == [chunk.last_seq + 1 for chunk in chunks[:-1]]
        return [row_id for chunk in chunks for [row_id] in msgspec.msgpack.decode(chunk.payload)]


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
    yield Storage(parts, await parts.catalogue.create_table(definition))
    database.close()


async def test_new_keys_are_one_chunk_and_have_one_outcome(storage: Storage) -> None:
    assert await storage.insert(1, 2, 3) == AllInserted(1)
    assert await storage.insert(7, 5) == AllInserted(4)
    assert storage.stored() == [1, 2, 3, 7, 5]


async def test_a_key_that_is_taken_or_comes_twice_refuses_its_own_row_and_no_other(storage: Storage) -> None:
    await storage.insert(1)
    outcomes = await storage.insert(2, 1, 3, 3, 4)
    assert isinstance(outcomes, list)
    assert [outcome.last_seq if isinstance(outcome, Inserted) else None for outcome in outcomes] == [
        2,
        None,
        3,
        None,
        4,
    ]
    assert all(isinstance(outcomes[place], DuplicateKey) for place in (1, 3))
    assert storage.stored() == [1, 2, 3, 4]


async def test_rows_that_are_taken_back_with_others_are_taken_once_when_they_are_tried_alone(storage: Storage) -> None:
    def fail(_: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    first = storage.database.submit(storage.insertion(1, 2))
    failing = storage.database.submit(Work(fail, None))
    second = storage.database.submit(storage.insertion(2, 3))
    await storage.database.write(lambda _: None)
    assert failing.exception() is not None
    assert first.result() == AllInserted(1)
    assert isinstance(second.result(), list)
    assert storage.stored() == [1, 2, 3]
