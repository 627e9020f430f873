"""A table of the same name is another table: what began on the dropped one neither adds to it nor takes from it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any

from foreign_program import Program
from server_process import ServerProcess, SqlFailed

Connect = Callable[..., Awaitable[Program]]

SLOW = "(SELECT sum(sin(a.value * b.value)) FROM range(0, 9000) AS a, range(0, 9000) AS b) IS NOT NULL"
"""Always true, and true only after a while."""
WORKS_S = 0.2
"""CPU time after which a statement with it has read the table, and works for longer."""


async def drop_while_inserts_run(program: Program, table: str, options: str) -> None:
    program.server.sql(f"CREATE STREAM TABLE {table} (id BIGINT) {options}")
    dropped = False

    async def insert() -> None:
        while not dropped:
            await program.insert(table, [{"id": 1}, {"id": 2}])

    inserting = [asyncio.create_task(insert()) for _ in range(20)]
    await program.insert(table, {"id": 0})
    await asyncio.to_thread(program.server.sql, f"DROP TABLE {table}")
    dropped = True
    await asyncio.gather(*inserting)


async def test_the_retention_of_a_dropped_table_expires_nothing_of_the_next(program: Program, namespace: str) -> None:
    server, table = program.server, f"{namespace}.t"
    for _ in range(5):
        await drop_while_inserts_run(program, table, "WITH (retention = '1s')")
    server.sql(f"CREATE STREAM TABLE {table} (id BIGINT)")
    assert (await program.insert(table, [{"id": number} for number in range(100)])).code is None
    await asyncio.sleep(3)  # that nothing happens cannot be waited for
    assert server.sql(f"SELECT count(*) FROM {table}") == [[100]]


async def test_nothing_is_kept_or_asked_of_a_dropped_table(kalam_server: ServerProcess, connect: Connect) -> None:
    server, program = kalam_server, await connect(kalam_server)
    server.sql("CREATE NAMESPACE a")
    for _ in range(5):
        await drop_while_inserts_run(program, "a.t", "")
    asked: Counter[str] = Counter()

    async def note(message: Any) -> None:
        asked[message.subject] += 1

    await program.broker.subscribe("$JS.API.STREAM.INFO.>", cb=note)
    await program.broker.flush()
    await asyncio.sleep(2)  # that nothing happens cannot be waited for
    assert asked == {}
    server.stop()
    with closing(sqlite3.connect(server.data_dir / "kalam.db")) as database:
        assert database.execute("SELECT table_id FROM stream_counters").fetchall() == []


async def statement(server: ServerProcess, text: str) -> str:
    try:
        return str(await asyncio.to_thread(server.sql, text))
    except SqlFailed as exc:
        return str(exc.code)


async def test_a_delete_that_began_on_a_dropped_table_takes_nothing_from_the_next(
    program: Program, namespace: str
) -> None:
    server, table = program.server, f"{namespace}.t"
    server.sql(f"CREATE STREAM TABLE {table} (id BIGINT)")
    await program.insert(table, [{"id": number} for number in range(100)])
    assert server.sql(f"SELECT count(*) FROM {table}") == [[100]]  # what the first query imports is imported
    before = server.cpu_s()
    deleting = asyncio.create_task(statement(server, f"DELETE FROM {table} WHERE {SLOW}"))
    await asyncio.to_thread(server.wait_cpu, before + WORKS_S)
    await statement(server, f"DROP TABLE {table}; CREATE STREAM TABLE {table} (id BIGINT)")
    await program.insert(table, [{"id": number} for number in range(50)])
    await deleting
    assert server.sql(f"SELECT count(*) FROM {table}") == [[50]]


async def test_an_insert_that_began_on_a_dropped_table_adds_nothing_to_the_next(
    program: Program, namespace: str
) -> None:
    server, table = program.server, f"{namespace}.t"
    server.sql(f"CREATE STREAM TABLE {table} (id BIGINT)")
    assert server.sql(f"SELECT count(*) FROM {table}") == [[0]]  # what the first query imports is imported
    before = server.cpu_s()
    inserting = asyncio.create_task(statement(server, f"INSERT INTO {table} SELECT 1 WHERE {SLOW}"))
    await asyncio.to_thread(server.wait_cpu, before + WORKS_S)
    await statement(server, f"DROP TABLE {table}; CREATE STREAM TABLE {table} (other TEXT, id BIGINT)")
    await inserting
    assert server.sql(f"SELECT count(*) FROM {table}") == [[0]]
    state = json.loads((await program.broker.request(f"$JS.API.STREAM.INFO.KALAM-{namespace}-t", b"")).data)["state"]
    assert state["last_seq"] == 0
