"""The synchronous client against a real server: the same answers and errors, and ^C."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from patience import PATIENCE_S
from server_process import ServerProcess

import kalam
from kalam.client import Change, Description, KalamSync
from kalam.errors import BrokerUnavailable, DuplicateKey, SyntaxFault

INTERRUPTED = """
import sys, threading, kalam
with kalam.connect_sync(sys.argv[1]) as k:
    live = k.live("SELECT id FROM interrupted.t", last_rows=1)
    try:
        print(next(live).row, flush=True)
        next(live)
    except KeyboardInterrupt:
        live.close()
        print(k.sql("SELECT 7 AS n").rows)
print([thread.name for thread in threading.enumerate()])
"""


@pytest.fixture
def k(shared_server: ServerProcess) -> Iterator[KalamSync]:
    with kalam.connect_sync(shared_server.nats_url, user="ada") as k:
        yield k


def make(k: KalamSync, name: str) -> str:
    k.sql(f"CREATE NAMESPACE {name}; CREATE SHARED TABLE {name}.t (id BIGINT PRIMARY KEY, v DOUBLE)")
    return f"{name}.t"


def test_rows_go_in_and_answers_come_out(k: KalamSync) -> None:
    table = make(k, "plain")
    assert k.insert(table, {"id": 1, "v": 0.5}) == 1
    assert k.insert(table, [{"id": 2}, {"id": 3}]) == 2
    assert k.sql(f"SELECT id, v FROM {table} WHERE id = $1", [1]).rows == [{"id": 1, "v": 0.5}]


def test_errors_are_themselves(k: KalamSync) -> None:
    table = make(k, "failing")
    k.insert(table, {"id": 1})
    with pytest.raises(DuplicateKey):
        k.insert(table, {"id": 1})
    with pytest.raises(SyntaxFault):
        k.sql("SELEC 1")

    def rows() -> Iterator[dict[str, int]]:
        yield {"id": 2}
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        k.insert(table, rows())


def test_what_gives_the_rows_may_use_the_connection(k: KalamSync) -> None:
    table = make(k, "feeding")
    assert k.insert(table, ({"id": k.sql("SELECT $1 AS n", [n]).rows[0]["n"]} for n in range(3))) == 3


def test_a_live_query_is_a_plain_iterator(k: KalamSync) -> None:
    table = make(k, "followed_plainly")
    k.insert(table, {"id": 1, "v": 1.0})
    with k.live(f"SELECT id, v FROM {table}", key="id") as live:
        assert next(live) == Change("snapshot", None, {"id": 1, "v": 1.0})
        k.insert(table, {"id": 2, "v": 2.0})
        assert next(live).row == {"id": 2, "v": 2.0}
        assert live.rows == [{"id": 1, "v": 1.0}, {"id": 2, "v": 2.0}]
        token = live.token
    k.insert(table, {"id": 3})
    with k.live(f"SELECT id FROM {table}", token=token) as again:
        assert next(again).row == {"id": 3}
    assert {change.row["id"] for change in k.live(f"SELECT id FROM {table}", follow=False) if change.row} == {1, 2, 3}


def test_threads_share_a_connection(k: KalamSync) -> None:
    table = make(k, "threaded")
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda n: k.insert(table, {"id": n}), range(64))) == 64
    assert k.sql(f"SELECT count(*) AS n FROM {table}").rows == [{"n": 64}]


async def test_it_waits_within_a_running_loop_too(shared_server: ServerProcess) -> None:
    with kalam.connect_sync(shared_server.nats_url) as k:
        assert k.sql("SELECT 1 AS one").rows == [{"one": 1}]
    assert asyncio.get_running_loop().is_running()


def test_after_the_block_nothing_is_left(shared_server: ServerProcess) -> None:
    before = threading.active_count()
    with kalam.connect_sync(shared_server.nats_url) as k:
        live = k.live("SELECT 1 FROM nowhere.t")
    assert threading.active_count() == before
    with pytest.raises(BrokerUnavailable, match="closed"):
        k.sql("SELECT 1")
    with pytest.raises(BrokerUnavailable, match="closed"):
        next(live)


def test_no_server_is_told_as_ever() -> None:
    with pytest.raises(BrokerUnavailable), kalam.connect_sync("nats://127.0.0.1:1", timeout_s=0.5):
        pass


def test_an_interrupt_ends_the_call_that_waits_and_nothing_else(shared_server: ServerProcess) -> None:
    with kalam.connect_sync(shared_server.nats_url) as k:
        k.insert(make(k, "interrupted"), {"id": 1})
    program = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, shared_server.nats_url], stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    try:
        assert program.stdout.readline() == "{'id': 1}\n"
        os.kill(program.pid, signal.SIGINT)
        told, _ = program.communicate(timeout=PATIENCE_S)
    finally:
        program.kill()
    assert told == "[{'n': 7}]\n['MainThread']\n"
    assert program.returncode == 0


def test_many_rows_of_parameters_go_in_one_statement_that_is_described_before(k: KalamSync) -> None:
    k.sql("CREATE NAMESPACE many; CREATE TABLE many.t (id BIGINT PRIMARY KEY, s TEXT)")
    text = "INSERT INTO many.t VALUES ($1, $2)"
    told = k.describe(text)
    assert told == Description((("$1", "BIGINT"), ("$2", "TEXT")), None, "INSERT", writes=True, many=True)
    assert k.execute_many(text, ((number, f"s{number}") for number in range(50))) == 50
    with pytest.raises(DuplicateKey):
        k.execute_many(text, [(60, "s"), (1, "s")])
    assert k.sql("SELECT count(*) AS n FROM many.t WHERE id = ANY($1)", [[1, 2, 60]]).rows == [{"n": 2}]
    assert k.describe("SELECT id FROM t WHERE s = $1", namespace="many").columns == (("id", "BIGINT"),)
