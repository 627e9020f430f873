"""MQTT clients and leaf nodes, where an outside broker listens for them: they log in alike and may no more."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import nats
import pytest
from guarded_broker import PASSWORD, Users

from kalam.names import TableName
from kalam_nats.access.admissions import Admissions
from kalam_nats.access.callout import Callout
from kalam_nats.access.keys import Keys
from kalam_nats.access.permissions import Reach, TableReach
from kalam_nats.broker.accounts import guarded_accounts
from kalam_nats.broker.connection import BrokerConnection, broker_connection

NOTES = TableName("app", "notes")


@pytest.fixture
async def guarded(start_nats_server: Callable[..., Any]) -> AsyncIterator[tuple[dict[str, int], BrokerConnection]]:
    """A broker that listens for MQTT and leaf nodes, and Kalam's connection to it."""
    keys, users = Keys.new(), Users()
    users.reach = {
        "ada": Reach(user="ada", tables=(TableReach(NOTES, stream=False),)),
        "ada2": Reach(user="ada2"),
    }
    ports = {"mqtt": free_port(), "leafnodes": free_port()}  # of which the broker's file of ports tells nothing
    server = start_nats_server(
        server_name="outside",
        **{kind: {"host": "127.0.0.1", "port": port} for kind, port in ports.items()},
        **guarded_accounts(keys.public),
    )
    async with AsyncExitStack() as stack:
        auth = await stack.enter_async_context(broker_connection(server.url, nkeys_seed_str=keys.callout.seed))
        callout = Callout(auth, keys, Admissions())
        await callout.open()
        stack.push_async_callback(callout.close)
        callout.begin(users.log_in, users.permit)
        kalam = await stack.enter_async_context(broker_connection(server.url, nkeys_seed_str=keys.kalam.seed))
        yield ports, kalam


def text(value: str) -> bytes:
    return len(value.encode()).to_bytes(2, "big") + value.encode()


def packet(kind: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([kind, len(body)]) + body


class Mqtt:
    """A client of MQTT 3.1.1, as far as it is needed here."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int, client_id: str, user: str, password: str) -> tuple[Mqtt, int | None]:
        """A client, and the code that its login is answered with; None if it is cut off."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        login = text("MQTT") + bytes([4, 0b11000010]) + (60).to_bytes(2, "big")
        client.writer.write(packet(0x10, login + text(client_id) + text(user) + text(password)))
        try:
            answer = await client.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            return client, None
        return client, answer[-1]

    async def read(self) -> bytes:
        async with asyncio.timeout(20):
            head = await self._reader.readexactly(2)
            return head + await self._reader.readexactly(head[1])

    async def subscribe(self, topic: str) -> int:
        """The broker's code: the quality that is granted, or 128."""
        self.writer.write(packet(0x82, b"\x00\x01" + text(topic) + b"\x00"))
        return (await self.read())[-1]

    def publish(self, topic: str, payload: bytes) -> None:
        self.writer.write(packet(0x30, text(topic) + payload))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def test_an_mqtt_client_says_and_hears_what_its_user_may(
    guarded: tuple[dict[str, int], BrokerConnection],
) -> None:
    ports, kalam = guarded
    everything = await kalam.client.subscribe("kalam.>")
    await kalam.client.flush()
    client, code = await Mqtt.connect(ports["mqtt"], "ada:phone", "ada", PASSWORD)
    assert code == 0
    assert await client.subscribe("kalam/shared/app/notes/+") == 0
    for topic in ("kalam/shared/app/other/#", "kalam/user/ada2/#", "_INBOX/ada2/#", "#", "kalam/event/#"):
        assert await client.subscribe(topic) == 128, topic
    client.publish("kalam/shared/app/notes/insert", b"forged")
    client.publish("kalam/api/ada2/sql", b"forged")
    client.publish("kalam/api/ada/insert/app/notes", b"own")
    message = await everything.next_msg(10)
    assert (message.subject, message.data) == ("kalam.api.ada.insert.app.notes", b"own")
    await kalam.client.publish("kalam.shared.app.notes.insert", b"event")
    assert (await client.read()).endswith(b"event")
    client.writer.close()


@pytest.mark.parametrize(
    ("client_id", "user", "password"),
    [
        ("ada2", "ada", PASSWORD),
        ("ada2:phone", "ada", PASSWORD),
        ("ada-phone", "ada", PASSWORD),
        ("phone", "ada", PASSWORD),
        ("ada:phone", "ada", "wrong"),
        ("ada:phone", "nobody", PASSWORD),
    ],
)
async def test_an_mqtt_client_has_no_id_of_others_and_no_wrong_password(
    guarded: tuple[dict[str, int], BrokerConnection], client_id: str, user: str, password: str
) -> None:
    client, code = await Mqtt.connect(guarded[0]["mqtt"], client_id, user, password)
    assert code != 0
    client.writer.close()


@pytest.mark.parametrize(("client_id", "user"), [("ada", "ada"), ("ada:1", "ada"), ("ada2/x", "ada2")])
async def test_an_mqtt_client_has_an_id_of_its_users(
    guarded: tuple[dict[str, int], BrokerConnection], client_id: str, user: str
) -> None:
    client, code = await Mqtt.connect(guarded[0]["mqtt"], client_id, user, f"token-{user}")
    assert code == 0
    client.writer.close()


async def test_a_leaf_node_carries_what_its_user_may_and_no_more(
    guarded: tuple[dict[str, int], BrokerConnection], start_nats_server: Callable[..., Any]
) -> None:
    ports, kalam = guarded
    everything = await kalam.client.subscribe("kalam.>")
    remote = f"nats-leaf://ada:{PASSWORD}@127.0.0.1:{ports['leafnodes']}"
    leaf = start_nats_server(server_name="leaf", jetstream=None, leafnodes={"remotes": [{"url": remote}]})
    client = await nats.connect(leaf.url)
    heard = await client.subscribe("kalam.>")
    await client.flush()
    async with asyncio.timeout(20):
        while not heard.pending_msgs:  # until the leaf's interest has come
            await kalam.client.publish("kalam.shared.app.notes.insert", b"event")
            await asyncio.sleep(0.05)
    for subject in ("kalam.shared.app.other.insert", "kalam.user.ada2.x", "kalam.event.x"):
        await kalam.client.publish(subject, b"hidden")
    await kalam.client.publish("kalam.shared.app.notes.insert", b"last")
    subjects = set()
    while (message := await heard.next_msg(10)).data != b"last":
        subjects.add(message.subject)
    assert subjects == {"kalam.shared.app.notes.insert"}
    for subject in ("kalam.shared.app.notes.insert", "kalam.api.ada2.sql", "kalam.event.x", "kalam.api.ada.sql"):
        await client.publish(subject, b"from the leaf")
    await client.flush()
    while (message := await everything.next_msg(10)).data != b"from the leaf":
        pass
    assert message.subject == "kalam.api.ada.sql"
    await client.close()
