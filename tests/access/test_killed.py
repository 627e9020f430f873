"""A server that is killed once a right is taken and before anybody was cut off: after the restart the right is gone."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from guarded_broker import Plain
from guarded_world import PASSWORD, Asker, World, open_world
from held_process import held
from login_book import wait_until
from nats.errors import Error as NatsError
from server_process import family


@dataclass(frozen=True)
class Taken:
    """What is taken from a user ``ada_…`` who reads ``lab.of_…``, as the audit calls it, and how the next SELECT ends.

    ``left`` are the rows that another reader sees.
    """

    name: str
    statement: str
    action: str
    code: str
    left: int = 2

    @property
    def user(self) -> str:
        return f"ada_{self.name}"

    @property
    def table(self) -> str:
        return f"lab.of_{self.name}"

    @property
    def sql(self) -> str:
        return self.statement.format(user=self.user, table=self.table)


TAKEN = (
    Taken("grant", "REVOKE SELECT ON TABLE {table} FROM {user}", "REVOKE PRIVILEGES", "namespace_not_found"),
    Taken("role", "REVOKE team FROM {user}", "REVOKE ROLE", "namespace_not_found"),
    Taken("locked", "ALTER USER {user} LOCK", "ALTER USER", "unauthenticated"),
    Taken("hidden", "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY", "ENABLE ROW LEVEL SECURITY", "ok", left=0),
    Taken("dropped", "DROP USER {user} CASCADE", "DROP USER", "unauthenticated"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    opened = open_world(tmp_path_factory.mktemp("killed"))
    for taken in TAKEN:
        opened.asker("owner").rows(
            f"CREATE TABLE {taken.table} (id INT PRIMARY KEY); INSERT INTO {taken.table} VALUES (1), (2);"
            f"GRANT SELECT ON TABLE {taken.table} TO reader, team"
        )
        grant = "GRANT team TO {}" if taken.name == "role" else f"GRANT SELECT ON TABLE {taken.table} TO {{}}"
        opened.user(taken.user, grant.format(taken.user))
    yield opened
    opened.close()
    opened.server.kill()


def broker_of(world: World) -> int:
    """The process of the embedded broker."""
    assert world.server.process is not None
    [pid] = [pid for pid in family(world.server.process.pid) if "nats-server" in Path(f"/proc/{pid}/comm").read_text()]
    return pid


def told(world: World, action: str) -> int:
    """How often the database's audit tells of something that was done."""
    with closing(sqlite3.connect(f"file:{world.server.data_dir}/kalam.db?mode=ro", uri=True)) as conn:
        asked = "SELECT count(*) FROM audit WHERE action = ? AND outcome = 'ok'"
        [count] = conn.execute(asked, (action,)).fetchone()
    return int(count)


def ask_in_vain(asker: Asker, sql: str) -> None:
    with suppress(httpx.TransportError):  # the server dies before it answers
        answer = asker.answer(sql)
        raise AssertionError(f"it was answered: {answer.text}")


@pytest.mark.parametrize("taken", TAKEN, ids=lambda taken: taken.name)
async def test_after_the_restart_the_right_is_gone(world: World, taken: Taken) -> None:
    reader = world.asker(taken.user)
    assert reader.rows(f"SELECT count(*) FROM {taken.table}") == [[2]]
    async with world.plain(taken.user) as plain:
        assert await plain.may_hear(f"kalam.shared.{taken.table}.>")
        before = told(world, taken.action)
        with held(broker_of(world)):  # nobody is cut off meanwhile, and the statement waits for that
            asking = asyncio.create_task(asyncio.to_thread(ask_in_vain, world.admin, taken.sql))
            await wait_until(lambda: told(world, taken.action) > before)
            world.server.kill()
            await asking
        world.close()
        world.server.restart()
        await wait_until(lambda: plain.client.is_closed)
    assert world.asker(taken.user).code(f"SELECT count(*) FROM {taken.table}") == taken.code
    assert not await hears(world, taken)
    assert world.asker("reader").rows(f"SELECT count(*) FROM {taken.table}") == [[taken.left]]


async def hears(world: World, taken: Taken) -> bool:
    """Whether the user, who logs in anew, may hear of the table's changes."""
    try:
        plain = await Plain.connect(world.server.nats_url, taken.user, password=PASSWORD)
    except NatsError:
        return False
    try:
        return await plain.may_hear(f"kalam.shared.{taken.table}.>")
    finally:
        await plain.client.close()
