"""The supervised connection, against real brokers that stop, refuse, and fall silent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from patience import PATIENCE_S

from kalam.errors import BrokerUnavailable, InvalidOption
from kalam.settings import Settings
from kalam_nats.broker import connection as connection_module
from kalam_nats.broker.address import connect_options
from kalam_nats.broker.connection import BrokerConnection, broker_connection

WaitUntil = Callable[[Callable[[], object]], Awaitable[None]]


class Inbox:
    """Collects what arrives on a subject, on whichever client is present."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.setups = 0
        self.received: list[bytes] = []

    async def setup(self, client: Client) -> None:
        self.setups += 1
        await client.subscribe(self.subject, cb=self.receive)

    async def receive(self, message: Msg) -> None:
        self.received.append(message.data)


class Hooks:
    """Counts how often the connection came back and went."""

    def __init__(self, connection: BrokerConnection) -> None:
        self.ups = self.downs = 0
        connection.on_connected(self.up)
        connection.on_disconnected(self.down)

    def up(self) -> None:
        self.ups += 1

    def down(self) -> None:
        self.downs += 1


class Wire:
    """A TCP proxy before the broker that can fall silent without closing anything."""

    def __init__(self, url: str) -> None:
        self._broker = urlsplit(url)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.url = ""

    def silence(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there_reader, there_writer = await asyncio.open_connection(self._broker.hostname, self._broker.port)
        for source, target in ((reader, there_writer), (there_reader, writer)):
            self._tasks.add(asyncio.create_task(self._carry(source, target)))

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._flowing.wait()
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[Wire]:
    wire = Wire(url)
    server = await asyncio.start_server(wire.accept, "127.0.0.1", 0)
    wire.url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        server.close()
        await wire.stop()


async def provoke_err(connection: BrokerConnection) -> None:
    """Send what the broker answers with an -ERR that closes nats-py's client for good."""
    await connection.client.publish("a." * 4000 + "b")


async def test_a_setup_runs_at_once_and_its_subscription_works(nats_url: str, wait_until: WaitUntil) -> None:
    inbox = Inbox("a")
    async with broker_connection(nats_url) as connection:
        await connection.register(inbox.setup)
        await connection.client.publish("a", b"1")
        await wait_until(lambda: inbox.received == [b"1"])
        assert (connection.connected, inbox.setups) == (True, 1)


async def test_after_a_restart_of_the_broker_subscriptions_work_again(nats_server: Any, wait_until: WaitUntil) -> None:
    inbox = Inbox("a")
    async with broker_connection(nats_server.url) as connection:
        hooks = Hooks(connection)
        await connection.register(inbox.setup)
        nats_server.kill()
        await wait_until(lambda: hooks.downs == 1)
        nats_server.start()
        client = await connection.wait_connected(PATIENCE_S)
        await client.publish("a", b"1")
        await wait_until(lambda: inbox.received == [b"1"])
        await wait_until(lambda: (hooks.ups, hooks.downs) == (1, 1))


async def test_an_err_of_the_broker_that_closes_the_client_leads_to_a_new_one(
    nats_url: str, wait_until: WaitUntil
) -> None:
    inbox = Inbox("a")
    async with broker_connection(nats_url) as connection:
        hooks = Hooks(connection)
        await connection.register(inbox.setup)
        first = connection.client
        await provoke_err(connection)
        await wait_until(lambda: hooks.ups == 1)
        assert first.is_closed
        assert (connection.client is not first, inbox.setups, hooks.downs) == (True, 2, 1)
        await connection.client.publish("a", b"1")
        await wait_until(lambda: inbox.received == [b"1"])
        assert connection.errors["maximum_control_line_exceeded"] == 1


async def test_a_setup_that_fails_is_not_registered(nats_url: str, wait_until: WaitUntil) -> None:
    async def failing(_: Client) -> None:
        raise LookupError

    async with broker_connection(nats_url) as connection:
        hooks = Hooks(connection)
        with pytest.raises(LookupError):
            await connection.register(failing)
        await connection.client.close()
        await wait_until(lambda: hooks.ups == 1)


async def test_a_setup_that_fails_on_a_new_client_is_tried_again(nats_url: str, wait_until: WaitUntil) -> None:
    runs = 0

    async def second_fails(_: Client) -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            raise BrokerUnavailable("not yet")

    async with broker_connection(nats_url) as connection:
        hooks = Hooks(connection)
        await connection.register(second_fails)
        await connection.client.close()
        await wait_until(lambda: hooks.ups == 1)
        assert runs == 3


async def test_a_defect_in_a_setup_stops_the_block_with_that_error(nats_url: str) -> None:
    runs = 0

    async def second_breaks(_: Client) -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            raise LookupError("mine")

    async def block() -> None:
        async with broker_connection(nats_url) as connection:
            await connection.register(second_breaks)
            await connection.client.close()
            await asyncio.sleep(PATIENCE_S)

    with pytest.raises(LookupError, match="mine"):
        await block()


async def test_while_down_nothing_is_taken_and_nothing_appears_later(nats_server: Any, wait_until: WaitUntil) -> None:
    inbox = Inbox("a")
    async with broker_connection(nats_server.url) as connection:
        await connection.register(inbox.setup)
        kept = connection.client
        nats_server.stop()
        await wait_until(lambda: not connection.connected)
        with pytest.raises(BrokerUnavailable, match="down"):
            _ = connection.client
        with pytest.raises(BrokerUnavailable, match="down"):
            await kept.publish("a", b"refused")
        with pytest.raises(BrokerUnavailable, match="down"):
            await kept.jetstream().publish("a", b"refused")
        with pytest.raises(BrokerUnavailable, match="down"):
            await Msg(_client=kept, reply="a").respond(b"refused")
        with pytest.raises(BrokerUnavailable, match="down"):
            await connection.register(inbox.setup)
        nats_server.start()
        client = await connection.wait_connected(PATIENCE_S)
        await client.publish("a", b"accepted")
        await wait_until(lambda: inbox.received == [b"accepted"])


async def test_waiting_for_a_broker_that_does_not_come_back_ends(nats_server: Any, wait_until: WaitUntil) -> None:
    async with broker_connection(nats_server.url) as connection:
        nats_server.stop()
        await wait_until(lambda: not connection.connected)
        with pytest.raises(BrokerUnavailable, match="down"):
            await connection.wait_connected(0.05)


async def test_a_silent_wire_is_noticed_by_pings(nats_url: str, wait_until: WaitUntil) -> None:
    async with wire_to(nats_url) as wire, broker_connection(wire.url, ping_interval_s=0.05) as connection:
        hooks = Hooks(connection)
        wire.silence()
        await wait_until(lambda: hooks.downs == 1)
        wire.resume()
        await wait_until(lambda: hooks.ups == 1)
        assert connection.connected


async def test_a_client_stuck_on_a_silent_wire_with_unsent_data_is_replaced(
    nats_url: str, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setattr(connection_module, "ABANDON_S", 0.3)
    monkeypatch.setattr(connection_module, "CLOSE_TIME_S", 0.1)
    monkeypatch.setattr(connection_module, "FLUSH_TIME_S", 0.2)
    inbox = Inbox("a")
    async with wire_to(nats_url) as wire, broker_connection(wire.url, ping_interval_s=0.2) as connection:
        await connection.register(inbox.setup)
        first, hooks = connection.client, Hooks(connection)
        wire.silence()
        while connection.connected:  # until the kernel's buffers are full and the pings stay unanswered
            await connection.client.publish("b", bytes(1_000_000))
        await wait_until(lambda: wire.connections > 1)  # nobody waits for the old socket any more
        assert hooks.downs == 1
        wire.resume()
        await wait_until(lambda: hooks.ups == 1)
        assert (connection.client is not first, inbox.setups) == (True, 2)
        await connection.client.publish("a", b"1")
        await wait_until(lambda: inbox.received == [b"1"])


async def test_the_first_connection_is_waited_for(nats_server: Any) -> None:
    nats_server.stop()
    starting = asyncio.get_running_loop().call_later(0.1, nats_server.start)
    async with broker_connection(nats_server.url, connect_time_s=PATIENCE_S) as connection:
        assert connection.connected
    starting.cancel()


async def test_no_broker_is_an_error_with_the_address_and_without_the_password(nats_server: Any) -> None:
    nats_server.stop()
    url = nats_server.url.replace("//", "//someone:secret@")
    with pytest.raises(
        BrokerUnavailable, match=r"someone:\*\*\*@127.0.0.1.*within 0.1 s.*Connect call failed"
    ) as error:
        async with broker_connection(url, connect_time_s=0.1):
            pass
    assert "secret" not in error.value.detail


async def test_a_wrong_password_is_an_error_that_says_so(nats_server: Any) -> None:
    nats_server.stop()
    nats_server.start(authorization={"user": "someone", "password": "right"})
    with pytest.raises(BrokerUnavailable, match="Authorization Violation"):
        async with broker_connection(nats_server.url, user="someone", password="wrong", connect_time_s=0.1):
            pass
    async with broker_connection(nats_server.url, user="someone", password="right") as connection:
        assert connection.connected


async def test_a_url_that_is_none_is_an_error() -> None:
    with pytest.raises(BrokerUnavailable, match="invalid connect url"):
        async with broker_connection("nats://127.0.0.1:no-port"):
            pass


async def test_a_permission_error_is_counted_and_the_connection_stays(nats_server: Any, wait_until: WaitUntil) -> None:
    nats_server.stop()
    nats_server.start(authorization={"users": [{"user": "u", "password": "p", "permissions": {"publish": "ok"}}]})
    async with broker_connection(nats_server.url, user="u", password="p") as connection:
        first = connection.client
        await first.publish("forbidden", b"")
        await wait_until(lambda: connection.errors["permissions_violation"] == 1)
        assert connection.client is first


async def test_a_listener_with_a_defect_does_not_silence_the_others(nats_url: str, wait_until: WaitUntil) -> None:
    def broken() -> None:
        raise LookupError

    async with broker_connection(nats_url) as connection:
        connection.on_connected(broken)
        hooks = Hooks(connection)
        await connection.client.close()
        await wait_until(lambda: hooks.ups == 1)


async def test_a_closed_connection_refuses(nats_url: str) -> None:
    async with broker_connection(nats_url) as connection:
        pass
    with pytest.raises(BrokerUnavailable):
        _ = connection.client


# Where the broker is


def context(tmp_path: Path, **content: object) -> dict[str, str]:
    """An environment whose home has the context ``mine``."""
    folder = tmp_path / ".config" / "nats" / "context"
    folder.mkdir(parents=True)
    (folder / "mine.json").write_text(json.dumps(content))
    return {"HOME": str(tmp_path)}


MINE = Settings(nats_context="mine")


def test_nothing_named_means_the_embedded_broker() -> None:
    assert connect_options(Settings(), {}) is None


def test_the_url_wins_over_the_context_and_this_over_the_environment(tmp_path: Path) -> None:
    environment = context(tmp_path, url="nats://context:1") | {"NATS_URL": "nats://environment:1"}
    url = Settings(nats_url="nats://one:1, nats://two:2", nats_context="mine")
    assert connect_options(url, environment) == {"servers": ["nats://one:1", "nats://two:2"]}
    assert connect_options(MINE, environment) == {"servers": ["nats://context:1"]}
    assert connect_options(Settings(), environment) == {"servers": ["nats://environment:1"]}


def test_a_context_gives_user_and_password(tmp_path: Path) -> None:
    environment = context(tmp_path, url="nats://h:1", user="u", password="p", description="x", cert="")
    assert connect_options(MINE, environment) == {"servers": ["nats://h:1"], "user": "u", "password": "p"}


def test_a_context_with_a_user_alone_gives_a_token(tmp_path: Path) -> None:
    assert connect_options(MINE, context(tmp_path, user="t")) == {"servers": ["nats://127.0.0.1:4222"], "token": "t"}


def test_a_context_is_found_under_the_configuration_folder(tmp_path: Path) -> None:
    context(tmp_path, url="nats://h:1")
    assert connect_options(MINE, {"XDG_CONFIG_HOME": str(tmp_path / ".config")}) == {"servers": ["nats://h:1"]}


@pytest.mark.parametrize("name", ["../mine", "a/b", ".hidden", "a b"])
def test_a_context_name_that_is_a_path_is_refused(name: str) -> None:
    with pytest.raises(InvalidOption, match="no name of a NATS context"):
        connect_options(Settings(nats_context=name), {"HOME": "/"})


def test_a_missing_context_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match=r"'mine' cannot be read.*mine\.json"):
        connect_options(MINE, {"HOME": str(tmp_path)})


def test_a_broken_context_is_refused(tmp_path: Path) -> None:
    environment = context(tmp_path)
    file = tmp_path / ".config/nats/context/mine.json"
    for content, message in (("{", "is not JSON"), ("[]", "is not a JSON object")):
        file.write_text(content)
        with pytest.raises(InvalidOption, match=message):
            connect_options(MINE, environment)


def test_a_context_with_certificates_that_do_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="certificates"):
        connect_options(MINE, context(tmp_path, ca=str(tmp_path / "none.pem")))
