"""The change feeds while server and broker are killed, together and in turn: no change is missing, none is told twice.

The broker is an outside one, so that it outlives the server or goes before it, as the case asks for.
"""

from __future__ import annotations

import http.client
import threading
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from change_feed import FeedMessage, connected, read_feed, replay
from conftest import NatsServer
from server_process import ServerProcess, SqlFailed

STATUS = 137
USER = "ann"
COPIES = (("k.t", "admin", "kalam.shared.k.t.>"), ("k.mine", USER, f"kalam.user.{USER}.k.mine.>"))
POINTS = ("commit.before", "commit.after", "outbox.before_publish", "outbox.after_publish")
Arm = Callable[[str], Any]
GONE = (ConnectionError, http.client.HTTPException, urllib.error.URLError)


@pytest.fixture
def armed_file(tmp_path: Path) -> Path:
    file = tmp_path / "armed"
    file.write_text("")
    return file


@pytest.fixture
def arm(armed_file: Path) -> Arm:
    """Names the point at which the server is cut off next; none for an empty text."""
    return armed_file.write_text


@pytest.fixture
def server(start_kalam: Callable[..., ServerProcess], nats_server: NatsServer, armed_file: Path) -> ServerProcess:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"], KALAM_CRASHPOINT=f"@{armed_file}")
    server.sql("CREATE NAMESPACE k")
    return server


def create(server: ServerProcess) -> None:
    for kind, (table, _, _) in zip(("SHARED", "USER"), COPIES, strict=True):
        server.sql(f"CREATE {kind} TABLE {table} (id BIGINT PRIMARY KEY, v INT)")


def content(server: ServerProcess, table: str, user: str) -> dict[int, dict[str, Any]]:
    result = server.results(f"SELECT * FROM {table}", user=user)[-1]
    names = [column["name"] for column in result["columns"]]
    return {row[0]: dict(zip(names, row, strict=True)) for row in result["rows"]}


def table_id(server: ServerProcess, table: str) -> str:
    name = table.split(".")[1]
    return str(server.sql(f"SELECT table_id FROM system.tables WHERE namespace = 'k' AND table_name = '{name}'")[0][0])


async def feeds_are_whole(server: ServerProcess, broker: NatsServer, wait_until: Any) -> None:
    """Each feed, replayed from its first message, makes its table, and is of this table alone."""
    for table, user, subject in COPIES:
        expected, number = content(server, table, user), table_id(server, table)

        async def is_whole(subject: str = subject, expected: Any = expected, number: str = number) -> bool:
            feed: list[FeedMessage] = await read_feed(broker.url, subject)
            return {message.table_id for message in feed} <= {number} and replay(feed, "id") == expected

        await wait_until(is_whole)


class Writer:
    """Changes both tables, one statement after another, until the server is gone."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.statements = 0

    def run(self) -> None:
        for number in range(1, 100_000):
            for table, user, _ in COPIES:
                for text in (
                    f"INSERT INTO {table} SELECT {number * 10} + value, {number} FROM range(0, 10)",
                    f"UPDATE {table} SET v = -v WHERE id % 3 = 0 AND id >= {number * 10}",
                    f"DELETE FROM {table} WHERE id = {number * 10 + number % 10}",
                ):
                    try:
                        self._server.sql(text, user=user)
                    except GONE:
                        return
                    except SqlFailed as exc:  # while it goes, or from the statement before, of unknown fate
                        assert exc.status in (409, 503), exc  # noqa: PT017 - most of them are fine
                    self.statements += 1


async def write_while(server: ServerProcess, wait_until: Any, statements: int, cut: Callable[[], Any]) -> None:
    """Cut something off after so many statements; returns when the writer has noticed that the server is gone."""
    writer = Writer(server)
    thread = threading.Thread(target=writer.run)
    thread.start()
    try:
        await wait_until(lambda: writer.statements >= statements)
        cut()
        await wait_until(lambda: not thread.is_alive())
    finally:
        server.kill()
        thread.join()


@pytest.mark.parametrize("broker_goes", ["never", "with the server"])
@pytest.mark.parametrize("point", POINTS)
async def test_the_server_is_cut_off_and_the_broker_with_it(
    server: ServerProcess,
    nats_server: NatsServer,
    arm: Arm,
    wait_until: Any,
    point: str,
    broker_goes: str,
) -> None:
    create(server)
    await write_while(server, wait_until, 30, lambda: arm(point))
    assert server.wait_end() == STATUS
    arm("")
    if broker_goes == "with the server":
        nats_server.kill()
        nats_server.start()
    server.restart()
    await feeds_are_whole(server, nats_server, wait_until)
    server.sql("INSERT INTO k.t VALUES (-1, 0)")
    await feeds_are_whole(server, nats_server, wait_until)


async def test_the_broker_is_killed_again_and_again_and_at_last_the_server(
    server: ServerProcess, nats_server: NatsServer, wait_until: Any
) -> None:
    create(server)

    def kill_both() -> None:
        for _ in range(3):
            nats_server.kill()
            nats_server.start()
        nats_server.kill()
        server.kill()

    await write_while(server, wait_until, 30, kill_both)
    nats_server.start()
    server.restart()
    await feeds_are_whole(server, nats_server, wait_until)


@pytest.mark.parametrize("point", POINTS[:2])
async def test_a_table_whose_drop_is_cut_off_leaves_nothing_to_the_next_of_its_name(
    server: ServerProcess, nats_server: NatsServer, arm: Arm, wait_until: Any, point: str
) -> None:
    create(server)
    for table, user, _ in COPIES:
        server.sql(f"INSERT INTO {table} SELECT value, 1 FROM range(0, 100)", user=user)
    await feeds_are_whole(server, nats_server, wait_until)
    for table, _, subject in COPIES:
        for _ in range(5):
            arm(point)
            with pytest.raises(GONE):
                server.sql(f"DROP TABLE {table}")
            assert server.wait_end() == STATUS
            arm("")
            server.restart()
            dropped = not server.sql(f"SELECT 1 FROM system.tables WHERE namespace || '.' || table_name = '{table}'")
            if dropped or point != "commit.after":  # else it was another commit, such as of a watermark
                break
        if point == "commit.after":
            assert dropped
            assert await read_feed(nats_server.url, subject) == []
        else:
            server.sql(f"DROP TABLE {table}")
    create(server)
    for table, user, _ in COPIES:
        server.sql(f"INSERT INTO {table} VALUES (7, 7); UPDATE {table} SET v = 8", user=user)
    await feeds_are_whole(server, nats_server, wait_until)


@pytest.mark.parametrize("server_goes", [False, True])
async def test_a_table_that_is_dropped_and_created_again_while_the_broker_is_away(
    server: ServerProcess, nats_server: NatsServer, wait_until: Any, server_goes: bool
) -> None:
    create(server)
    for table, _, _ in COPIES:
        for number, user in enumerate((USER, "bob", "admin")):
            server.sql(f"INSERT INTO {table} SELECT {number} * 1000 + value, 1 FROM range(0, 100)", user=user)
    await feeds_are_whole(server, nats_server, wait_until)
    nats_server.kill()
    for table, _, _ in COPIES:
        server.sql(f"DROP TABLE {table}")
    create(server)
    for table, user, _ in COPIES:
        server.sql(f"INSERT INTO {table} VALUES (7, 7); UPDATE {table} SET v = 8", user=user)
    if server_goes:
        server.kill()
    nats_server.start()
    if server_goes:
        server.restart()
    await feeds_are_whole(server, nats_server, wait_until)
    assert await read_feed(nats_server.url, "kalam.user.bob.k.mine.>") == []


async def test_a_late_message_of_a_dropped_table_goes_before_the_next_of_its_name_begins(
    server: ServerProcess, nats_server: NatsServer, wait_until: Any
) -> None:
    async with connected(nats_server.url) as client:
        late = b'{"op":"insert","seq":1,"rows":[{"id":1}]}'
        await client.jetstream().publish("kalam.shared.k.t.insert", late, headers={"Kalam-Table": "0"})
    create(server)
    server.sql("INSERT INTO k.t VALUES (7, 7)")
    await feeds_are_whole(server, nats_server, wait_until)
