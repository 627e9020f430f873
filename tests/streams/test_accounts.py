"""Each event that is gone is counted once: in the counters and in the jobs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from foreign_program import Program
from server_process import ServerProcess

Connect = Callable[..., Awaitable[Program]]
Stats = Callable[[ServerProcess, str], dict[str, str]]
WaitFor = Callable[[Callable[[], Any]], Any]

SLOW = "(SELECT sum(sin(a.value * b.value)) FROM range(0, 9000) AS a, range(0, 9000) AS b) IS NOT NULL"
WORKS_S = 0.2
"""CPU time after which a statement with it has read the table, and works for longer."""


def rows(start: int, stop: int) -> list[dict[str, int]]:
    return [{"id": number} for number in range(start, stop)]


def recorded(server: ServerProcess, table: str) -> int:
    """How many evicted events the jobs tell of."""
    namespace, name = table.split(".")
    jobs = server.sql(
        "SELECT result FROM system.jobs WHERE job_type = 'stream_eviction' "
        f"AND namespace = '{namespace}' AND table_name = '{name}'"
    )
    return sum(json.loads(result)["evicted"] for [result] in jobs)


async def test_events_that_were_evicted_before_a_delete_removed_them_are_not_counted_twice(
    program: Program, namespace: str, stats: Stats, wait_for: WaitFor
) -> None:
    server, table = program.server, f"{namespace}.t"
    server.sql(f"CREATE STREAM TABLE {table} (id BIGINT) WITH (max_buffer = 1000)")
    await program.insert(table, rows(0, 1_000))
    assert server.sql(f"SELECT count(id) FROM {table}") == [[1_000]]  # what the first query imports is imported
    before = server.cpu_s()
    deleting = asyncio.create_task(asyncio.to_thread(server.sql, f"DELETE FROM {table} WHERE id < 1000 AND {SLOW}"))
    await asyncio.to_thread(server.wait_cpu, before + WORKS_S)
    await program.insert(table, rows(1_000, 1_500))
    await deleting
    await asyncio.to_thread(wait_for, lambda: int(stats(server, table)["evicted"]))
    told = {name: int(stats(server, table)[name]) for name in ("buffered_rows", "evicted", "deleted")}
    assert sum(told.values()) == 1_500, told


async def test_a_kill_after_a_job_does_not_record_its_evictions_again(
    kalam_server: ServerProcess, connect: Connect, wait_for: WaitFor
) -> None:
    server, program = kalam_server, await connect(kalam_server)
    server.sql("CREATE NAMESPACE a; CREATE STREAM TABLE a.t (id BIGINT) WITH (max_buffer = 100)")
    await program.insert("a.t", rows(0, 150))
    wait_for(lambda: recorded(server, "a.t"))
    server.kill()
    server.restart()
    program = await connect(server)
    await program.insert("a.t", rows(150, 151))
    wait_for(lambda: recorded(server, "a.t") > 50)
    assert recorded(server, "a.t") == 51


async def test_evictions_of_a_stream_that_was_made_anew_are_counted_from_its_first_event(
    program: Program, namespace: str, stats: Stats, wait_for: WaitFor
) -> None:
    server, table = program.server, f"{namespace}.t"
    server.sql(f"CREATE STREAM TABLE {table} (id BIGINT) WITH (max_buffer = 10)")
    await program.insert(table, rows(0, 30))
    wait_for(lambda: stats(server, table)["evicted"] == "20")
    await program.broker.jetstream().delete_stream(f"KALAM-{namespace}-t")
    await program.insert(table, rows(0, 1))
    assert (await program.insert(table, rows(0, 40))).code is None
    wait_for(lambda: stats(server, table)["evicted"] == "50")
