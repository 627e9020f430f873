"""What JetStream evicts is counted by reason, and recorded as jobs; what is deleted on purpose is not."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from foreign_program import Program
from server_process import ServerProcess

Connect = Callable[..., Awaitable[Program]]
Stats = Callable[[ServerProcess, str], dict[str, str]]
WaitFor = Callable[[Callable[[], Any]], Any]


def make_table(server: ServerProcess, namespace: str, options: str, name: str = "t") -> str:
    server.sql(f"CREATE STREAM TABLE {namespace}.{name} (id BIGINT) WITH ({options})")
    return f"{namespace}.{name}"


def rows(count: int) -> list[dict[str, int]]:
    return [{"id": number} for number in range(count)]


def jobs(server: ServerProcess, table: str) -> list[dict[str, Any]]:
    namespace, name = table.split(".")
    found = server.sql(
        "SELECT status, parameters, result, started_at, finished_at FROM system.jobs WHERE job_type = "
        f"'stream_eviction' AND namespace = '{namespace}' AND table_name = '{name}' ORDER BY created_at"
    )
    return [
        {"status": status, "parameters": json.loads(parameters), "at": finished, **json.loads(result)}
        for status, parameters, result, _, finished in found
    ]


def metric(server: ServerProcess, name: str, table: str) -> float:
    [line] = [line for line in server.metrics().splitlines() if line.startswith(f'{name}{{table="{table}"}}')]
    return float(line.split()[-1])


async def test_rows_over_max_buffer_are_one_job_soon(
    program: Program, namespace: str, wait_for: WaitFor, stats: Stats
) -> None:
    server = program.server
    table = make_table(server, namespace, "max_buffer = 10")
    await program.insert(table, rows(35))
    [job] = wait_for(lambda: jobs(server, table))
    assert job["status"] == "completed"
    assert job["message"] == "Evicted 25 events (max_buffer: 25)"
    assert (job["evicted"], job["max_buffer"], job["ttl"]) == (25, 25, 0)
    assert job["parameters"] == {"retention_s": None, "max_buffer": 10}
    told = stats(server, table)
    assert (told["evicted"], told["evicted_max_buffer"], told["evicted_ttl"]) == ("25", "25", "0")
    assert metric(server, "kalam_stream_evicted_max_buffer_total", table) == 25


async def test_rows_past_their_retention_are_one_job_soon(
    program: Program, namespace: str, wait_for: WaitFor, stats: Stats
) -> None:
    server = program.server
    table = make_table(server, namespace, "retention = '1s'")
    await program.insert(table, rows(7))
    [job] = wait_for(lambda: jobs(server, table))
    assert job["message"] == "Evicted 7 events (ttl: 7)"
    told = stats(server, table)
    assert (told["evicted"], told["evicted_max_buffer"], told["evicted_ttl"]) == ("7", "0", "7")
    assert metric(server, "kalam_stream_evicted_ttl_total", table) == 7


async def test_a_job_tells_the_reasons_apart(program: Program, namespace: str, wait_for: WaitFor) -> None:
    server = program.server
    table = make_table(server, namespace, "retention = '2s', max_buffer = 10")
    await program.insert(table, rows(30))
    [first] = wait_for(lambda: jobs(server, table))
    assert first["message"] == "Evicted 20 events (max_buffer: 20)"
    wait_for(lambda: server.sql(f"SELECT count(*) FROM {table}") == [[0]])
    wait_for(lambda: metric(server, "kalam_stream_evicted_ttl_total", table) == 10)
    assert metric(server, "kalam_stream_evicted_max_buffer_total", table) == 20


async def test_after_the_first_job_evictions_are_summed(program: Program, namespace: str, wait_for: WaitFor) -> None:
    server = program.server
    table = make_table(server, namespace, "max_buffer = 10")
    await program.insert(table, rows(20))
    wait_for(lambda: jobs(server, table))
    for total in (20, 30, 40):
        await program.insert(table, rows(10))
        wait_for(lambda wanted=total: metric(server, "kalam_stream_evicted_max_buffer_total", table) == wanted)
    assert [job["evicted"] for job in jobs(server, table)] == [10]


async def test_what_waits_to_be_summed_is_recorded_at_the_end(
    kalam_server: ServerProcess, connect: Connect, wait_for: WaitFor
) -> None:
    server = kalam_server
    server.sql("CREATE NAMESPACE a")
    table = make_table(server, "a", "max_buffer = 10")
    program = await connect(server)
    await program.insert(table, rows(20))
    wait_for(lambda: jobs(server, table))
    await program.insert(table, rows(5))
    wait_for(lambda: metric(server, "kalam_stream_evicted_max_buffer_total", table) == 15)
    server.stop()
    server.restart()
    assert [job["evicted"] for job in jobs(server, table)] == [10, 5]


async def test_where_nothing_went_there_is_no_job(program: Program, namespace: str, wait_for: WaitFor) -> None:
    server = program.server
    quiet = make_table(server, namespace, "max_buffer = 100, retention = '1h'", "quiet")
    loud = make_table(server, namespace, "max_buffer = 1", "loud")
    await program.insert(quiet, rows(100))
    await program.insert(loud, rows(2))
    wait_for(lambda: jobs(server, loud))
    assert jobs(server, quiet) == []


async def test_the_counters_survive_a_restart_and_a_kill(
    kalam_server: ServerProcess, connect: Connect, wait_for: WaitFor, stats: Stats
) -> None:
    server = kalam_server
    server.sql("CREATE NAMESPACE a")
    table = make_table(server, "a", "max_buffer = 10")
    program = await connect(server)
    await program.insert(table, rows(35))
    await program.insert(table, {"id": "x"})
    wait_for(lambda: stats(server, table)["evicted"] == "25")
    server.stop()
    server.restart()
    expected = {"published": "35", "rejected": "1", "evicted": "25", "evicted_max_buffer": "25"}
    told = stats(server, table)
    assert {name: told[name] for name in expected} == expected
    await (await connect(server)).insert(table, rows(5))
    wait_for(lambda: stats(server, table)["evicted"] == "30")
    server.kill()
    server.restart()  # what the kill took of the count is found again in the stream
    wait_for(lambda: stats(server, table)["evicted"] == "30")


async def test_what_expires_while_the_server_is_away_is_counted(
    kalam_server: ServerProcess, connect: Connect, wait_for: WaitFor, stats: Stats
) -> None:
    server = kalam_server
    server.sql("CREATE NAMESPACE a")
    table = make_table(server, "a", "retention = '1s'")
    await (await connect(server)).insert(table, rows(5))
    server.stop()
    server.restart()
    wait_for(lambda: stats(server, table)["evicted_ttl"] == "5")
    assert [job["message"] for job in wait_for(lambda: jobs(server, table))] == ["Evicted 5 events (ttl: 5)"]


@pytest.mark.parametrize("storage", ["file", "memory"])
async def test_an_expired_row_is_gone_from_jetstream(
    program: Program, namespace: str, storage: str, wait_for: WaitFor
) -> None:
    table = make_table(program.server, namespace, f"retention = '2s', storage = '{storage}'")
    await program.insert(table, rows(5))
    await program.insert(table, rows(5))
    stream = f"KALAM-{namespace}-t"
    began = time.time()

    async def messages() -> int:
        answer = await program.ask(f"$JS.API.STREAM.INFO.{stream}", b"")
        return int(answer.json["state"]["messages"])

    assert await messages() == 10 or time.time() > began + 2
    while await messages():
        assert time.time() < began + 20
    answer = await program.ask(f"$JS.API.STREAM.INFO.{stream}", b"")
    assert answer.json["state"]["last_seq"] == 10


async def test_deleted_rows_do_not_count_as_evicted(
    kalam_server: ServerProcess, connect: Connect, wait_for: WaitFor, stats: Stats
) -> None:
    server = kalam_server
    server.sql("CREATE NAMESPACE a")
    table = make_table(server, "a", "max_buffer = 100")
    program = await connect(server)
    await program.insert(table, rows(100))
    server.sql(f"DELETE FROM {table} WHERE id % 2 = 0")
    server.sql(f"DELETE FROM {table} WHERE id < 20")
    await program.insert(table, rows(50))  # 90 rows now, none evicted
    assert stats(server, table)["deleted"] == "60"
    server.kill()
    server.restart()
    program = await connect(server)
    await program.insert(table, rows(30))
    wait_for(lambda: stats(server, table)["evicted"] == "20")
    server.sql(f"DELETE FROM {table}")
    await program.insert(table, rows(101))
    wait_for(lambda: stats(server, table)["evicted"] == "21")
    assert stats(server, table)["deleted"] == "160"
    assert stats(server, table)["buffered_rows"] == "100"


async def test_a_full_life_adds_up(program: Program, namespace: str, wait_for: WaitFor, stats: Stats) -> None:
    server = program.server
    table = make_table(server, namespace, "max_buffer = 50, retention = '1s'")
    for _ in range(20):
        await program.insert(table, rows(30))
        server.sql(f"DELETE FROM {table} WHERE id = 7")

    def adds_up() -> bool:
        told = {name: int(value) for name, value in stats(server, table).items() if value.isdigit()}
        gone = told["evicted"] + told["deleted"]
        return told["buffered_rows"] == 0 and told["published"] == gone == 600 and told["deleted"] >= 20

    wait_for(adds_up)
