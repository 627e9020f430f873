"""A disk that fills up under a server: inserts are refused, reads go on, and with room again so does everything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from change_feed import connected, read_feed, replay
from conftest import NatsServer
from failing_calls import REFUSED, refused
from patience import PATIENCE_S
from server_process import ServerProcess
from small_disk import fill, small_disk

COPIES = (("d.t", "sam", "kalam.shared.d.t.>"), ("d.mine", "ann", "kalam.user.ann.d.mine.>"))
ROOM = 6 << 20
BODY = 100_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 96) as folder:
        yield folder


async def insert_until_full(server: ServerProcess, first: int) -> dict[str, set[int]]:
    """Insert into both tables by turns until neither takes a row; by table the ids that were acknowledged."""
    acknowledged: dict[str, set[int]] = {table: set() for table, _, _ in COPIES}
    open_tables = {table: user for table, user, _ in COPIES}
    async with connected(server.nats_url) as client:
        for row_id in range(first, first + 10_000):
            for table, user in list(open_tables.items()):
                row = json.dumps({"id": row_id, "body": "x" * BODY}).encode()
                reply = await client.request(f"kalam.api.{user}.insert.{table}", row, timeout=PATIENCE_S)
                if reply.headers is None:
                    acknowledged[table].add(row_id)
                    continue
                told = json.loads(reply.data)
                assert (told["status"], told["code"]) == REFUSED
                assert reply.headers["Nats-Service-Error-Code"] == "503"
                del open_tables[table]
            if not open_tables:
                return acknowledged
    raise AssertionError("the disk did not fill up")


def is_exact(server: ServerProcess, expected: dict[str, set[int]]) -> None:
    for table, user, _ in COPIES:
        rows = server.sql(f"SELECT id, length(body) FROM {table} ORDER BY id", user=user)
        assert rows == [[row_id, BODY] for row_id in sorted(expected[table])]
        assert server.sql(f"SELECT count(*) FROM {table}", user=user) == [[len(expected[table])]]
        assert server.sql(f"SELECT length(body) FROM {table} WHERE id = 1", user=user) == [[BODY]]
        assert server.sql(f"SELECT id FROM {table} WHERE id = 999999", user=user) == []


async def insert(server: ServerProcess, expected: dict[str, set[int]], row_id: int) -> None:
    for table, user, _ in COPIES:
        await asyncio.to_thread(server.sql, f"INSERT INTO {table} VALUES ($1, $2)", row_id, "x" * BODY, user=user)
        expected[table].add(row_id)


async def work_on_a_full_disk(server: ServerProcess, disk: Path, feed_url: Callable[[], str], wait_until: Any) -> None:
    server.sql("CREATE NAMESPACE d; CREATE TABLE d.t (id BIGINT PRIMARY KEY, body TEXT)")
    server.sql("CREATE USER TABLE d.mine (id BIGINT PRIMARY KEY, body TEXT)")
    expected: dict[str, set[int]] = {table: set() for table, _, _ in COPIES}
    await insert(server, expected, 1)
    server.sql("FLUSH ALL TABLES")
    await insert(server, expected, 2)
    fill(disk / "ballast", leave=ROOM)
    for table, more in (await insert_until_full(server, 3)).items():
        expected[table] |= more
    fill(disk / "more ballast")
    is_exact(server, expected)
    for table, user, _ in COPIES:
        refused(server, f"INSERT INTO {table} VALUES (999999, $1)", "y" * BODY, user=user)
        refused(server, f"UPDATE {table} SET body = body || $1", "y" * BODY, user=user)
        refused(server, f"FLUSH TABLE {table}", user=user)
    is_exact(server, expected)

    for name in ("ballast", "more ballast"):
        (disk / name).unlink()
    await insert(server, expected, 50_000)  # at once, with no restart
    for table, user, _ in COPIES:
        server.sql(f"FLUSH TABLE {table}", user=user)
        segments = "SELECT sum(rows) FROM system.segments WHERE namespace = 'd' AND table_name = $1"
        assert server.sql(segments, table.split(".")[1]) == [[len(expected[table])]]
    await insert(server, expected, 50_001)
    for _ in range(2):
        is_exact(server, expected)
        server.kill()
        server.restart()
    for table, _, subject in COPIES:

        async def is_told(table: str = table, subject: str = subject) -> bool:
            return replay(await read_feed(feed_url(), subject), "id").keys() == expected[table]

        await wait_until(is_told)


async def test_with_an_outside_broker_the_rows_survive_and_inserts_go_on(
    disk: Path, nats_server: NatsServer, wait_until: Any
) -> None:
    server = ServerProcess(disk / "data", [f"--nats-url={nats_server.url}"])
    try:
        await asyncio.to_thread(server.start)
        await work_on_a_full_disk(server, disk, lambda: nats_server.url, wait_until)
    finally:
        server.kill()


async def test_with_the_embedded_broker_on_the_same_disk_too(disk: Path, wait_until: Any) -> None:
    server = ServerProcess(disk / "data", environment={"KALAM_DISK_FREE_BYTES_MIN": str(16 << 20)})
    try:
        await asyncio.to_thread(server.start)
        await work_on_a_full_disk(server, disk, lambda: server.nats_url, wait_until)
    finally:
        server.kill()
