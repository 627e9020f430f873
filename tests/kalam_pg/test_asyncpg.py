"""asyncpg: everything in binary, types looked up in the catalogue, executemany, cursors, COPY, a pool."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import asyncpg
import psycopg
import pytest

AT = datetime(2026, 5, 6, 7, 8, 9, 123456, UTC)
ROW = (
    *(1, -2, 3, 1.5, 0.25, Decimal("3.125"), "zehn", b"\x00\x01", AT, date(2020, 1, 1), json.dumps({"k": [1]})),
    *(UUID("0192d3f0-7c4e-7b1c-8a60-3f4c5d6e7f80"), True),
)
NAMES = "id, small, whole, x, f, d, name, b, at, day, j, u, ok"


@pytest.fixture(scope="module", autouse=True)
def tables(pg_url: str) -> None:
    with psycopg.connect(pg_url, autocommit=True) as connection:
        connection.execute("CREATE NAMESPACE asy")
        connection.execute(
            "CREATE SHARED TABLE asy.typed (id BIGINT PRIMARY KEY, small SMALLINT, whole INT, x DOUBLE, f FLOAT, "
            "d DECIMAL(10,3), name TEXT, b BLOB, at TIMESTAMP, day DATE, j JSON, u UUID, ok BOOLEAN)"
        )
        connection.execute("CREATE SHARED TABLE asy.many (n BIGINT PRIMARY KEY, name TEXT, at TIMESTAMP)")


@pytest.fixture
async def client(pg_url: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(pg_url)
    yield opened
    await opened.close()


async def test_every_type_goes_in_and_comes_back(client: asyncpg.Connection) -> None:
    marks = ", ".join(f"${number}" for number in range(1, 14))
    assert await client.execute(f"INSERT INTO asy.typed ({NAMES}) VALUES ({marks})", *ROW) == "INSERT 0 1"
    found = await client.fetchrow(f"SELECT {NAMES} FROM asy.typed WHERE id = $1", 1)
    assert [json.loads(value) if name == "j" else value for name, value in found.items()] == [
        {"k": [1]} if place == 10 else value for place, value in enumerate(ROW)
    ]


async def test_a_list_of_numbers_is_one_parameter(client: asyncpg.Connection) -> None:
    found = await client.fetch("SELECT value FROM generate_series(1, 9) AS g(value) WHERE value = ANY($1)", [2, 4, 99])
    assert sorted(row[0] for row in found) == [2, 4]


async def test_what_a_statement_asks_for_is_told(client: asyncpg.Connection) -> None:
    prepared = await client.prepare("SELECT n, at FROM asy.many WHERE name LIKE $1 AND n > $2 LIMIT $3")
    assert [each.name for each in prepared.get_parameters()] == ["text", "int8", "int8"]
    assert [(each.name, each.type.name) for each in prepared.get_attributes()] == [("n", "int8"), ("at", "timestamptz")]


async def test_executemany_cursors_and_copy(client: asyncpg.Connection) -> None:
    rows = [(n, f"n{n}", AT) for n in range(3_000)]
    await client.executemany("INSERT INTO asy.many (n, name, at) VALUES ($1, $2, $3)", rows)
    with pytest.raises(asyncpg.UniqueViolationError):
        await client.executemany("INSERT INTO asy.many (n) VALUES ($1)", [(5_000,), (0,)])
    async with client.transaction():
        found = [row["n"] async for row in client.cursor("SELECT n FROM asy.many ORDER BY n", prefetch=100)]
    assert found == list(range(3_000))

    records = [(10_000 + n, None, AT) for n in range(10)]
    copied = await client.copy_records_to_table("many", schema_name="asy", columns=["n", "name", "at"], records=records)
    assert copied == "COPY 10"
    out = io.BytesIO()
    tag = await client.copy_from_query(
        "SELECT n, name FROM asy.many WHERE n >= 9999 ORDER BY n LIMIT 2", output=out, format="csv", header=True
    )
    assert (tag, out.getvalue()) == ("COPY 2", b"n,name\n10000,\n10001,\n")


async def test_a_failed_block_is_left_by_rollback(client: asyncpg.Connection) -> None:
    block = client.transaction()
    await block.start()
    with pytest.raises(asyncpg.UndefinedColumnError):
        await client.fetch("SELECT nothing FROM asy.many")
    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        await client.fetch("SELECT 1")
    await block.rollback()
    assert await client.fetchval("SELECT 1") == 1


async def test_a_pool_gives_its_connections_back_as_new(pg_url: str) -> None:
    async with asyncpg.create_pool(pg_url, min_size=2, max_size=3) as pool:
        assert await asyncio.gather(*(pool.fetchval("SELECT $1::int", n) for n in range(20))) == list(range(20))


async def test_a_query_that_is_given_up_is_cancelled(client: asyncpg.Connection) -> None:
    with pytest.raises(TimeoutError):
        await client.fetchval(
            "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b", timeout=0.3
        )
    assert await client.fetchval("SELECT 1") == 1


async def test_statements_that_are_kept_are_prepared_anew_when_their_tables_change(client: asyncpg.Connection) -> None:
    await client.execute("CREATE NAMESPACE kept; CREATE SHARED TABLE kept.t (id BIGINT PRIMARY KEY, a TEXT)")
    await client.execute("INSERT INTO kept.t VALUES (1, 'x')")
    texts = [f"SELECT * EXCLUDE (_updated, _deleted) FROM kept.t WHERE id = $1{more}" for more in ("", " AND true")]
    insert = "INSERT INTO kept.t (id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING *"
    await client.fetch(insert, 2)
    statement = await client.prepare(texts[0].replace("* EXCLUDE (_updated, _deleted)", "*"))
    expected = {"": ("id", "a"), "ADD COLUMN b INT DEFAULT 5": ("id", "a", "b"), "DROP COLUMN a": ("id", "b")}
    for number, (action, names) in enumerate(expected.items()):
        if action:
            await client.execute(f"ALTER TABLE kept.t {action}")
            with pytest.raises(asyncpg.InvalidCachedStatementError):
                await statement.fetch(1)
        for text in texts:
            assert [tuple(row.keys()) for row in await client.fetch(text, 1)] == [names]
        (told,) = await client.fetch(insert, 10 + number)
        assert tuple(told.keys())[: len(names)] == names
    await client.execute("ALTER TABLE kept.t ALTER COLUMN b TYPE BIGINT; INSERT INTO kept.t VALUES (3, 1 << 40)")
    assert await client.fetchval("SELECT b FROM kept.t WHERE id = $1", 3) == 1 << 40
    assert sorted(await client.fetch("SELECT id FROM kept.t")) == [(1,), (2,), (3,), (10,), (11,), (12,)]
