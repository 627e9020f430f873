"""What was taken away stays so, and what was given too, whichever of server and broker is killed in between."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from guarded_broker import refused
from guarded_world import PASSWORD, World, basic, open_world
from login_book import wait_until
from server_process import family

OTHER = "another good password"


@pytest.fixture
def own_world(tmp_path: Path) -> Iterator[World]:
    world = open_world(tmp_path)
    yield world
    world.close()
    world.server.kill()


async def kill_server(world: World) -> None:
    world.server.kill()
    world.close()
    world.server.start()


def broker_of(world: World) -> int:
    assert world.server.process is not None
    [pid] = [pid for pid in family(world.server.process.pid) if "nats-server" in Path(f"/proc/{pid}/comm").read_text()]
    return pid


async def kill_broker(world: World) -> None:
    os.kill(broker_of(world), signal.SIGKILL)
    await wait_until(lambda: world.admin.send("GET", "/readyz").status_code == 503)
    await wait_until(lambda: world.admin.send("GET", "/readyz").status_code == 200)


RESTARTS: dict[str, tuple[Callable[[World], Awaitable[None]], tuple[str, ...]]] = {
    "server": (kill_server, ("",)),
    "broker": (kill_broker, ("GRANT", "ALTER USER ada LOCK", "DROP USER")),
}
"""How what is restarted, and after which statements; a broker's restart takes seconds."""


def me(world: World, headers: dict[str, str]) -> int:
    return httpx.get(f"{world.server.http_url}/v1/me", headers=headers).status_code


def cookie_of(world: World, user: str) -> dict[str, str]:
    """The cookie of a new session."""
    login = httpx.post(f"{world.server.http_url}/v1/login", json={"user": user, "password": PASSWORD})
    return {"Cookie": login.headers["set-cookie"].partition(";")[0]}


async def comes_in(world: World, secret: str, user: str = "ada") -> bool:
    """Whether somebody is let in by the broker and over HTTP, which say the same."""
    out = await refused(world.server.nats_url, user=user, password=secret)
    status = me(world, basic(user, secret))
    assert (status == 200) is not out, status
    return not out


async def hears(world: World, secret: str) -> bool:
    """Whether ``ada`` may hear the table and read it, which is the same."""
    async with world.plain("ada", password=secret) as plain:
        heard = await plain.may_hear("kalam.shared.lab.t.>")
    code = world.asker("ada", basic("ada", secret)).code("SELECT v FROM lab.t WHERE id = 1")
    assert (code == "ok") is heard, code
    return heard


@pytest.mark.parametrize("what", RESTARTS)
async def test_what_is_given_and_taken_outlasts_a_restart(own_world: World, what: str) -> None:
    world = own_world
    restart, after = RESTARTS[what]

    async def told(statement: str) -> list[list[str]]:
        rows = world.admin.rows(statement)
        if statement.startswith(after):
            await restart(world)
        return rows

    await told(f"CREATE USER ada PASSWORD '{PASSWORD}'")
    assert not await hears(world, PASSWORD)
    await told("GRANT SELECT ON TABLE lab.t TO ada")
    assert await hears(world, PASSWORD)
    [[token, *_]] = await told("CREATE TOKEN 'ci' FOR ada")
    assert await hears(world, token)
    await told("REVOKE SELECT ON TABLE lab.t FROM ada")
    assert not await hears(world, token)
    await told("DROP TOKEN 'ci' FOR ada")
    assert not await comes_in(world, token)
    cookie = cookie_of(world, "ada")
    await told("SELECT 1")
    assert me(world, cookie) == 200
    await told("ALTER USER ada LOCK")
    assert not await comes_in(world, PASSWORD)
    assert me(world, cookie) == 401
    await told("ALTER USER ada UNLOCK")
    assert await comes_in(world, PASSWORD)
    assert me(world, cookie) == 401
    await told(f"ALTER USER ada PASSWORD '{OTHER}'")
    assert not await comes_in(world, PASSWORD)
    assert await comes_in(world, OTHER)
    await told("ALTER USER ada VALID UNTIL '2020-01-01T00:00:00Z'")
    assert not await comes_in(world, OTHER)
    await told("DROP USER ada")
    assert not await comes_in(world, OTHER)
