"""Answers of any length while they come, against a real server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from patience import PATIENCE_S
from server_process import ServerProcess

import kalam
from kalam.client import Kalam, KalamSync
from kalam.errors import BrokerUnavailable, InvalidOption, InvalidValue, SyntaxFault, TableNotFound, Unsupported

MANY = 1_000_000
NUMBERS = f"SELECT value AS n, repeat('x', 100) AS filler FROM range(0, {MANY})"
MEASURED = f"""
import resource, sys, kalam
with kalam.connect_sync(sys.argv[1]) as k:
    list(k.stream("SELECT value AS n FROM range(0, 10)"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = sum(row["n"] for row in k.stream({NUMBERS!r}))
    print(total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
GROWTH_KIB_MAX = 40 << 10
"""The rows are 130 MB as text and 500 MB as dictionaries."""


@pytest.fixture
async def k(shared_server: ServerProcess) -> AsyncIterator[Kalam]:
    async with kalam.connect(shared_server.nats_url, user="ada", namespace="lab") as k:
        yield k


@pytest.fixture
def plain(shared_server: ServerProcess) -> Iterator[KalamSync]:
    with kalam.connect_sync(shared_server.nats_url, user="ada") as k:
        yield k


async def none_runs(k: Kalam) -> None:
    """Wait until the only query is the one that asks."""
    async with asyncio.timeout(PATIENCE_S):
        while len((await k.sql("SHOW QUERIES")).rows) > 1:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.05)


async def test_rows_are_those_of_an_answer(k: Kalam) -> None:
    await k.sql("CREATE NAMESPACE lab; CREATE TABLE lab.t (id BIGINT, v DOUBLE, at TIMESTAMP, doc JSON, raw BLOB)")
    row = {"id": 2**60 + 1, "v": float("nan"), "at": "2026-01-02T03:04:05Z", "doc": {"a": [1]}, "raw": b"\x00"}
    await k.insert("t", [row, {"id": 1}])
    query = "SELECT id, v, at, doc, raw FROM t WHERE id >= $1 ORDER BY id"
    assert [found async for found in k.stream(query, [1])] == (await k.sql(query, [1])).rows
    [batch] = [found async for found in k.batches(query, [1])]
    assert batch.column("id").to_pylist() == [1, 2**60 + 1]


async def test_no_rows_are_no_rows(k: Kalam) -> None:
    assert [row async for row in k.stream("SELECT value FROM range(0, 0)")] == []
    assert [batch async for batch in k.batches("SELECT value FROM range(0, 0)")] == []


async def test_there_is_no_bound_in_rows(k: Kalam) -> None:
    count = 0
    async for batch in k.batches(NUMBERS):
        count += batch.num_rows
    assert count == MANY


def test_a_million_rows_take_bounded_memory(shared_server: ServerProcess) -> None:
    run = subprocess.run([sys.executable, "-c", MEASURED, shared_server.nats_url], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    total, growth_kib = map(int, run.stdout.split())
    assert total == MANY * (MANY - 1) // 2
    assert growth_kib < GROWTH_KIB_MAX


async def test_errors_are_those_of_the_server(k: Kalam) -> None:
    for query, error in (("SELEC 1", SyntaxFault), ("SELECT * FROM lab.nowhere", TableNotFound)):
        for stream in (k.stream(query), k.batches(query)):
            with pytest.raises(error):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
    with pytest.raises(Unsupported):
        await anext(k.stream("SELECT 1; SELECT 2"))


FAILS_LATE = f"SELECT CAST(CASE WHEN value = {MANY - 1} THEN 'x' ELSE '7' END AS BIGINT) AS n FROM range(0, {MANY})"


async def test_a_failure_half_way_is_an_error_and_no_end(k: Kalam) -> None:
    for stream, error in ((k.stream(FAILS_LATE), InvalidValue), (k.batches(FAILS_LATE), BrokerUnavailable)):
        await anext(stream)
        with pytest.raises(error):
            async for _ in stream:
                pass


async def test_a_row_that_looks_like_an_error_is_a_row(k: Kalam) -> None:
    query = """SELECT '{"type": "some"}' AS error FROM range(0, 3)"""
    assert [row async for row in k.stream(query)] == [{"error": '{"type": "some"}'}] * 3


async def test_who_stops_reading_ends_the_query(k: Kalam) -> None:
    async with k.stream(f"SELECT value FROM range(0, {MANY * 1_000})") as stream:
        assert await anext(stream) == {"value": 0}
    await none_runs(k)
    waiting = asyncio.create_task(anext(k.stream(f"SELECT sum(value) AS s FROM range(0, {MANY * 100_000})")))
    async with asyncio.timeout(PATIENCE_S):
        while len((await k.sql("SHOW QUERIES")).rows) < 2:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await none_runs(k)


def test_it_is_a_plain_iterator(plain: KalamSync) -> None:
    assert [row["n"] for row in plain.stream("SELECT value AS n FROM range(0, 9) WHERE value < $1", [5])] == list(
        range(5)
    )
    assert sum(batch.num_rows for batch in plain.batches("SELECT value AS n FROM range(0, 5)")) == 5
    with plain.stream(NUMBERS) as stream:
        assert next(stream)["n"] == 0
    assert list(stream) == []
    plain.sql("CREATE NAMESPACE copied; CREATE TABLE copied.t (n BIGINT)")
    assert plain.insert("copied.t", plain.stream("SELECT value AS n FROM range(0, 5000)")) == 5_000


async def test_where_http_is_can_be_said(shared_server: ServerProcess) -> None:
    async with kalam.connect(shared_server.nats_url, http_url=shared_server.http_url) as k:
        assert [row async for row in k.stream("SELECT 1 AS one")] == [{"one": 1}]
    async with kalam.connect(shared_server.nats_url, http_url="http://127.0.0.1:1") as k:
        with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
            await anext(k.stream("SELECT 1 AS one"))
    async with kalam.connect(shared_server.nats_url, http_url="nonsense") as k:
        with pytest.raises(InvalidOption):
            await anext(k.stream("SELECT 1 AS one"))


async def test_a_killed_server_breaks_the_answer_off(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam()
    async with kalam.connect(server.nats_url) as k:
        streams = [
            k.stream(f"SELECT value FROM range(0, {MANY * 1_000})"),
            k.batches(NUMBERS + " UNION ALL " + NUMBERS),
        ]
        for stream in streams:
            await anext(stream)
        await asyncio.to_thread(server.kill)
        for stream in streams:
            with pytest.raises(BrokerUnavailable):
                async for _ in stream:
                    pass
