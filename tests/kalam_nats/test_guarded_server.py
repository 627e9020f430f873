"""A whole server whose users log in to the broker: plain clients, their requests, and what they hear."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from guarded_broker import PASSWORD, Plain, refused
from msgspec.structs import replace
from patience import PATIENCE_S

from kalam import server
from kalam.access.model import Grant, Narrowed, Privilege, User
from kalam.access.opened import Access
from kalam.access.passwords import Passwords
from kalam.engine import Session
from kalam.names import TableName
from kalam.server import Running, open_server
from kalam.settings import Settings
from kalam_nats.subjects import Subjects

WaitUntil = Callable[[Callable[[], object]], Awaitable[None]]


@dataclass
class World:
    """A server with tables ``app.notes`` (SHARED), ``app.mine`` (USER) and ``app.logs`` (STREAM), and three users."""

    running: Running
    access: Access

    @asynccontextmanager
    async def client(self, name: str, **options: Any) -> AsyncIterator[Plain]:
        plain = await Plain.connect(self.running.nats_url, name, **options)
        try:
            yield plain
        finally:
            await plain.client.close()

    async def sql(self, text: str) -> Any:
        results = await self.running.engine.caller(Session(), "test").execute(text)
        return results[-1]

    async def grant(self, user: str, privilege: Privilege, namespace: str = "app") -> None:
        await self.access.book.grant((user,), (Grant(privilege, 0, namespace),))

    async def alter(self, user: str, **changed: Any) -> None:
        book = self.access.book
        await book.put_user(replace(book.users[user], **changed))


@pytest.fixture
async def world(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    opened: list[Access] = []
    original = server.open_access

    async def open_access(*args: Any, **options: Any) -> Access:
        opened.append(await original(*args, **options))
        return opened[-1]

    monkeypatch.setattr(server, "open_access", open_access)
    async with open_server(Settings(data_dir=data_dir, http_port=0, nats_port=0, auth="on")) as running:
        world = World(running, opened[0])
        encoded = await Passwords().hash(PASSWORD)
        for name in ("ada", "ben", "root"):
            admin, now = name == "root", datetime.now(UTC)
            await world.access.book.put_user(User(name=name, admin=admin, password_hash=encoded, created_at=now))
        await world.sql(
            "CREATE NAMESPACE app; CREATE SHARED TABLE app.notes (id BIGINT PRIMARY KEY, text TEXT);"
            "CREATE USER TABLE app.mine (id BIGINT PRIMARY KEY); CREATE STREAM TABLE app.logs (id BIGINT)"
        )
        for privilege in (Privilege.SELECT, Privilege.INSERT, Privilege.UPDATE, Privilege.DELETE):
            await world.grant("ada", privilege)
            await world.grant("root", privilege)
        yield world


async def ask(plain: Plain, subject: str, body: Any, **options: Any) -> tuple[Any, dict[str, str]]:
    reply = await plain.client.request(subject, json.dumps(body).encode(), timeout=PATIENCE_S, **options)
    return json.loads(reply.data), dict(reply.headers or {})


async def test_a_reader_inserts_asks_and_hears_and_a_stranger_hears_nothing(world: World) -> None:
    async with world.client("ada") as ada, world.client("ben") as ben:
        heard = await ada.client.subscribe("kalam.shared.app.notes.>")
        await ada.settle()
        assert not await ben.may_hear("kalam.shared.app.notes.>")
        assert (await ask(ada, "kalam.api.ada.insert.app.notes", {"id": 1}))[0]["rows"] == 1
        assert json.loads((await heard.next_msg(10)).data)["rows"][0]["id"] == 1
        answer, _ = await ask(ada, "kalam.api.ada.sql", {"sql": "SELECT id FROM app.notes"})
        assert answer["results"][0]["rows"] == [[1]]
        replayed, _ = await ask(ada, "kalam.api.ada.replay", {"table": "app.logs", "from_seq": 1})
        assert replayed["subject"].startswith("kalam.live.ada.")
        assert await refused(world.running.nats_url, user="ada", password="wrong-password")


@pytest.mark.parametrize(
    "reply", ["kalam.shared.app.notes.insert", "kalam.stream.app.logs", "_INBOX.ada.1", "kalam.api.ada.sql", "_INBOX.x"]
)
async def test_an_answer_goes_nowhere_but_into_an_inbox_of_the_senders(
    world: World, wait_until: WaitUntil, reply: str
) -> None:
    async with world.client("ada") as ada, world.client("root") as root:
        inbox = await ada.client.subscribe("_INBOX.ada.>")
        shared = await root.client.subscribe("kalam.shared.>")
        streams = await root.client.subscribe("kalam.stream.>")
        told = await root.client.subscribe("kalam.user.root.app.notes.rejected")
        await ada.settle()
        await root.settle()
        bodies: dict[str, dict[str, object]] = {
            "sql_subject": {"sql": "INSERT INTO app.notes VALUES (7, 'x')"},
            "live_subject": {"sql": "SELECT * FROM app.notes"},
            "replay_subject": {"table": "app.logs", "from_seq": 1},
            "live_close_subject": {},
            "info_subject": {},
            "insert_subject": {"id": 8},
        }
        for name, subject in REQUESTS.items():
            await root.client.publish(subject.format("root"), json.dumps(bodies[name]).encode(), reply=reply)
        assert json.loads((await told.next_msg(10)).data) == {"id": 8}
        answer, _ = await ask(root, "kalam.api.root.sql", {"sql": "SELECT COUNT(*) FROM app.notes"})
        assert answer["results"][0]["rows"] == [[0]]
        await ada.settle()
        assert [each.pending_msgs for each in (inbox, shared, streams)] == [0, 0, 0]


REQUESTS = {
    "insert_subject": "kalam.api.{}.insert.app.notes",
    "sql_subject": "kalam.api.{}.sql",
    "live_subject": "kalam.api.{}.live",
    "replay_subject": "kalam.api.{}.replay",
    "live_close_subject": "kalam.api.{}.live.1.close",
    "info_subject": "kalam.api.{}.info",
}


def test_no_request_subject_is_left_out_here() -> None:
    names = [name for name in dir(Subjects) if name.endswith("_subject") and not name.startswith("parse_")]
    without = {"stream_event_subject", "change_subject", "rejected_subject", "event_subject", "live_messages_subject"}
    assert set(names) - without == set(REQUESTS)


async def test_headers_of_the_brokers_own_are_refused_but_for_the_message_id(world: World) -> None:
    async with world.client("ada") as ada:
        for subject in REQUESTS.values():
            answer, headers = await ask(ada, subject.format("ada"), {"id": 1}, headers={"Nats-Rollup": "all"})
            assert answer["code"] == "invalid_value"
            assert headers["Nats-Service-Error-Code"] == "400"
        for _ in range(2):
            answer, _ = await ask(ada, "kalam.api.ada.insert.app.notes", {"id": 1}, headers={"Nats-Msg-Id": "1"})
            assert answer == {"rows": 1, "seq": 1}


@pytest.mark.parametrize(("table", "shown"), [("notes", True), ("logs", True), ("mine", False), ("missing", False)])
async def test_what_is_refused_unanswered_is_told_to_its_sender_and_to_administrators(
    world: World, table: str, shown: bool
) -> None:
    async with world.client("ada") as ada, world.client("root") as root:
        mine = await ada.client.subscribe(f"kalam.user.ada.app.{table}.rejected")
        event = await root.client.subscribe("kalam.event.rejected.>")
        await ada.settle()
        await root.settle()
        await ada.client.publish(f"kalam.api.ada.insert.app.{table}", b'{"id": "secret"}')
        told, noted = await mine.next_msg(10), await event.next_msg(10)
        assert told.data == b'{"id": "secret"}'
        assert noted.subject == f"kalam.event.rejected.app.{table}"
        assert noted.data == (b'{"id": "secret"}' if shown else b"")
        assert noted.headers["Kalam-Error-Code"] == told.headers["Kalam-Error-Code"]
        assert shown or "secret" not in noted.headers["Kalam-Error"]
        if table == "mine":
            assert noted.headers["Kalam-Error"] == "Invalid value: column id expects BIGINT"


async def test_what_is_taken_from_a_user_ends_the_connection_and_what_is_left_stays(
    world: World, wait_until: WaitUntil
) -> None:
    again = {"allow_reconnect": True, "reconnect_time_wait": 0.05, "max_reconnect_attempts": -1}
    async with world.client("ada", **again) as ada, world.client("root") as root:
        heard = await ada.client.subscribe("kalam.shared.app.notes.>")
        await ada.settle()
        await world.access.book.revoke(("ada",), (Grant(Privilege.SELECT, 0, "app"),))
        await world.access.book.narrowed(Narrowed(users=frozenset({"ada"})))
        await wait_until(lambda: ada.client.stats["reconnects"] and ada.client.is_connected)
        await world.sql("INSERT INTO app.notes VALUES (1, 'x')")
        await ada.settle()
        assert heard.pending_msgs == 0
        assert not await ada.may_hear("kalam.shared.app.notes.>")
        assert root.client.is_connected


async def test_who_is_locked_is_out_and_nothing_that_was_sent_is_taken(world: World, wait_until: WaitUntil) -> None:
    async with world.client("ada") as ada:
        await world.alter("ada", locked=True)
        with pytest.raises(asyncio.TimeoutError):  # the narrowing has not come yet: the connection is there
            await ada.client.request("kalam.api.ada.sql", b'{"sql": "SELECT 1"}', timeout=0.3)
        await world.access.book.narrowed(Narrowed(users=frozenset({"ada"}), tables=frozenset(), logins="all"))
        await wait_until(lambda: ada.client.is_closed)
        assert await refused(world.running.nats_url, user="ada", password=PASSWORD)
        await world.alter("ada", locked=False)
        async with world.client("ada"):
            pass


async def test_a_new_table_of_a_former_name_is_not_heard_by_those_who_might_hear_the_former(
    world: World, wait_until: WaitUntil
) -> None:
    table = world.running.engine.known(TableName("app", "notes"))
    assert table is not None
    await world.access.book.grant(("ben",), (Grant(Privilege.SELECT, table.table_id),))
    async with world.client("ben") as ben, world.client("ada") as ada:
        assert await ben.may_hear("kalam.shared.app.notes.>")
        await world.sql("DROP TABLE app.notes")
        world.access.book.forget_table(table.table_id)
        assert ben.client.is_connected
        await world.sql("CREATE SHARED TABLE app.notes (id BIGINT PRIMARY KEY)")
        await wait_until(lambda: ben.client.is_closed)
        await ada.settle()  # whose namespace it is
    async with world.client("ben") as ben:
        assert not await ben.may_hear("kalam.shared.app.notes.>")


async def test_what_a_trusted_service_left_delivers_nothing_when_it_is_trusted_no_more(
    world: World, wait_until: WaitUntil
) -> None:
    table = world.running.engine.known(TableName("app", "logs"))
    assert table is not None
    trust = Grant(Privilege.JETSTREAM, table.table_id)
    await world.access.book.grant(("ada", "ben"), (trust,))
    async with world.client("ben") as ben, world.client("ada") as ada:
        for name, plain, subject in (
            ("forger", ben, "kalam.shared.app.notes.insert"),
            ("bens", ben, "_INBOX.ben.events"),
            ("adas", ada, "_INBOX.ada.events"),
        ):
            config = {"durable_name": name, "deliver_subject": subject, "ack_policy": "none"}
            body = {"stream_name": "KALAM-app-logs", "config": config}
            made, _ = await ask(plain, f"$JS.API.CONSUMER.DURABLE.CREATE.KALAM-app-logs.{name}", body)
            assert made["name"] == name
        heard = await ada.client.subscribe("_INBOX.ada.events")
        await world.access.book.revoke(("ben",), (trust,))
        await world.access.book.narrowed(Narrowed(users=frozenset({"ben"}), tables=frozenset({table.table_id})))
        await wait_until(lambda: ben.client.is_closed)
        left, _ = await ask(ada, "$JS.API.CONSUMER.NAMES.KALAM-app-logs", {})
        assert left["consumers"] == ["adas"]
        await world.sql("INSERT INTO app.logs VALUES (1)")
        assert json.loads((await heard.next_msg(10)).data) == {"id": 1}


BAD = [
    b"PUB kalam.api.ben.live.\xff.close 2\r\n{}\r\n",
    b"PUB kalam.api.ben.live.\x0cx.close 2\r\n{}\r\n",
    b"PUB kalam.api.ben.insert.app.notes\x0cx 2\r\n{}\r\n",
    b"PUB kalam.api.ben.insert.app.\xff 2\r\n{}\r\n",
    b"PUB kalam.api.ben.live _INBOX.ben.\xff 2\r\n{}\r\n",
    b"PUB kalam.api.ben.info _INBOX.ben.\x0b1 2\r\n{}\r\n",
    *(b"HPUB %b 1 3\r\nX{}\r\n" % subject.format("ben").encode() for subject in REQUESTS.values()),
    *(
        b"HPUB %b 14 16\r\nNATS/1.0 \xff\r\n\r\n{}\r\n" % subject.format("ben").encode()
        for subject in REQUESTS.values()
    ),
]
"""What the broker takes of a user who was granted nothing, and nobody can read."""


async def test_what_nobody_can_read_holds_up_nobody(world: World) -> None:
    async with world.client("ada") as ada, world.client("ben") as ben:
        for number, bad in enumerate(BAD):
            ben.client._transport.write(bad)  # noqa: SLF001 - no client library would send it
            await ben.settle()
            assert (await ask(ada, "kalam.api.ada.insert.app.notes", {"id": number}))[0]["rows"] == 1, bad
        assert ben.client.is_connected
        answer, _ = await ask(ada, "kalam.api.ada.sql", {"sql": "SELECT COUNT(*) FROM app.notes"})
        assert answer["results"][0]["rows"] == [[len(BAD)]]
