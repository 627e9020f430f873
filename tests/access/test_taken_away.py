"""What somebody has open when a right, the login or the user is taken away: nothing more comes a second later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import nats
import pytest
from guarded_broker import Plain
from guarded_world import PASSWORD, World, basic
from login_book import wait_until
from patience import PATIENCE_S

GRACE_S = 1.0
"""How long after the answer to the statement something may still come."""
LIVE = {"params": {"sql": "SELECT id, v FROM lab.flow"}}
ENDINGS = {
    "revoke": ("REVOKE SELECT ON TABLE lab.flow FROM {}", "REVOKE SELECT ON TABLE lab.events FROM {}"),
    "role": ("REVOKE flowing FROM {}",),
    "namespace": ("REVOKE SELECT ON NAMESPACE lab FROM {}",),
    "lock": ("ALTER USER {} LOCK",),
    "drop": ("DROP USER {}",),
    "password": ("ALTER USER {} PASSWORD 'another good password'",),
    "token": ("DROP TOKEN 'ci' FOR {}",),
    "expire": (),
}
"""What takes everything from a user; one comes by a token, and one's time is over by itself."""


@dataclass
class Listener:
    """A user, and what comes on each of the ways on which something does."""

    name: str
    heard: dict[str, list[str]] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def on(self, way: str) -> Callable[[str], None]:
        return self.heard.setdefault(way, []).append

    async def wait_heard(self, mark: str) -> None:
        await wait_until(lambda: all(any(mark in text for text in told) for told in self.heard.values()))


async def listen(world: World, stack: AsyncExitStack, name: str, secret: str) -> Listener:
    """Have a user listen on every way: raw subjects, live queries and a replay over NATS, WebSocket and HTTP."""
    listener = Listener(name)
    for transport, url in (("nats", world.server.nats_url), ("ws", world.server.announcement["nats_ws_url"])):
        plain = await stack.enter_async_context(world.plain(name, password=secret, url=url))
        for subject in ("kalam.shared.lab.flow.>", "kalam.stream.lab.events", f"kalam.live.{name}.>"):
            await plain.client.subscribe(subject, cb=taker(listener.on(f"{transport} {subject}")))
        await plain.settle()
        for request, body in (("live", {"sql": "SELECT v FROM lab.flow"}), ("replay", {"table": "lab.events"})):
            text = json.dumps(body | ({"from_seq": 1} if request == "replay" else {})).encode()
            opened = await plain.client.request(f"kalam.api.{name}.{request}", text, timeout=PATIENCE_S)
            assert "id" in json.loads(opened.data), opened.data
    http = await stack.enter_async_context(httpx.AsyncClient(base_url=world.server.http_url, timeout=PATIENCE_S))
    listener.tasks.append(asyncio.create_task(events(http, basic(name, secret), listener.on("events"))))
    stack.callback(listener.tasks[-1].cancel)
    return listener


def taker(note: Callable[[str], None]) -> Any:
    async def take(message: Any) -> None:
        note(message.data.decode())

    return take


async def events(http: httpx.AsyncClient, headers: dict[str, str], note: Callable[[str], None]) -> None:
    """The lines of an event stream, until it is over."""
    with suppress(httpx.RemoteProtocolError):
        async with http.stream("GET", "/v1/live", headers=headers, **LIVE) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                note(line)


@pytest.fixture(scope="module")
def flow(world: World) -> World:
    """A world with tables that everything flows through."""
    world.asker("owner").rows(
        "CREATE TABLE lab.flow (id INT PRIMARY KEY, v TEXT); CREATE STREAM TABLE lab.events (id INT, v TEXT)"
    )
    world.admin.rows("CREATE ROLE flowing; GRANT SELECT ON TABLE lab.flow TO flowing")
    world.admin.rows("GRANT SELECT ON TABLE lab.events TO flowing")
    return world


def made(world: World, ending: str) -> tuple[str, str]:
    """A user who loses everything in some way, and the secret by which the user comes."""
    name = f"loses_{ending}"
    world.user(name)
    match ending:
        case "role":
            world.admin.rows(f"GRANT flowing TO {name}")
        case "namespace":
            world.admin.rows(f"GRANT SELECT ON NAMESPACE lab TO {name}")
        case _:
            for table in ("flow", "events"):
                world.admin.rows(f"GRANT SELECT ON TABLE lab.{table} TO {name}")
    if ending == "token":
        return name, str(world.admin.rows(f"CREATE TOKEN 'ci' FOR {name}")[0][0])
    return name, PASSWORD


def tell(world: World, number: int, text: str) -> None:
    """Something new on every way."""
    world.asker("owner").rows(f"INSERT INTO lab.flow VALUES ({number}, '{text}')")
    world.asker("owner").rows(f"INSERT INTO lab.events VALUES ({number}, '{text}')")


@pytest.mark.filterwarnings("ignore:.*timeout:DeprecationWarning")  # of aiohttp, as nats-py calls it
async def test_a_second_after_it_was_taken_nothing_more_comes_on_any_way(flow: World) -> None:
    async with AsyncExitStack() as stack:
        people = {ending: made(flow, ending) for ending in ENDINGS}
        listeners = {ending: await listen(flow, stack, *person) for ending, person in people.items()}
        stays = await listen(flow, stack, *made(flow, "nothing"))
        await asyncio.to_thread(tell, flow, 1, "before")
        for listener in (*listeners.values(), stays):
            await listener.wait_heard("before")
        ends = datetime.now(UTC) + timedelta(seconds=2)
        flow.admin.rows(f"ALTER USER {people['expire'][0]} VALID UNTIL '{ends.isoformat()}'")
        for ending, statements in ENDINGS.items():
            for statement in statements:
                await asyncio.to_thread(flow.admin.rows, statement.format(people[ending][0]))
        await asyncio.sleep(max(0.0, (ends - datetime.now(UTC)).total_seconds()) + GRACE_S)
        await asyncio.to_thread(tell, flow, 2, "after")
        await stays.wait_heard("after")
        told = {
            (ending, way)
            for ending, listener in listeners.items()
            for way, texts in listener.heard.items()
            if any("after" in text for text in texts)
        }
        assert told == set()
        for listener in listeners.values():
            await asyncio.gather(*listener.tasks)  # each event stream has its end


# What is half way.


CUT = {
    "lock": "ALTER USER {} LOCK",
    "drop": "DROP USER {}",
    "password": "ALTER USER {} PASSWORD 'another good password'",
    "revoke": "REVOKE {what} ON TABLE lab.big FROM {}",
}


@pytest.fixture(scope="module")
def big(world: World) -> World:
    """A world with a table that is more than all buffers between it and its reader hold."""
    world.asker("owner").rows("CREATE TABLE lab.big (id BIGINT PRIMARY KEY, v TEXT)")
    world.asker("owner").rows("INSERT INTO lab.big SELECT value, repeat('x', 100) FROM range(0, 300000)")
    return world


@pytest.mark.parametrize("ending", CUT)
def test_an_answer_that_is_half_way_gets_no_end(big: World, ending: str) -> None:
    reader = big.user(f"reads_{ending}", f"GRANT SELECT, INSERT ON TABLE lab.big TO reads_{ending}")
    query = {"json": {"sql": "SELECT * FROM lab.big"}, "headers": {"Accept": "application/x-ndjson"}}
    with reader.stream("POST", "/v1/sql", **query) as answer:
        lines = answer.iter_lines()
        next(lines)
        big.admin.rows(CUT[ending].format(f"reads_{ending}", what="SELECT"))
        count = 0
        with suppress(httpx.RemoteProtocolError):
            for line in lines:
                count += '"error"' not in line
    assert count < 299_999


@pytest.mark.parametrize("ending", CUT)
def test_an_upload_that_is_half_way_is_not_stored_any_further(big: World, ending: str) -> None:
    user = f"sends_{ending}"
    sender, owner = big.user(user, f"GRANT SELECT, INSERT ON TABLE lab.big TO {user}"), big.asker("owner")
    first = 1_000_000 * (1 + list(CUT).index(ending))
    count = f"SELECT count(*) FROM lab.big WHERE id >= {first} AND id < {first + 1_000_000}"
    after: list[list[Any]] = []

    def body() -> Any:
        for number in range(12_000):
            yield b'{"id": %d, "v": "sent"}\n' % (first + number)
        while owner.rows(count)[0][0] < 5_000:  # a first part is stored
            pass
        big.admin.rows(CUT[ending].format(user, what="INSERT"))
        after.extend(owner.rows(count))
        for number in range(12_000, 40_000):
            yield b'{"id": %d, "v": "sent"}\n' % (first + number)

    headers = {"Content-Type": "application/x-ndjson"}
    try:
        answer = sender.send("POST", "/v1/tables/lab/big/rows", content=body(), headers=headers)
    except httpx.TransportError:
        assert ending != "revoke"  # who is out is cut off, who may not any more is told
    else:
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
        assert answer.json()["stored"] == after[0][0]
    assert owner.rows(count) == after
    assert after[0][0] < 40_000


async def test_logins_under_way_do_not_slip_through(world: World) -> None:
    """However they interleave with the lock: who came in is out a second later, and hears nothing."""
    world.user("hurried", "GRANT SELECT ON TABLE lab.t TO hurried")
    heard: list[str] = []
    clients: list[Plain] = []

    async def come() -> None:
        with suppress(nats.errors.Error, asyncio.TimeoutError):
            plain = await Plain.connect(world.server.nats_url, "hurried", password=PASSWORD)
            clients.append(plain)
            await plain.client.subscribe("kalam.shared.lab.t.>", cb=taker(heard.append))

    async def log_in(http: httpx.AsyncClient) -> str | None:
        answer = await http.post("/v1/login", json={"user": "hurried", "password": PASSWORD})
        return answer.headers.get("set-cookie")

    async with httpx.AsyncClient(base_url=world.server.http_url, timeout=PATIENCE_S) as http:
        coming = [asyncio.create_task(come()) for _ in range(40)]
        logging_in = [asyncio.create_task(log_in(http)) for _ in range(10)]
        await wait_until(lambda: clients)
        await asyncio.to_thread(world.admin.rows, "ALTER USER hurried LOCK")
        await asyncio.sleep(GRACE_S)
        await asyncio.to_thread(world.asker("owner").rows, "UPDATE lab.t SET v = 'heard' WHERE id = 2")
        cookies = [cookie for cookie in await asyncio.gather(*logging_in) if cookie]
        await asyncio.gather(*coming)
        await wait_until(lambda: all(plain.client.is_closed for plain in clients))
        for cookie in cookies:
            answer = await http.get("/v1/me", headers={"Cookie": cookie.partition(";")[0]})
            assert answer.status_code == 401
    assert heard == []
    assert [row for row in world.admin.rows("SELECT user FROM system.sessions") if row == ["hurried"]] == []


def test_who_ends_their_own_login_is_answered_and_then_out(world: World) -> None:
    leaver, url = world.user("leaver"), world.server.http_url
    login = httpx.post(f"{url}/v1/login", json={"user": "leaver", "password": PASSWORD})
    cookie = {"Cookie": login.headers["set-cookie"].partition(";")[0]}
    change = {"sql": "ALTER USER leaver PASSWORD 'another good password'"}
    assert httpx.post(f"{url}/v1/sql", json=change, headers=cookie).status_code == 200
    assert httpx.get(f"{url}/v1/me", headers=cookie).status_code == 401
    assert leaver.code("SELECT 1") == "unauthenticated"
