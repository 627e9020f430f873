"""What is read while flushes and compactions pass: the same counts, each row once, and old files to the end."""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from patience import PATIENCE_S
from server_process import ServerProcess

ROWS = 2_000
FLUSHES = 50
COMPACT_EVERY = 5
COUNTS = (
    "SELECT count(*) FROM {table}",  # from the sizes of the parts
    "SELECT count(*) FROM {table} WHERE v IS NOT NULL",  # from the rows
    "SELECT count(*), count(DISTINCT abs(id)) FROM {table} WHERE length(v) > 0",
)


def poll(server: ServerProcess, text: str, stop: threading.Event) -> tuple[set[str], int]:
    """Ask again and again; the different answers, and how many there were."""
    answers: set[str] = set()
    times = 0
    while not stop.is_set():
        answers.add(json.dumps(server.sql(text, user="ann")))
        times += 1
    return answers, times


def write(server: ServerProcess, table: str, stop: threading.Event) -> int:
    """Change rows, and the keys of rows, but not how many there are; how many statements did so."""
    dice, times = random.Random(4), 0
    while not stop.is_set():
        first = dice.randrange(1, ROWS - 50)
        server.sql(f"UPDATE {table} SET v = v || '.' WHERE abs(id) BETWEEN {first} AND {first + 50}", user="ann")
        server.sql(f"UPDATE {table} SET id = -id WHERE abs(id) = {first}", user="ann")
        times += 2
    return times


@pytest.mark.parametrize("kind", ["SHARED", "USER"])
def test_no_count_moves_while_flushes_and_compactions_pass(shared_server: ServerProcess, kind: str) -> None:
    server, table = shared_server, f"meanwhile_{kind.lower()}.t"
    server.sql(f"CREATE NAMESPACE {table[:-2]}; CREATE {kind} TABLE {table} (id BIGINT PRIMARY KEY, v TEXT)")
    server.sql(f"INSERT INTO {table} SELECT value, 'v' FROM range(1, {ROWS + 1})", user="ann")
    stop = threading.Event()
    with ThreadPoolExecutor(len(COUNTS) + 2) as pool:
        polling = [pool.submit(poll, server, text.format(table=table), stop) for text in COUNTS]
        every_row = pool.submit(poll, server, f"SELECT abs(id) AS id FROM {table} ORDER BY 1", stop)
        writing = pool.submit(write, server, table, stop)
        compacted = 0
        try:
            for number in range(1, FLUSHES + 1):
                server.sql(f"UPDATE {table} SET v = 'f{number}' WHERE id % {FLUSHES} = {number % FLUSHES}", user="ann")
                assert server.sql(f"FLUSH TABLE {table}"), "there was something to flush"
                if number % COMPACT_EVERY == 0:
                    compacted += len(server.sql(f"COMPACT TABLE {table}"))
        finally:
            stop.set()
        answers = [future.result() for future in polling]
    assert [found for found, _ in answers] == [{f"[[{ROWS}]]"}, {f"[[{ROWS}]]"}, {f"[[{ROWS}, {ROWS}]]"}]
    assert min(times for _, times in answers) > 10
    assert every_row.result()[0] == {json.dumps([[row_id] for row_id in range(1, ROWS + 1)])}
    assert writing.result() > 10
    assert compacted == FLUSHES // COMPACT_EVERY


async def test_a_reader_that_began_before_a_compaction_ends_on_its_old_files(
    start_kalam: Callable[..., ServerProcess], wait_until: Any
) -> None:
    server = start_kalam(
        KALAM_COMPACTION_SEGMENTS_MIN="1000000", KALAM_COMPACTION_OVERRIDES_PERCENT="1000000", KALAM_ICEBERG="false"
    )
    server.sql("CREATE NAMESPACE n")
    many = 300_000
    for table, count in (("n.t", many), ("n.other", 10)):
        server.sql(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, v TEXT)")
        for half in range(2):
            server.sql(f"INSERT INTO {table} SELECT value * 2 + {half}, repeat('x', 50) FROM range(0, {count // 2})")
            server.sql(f"FLUSH TABLE {table}")
    folder = server.data_dir / "shared" / "n" / "t"
    old = {path.name for path in folder.iterdir()}

    connection = http.client.HTTPConnection(urlsplit(server.http_url).netloc, timeout=PATIENCE_S)
    headers = {"Content-Type": "application/json", "Accept": "application/x-ndjson"}
    connection.request("POST", "/v1/sql", json.dumps({"sql": "SELECT id, v FROM n.t"}), headers)
    answer = connection.getresponse()
    first = answer.readline()  # the rest waits: what the sockets hold is little of it

    assert server.sql("COMPACT TABLE n.t")[0][2:4] == [2, 1]
    server.sql("COMPACT TABLE n.other")
    others = server.data_dir / "shared" / "n" / "other"
    await wait_until(lambda: len(list(others.iterdir())) == 1)  # the old files that nobody reads went
    assert old < {path.name for path in folder.iterdir()}
    assert server.sql("SELECT count(*), sum(id) FROM n.t") == [[many, many * (many - 1) // 2]]
    rows = [json.loads(line) for line in (first, *answer)]
    connection.close()
    assert sorted(row["id"] for row in rows) == list(range(many))
    await wait_until(lambda: len(list(folder.iterdir())) == 1)
