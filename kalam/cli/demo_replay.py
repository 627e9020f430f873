"""The week of earthquakes sent through NATS by one plain client and seen by another.

Nothing here is Kalam's: nats-py publishes JSON to the insert subjects and subscribes to the table's subject, as a
program in any language would.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from kalam.cli.demo_quakes import EVENTS, FEED_USER, LIVE, NEARBY, READERS, STRONG, Quake, quake_of_event
from kalam.cli.failure import CommandFailed

TICK_S: Final = 0.05
FAST_BATCH_ROWS: Final = 200
ANSWER_S: Final = 30.0
RECEIVE_S: Final = 30.0  # how long the subscriber may be behind the last answer


class Replay(msgspec.Struct, frozen=True):
    """What was acknowledged for each table, and how many messages the subscriber saw."""

    acknowledged: dict[str, int]
    received: int


async def replay(
    nats_url: str,
    quakes: list[Quake],
    *,
    password: str | None,
    seconds: float,
    on_begin: Callable[[], None],
    on_sent: Callable[[int], None],
    on_strong: Callable[[Quake], None],
) -> Replay:
    """Send the quakes at the pace of their own times, the whole week in ``seconds``; 0 means as quickly as possible.

    With ``password`` each user logs in.
    """
    clients = {user: await _connected(nats_url, user, password) for user in (FEED_USER, *READERS)}
    client = clients[FEED_USER]
    received = 0
    complete = asyncio.Event()

    async def on_event(message: Msg) -> None:
        nonlocal received
        received += 1
        quake = quake_of_event(message.data)
        if quake.mag >= STRONG:
            on_strong(quake)
        if received == len(quakes):
            complete.set()

    try:
        await client.subscribe(f"kalam.stream.{LIVE}.>", cb=on_event)
        await client.flush()  # the broker knows the subscriber before the first row is sent
        on_begin()
        acknowledged = await _send(clients, quakes, seconds, on_sent)
        async with asyncio.timeout(RECEIVE_S):
            await complete.wait()
    except TimeoutError:
        return Replay(acknowledged, received)
    except NatsError as exc:
        raise CommandFailed(f"error: the replay through NATS failed: {exc or type(exc).__name__}") from exc
    finally:
        for each in clients.values():
            await each.close()
    return Replay(acknowledged, received)


async def _connected(nats_url: str, user: str, password: str | None) -> Client:
    login: dict[str, Any] = {} if password is None else {"user": user, "password": password}
    inbox = f"_INBOX.{user}"
    return await nats.connect(nats_url, name="kalam demo", allow_reconnect=False, inbox_prefix=inbox, **login)


async def _send(
    clients: dict[str, Client], quakes: list[Quake], seconds: float, on_sent: Callable[[int], None]
) -> dict[str, int]:
    acknowledged: dict[str, int] = {}
    started = time.monotonic()
    for due_s, group in _groups(quakes, seconds):
        await asyncio.sleep(max(0.0, started + due_s - time.monotonic()))
        inserts = list(_inserts(group))
        counts = await asyncio.gather(*(_insert(clients[user], user, table, rows) for user, table, rows in inserts))
        for (user, table, _), count in zip(inserts, counts, strict=True):
            name = f"{table} of {user}" if table == NEARBY else table
            acknowledged[name] = acknowledged.get(name, 0) + count
        on_sent(len(group))
    return acknowledged


def _groups(quakes: list[Quake], seconds: float) -> Iterator[tuple[float, list[Quake]]]:
    """The quakes of each tick with the second at which it is due."""
    if seconds == 0:
        for start in range(0, len(quakes), FAST_BATCH_ROWS):
            yield 0.0, quakes[start : start + FAST_BATCH_ROWS]
        return
    first, week = quakes[0].time, quakes[-1].time - quakes[0].time
    groups: dict[int, list[Quake]] = {}
    for quake in quakes:
        groups.setdefault(int((quake.time - first) / week * seconds / TICK_S), []).append(quake)
    for tick, group in groups.items():
        yield tick * TICK_S, group


def _inserts(group: list[Quake]) -> Iterator[tuple[str, str, list[bytes]]]:
    """What one group is as inserts: user, table, rows."""
    rows = [quake.json for quake in group]
    yield FEED_USER, LIVE, rows
    yield FEED_USER, EVENTS, rows
    for reader, (_, networks) in READERS.items():
        nearby = [quake.nearby_json for quake in group if quake.net in networks]
        if nearby:
            yield reader, NEARBY, nearby


async def _insert(client: Client, user: str, table: str, rows: list[bytes]) -> int:
    payload = b"[" + b",".join(rows) + b"]"
    answer = await client.request(f"kalam.api.{user}.insert.{table}", payload, timeout=ANSWER_S)
    body = msgspec.json.decode(answer.data)
    if answer.headers:
        raise CommandFailed(f"error [{body.get('code')}]: an insert into {table} was refused: {body.get('detail')}")
    return int(body["rows"])
